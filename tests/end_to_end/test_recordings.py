"""Every PDU of every recording of the real firmware is decoded.

The expected counts are those of an independent decoder. PB-ADV sessions between boards stay
closed: their private keys never left the boards, and a GATT Top does not hear them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, field

import pytest

from fastprovd.errors import DecodeError
from fastprovd.mesh.access import UnknownMessage
from fastprovd.mesh.beacons import (
    NetworkIdentity,
    NodeIdentity,
    SecureNetworkBeacon,
    UnprovisionedDevice,
    decode_service_data,
)
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.lower_transport import SegmentAcknowledgment
from fastprovd.mesh.models.fast_provisioning import Action, InfoSet
from fastprovd.mesh.models.registry import decode_message
from fastprovd.mesh.network import decode_network_pdu
from fastprovd.mesh.provisioning.pdus import encode_pdu
from fastprovd.mesh.proxy import (
    FilterStatus,
    ProxyPduType,
    Reassembler,
    decode_proxy_configuration,
    segment,
)
from tests.support.data import RECORDING_NAMES, recording
from tests.support.listener import keys, listen
from tests.support.provisioning import decode_pdu

# ATT_MTU 23 less opcode and handle.
VALUE_OCTETS = 20
WRITE_COMMAND, NOTIFICATION = "52", "1b"
CHILDREN = 6


@dataclass(frozen=True)
class Counts:
    """What a recording holds; messages once per SRC and SEQ, PDUs once per line."""

    network_pdus: int
    app_key_messages: int
    dev_key_messages: int
    segment_acknowledgments: int
    without_key: int  # under the DevKey of a child
    configurations: int
    beacons: int
    child_ranges: int
    unfinished: int = 0  # segmented messages that their sender gave up


EXPECTED = {
    "direct-n4-links3-nimble": Counts(96, 32, 22, 4, 0, 0, 1, 0),
    "direct-proxy-off-only-bluedroid": Counts(35, 19, 8, 2, 0, 0, 2, 0),
    "direct-proxy-off-only-nimble": Counts(35, 19, 8, 2, 0, 0, 2, 0),
    "direct-single-bluedroid": Counts(14, 6, 6, 1, 0, 0, 0, 0),
    "direct-single-nimble": Counts(14, 6, 6, 1, 0, 0, 0, 0),
    "group-add-delete-n4": Counts(352, 121, 4, 13, 6, 0, 1, 3),
    "info-set-errors": Counts(168, 57, 16, 32, 0, 0, 0, 0),
    "info-status-lost-n3": Counts(45, 8, 4, 8, 4, 0, 1, 2),
    "n12-cnt1-polled": Counts(436, 68, 4, 92, 22, 0, 1, 11, 1),
    "n12-cnt11-loss30": Counts(498, 60, 4, 47, 22, 0, 1, 11),
    "n12-cnt11": Counts(883, 89, 4, 136, 22, 0, 1, 11, 3),
    "n20-cnt19": Counts(855, 96, 4, 82, 38, 0, 1, 19, 1),
    "n3-cnt2": Counts(86, 22, 4, 10, 4, 0, 1, 2),
    "n7-cnt6-loss30": Counts(242, 34, 4, 61, 12, 0, 1, 6, 3),
    "n7-cnt6": Counts(336, 51, 4, 49, 12, 0, 1, 6, 1),
    "primary-identity-minute-bluedroid": Counts(67, 22, 2, 9, 4, 0, 1, 2),
    "primary-identity-off-bluedroid": Counts(76, 22, 4, 9, 4, 0, 1, 2),
    "single-alg0": Counts(53, 14, 18, 5, 0, 10, 1, 0),
    "single-alg1": Counts(53, 14, 18, 5, 0, 10, 2, 0),
    "small-range-plain-nodes-n5": Counts(234, 62, 4, 8, 8, 0, 4, 4),
    "stall-s1-recovery-n4": Counts(163, 42, 6, 23, 12, 0, 3, 6),
    "suspend-info-set-n4": Counts(107, 26, 4, 18, 6, 0, 1, 3),
    "suspend-with-latecomer-n4": Counts(128, 31, 4, 19, 8, 0, 1, 4),
}

every_recording = pytest.mark.parametrize("name", RECORDING_NAMES)


def _configurations(name: str) -> int:
    known, count = keys(name), 0
    for event in recording(name).of("proxy_tx", "proxy_rx"):
        if event["type"] != ProxyPduType.PROXY_CONFIGURATION:
            continue
        raw = bytes.fromhex(event["pdu"])
        pdu = decode_network_pdu(raw, [known.net_key], known.iv_index, proxy_configuration=True)
        assert pdu is not None
        assert (pdu.ctl, pdu.ttl) == (1, 0)
        message = decode_proxy_configuration(pdu.transport_pdu)
        assert message is not None
        assert message.encode() == pdu.transport_pdu
        assert isinstance(message, FilterStatus) is (event["ev"] == "proxy_rx")
        count += 1
    return count


def _beacons(name: str) -> int:
    known, count = keys(name), 0
    for event in recording(name).of("proxy_tx", "proxy_rx"):
        if event["type"] == ProxyPduType.MESH_BEACON:
            raw = bytes.fromhex(event["pdu"])
            beacon = SecureNetworkBeacon.decode(raw, [known.net_key])
            assert beacon is not None
            assert beacon.iv_index == known.iv_index
            assert beacon.encode(known.net_key) == raw
            count += 1
    return count


def _split(minimum: int, maximum: int) -> Iterator[tuple[int, int] | None]:
    """Yield the ranges a provisioner gives its children in order, None for "no addresses"."""
    children = min(CHILDREN, maximum - minimum + 1)
    current = minimum + children
    step = max(0, maximum - current) // children
    while True:
        if current >= maximum:
            yield None
            continue
        end = min(current + step, maximum)
        yield current, end
        current = end + 1


def _child_ranges(name: str) -> int:
    """Check each INFO_SET from board to board against its sender's own range; return how many."""
    top = int(recording(name).header["top_unicast"], 16)
    splits: dict[int, Iterator[tuple[int, int] | None]] = {}
    configured = set()
    for message in sorted(listen(name).messages.values(), key=lambda heard: heard.seq):
        # SEQ counts from 0 at each board, so this order is the order of each sender only.
        if message.payload is None or message.src == top:
            continue
        info_set = _decoded(message.payload)
        if isinstance(info_set, InfoSet) and message.dst not in configured:
            configured.add(message.dst)
            if message.src not in splits:
                splits[message.src] = _split(*_own_range(name, message.src))
            given = info_set.unicast_min, info_set.unicast_max
            assert (None if given == (None, None) else given) == next(splits[message.src])
    return len(configured)


