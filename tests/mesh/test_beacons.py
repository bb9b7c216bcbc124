"""Beacons and service data: sample data, recordings, fuzz."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError
from fastprovd.mesh.beacons import (
    MESH_PROVISIONING_SERVICE,
    MESH_PROXY_SERVICE,
    NetworkIdentity,
    NodeIdentity,
    SecureNetworkBeacon,
    ServiceData,
    UnprovisionedDevice,
    decode_service_data,
)
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey
from tests.support.data import RECORDING_NAMES, recording, vectors

OTHER_KEY = NetKey(bytes(16))


def _of(group: str, kind: str) -> list[Any]:
    return [pytest.param(e, id=e["id"]) for e in vectors(group) if e["type"] == kind]


def _advertised(kind: str) -> dict[str, Any]:
    (entry,) = [entry for entry in vectors("advertising") if entry["type"] == kind]
    return entry


def _service_data(advertising_data: bytes) -> Iterator[tuple[int, bytes]]:
    while advertising_data:
        length = advertising_data[0]
        if advertising_data[1] == 0x16:
            structure = advertising_data[2 : 1 + length]
            yield int.from_bytes(structure[:2], "little"), structure[2:]
        advertising_data = advertising_data[1 + length :]


@pytest.mark.parametrize("entry", _of("beacons", "secure_network"))
def test_sample_secure_network_beacons(entry: dict[str, Any]) -> None:
    """Flags and IV Index come out under the right key only, and encode to the published beacon."""
    octets, net_key = bytes.fromhex(entry["beacon"]), NetKey(bytes.fromhex(entry["net_key"]))
    beacon = SecureNetworkBeacon.decode(octets, [OTHER_KEY, net_key])
    assert beacon == SecureNetworkBeacon(
        bool(entry["key_refresh"]),
        IvIndex(int(entry["iv_index"], 16), bool(entry["iv_update"])),
        bytes.fromhex(entry["network_id"]),
    )
    assert beacon is not None
    assert beacon.encode(net_key) == octets
    assert SecureNetworkBeacon.decode(octets, [OTHER_KEY]) is None


@pytest.mark.parametrize("entry", _of("beacons", "secure_network"))
def test_a_beacon_with_a_changed_bit_is_not_ours(entry: dict[str, Any]) -> None:
    """No octet but the type can change without the beacon being refused."""
    octets, net_key = bytes.fromhex(entry["beacon"]), NetKey(bytes.fromhex(entry["net_key"]))
    for position in range(1, len(octets)):
        changed = bytearray(octets)
        changed[position] ^= 0x80
        assert SecureNetworkBeacon.decode(bytes(changed), [net_key]) is None


@pytest.mark.parametrize("key_refresh", [False, True])
@pytest.mark.parametrize("iv_update", [False, True])
def test_both_flags_travel(key_refresh: bool, iv_update: bool) -> None:
    """Every combination of flags comes back."""
    beacon = SecureNetworkBeacon(key_refresh, IvIndex(9, iv_update), OTHER_KEY.network_id)
    assert SecureNetworkBeacon.decode(beacon.encode(OTHER_KEY), [OTHER_KEY]) == beacon


@given(st.binary(max_size=30))
def test_any_octets_give_a_beacon_or_a_decode_error(octets: bytes) -> None:
    """Truncations, surplus octets and other types raise DecodeError."""
    try:
        SecureNetworkBeacon.decode(octets, [OTHER_KEY])
    except DecodeError:
        return
    assert (octets[0], len(octets)) == (1, 22)


def test_every_truncation_of_a_beacon_is_refused() -> None:
    """Also one as short as an Unprovisioned Device beacon."""
    for entry in vectors("beacons"):
        octets = bytes.fromhex(entry["beacon"])
        for length in range(len(octets)):
            with pytest.raises(DecodeError):
                SecureNetworkBeacon.decode(octets[:length], [OTHER_KEY])


def test_sample_service_data_of_an_unprovisioned_device() -> None:
    """UUID and OOB Information of 0x1827, and the same octets again."""
    entry = _advertised("provisioning_service")
    octets = bytes.fromhex(entry["service_data"])
    data = decode_service_data(MESH_PROVISIONING_SERVICE, octets)
    assert isinstance(data, UnprovisionedDevice)
    assert data.uuid.hex() == entry["device_uuid"]
    assert (octets[16:].hex(), data.oob_information) == ("2040", 0x4020)
    assert data.encode() == octets


def test_sample_service_data_of_a_network_id() -> None:
    """Network ID of 0x1828 matches its NetKey and no other."""
    entry = _advertised("proxy_network_id")
    octets = bytes.fromhex(entry["service_data"])
    data = decode_service_data(MESH_PROXY_SERVICE, octets)
    assert isinstance(data, NetworkIdentity)
    assert data.matches(NetKey(bytes.fromhex(entry["net_key"])))
    assert not data.matches(OTHER_KEY)
    assert data.encode() == octets


def test_sample_service_data_of_a_node_identity() -> None:
    """Node Identity of 0x1828 matches its NetKey and address and nothing else."""
    entry = _advertised("proxy_node_identity")
    octets, address = bytes.fromhex(entry["service_data"]), int(entry["address"], 16)
    data = decode_service_data(MESH_PROXY_SERVICE, octets)
    assert isinstance(data, NodeIdentity)
    net_key = NetKey(bytes.fromhex(entry["net_key"]))
    assert data.matches(net_key, address)
    assert not data.matches(net_key, address + 1)
    assert not data.matches(OTHER_KEY, address)
    assert data.encode() == octets


def test_types_and_services_of_others_are_none() -> None:
    """Private Network Identity and any other service are nobody's error."""
    entry = _advertised("proxy_private_network_identity")
    assert decode_service_data(MESH_PROXY_SERVICE, bytes.fromhex(entry["service_data"])) is None
    assert decode_service_data(0x180F, b"\x64") is None


