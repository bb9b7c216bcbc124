"""GATT proxy protocol: Proxy PDU SAR and Proxy Configuration messages.

Mesh Profile v1.0.1 §6.3 (Proxy PDU), §6.5 (Proxy Configuration), big-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError, LocalProtocolError

# ESP-BLE-MESH reassembles at most 68 octets; the longest Proxy PDU in use is a public key, 65.
MAX_PAYLOAD_OCTETS: Final = 68
# ATT_MTU 23 leaves 20 octets of value; every peer takes that.
MIN_VALUE_OCTETS: Final = 20
# Mesh Profile v1.0.1 §6.3.2.2: the Proxy SAR timer.
SAR_TIMEOUT_S: Final = 20.0

_COMPLETE, _FIRST, _CONTINUATION, _LAST = range(4)


class ProxyPduType(IntEnum):
    """Message type of a Proxy PDU."""

    NETWORK_PDU = 0
    MESH_BEACON = 1
    PROXY_CONFIGURATION = 2
    PROVISIONING_PDU = 3


def segment(pdu_type: ProxyPduType, payload: bytes, value_octets: int) -> Iterator[bytes]:
    """Yield ATT values of at most `value_octets` octets that carry `payload`.

    Raises:
        LocalProtocolError: `value_octets` below 2, or an empty payload.
    """
    if value_octets < 2 or not payload:
        raise LocalProtocolError(
            f"a Proxy PDU needs a payload and at least 2 octets per value, got "
            f"{len(payload)} and {value_octets}"
        )
    room = value_octets - 1
    if len(payload) <= room:
        yield bytes([_COMPLETE << 6 | pdu_type]) + payload
        return
    for start in range(0, len(payload), room):
        if start == 0:
            sar = _FIRST
        elif start + room < len(payload):
            sar = _CONTINUATION
        else:
            sar = _LAST
        yield bytes([sar << 6 | pdu_type]) + payload[start : start + room]


class Reassembler:
    """Joins ATT values into Proxy PDUs; a broken message is dropped, the next one starts clean."""

    __slots__ = ("_deadline", "_octets", "_type")

    def __init__(self) -> None:
        self._type: ProxyPduType | None = None
        self._octets = bytearray()
        self._deadline: float | None = None

    def next_deadline(self) -> float | None:
        """When an unfinished message is given up."""
        return self._deadline

    def handle_deadline(self, now: float) -> bool:
        """Drop a message that stayed unfinished for SAR_TIMEOUT_S; tell whether there was one."""
        if self._deadline is None or now < self._deadline:
            return False
        self._reset()
        return True

    def receive(self, value: bytes, now: float) -> tuple[ProxyPduType, bytes] | None:
        """Return the PDU that `value` completes, `None` while more is to come.

        Raises:
            DecodeError: empty, unknown type, out of order, or too long; the message is dropped.
        """
        if not value:
            raise DecodeError("a Proxy PDU has at least its header octet, got nothing")
        sar = value[0] >> 6
        try:
            pdu_type = ProxyPduType(value[0] & 0x3F)
        except ValueError:
            raise DecodeError(f"unknown Proxy PDU type 0x{value[0] & 0x3F:02x}") from None
        pending = self._type
        if sar in (_COMPLETE, _FIRST):
            self._reset()
            if sar == _COMPLETE:
                return pdu_type, bytes(value[1:])
            self._type = pdu_type
            self._octets += value[1:]
            self._deadline = now + SAR_TIMEOUT_S
            if pending is not None:
                raise DecodeError("a new Proxy PDU began inside an unfinished one")
            return None
        if pending is not pdu_type:
            self._reset()
            raise DecodeError("a Proxy PDU continued that never began")
        self._octets += value[1:]
        if len(self._octets) > MAX_PAYLOAD_OCTETS:
            self._reset()
            raise DecodeError(f"a Proxy PDU is longer than {MAX_PAYLOAD_OCTETS} octets")
        if sar == _CONTINUATION:
            return None
        payload = bytes(self._octets)
        self._reset()
        return pdu_type, payload

    def _reset(self) -> None:
        self._type = None
        self._octets.clear()
        self._deadline = None


class FilterType(IntEnum):
    """What the proxy server's filter lists."""

    ACCEPT_LIST = 0
    REJECT_LIST = 1