def _own_range(name: str, address: int) -> tuple[int, int]:
    for message in listen(name).messages.values():
        info_set = None if message.payload is None else _decoded(message.payload)
        if (
            isinstance(info_set, InfoSet)
            and message.dst == address
            and info_set.action_code is Action.ENTER
        ):
            assert info_set.unicast_min is not None
            assert info_set.unicast_max is not None
            return info_set.unicast_min, info_set.unicast_max
    raise AssertionError(f"0x{address:04x} got no range")


def _decoded(payload: bytes) -> object:
    try:
        return decode_message(payload)
    except DecodeError:
        # The Top sends one message on purpose that a board drops.
        assert payload.hex() == "c0e5020000"
        return None


@every_recording
def test_counts_are_those_of_an_independent_decoder(name: str) -> None:
    """Every Network PDU opens, every message whose key is known is typed, nothing fails."""
    heard = listen(name)
    messages = heard.messages.values()
    assert not any(
        isinstance(_decoded(message.payload), UnknownMessage)
        for message in messages
        if message.payload is not None
    )
    counts = Counts(
        len(heard.pdus),
        sum(isinstance(message.key, AppKey) for message in messages),
        sum(isinstance(message.key, DevKey) for message in messages),
        sum(isinstance(lower, SegmentAcknowledgment) for _, lower in heard.pdus),
        sum(message.key is None for message in messages),
        _configurations(name),
        _beacons(name),
        _child_ranges(name),
        heard.unfinished,
    )
    assert counts == EXPECTED[name]


def test_totals_are_those_of_an_independent_decoder() -> None:
    """The sums over all recordings, as their description gives them."""
    totals = [sum(column) for column in zip(*map(astuple, EXPECTED.values()), strict=True)]
    assert totals == [4976, 921, 162, 636, 184, 20, 28, 92, 9]


