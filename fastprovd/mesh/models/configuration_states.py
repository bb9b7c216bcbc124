"""Configuration messages that read and set single states of a node (Mesh Profile v1.0.1 §4.3.2).

Little-endian; sent under the DevKey. Of the Sets only those that fastprovd has a use for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError
from fastprovd.mesh.access import WithoutParameters, check_length, check_range
from fastprovd.mesh.models.configuration import MAX_KEY_INDEX, FoundationStatus


@dataclass(frozen=True, slots=True)
class BeaconStatus:
    """Config Beacon Status: Secure Network Beacon state, 0 or 1."""

    OPCODE: ClassVar[int] = 0x800B

    beacon: int

    def encode_parameters(self) -> bytes:
        """Return 1 octet."""
        check_range("beacon", self.beacon, 0xFF)
        return bytes([self.beacon])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError."""
        check_length(cls.__name__, parameters, 1)
        return cls(parameters[0])


@dataclass(frozen=True, slots=True)
class BeaconGet(WithoutParameters):
    """Config Beacon Get."""

    OPCODE: ClassVar[int] = 0x8009
    STATUS: ClassVar[type[BeaconStatus]] = BeaconStatus


@dataclass(frozen=True, slots=True)
class DefaultTtlStatus:
    """Config Default TTL Status."""

    OPCODE: ClassVar[int] = 0x800E

    ttl: int

    def encode_parameters(self) -> bytes:
        """Return 1 octet."""
        check_range("ttl", self.ttl, 0xFF)
        return bytes([self.ttl])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError."""
        check_length(cls.__name__, parameters, 1)
        return cls(parameters[0])


@dataclass(frozen=True, slots=True)
class DefaultTtlGet(WithoutParameters):
    """Config Default TTL Get."""

    OPCODE: ClassVar[int] = 0x800C
    STATUS: ClassVar[type[DefaultTtlStatus]] = DefaultTtlStatus


@dataclass(frozen=True, slots=True)
class GattProxyStatus:
    """Config GATT Proxy Status: 0 off, 1 on, 2 not supported."""

    OPCODE: ClassVar[int] = 0x8014

    gatt_proxy: int

    def encode_parameters(self) -> bytes:
        """Return 1 octet."""
        check_range("gatt_proxy", self.gatt_proxy, 0xFF)
        return bytes([self.gatt_proxy])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError."""
        check_length(cls.__name__, parameters, 1)
        return cls(parameters[0])


@dataclass(frozen=True, slots=True)
class GattProxyGet(WithoutParameters):
    """Config GATT Proxy Get."""

    OPCODE: ClassVar[int] = 0x8012
    STATUS: ClassVar[type[GattProxyStatus]] = GattProxyStatus


@dataclass(frozen=True, slots=True)
class GattProxySet:
    """Config GATT Proxy Set: 0 off, 1 on. A node that is switched off hangs up (§4.2.11)."""

    OPCODE: ClassVar[int] = 0x8013
    STATUS: ClassVar[type[GattProxyStatus]] = GattProxyStatus

    gatt_proxy: int

    def encode_parameters(self) -> bytes:
        """Return 1 octet."""
        check_range("gatt_proxy", self.gatt_proxy, 1)
        return bytes([self.gatt_proxy])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError, as for the prohibited values."""
        check_length(cls.__name__, parameters, 1)
        _check_switch(cls.__name__, parameters[0])
        return cls(parameters[0])


def _check_switch(name: str, value: int) -> None:
    if value > 1:
        raise DecodeError(f"{name} must be 0 or 1, got {value}")


def _pack_retransmit(count: int, steps: int) -> int:
    check_range("count", count, 7)
    check_range("interval_steps", steps, 0x1F)
    return count | steps << 3


@dataclass(frozen=True, slots=True)
class NetworkTransmitStatus:
    """Config Network Transmit Status: `count` + 1 transmissions, (`interval_steps` + 1) * 10 ms."""

    OPCODE: ClassVar[int] = 0x8025

    count: int
    interval_steps: int

    def encode_parameters(self) -> bytes:
        """Return 1 octet."""
        return bytes([_pack_retransmit(self.count, self.interval_steps)])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError."""
        check_length(cls.__name__, parameters, 1)
        return cls(parameters[0] & 7, parameters[0] >> 3)