@given(
    st.sampled_from([MESH_PROVISIONING_SERVICE, MESH_PROXY_SERVICE, 0x1234]),
    st.binary(max_size=20),
)
def test_any_service_data_gives_a_value_none_or_a_decode_error(service: int, data: bytes) -> None:
    """Whatever decodes encodes to the same octets."""
    decoded: ServiceData | None
    try:
        decoded = decode_service_data(service, data)
    except DecodeError:
        return
    assert decoded is None or decoded.encode() == data


@pytest.mark.parametrize(
    ("service", "length"),
    [
        (MESH_PROVISIONING_SERVICE, 17),
        (MESH_PROVISIONING_SERVICE, 19),
        (MESH_PROXY_SERVICE, 0),
        (MESH_PROXY_SERVICE, 8),
        (MESH_PROXY_SERVICE, 10),
    ],
)
def test_service_data_of_wrong_length_is_refused(service: int, length: int) -> None:
    """The length belongs to the type; a Node Identity must have 17 octets too."""
    with pytest.raises(DecodeError):
        decode_service_data(service, bytes(length))
    with pytest.raises(DecodeError):
        decode_service_data(MESH_PROXY_SERVICE, b"\x01" + bytes(length))


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_recorded_beacons_are_authentic(name: str) -> None:
    """Each Secure Network beacon of a proxy is that of the network, with IV Index 0."""
    net_key = NetKey(bytes.fromhex(recording(name).header["netkey"]))
    for event in recording(name).of("proxy_rx"):
        if event["type"] == 1:
            octets = bytes.fromhex(event["pdu"])
            beacon = SecureNetworkBeacon.decode(octets, [net_key])
            assert beacon == SecureNetworkBeacon(False, IvIndex(0), net_key.network_id)
            assert beacon is not None
            assert beacon.encode(net_key) == octets


def test_the_recordings_hold_beacons_of_proxies() -> None:
    """Twenty-eight Secure Network beacons were recorded."""
    assert (
        sum(
            event["type"] == 1
            for name in RECORDING_NAMES
            for event in recording(name).of("proxy_rx")
        )
        == 28
    )


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_recorded_advertisements_are_classified(name: str) -> None:
    """Each connectable advertisement is an unprovisioned board or a proxy of this network."""
    header = recording(name).header
    net_key = NetKey(bytes.fromhex(header["netkey"]))
    addresses = {d["bd_addr"]: int(d["unicast"], 16) for d in header["devices"]}
    kinds = set()
    for event in recording(name).of("adv"):
        ((service, octets),) = _service_data(bytes.fromhex(event["data"]))
        data = decode_service_data(service, octets)
        kinds.add(type(data))
        assert data is not None
        assert data.encode() == octets
        if isinstance(data, UnprovisionedDevice):
            assert data.uuid == recording(name).host.device_uuid(event["addr"])
        elif isinstance(data, NetworkIdentity):
            assert data.matches(net_key)
        elif event["addr"] in addresses:
            assert data.matches(net_key, addresses[event["addr"]])
    assert {UnprovisionedDevice, NodeIdentity} <= kinds


def test_oob_information_is_little_endian_in_service_data() -> None:
    """As all of GATT; `20 40` is 0x4020, on the box and a string."""
    data = decode_service_data(0x1827, bytes(16) + b"\x20\x40")
    assert data == UnprovisionedDevice(bytes(16), 0x4020)
    assert data.encode()[16:] == b"\x20\x40"
