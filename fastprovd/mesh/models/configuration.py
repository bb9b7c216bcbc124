"""Configuration messages of keys, composition and reset (Mesh Profile v1.0.1 §4.3.2).

Little-endian; sent under the DevKey. The messages of single states are in
`configuration_states.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError
from fastprovd.mesh.access import WithoutParameters, check_length, check_range
from fastprovd.mesh.keys import KEY_OCTETS, AppKey
from fastprovd.mesh.models.composition import CompositionData

MAX_KEY_INDEX: Final = 0xFFF


class FoundationStatus(IntEnum):
    """Status codes of the foundation models; a code not listed keeps its number."""

    SUCCESS = 0x00
    INVALID_ADDRESS = 0x01
    INVALID_MODEL = 0x02
    INVALID_APP_KEY_INDEX = 0x03
    INVALID_NET_KEY_INDEX = 0x04
    INSUFFICIENT_RESOURCES = 0x05
    KEY_INDEX_ALREADY_STORED = 0x06
    INVALID_PUBLISH_PARAMETERS = 0x07
    NOT_A_SUBSCRIBE_MODEL = 0x08
    STORAGE_FAILURE = 0x09
    FEATURE_NOT_SUPPORTED = 0x0A
    CANNOT_UPDATE = 0x0B
    CANNOT_REMOVE = 0x0C
    CANNOT_BIND = 0x0D
    TEMPORARILY_UNABLE_TO_CHANGE_STATE = 0x0E
    CANNOT_SET = 0x0F
    UNSPECIFIED_ERROR = 0x10
    INVALID_BINDING = 0x11

    @classmethod
    def _missing_(cls, value: object) -> FoundationStatus | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_0x{value:02X}"
        member._value_ = value
        return member


def pack_key_indexes(net_key_index: int, app_key_index: int) -> bytes:
    """Return 3 octets: NetKeyIndex in the lower, AppKeyIndex in the upper 12 bits."""
    check_range("NetKeyIndex", net_key_index, MAX_KEY_INDEX)
    check_range("AppKeyIndex", app_key_index, MAX_KEY_INDEX)
    return (net_key_index | app_key_index << 12).to_bytes(3, "little")


def unpack_key_indexes(octets: bytes) -> tuple[int, int]:
    """Return NetKeyIndex and AppKeyIndex of 3 octets."""
    packed = int.from_bytes(octets, "little")
    return packed & MAX_KEY_INDEX, packed >> 12


@dataclass(frozen=True, slots=True)
class AppKeyStatus:
    """Config AppKey Status."""

    OPCODE: ClassVar[int] = 0x8003

    status: FoundationStatus
    net_key_index: int
    app_key_index: int

    def encode_parameters(self) -> bytes:
        """Return 4 octets."""
        return bytes([self.status]) + pack_key_indexes(self.net_key_index, self.app_key_index)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 4 octets; raises DecodeError."""
        check_length(cls.__name__, parameters, 4)
        return cls(FoundationStatus(parameters[0]), *unpack_key_indexes(parameters[1:]))


@dataclass(frozen=True, slots=True)
class AppKeyAdd:
    """Config AppKey Add; both indexes are the AppKey's."""

    OPCODE: ClassVar[int] = 0x00
    STATUS: ClassVar[type[AppKeyStatus]] = AppKeyStatus

    app_key: AppKey

    def encode_parameters(self) -> bytes:
        """Return 19 octets; raises LocalProtocolError for an index above 0xFFF."""
        indexes = pack_key_indexes(self.app_key.bound_net_key_index, self.app_key.index)
        return indexes + self.app_key.octets

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 19 octets; raises DecodeError."""
        check_length(cls.__name__, parameters, 3 + KEY_OCTETS)
        net_key_index, app_key_index = unpack_key_indexes(parameters[:3])
        return cls(AppKey(parameters[3:], app_key_index, net_key_index))


@dataclass(frozen=True, slots=True)
class CompositionDataStatus:
    """Config Composition Data Status: the page number and the page."""

    OPCODE: ClassVar[int] = 0x02

    page: int
    data: bytes

    def encode_parameters(self) -> bytes:
        """Return page number and page."""
        check_range("page", self.page, 0xFF)
        return bytes([self.page]) + self.data

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Take the page number and leave the page unparsed; raises DecodeError."""
        if not parameters:
            raise DecodeError("CompositionDataStatus must have a page number, got nothing")
        return cls(parameters[0], bytes(parameters[1:]))

    def composition(self) -> CompositionData:
        """Return the page parsed; raises DecodeError when it is not a sound Page 0."""
        if self.page != CompositionData.PAGE:
            raise DecodeError(f"expected Composition Data Page 0, got page {self.page}")
        return CompositionData.decode(self.data)


@dataclass(frozen=True, slots=True)
class CompositionDataGet:
    """Config Composition Data Get; a node answers with the next lower page that it has."""

    OPCODE: ClassVar[int] = 0x8008
    STATUS: ClassVar[type[CompositionDataStatus]] = CompositionDataStatus

    page: int = 0

    def encode_parameters(self) -> bytes:
        """Return 1 octet."""
        check_range("page", self.page, 0xFF)
        return bytes([self.page])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError."""
        check_length(cls.__name__, parameters, 1)
        return cls(parameters[0])


@dataclass(frozen=True, slots=True)
class NodeResetStatus(WithoutParameters):
    """Config Node Reset Status."""

    OPCODE: ClassVar[int] = 0x804A


@dataclass(frozen=True, slots=True)
class NodeReset(WithoutParameters):
    """Config Node Reset."""

    OPCODE: ClassVar[int] = 0x8049
    STATUS: ClassVar[type[NodeResetStatus]] = NodeResetStatus


MESSAGES: Final = (
    AppKeyAdd,
    AppKeyStatus,
    CompositionDataGet,
    CompositionDataStatus,
    NodeReset,
    NodeResetStatus,
)