@dataclass(frozen=True, slots=True)
class SetFilterType:
    """Set Filter Type, opcode 00; empties the list."""

    OPCODE: ClassVar[int] = 0x00

    filter_type: FilterType

    def encode(self) -> bytes:
        """Return opcode and parameters."""
        return bytes([self.OPCODE, self.filter_type])

    @classmethod
    def decode(cls, parameters: bytes) -> Self:
        """Parse the parameters; raises DecodeError."""
        if len(parameters) != 1 or parameters[0] > 1:
            raise DecodeError("Set Filter Type needs one octet, 00 or 01")
        return cls(FilterType(parameters[0]))


def _decode_addresses(parameters: bytes) -> tuple[int, ...]:
    if len(parameters) % 2:
        raise DecodeError(f"a list of addresses has even length, got {len(parameters)} octets")
    return tuple(
        int.from_bytes(parameters[at : at + 2], "big") for at in range(0, len(parameters), 2)
    )


def _encode_addresses(opcode: int, addresses: tuple[int, ...]) -> bytes:
    return bytes([opcode]) + b"".join(address.to_bytes(2, "big") for address in addresses)


@dataclass(frozen=True, slots=True)
class AddAddresses:
    """Add Addresses To Filter, opcode 01."""

    OPCODE: ClassVar[int] = 0x01

    addresses: tuple[int, ...]

    def encode(self) -> bytes:
        """Return opcode and parameters."""
        return _encode_addresses(self.OPCODE, self.addresses)

    @classmethod
    def decode(cls, parameters: bytes) -> Self:
        """Parse the parameters; raises DecodeError."""
        return cls(_decode_addresses(parameters))


@dataclass(frozen=True, slots=True)
class RemoveAddresses:
    """Remove Addresses From Filter, opcode 02."""

    OPCODE: ClassVar[int] = 0x02

    addresses: tuple[int, ...]

    def encode(self) -> bytes:
        """Return opcode and parameters."""
        return _encode_addresses(self.OPCODE, self.addresses)

    @classmethod
    def decode(cls, parameters: bytes) -> Self:
        """Parse the parameters; raises DecodeError."""
        return cls(_decode_addresses(parameters))


@dataclass(frozen=True, slots=True)
class FilterStatus:
    """Filter Status, opcode 03: filter type and list size."""

    OPCODE: ClassVar[int] = 0x03

    filter_type: FilterType
    list_size: int

    def encode(self) -> bytes:
        """Return opcode and parameters."""
        return bytes([self.OPCODE, self.filter_type]) + self.list_size.to_bytes(2, "big")

    @classmethod
    def decode(cls, parameters: bytes) -> Self:
        """Parse the parameters; raises DecodeError."""
        if len(parameters) != 3 or parameters[0] > 1:
            raise DecodeError("Filter Status needs three octets, the first 00 or 01")
        return cls(FilterType(parameters[0]), int.from_bytes(parameters[1:], "big"))


ProxyConfiguration = SetFilterType | AddAddresses | RemoveAddresses | FilterStatus

_BY_OPCODE: Final[dict[int, type[ProxyConfiguration]]] = {
    message.OPCODE: message
    for message in (SetFilterType, AddAddresses, RemoveAddresses, FilterStatus)
}


def decode_proxy_configuration(payload: bytes) -> ProxyConfiguration | None:
    """Return the message, `None` for an opcode reserved for future use.

    Raises:
        DecodeError: empty, or parameters that the opcode does not allow.
    """
    if not payload:
        raise DecodeError("a Proxy Configuration message has at least its opcode, got nothing")
    message = _BY_OPCODE.get(payload[0])
    return None if message is None else message.decode(payload[1:])
