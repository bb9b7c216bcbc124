"""GATT proxy protocol: SAR and configuration against sample data and recordings, fuzz."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.nonces import proxy_nonce
from fastprovd.mesh.proxy import (
    MAX_PAYLOAD_OCTETS,
    MIN_VALUE_OCTETS,
    SAR_TIMEOUT_S,
    AddAddresses,
    FilterStatus,
    FilterType,
    ProxyConfiguration,
    ProxyPduType,
    Reassembler,
    RemoveAddresses,
    SetFilterType,
    decode_proxy_configuration,
    segment,
)
from tests.support.data import RECORDING_NAMES, recording, vectors

WRITE_COMMAND, NOTIFICATION = 0x52, 0x1B
DIED = {"n12-cnt1-polled", "n20-cnt19"}
# Of NimBLE, then of Bluedroid.
DATA_HANDLES = {0x0010, 0x0012, 0x0016, 0x0018, 0x002A, 0x002C, 0x0030, 0x0032}
ON_AIR: list[tuple[ProxyConfiguration, str]] = [
    (SetFilterType(FilterType.ACCEPT_LIST), "0000"),
    (SetFilterType(FilterType.REJECT_LIST), "0001"),
    (AddAddresses((0x0001, 0xC000)), "010001c000"),
    (RemoveAddresses((0xC000,)), "02c000"),
    (FilterStatus(FilterType.REJECT_LIST, 0x0102), "03010102"),
]


def _joined(values: list[bytes]) -> list[tuple[ProxyPduType, bytes]]:
    reassembler = Reassembler()
    joined = [reassembler.receive(value, 0.0) for value in values]
    return [pdu for pdu in joined if pdu is not None]


@pytest.mark.parametrize("entry", vectors("proxy_sar"), ids=lambda entry: entry["id"])
def test_sample_segmentation(entry: dict[str, Any]) -> None:
    """The published payload is cut into the published values, and they join again."""
    payload, pdu_type = bytes.fromhex(entry["payload"]), ProxyPduType(entry["type"])
    values = list(segment(pdu_type, payload, entry["att_mtu"] - 3))
    assert [value.hex() for value in values] == entry["frames"]
    assert _joined(values) == [(pdu_type, payload)]


@given(
    st.sampled_from(ProxyPduType),
    st.binary(min_size=1, max_size=MAX_PAYLOAD_OCTETS),
    st.integers(2, 80),
)
def test_every_payload_comes_back_at_any_mtu(
    pdu_type: ProxyPduType, payload: bytes, value_octets: int
) -> None:
    """No value is longer than allowed, and one PDU comes out at the last of them."""
    values = list(segment(pdu_type, payload, value_octets))
    assert all(1 < len(value) <= value_octets for value in values)
    assert _joined(values) == [(pdu_type, payload)]


@pytest.mark.parametrize(("payload", "value_octets"), [(b"", 20), (b"\x00", 1), (b"\x00", 0)])
def test_nothing_to_send_or_no_room_is_our_bug(payload: bytes, value_octets: int) -> None:
    """An empty payload and a value without room raise at once."""
    with pytest.raises(LocalProtocolError):
        list(segment(ProxyPduType.NETWORK_PDU, payload, value_octets))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b""], id="empty"),
        pytest.param([b"\x04\x00"], id="unknown type"),
        pytest.param([b"\x3f"], id="reserved type"),
        pytest.param([b"\x80\x01"], id="continuation first"),
        pytest.param([b"\xc0\x01"], id="last first"),
        pytest.param([b"\x40\x01", b"\x83\x02"], id="type changes"),
        pytest.param([b"\x40\x01", b"\x41\x01"], id="first in unfinished"),
        pytest.param([b"\x40" + bytes(40), b"\x80" + bytes(29)], id="too long"),
        pytest.param([b"\x40" + bytes(40), b"\xc0" + bytes(29)], id="too long at the end"),
    ],
)
def test_broken_values_are_refused_and_the_next_pdu_is_whole(values: list[bytes]) -> None:
    """The last value raises DecodeError, and a PDU that follows is read."""
    reassembler = Reassembler()
    for value in values[:-1]:
        assert reassembler.receive(value, 0.0) is None
    with pytest.raises(DecodeError):
        reassembler.receive(values[-1], 0.0)
    assert reassembler.receive(b"\x01\xaa", 0.0) == (ProxyPduType.MESH_BEACON, b"\xaa")
    assert reassembler.next_deadline() is None


def test_a_complete_pdu_inside_an_unfinished_one_is_taken() -> None:
    """What was unfinished is lost; its continuation is refused."""
    reassembler = Reassembler()
    reassembler.receive(b"\x40\x01", 0.0)
    assert reassembler.receive(b"\x00\x02", 0.0) == (ProxyPduType.NETWORK_PDU, b"\x02")
    with pytest.raises(DecodeError, match="never began"):
        reassembler.receive(b"\xc0\x03", 0.0)


def test_an_unfinished_pdu_is_given_up_after_the_sar_timer() -> None:
    """Before the deadline nothing happens; at it the values so far are dropped."""
    reassembler, now = Reassembler(), 5.0
    assert reassembler.next_deadline() is None
    assert not reassembler.handle_deadline(now)
    reassembler.receive(b"\x40\x01", now)
    assert reassembler.next_deadline() == now + SAR_TIMEOUT_S
    assert not reassembler.handle_deadline(now + SAR_TIMEOUT_S - 0.001)
    assert reassembler.handle_deadline(now + SAR_TIMEOUT_S)
    assert reassembler.next_deadline() is None
    with pytest.raises(DecodeError):
        reassembler.receive(b"\xc0\x02", now + SAR_TIMEOUT_S)


@given(st.lists(st.binary(max_size=24), max_size=12))
def test_any_values_give_pdus_none_or_a_decode_error(values: list[bytes]) -> None:
    """Whatever comes, a sound PDU afterwards is read."""
    reassembler = Reassembler()
    for value in values:
        try:
            reassembler.receive(value, 0.0)
        except DecodeError:
            continue
    assert reassembler.receive(b"\x00\x01", 0.0) == (ProxyPduType.NETWORK_PDU, b"\x01")


def _same_but_for_a_dead_board(name: str, done: Any, meant: Any) -> None:
    """Two recordings end with a board that died: the last PDUs of the Top were never written."""
    assert meant
    if name in DIED:
        assert {key: items[: len(done[key])] for key, items in meant.items()} == done
        assert sum(map(len, meant.values())) - sum(map(len, done.values())) <= 4
    else:
        assert done == meant


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_recorded_values_join_to_the_recorded_pdus(name: str) -> None:
    """On every link, ATT values in either direction join to the PDUs noted beside them."""
    reassemblers: dict[tuple[str, str], Reassembler] = defaultdict(Reassembler)
    joined, noted = defaultdict(list), defaultdict(list)
    for event in recording(name).of("connect", "att_tx", "att_rx", "proxy_tx", "proxy_rx"):
        side, addr = event["ev"][-2:], str(event["addr"])
        if event["ev"] == "connect":
            reassemblers.pop(("tx", addr), None)
            reassemblers.pop(("rx", addr), None)
        elif event["ev"].startswith("proxy"):
            noted[side, addr].append((event["type"], event["pdu"]))
        else:
            att = bytes.fromhex(event["pdu"])
            opcode = WRITE_COMMAND if side == "tx" else NOTIFICATION
            if att[0] == opcode and int.from_bytes(att[1:3], "little") in DATA_HANDLES:
                pdu = reassemblers[side, addr].receive(att[3:], event["t"])
                if pdu is not None:
                    joined[side, addr].append((pdu[0], pdu[1].hex()))
    _same_but_for_a_dead_board(name, joined, noted)


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_recorded_pdus_are_cut_as_recorded(name: str) -> None:
    """Every PDU of the Top is cut into the values that it wrote, at an MTU of 23."""
    written: dict[str, list[str]] = defaultdict(list)
    cut: dict[str, list[str]] = defaultdict(list)
    for event in recording(name).of("att_tx", "proxy_tx"):
        if event["ev"] == "proxy_tx":
            payload = bytes.fromhex(event["pdu"])
            values = segment(ProxyPduType(event["type"]), payload, MIN_VALUE_OCTETS)
            cut[event["addr"]] += [value.hex() for value in values]
        elif event["pdu"].startswith("52"):
            written[event["addr"]].append(event["pdu"][6:])
    _same_but_for_a_dead_board(name, written, cut)


@pytest.mark.parametrize(("message", "payload"), ON_AIR)
def test_each_configuration_message_has_its_octets(
    message: ProxyConfiguration, payload: str
) -> None:
    """Opcode and parameters are encoded octet by octet and decoded to equal messages."""
    assert message.encode() == bytes.fromhex(payload)
    assert decode_proxy_configuration(bytes.fromhex(payload)) == message


def test_sample_configuration_messages() -> None:
    """Set Filter Type is read; a message of directed proxy is none of ours."""
    by_id = {entry["id"]: entry for entry in vectors("proxy_config")}
    first = bytes.fromhex(by_id["proxy-set-filter-type"]["transport_pdu"])
    assert decode_proxy_configuration(first) == SetFilterType(FilterType.ACCEPT_LIST)
    other = bytes.fromhex(by_id["proxy-directed-caps-status"]["transport_pdu"])
    assert decode_proxy_configuration(other) is None


@pytest.mark.parametrize(
    "payload", ["", "00", "0002", "000000", "0100", "020001ff", "03", "030001", "03020000"]
)
def test_malformed_configuration_messages_are_refused(payload: str) -> None:
    """Wrong lengths and filter types raise DecodeError."""
    with pytest.raises(DecodeError):
        decode_proxy_configuration(bytes.fromhex(payload))


@given(st.binary(max_size=24))
def test_any_configuration_payload_gives_a_value_none_or_a_decode_error(payload: bytes) -> None:
    """Whatever decodes encodes to the same octets."""
    try:
        message = decode_proxy_configuration(payload)
    except DecodeError:
        return
    assert message is None or message.encode() == payload


def test_recorded_configuration_messages_are_read() -> None:
    """All twenty open under the proxy nonce and encode to the recorded plaintext."""
    seen = []
    for name in RECORDING_NAMES:
        net_key = NetKey(bytes.fromhex(recording(name).header["netkey"]))
        for event in recording(name).of("proxy_tx", "proxy_rx"):
            if event["type"] != ProxyPduType.PROXY_CONFIGURATION:
                continue
            pdu = bytes.fromhex(event["pdu"])
            pecb = net_key.pecb(0, pdu[7:14])
            head = bytes(octet ^ mask for octet, mask in zip(pdu[1:7], pecb, strict=True))
            seq, src = int.from_bytes(head[1:4], "big"), int.from_bytes(head[4:], "big")
            clear = net_key.decrypt(proxy_nonce(seq, src, 0), pdu[7:], ctl=1)
            assert clear is not None
            assert clear[:2] == b"\x00\x00"
            message = decode_proxy_configuration(clear[2:])
            assert message is not None
            assert message.encode() == clear[2:]
            seen.append(type(message))
    assert len(seen) == 20
    assert set(seen) == {SetFilterType, AddAddresses, RemoveAddresses, FilterStatus}
