"""Network layer: sample data, recordings, fuzz."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey, NetworkCredentials
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu
from tests.support.data import RECORDING_NAMES, recording, vectors

NET_KEY = NetKey(bytes(range(16)))


def _credentials(entry: dict[str, Any]) -> NetworkCredentials:
    return NetworkCredentials(
        int(entry["nid"], 16),
        bytes.fromhex(entry["encryption_key"]),
        bytes.fromhex(entry["privacy_key"]),
    )


def _rows() -> list[Any]:
    return [
        pytest.param(entry, row, id=f"{entry['id']}-{number}")
        for entry in vectors("messages")
        for number, row in enumerate(entry["network"])
    ]


def _pdu(entry: dict[str, Any], row: dict[str, Any]) -> NetworkPdu:
    return NetworkPdu(
        entry["ctl"],
        int(entry["ttl"], 16),
        int(row["seq"], 16),
        int(entry["src"], 16),
        int(entry["dst"], 16),
        bytes.fromhex(row["transport_pdu"]),
        int(entry["iv_index"], 16),
    )


@pytest.mark.parametrize(("entry", "row"), _rows())
def test_sample_pdu_is_encoded(entry: dict[str, Any], row: dict[str, Any]) -> None:
    """Each published Network PDU comes out octet by octet."""
    assert encode_network_pdu(_pdu(entry, row), _credentials(entry)).hex() == row["pdu"]


@pytest.mark.parametrize(("entry", "row"), _rows())
def test_sample_pdu_is_decoded(entry: dict[str, Any], row: dict[str, Any]) -> None:
    """Each published Network PDU is opened, also under the previous IV Index."""
    raw = bytes.fromhex(row["pdu"])
    value = int(entry["iv_index"], 16)
    for iv_index in (IvIndex(value), IvIndex(value + 1, update_in_progress=True)):
        decoded = decode_network_pdu(raw, [_credentials(entry)], iv_index)
        assert decoded == _pdu(entry, row)


@pytest.mark.parametrize("entry", vectors("proxy_config"), ids=lambda entry: entry["id"])
def test_sample_proxy_configuration(entry: dict[str, Any]) -> None:
    """Proxy configuration PDUs use the proxy nonce, both ways."""
    pdu = NetworkPdu(
        1,
        0,
        int(entry["seq"], 16),
        int(entry["src"], 16),
        0,
        bytes.fromhex(entry["transport_pdu"]),
        int(entry["iv_index"], 16),
    )
    credentials = _credentials(entry)
    raw = encode_network_pdu(pdu, credentials, proxy_configuration=True)
    assert raw.hex() == entry["pdu"]
    iv_index = IvIndex(int(entry["iv_index"], 16))
    assert decode_network_pdu(raw, [credentials], iv_index, proxy_configuration=True) == pdu
    assert decode_network_pdu(raw, [credentials], iv_index) is None


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_every_recorded_network_pdu_is_opened(name: str) -> None:
    """All Network PDUs of the real firmware open under the session's NetKey, none is malformed."""
    session = recording(name)
    net_key = NetKey(bytes.fromhex(session.header["netkey"]))
    iv_index = IvIndex(session.header["iv_index"])
    raw = [
        bytes.fromhex(event["pdu"])
        for event in session.of("proxy_tx", "proxy_rx")
        if event["type"] == 0
    ] + [bytes.fromhex(event["data"]) for event in session.of("air_mesh")]
    assert raw
    for octets in raw:
        pdu = decode_network_pdu(octets, [net_key], iv_index)
        assert pdu is not None
        assert encode_network_pdu(pdu, net_key) == octets


@given(st.binary(max_size=40), st.booleans())
def test_any_input_gives_pdu_none_or_decode_error(raw: bytes, proxy: bool) -> None:
    """No octets break the decoder."""
    forged = bytes([NET_KEY.nid]) + raw
    try:
        decoded = decode_network_pdu(forged, [NET_KEY], IvIndex(7), proxy_configuration=proxy)
    except DecodeError:
        return
    assert decoded is None


@given(
    st.integers(0, 1),
    st.integers(0, 127),
    st.integers(0, (1 << 24) - 1),
    st.integers(1, 0x7FFF),
    st.integers(1, 0xFFFF),
    st.binary(min_size=1, max_size=12),
    st.integers(0, (1 << 32) - 1),
)
def test_round_trip(
    ctl: int, ttl: int, seq: int, src: int, dst: int, transport: bytes, iv: int
) -> None:
    """What is encoded is decoded to the same, and to nothing with one bit changed."""
    pdu = NetworkPdu(ctl, ttl, seq, src, dst, transport, iv)
    raw = encode_network_pdu(pdu, NET_KEY)
    assert decode_network_pdu(raw, [NET_KEY], IvIndex(iv)) == pdu
    tampered = raw[:-1] + bytes([raw[-1] ^ 1])
    assert decode_network_pdu(tampered, [NET_KEY], IvIndex(iv)) is None


@pytest.mark.parametrize(("src", "dst"), [(0x0000, 0x0001), (0xC000, 0x0001), (0x0001, 0x0000)])
def test_authentic_pdu_with_impossible_addresses_is_malformed(src: int, dst: int) -> None:
    """A SRC that is not unicast and an unassigned DST are decode errors."""
    raw = encode_network_pdu(NetworkPdu(0, 3, 1, src, dst, b"12345678"), NET_KEY)
    with pytest.raises(DecodeError):
        decode_network_pdu(raw, [NET_KEY], IvIndex())


@pytest.mark.parametrize("change", [{"ttl": 128}, {"seq": 1 << 24}, {"transport_pdu": bytes(17)}])
def test_pdu_that_does_not_fit_is_our_bug(change: dict[str, Any]) -> None:
    """Fields beyond their width, and PDUs beyond 29 octets, are refused."""
    fields: dict[str, Any] = {"ttl": 3, "seq": 1, "transport_pdu": bytes(8)} | change
    pdu = NetworkPdu(0, fields["ttl"], fields["seq"], 1, 2, fields["transport_pdu"])
    with pytest.raises(LocalProtocolError):
        encode_network_pdu(pdu, NET_KEY)


def test_there_is_no_iv_index_before_0() -> None:
    """With IV Index 0 a PDU with IVI 1 can not be ours."""
    raw = encode_network_pdu(NetworkPdu(0, 3, 1, 1, 2, bytes(8), 1), NET_KEY)
    assert decode_network_pdu(raw, [NET_KEY], IvIndex(1)) is not None
    assert decode_network_pdu(raw, [NET_KEY], IvIndex(0)) is None


def test_key_survives_a_pdu_that_is_too_short() -> None:
    """A refused PDU leaves nothing behind in the key: the next one opens as before."""
    sound = NetworkPdu(0, 3, 1, 1, 2, bytes(8))
    before = encode_network_pdu(sound, NET_KEY)
    with pytest.raises(LocalProtocolError):
        encode_network_pdu(NetworkPdu(0, 3, 1, 1, 2, b""), NET_KEY)
    assert encode_network_pdu(sound, NET_KEY) == before


def test_relayed_pdu_has_one_ttl_less() -> None:
    """A relay changes the TTL and nothing else."""
    pdu = NetworkPdu(0, 5, 1, 2, 3, b"12345678")
    assert pdu.relayed() == NetworkPdu(0, 4, 1, 2, 3, b"12345678")
