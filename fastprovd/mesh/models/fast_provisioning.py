"""The fast provisioning vendor model of company 0x02E5, all ten messages.

Little-endian, sent under the AppKey. ESP-BLE-MESH `fast_prov_server`: a message shorter than its
minimum is dropped by the board, longer ones are taken; encoding is strict, because a board runs
past the end of lists of odd length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import check_range
from fastprovd.mesh.addresses import format_address, is_unicast
from fastprovd.mesh.keys import KEY_OCTETS, NetKey
from fastprovd.mesh.models.fast_provisioning_info import (
    ENTER_AS_PRIMARY,
    GROUP_MAX,
    GROUP_MIN,
    MATCH_MAX_OCTETS,
    PRIMARY_ROLE,
    Action,
    InfoSet,
    InfoStatus,
    InfoStatusBit,
)

__all__ = [
    "COMPANY_ID",
    "ENTER_AS_PRIMARY",
    "FAST_PROV_CLIENT",
    "FAST_PROV_SERVER",
    "GROUP_MAX",
    "GROUP_MIN",
    "MATCH_MAX_OCTETS",
    "MESSAGES",
    "PRIMARY_ROLE",
    "Action",
    "InfoSet",
    "InfoStatus",
    "InfoStatusBit",
    "NetKeyAdd",
    "NetKeyStatus",
    "NodeAddr",
    "NodeAddrAck",
    "NodeAddrGet",
    "NodeAddrStatus",
    "NodeGroupAdd",
    "NodeGroupDelete",
]

COMPANY_ID: Final = 0x02E5
FAST_PROV_CLIENT: Final = 0x0000
FAST_PROV_SERVER: Final = 0x0001

# A Temporary Provisioner reports at most four children at once.
REPORT_MAX_ADDRESSES: Final = 4
# Capacity of the Primary Provisioner's table.
LIST_MAX_ADDRESSES: Final = 120
# With the group, what 380 octets of access payload hold.
GROUP_MAX_ADDRESSES: Final = 187


def _decode_addresses(what: str, parameters: bytes, minimum_octets: int) -> tuple[int, ...]:
    if len(parameters) < minimum_octets or len(parameters) % 2:
        raise DecodeError(
            f"{what} must have an even number of octets, at least {minimum_octets}, "
            f"got {len(parameters)}"
        )
    return struct.unpack(f"<{len(parameters) // 2}H", parameters)


def _encode_unicast(what: str, addresses: tuple[int, ...], least: int, most: int) -> bytes:
    if not least <= len(addresses) <= most:
        raise LocalProtocolError(f"{what} takes {least}..{most} addresses, got {len(addresses)}")
    for address in addresses:
        if not is_unicast(address):
            raise LocalProtocolError(f"{what} takes unicast addresses, got 0x{address:04x}")
    return struct.pack(f"<{len(addresses)}H", *addresses)


@dataclass(frozen=True, slots=True)
class NetKeyStatus:
    """NET_KEY_STATUS; the board fills both octets with anything when it is pending."""

    OPCODE: ClassVar[int] = 0xC3E502

    status_key: int
    status_action: int

    def encode_parameters(self) -> bytes:
        """Return 2 octets."""
        check_range("status_key", self.status_key, 0xFF)
        check_range("status_action", self.status_action, 0xFF)
        return bytes([self.status_key, self.status_action])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 2 octets, more are ignored; raises DecodeError."""
        if len(parameters) < 2:
            raise DecodeError(f"NET_KEY_STATUS must have 2 octets, got {len(parameters)}")
        return cls(parameters[0], parameters[1])


@dataclass(frozen=True, slots=True)
class NetKeyAdd:
    """NET_KEY_ADD: a stub in the firmware that never adds the key, so it is only decoded."""

    OPCODE: ClassVar[int] = 0xC2E502
    STATUS: ClassVar[type[NetKeyStatus]] = NetKeyStatus

    net_key: NetKey

    def encode_parameters(self) -> bytes:
        """Raise LocalProtocolError: the key would be sent for nothing."""
        raise LocalProtocolError("NET_KEY_ADD must not be sent: no board adds the key")

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 16 octets, more are ignored; raises DecodeError."""
        if len(parameters) < KEY_OCTETS:
            raise DecodeError(f"NET_KEY_ADD must have 16 octets, got {len(parameters)}")
        return cls(NetKey(parameters[:KEY_OCTETS]))


@dataclass(frozen=True, slots=True)
class NodeAddrAck:
    """NODE_ADDR_ACK."""

    OPCODE: ClassVar[int] = 0xC5E502

    def encode_parameters(self) -> bytes:
        """Return no octets."""
        return b""

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Ignore whatever follows the opcode."""
        return cls()