@every_recording
def test_transport_pdus_come_out_of_their_fields_again(name: str) -> None:
    """Each Lower Transport PDU is encoded as the firmware did, and without a child's key too."""
    for pdu, lower in listen(name).pdus:
        assert lower.encode() == pdu.transport_pdu


@every_recording
def test_provisioning_pdus_are_typed(name: str) -> None:
    """Each Provisioning PDU is decoded and comes out of its fields again."""
    for event in recording(name).of("proxy_tx", "proxy_rx"):
        if event["type"] == ProxyPduType.PROVISIONING_PDU:
            raw = bytes.fromhex(event["pdu"])
            assert encode_pdu(decode_pdu(raw)) == raw


@every_recording
@pytest.mark.parametrize(
    ("att", "proxy", "opcode"),
    [("att_tx", "proxy_tx", WRITE_COMMAND), ("att_rx", "proxy_rx", NOTIFICATION)],
)
def test_att_values_are_the_proxy_pdus(name: str, att: str, proxy: str, opcode: str) -> None:
    """Reassembled, the ATT values are the Proxy PDUs; segmented, the PDUs are the ATT values."""
    links: list[_Link] = []
    up: dict[str, _Link] = {}
    for event in recording(name).of(att, proxy, "connect", "disconnect"):
        if event["ev"] == "connect":
            up[event["addr"]] = _Link()
            links.append(up[event["addr"]])
        elif event["ev"] == "disconnect":
            del up[event["addr"]]
        elif event["ev"] == proxy:
            # After an abort the Top went on for a while without a link: nothing left it.
            if event["addr"] in up:
                pdu = ProxyPduType(event["type"]), bytes.fromhex(event["pdu"])
                up[event["addr"]].pdus.append(pdu)
        elif event["pdu"].startswith(opcode):
            up[event["addr"]].take(bytes.fromhex(event["pdu"])[3:], event["t"])
    for link in links:
        assert link.joined == link.pdus
        cut = [
            value for pdu_type, pdu in link.pdus for value in segment(pdu_type, pdu, VALUE_OCTETS)
        ]
        assert link.values[: len(cut)] == cut
        # Two recordings end in an abort in the middle of a PDU.
        is_cut = len(link.values) > len(cut)
        assert is_cut is (link.reassembler.next_deadline() is not None)


@dataclass
class _Link:
    """One direction of one connection: ATT values, and Proxy PDUs by both ways."""

    reassembler: Reassembler = field(default_factory=Reassembler)
    values: list[bytes] = field(default_factory=list)
    joined: list[tuple[ProxyPduType, bytes]] = field(default_factory=list)
    pdus: list[tuple[ProxyPduType, bytes]] = field(default_factory=list)

    def take(self, value: bytes, now: float) -> None:
        self.values.append(value)
        pdu = self.reassembler.receive(value, now)
        if pdu is not None:
            self.joined.append(pdu)


def _ad_structures(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while octets:
        end = 1 + octets[0]
        yield octets[1], octets[2:end]
        octets = octets[end:]


@every_recording
def test_advertisements_are_recognised(name: str) -> None:
    """UUIDs hold the sender's address, Network ID and Node Identity fit the NetKey."""
    known, header = keys(name), recording(name).header
    unicast = {device["bd_addr"]: int(device["unicast"], 16) for device in header["devices"]}
    nodes = {pdu.src for pdu, _ in listen(name).pdus}
    seen = set()
    for event in recording(name).of("adv"):
        (service_data,) = [
            decode_service_data(int.from_bytes(data[:2], "little"), data[2:])
            for ad_type, data in _ad_structures(bytes.fromhex(event["data"]))
            if ad_type == 0x16
        ]
        seen.add(type(service_data))
        if isinstance(service_data, UnprovisionedDevice):
            assert service_data.uuid == recording(name).host.device_uuid(event["addr"])
        elif isinstance(service_data, NetworkIdentity):
            assert service_data.matches(known.net_key)
        else:
            assert isinstance(service_data, NodeIdentity)
            addresses = nodes if event["addr"] not in unicast else {unicast[event["addr"]]}
            fitting = [a for a in addresses if service_data.matches(known.net_key, a)]
            assert len(fitting) == 1
    assert seen >= {UnprovisionedDevice, NodeIdentity}
