"""Beacons and the service data of 0x1827 and 0x1828.

Mesh Profile v1.0.1 §3.9 (beacons), §7.1.2.2.1 (Mesh Provisioning Service), §7.2.2.2 (Mesh Proxy
Service). All fields are big-endian.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from fastprovd.errors import DecodeError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey

MESH_PROVISIONING_SERVICE: Final = 0x1827
MESH_PROXY_SERVICE: Final = 0x1828

_NETWORK_ID: Final = 0x00
_NODE_IDENTITY: Final = 0x01


@dataclass(frozen=True, slots=True)
class UnprovisionedDevice:
    """Service data of 0x1827: Device UUID (16 octets) and OOB Information.

    OOB Information is little-endian here, as all of GATT, and big-endian in a beacon.
    """

    uuid: bytes
    oob_information: int = 0

    def encode(self) -> bytes:
        """Return the 18 octets of service data."""
        return self.uuid + self.oob_information.to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class NetworkIdentity:
    """Service data of 0x1828, type Network ID (8 octets)."""

    network_id: bytes

    def encode(self) -> bytes:
        """Return the 9 octets of service data."""
        return bytes([_NETWORK_ID]) + self.network_id

    def matches(self, net_key: NetKey) -> bool:
        """Whether the advertiser is on the network of `net_key`."""
        return self.network_id == net_key.network_id


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Service data of 0x1828, type Node Identity: Hash and Random, 8 octets each."""

    hash: bytes
    random: bytes

    def encode(self) -> bytes:
        """Return the 17 octets of service data."""
        return bytes([_NODE_IDENTITY]) + self.hash + self.random

    def matches(self, net_key: NetKey, address: int) -> bool:
        """Whether the advertiser is the node `address` of the network of `net_key`."""
        return hmac.compare_digest(self.hash, net_key.node_identity_hash(self.random, address))


ServiceData = UnprovisionedDevice | NetworkIdentity | NodeIdentity


def decode_service_data(service: int, data: bytes) -> ServiceData | None:
    """Return what `data` of the 16-bit service UUID says, `None` for other services and types.

    Raises:
        DecodeError: the service is ours and the length is wrong.
    """
    if service == MESH_PROVISIONING_SERVICE:
        if len(data) != 18:
            raise DecodeError(f"service data of 0x1827 must have 18 octets, got {len(data)}")
        return UnprovisionedDevice(bytes(data[:16]), int.from_bytes(data[16:], "little"))
    if service == MESH_PROXY_SERVICE:
        if not data:
            raise DecodeError("service data of 0x1828 is empty")
        if data[0] == _NETWORK_ID:
            if len(data) != 9:
                raise DecodeError(f"Network ID service data must have 9 octets, got {len(data)}")
            return NetworkIdentity(bytes(data[1:]))
        if data[0] == _NODE_IDENTITY:
            if len(data) != 17:
                raise DecodeError(
                    f"Node Identity service data must have 17 octets, got {len(data)}"
                )
            return NodeIdentity(bytes(data[1:9]), bytes(data[9:]))
    return None


# Weaker than anything that is received, as bleak has it where BlueZ tells no RSSI.
RSSI_UNKNOWN: Final = -127


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A classified advertisement: who sent it, how strong, when (seconds of the loop's clock).

    `rssi_dbm` is `RSSI_UNKNOWN` where nobody says.
    """

    device_address: str
    data: ServiceData
    rssi_dbm: int
    seen_s: float


@dataclass(frozen=True, slots=True)
class SecureNetworkBeacon:
    """Secure Network beacon: type 01, Flags, Network ID, IV Index, Authentication Value."""

    TYPE = 0x01
    LAYOUT = struct.Struct(">BB8sI8s")

    key_refresh: bool
    iv_index: IvIndex
    network_id: bytes

    def encode(self, net_key: NetKey) -> bytes:
        """Return the 22 octets, authenticated with `net_key`."""
        flags = self.key_refresh | self.iv_index.update_in_progress << 1
        authenticated = bytes([flags]) + net_key.network_id + self.iv_index.value.to_bytes(4, "big")
        return bytes([self.TYPE]) + authenticated + net_key.beacon_authentication(authenticated)

    @classmethod
    def decode(cls, beacon: bytes, net_keys: Iterable[NetKey]) -> Self | None:
        """Return the beacon when one of `net_keys` authenticates it, else `None`.

        Raises:
            DecodeError: wrong type or length.
        """
        if len(beacon) != cls.LAYOUT.size or beacon[0] != cls.TYPE:
            raise DecodeError(
                f"Secure Network beacon must have type 01 and 22 octets, got {len(beacon)} octets"
            )
        _, flags, network_id, value, authentication = cls.LAYOUT.unpack(beacon)
        for net_key in net_keys:
            if net_key.network_id == network_id and hmac.compare_digest(
                net_key.beacon_authentication(bytes(beacon[1:14])), authentication
            ):
                return cls(bool(flags & 1), IvIndex(value, bool(flags & 2)), network_id)
        return None