@dataclass(frozen=True, slots=True)
class NodeAddr:
    """NODE_ADDR: a Temporary Provisioner reports children to the Primary, 1..4 at once."""

    OPCODE: ClassVar[int] = 0xC4E502
    STATUS: ClassVar[type[NodeAddrAck]] = NodeAddrAck

    addresses: tuple[int, ...]

    def encode_parameters(self) -> bytes:
        """Return 2 octets per address; raises LocalProtocolError unless 1..4, all unicast."""
        return _encode_unicast("NODE_ADDR", self.addresses, 1, REPORT_MAX_ADDRESSES)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 2 octets per address; raises DecodeError."""
        return cls(_decode_addresses("NODE_ADDR", parameters, 2))


@dataclass(frozen=True, slots=True)
class NodeAddrStatus:
    """NODE_ADDR_STATUS: the Primary's list in order of arrival, without its own address."""

    OPCODE: ClassVar[int] = 0xC7E502

    addresses: tuple[int, ...]

    def encode_parameters(self) -> bytes:
        """Return 2 octets per address; raises LocalProtocolError above 120."""
        return _encode_unicast("NODE_ADDR_STATUS", self.addresses, 0, LIST_MAX_ADDRESSES)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 2 octets per address, none when the list is empty; raises DecodeError."""
        return cls(_decode_addresses("NODE_ADDR_STATUS", parameters, 0))


@dataclass(frozen=True, slots=True)
class NodeAddrGet:
    """NODE_ADDR_GET."""

    OPCODE: ClassVar[int] = 0xC6E502
    STATUS: ClassVar[type[NodeAddrStatus]] = NodeAddrStatus

    def encode_parameters(self) -> bytes:
        """Return no octets."""
        return b""

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Ignore whatever follows the opcode."""
        return cls()


def _encode_group(what: str, group: int, addresses: tuple[int, ...]) -> bytes:
    if not GROUP_MIN <= group <= GROUP_MAX:
        raise LocalProtocolError(
            f"{what} needs a group within 0x{GROUP_MIN:04x}..0x{GROUP_MAX:04x}, "
            f"got {format_address(group)}"
        )
    members = _encode_unicast(what, addresses, 1, GROUP_MAX_ADDRESSES)
    return group.to_bytes(2, "little") + members


@dataclass(frozen=True, slots=True)
class NodeGroupAdd:
    """NODE_GROUP_ADD: the named nodes subscribe to `group`; never answered."""

    OPCODE: ClassVar[int] = 0xC8E502

    group: int
    addresses: tuple[int, ...]

    def encode_parameters(self) -> bytes:
        """Return group and addresses; raises LocalProtocolError for an invalid one of either."""
        return _encode_group("NODE_GROUP_ADD", self.group, self.addresses)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse a group and any number of addresses; raises DecodeError."""
        group, *addresses = _decode_addresses("NODE_GROUP_ADD", parameters, 2)
        return cls(group, tuple(addresses))


@dataclass(frozen=True, slots=True)
class NodeGroupDelete:
    """NODE_GROUP_DELETE: the named nodes leave `group`; never answered."""

    OPCODE: ClassVar[int] = 0xC9E502

    group: int
    addresses: tuple[int, ...]

    def encode_parameters(self) -> bytes:
        """Return group and addresses; raises LocalProtocolError for an invalid one of either."""
        return _encode_group("NODE_GROUP_DELETE", self.group, self.addresses)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse a group and any number of addresses; raises DecodeError."""
        group, *addresses = _decode_addresses("NODE_GROUP_DELETE", parameters, 2)
        return cls(group, tuple(addresses))


MESSAGES: Final = (
    InfoSet,
    InfoStatus,
    NetKeyAdd,
    NetKeyStatus,
    NodeAddr,
    NodeAddrAck,
    NodeAddrGet,
    NodeAddrStatus,
    NodeGroupAdd,
    NodeGroupDelete,
)