@dataclass(frozen=True, slots=True)
class NetworkTransmitGet(WithoutParameters):
    """Config Network Transmit Get."""

    OPCODE: ClassVar[int] = 0x8023
    STATUS: ClassVar[type[NetworkTransmitStatus]] = NetworkTransmitStatus


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """Config Relay Status: 0 off, 1 on, 2 not supported; retransmissions as Network Transmit."""

    OPCODE: ClassVar[int] = 0x8028

    relay: int
    count: int
    interval_steps: int

    def encode_parameters(self) -> bytes:
        """Return 2 octets."""
        check_range("relay", self.relay, 0xFF)
        return bytes([self.relay, _pack_retransmit(self.count, self.interval_steps)])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 2 octets; raises DecodeError."""
        check_length(cls.__name__, parameters, 2)
        return cls(parameters[0], parameters[1] & 7, parameters[1] >> 3)


@dataclass(frozen=True, slots=True)
class RelayGet(WithoutParameters):
    """Config Relay Get."""

    OPCODE: ClassVar[int] = 0x8026
    STATUS: ClassVar[type[RelayStatus]] = RelayStatus


@dataclass(frozen=True, slots=True)
class NodeIdentityStatus:
    """Config Node Identity Status: 0 stopped, 1 running, 2 not supported."""

    OPCODE: ClassVar[int] = 0x8048
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BHB")

    status: FoundationStatus
    net_key_index: int
    identity: int

    def encode_parameters(self) -> bytes:
        """Return 4 octets."""
        check_range("NetKeyIndex", self.net_key_index, MAX_KEY_INDEX)
        check_range("identity", self.identity, 0xFF)
        return self.LAYOUT.pack(self.status, self.net_key_index, self.identity)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 4 octets; raises DecodeError."""
        check_length(cls.__name__, parameters, cls.LAYOUT.size)
        status, net_key_index, identity = cls.LAYOUT.unpack(parameters)
        return cls(FoundationStatus(status), net_key_index & MAX_KEY_INDEX, identity)


@dataclass(frozen=True, slots=True)
class NodeIdentityGet:
    """Config Node Identity Get."""

    OPCODE: ClassVar[int] = 0x8046
    STATUS: ClassVar[type[NodeIdentityStatus]] = NodeIdentityStatus

    net_key_index: int

    def encode_parameters(self) -> bytes:
        """Return 2 octets."""
        check_range("NetKeyIndex", self.net_key_index, MAX_KEY_INDEX)
        return self.net_key_index.to_bytes(2, "little")

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 2 octets; raises DecodeError."""
        check_length(cls.__name__, parameters, 2)
        return cls(int.from_bytes(parameters, "little") & MAX_KEY_INDEX)


@dataclass(frozen=True, slots=True)
class NodeIdentitySet:
    """Config Node Identity Set: 0 stop, 1 start."""

    OPCODE: ClassVar[int] = 0x8047
    STATUS: ClassVar[type[NodeIdentityStatus]] = NodeIdentityStatus
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<HB")

    net_key_index: int
    identity: int

    def encode_parameters(self) -> bytes:
        """Return 3 octets."""
        check_range("NetKeyIndex", self.net_key_index, MAX_KEY_INDEX)
        check_range("identity", self.identity, 1)
        return self.LAYOUT.pack(self.net_key_index, self.identity)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 3 octets; raises DecodeError, as for the prohibited values."""
        check_length(cls.__name__, parameters, cls.LAYOUT.size)
        net_key_index, identity = cls.LAYOUT.unpack(parameters)
        _check_switch(cls.__name__, identity)
        return cls(net_key_index & MAX_KEY_INDEX, identity)


@dataclass(frozen=True, slots=True)
class SigModelSubscriptionList:
    """Config SIG Model Subscription List."""

    OPCODE: ClassVar[int] = 0x802A
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BHH")

    status: FoundationStatus
    element_address: int
    model_id: int
    addresses: tuple[int, ...]

    def encode_parameters(self) -> bytes:
        """Return 5 octets and 2 per address."""
        for number in (self.element_address, self.model_id, *self.addresses):
            check_range("address or model", number, 0xFFFF)
        head = self.LAYOUT.pack(self.status, self.element_address, self.model_id)
        return head + struct.pack(f"<{len(self.addresses)}H", *self.addresses)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 5 octets and 2 per address; raises DecodeError."""
        rest = len(parameters) - cls.LAYOUT.size
        if rest < 0 or rest % 2:
            raise DecodeError(f"{cls.__name__} must have 5 + 2 n octets, got {len(parameters)}")
        status, element_address, model_id = cls.LAYOUT.unpack_from(parameters)
        addresses = struct.unpack_from(f"<{rest // 2}H", parameters, cls.LAYOUT.size)
        return cls(FoundationStatus(status), element_address, model_id, addresses)


@dataclass(frozen=True, slots=True)
class SigModelSubscriptionGet:
    """Config SIG Model Subscription Get."""

    OPCODE: ClassVar[int] = 0x8029
    STATUS: ClassVar[type[SigModelSubscriptionList]] = SigModelSubscriptionList

    element_address: int
    model_id: int

    def encode_parameters(self) -> bytes:
        """Return 4 octets."""
        check_range("element_address", self.element_address, 0xFFFF)
        check_range("model_id", self.model_id, 0xFFFF)
        return struct.pack("<HH", self.element_address, self.model_id)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 4 octets; raises DecodeError."""
        check_length(cls.__name__, parameters, 4)
        return cls(*struct.unpack("<HH", parameters))


MESSAGES: Final = (
    BeaconGet,
    BeaconStatus,
    DefaultTtlGet,
    DefaultTtlStatus,
    GattProxyGet,
    GattProxySet,
    GattProxyStatus,
    NetworkTransmitGet,
    NetworkTransmitStatus,
    NodeIdentityGet,
    NodeIdentitySet,
    NodeIdentityStatus,
    RelayGet,
    RelayStatus,
    SigModelSubscriptionGet,
    SigModelSubscriptionList,
)
