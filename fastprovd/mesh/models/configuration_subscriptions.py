"""Configuration messages that change what a model listens to (Mesh Profile v1.0.1 §4.3.2).

Little-endian; sent under the DevKey; for SIG models only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError
from fastprovd.mesh.access import check_length, check_range
from fastprovd.mesh.models.configuration import FoundationStatus

_FIELDS: Final = struct.Struct("<HHH")


def _encode(element_address: int, address: int, model_id: int) -> bytes:
    for name, number in (
        ("element_address", element_address),
        ("address", address),
        ("model_id", model_id),
    ):
        check_range(name, number, 0xFFFF)
    return _FIELDS.pack(element_address, address, model_id)


def _decode(what: str, parameters: bytes) -> tuple[int, int, int]:
    check_length(what, parameters, _FIELDS.size)
    element_address, address, model_id = _FIELDS.unpack(parameters)
    return element_address, address, model_id


@dataclass(frozen=True, slots=True)
class ModelSubscriptionStatus:
    """Config Model Subscription Status: the request's fields, and what came of it."""

    OPCODE: ClassVar[int] = 0x801F

    status: FoundationStatus
    element_address: int
    address: int
    model_id: int

    def encode_parameters(self) -> bytes:
        """Return 7 octets."""
        return bytes([self.status]) + _encode(self.element_address, self.address, self.model_id)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 7 octets; raises DecodeError."""
        if not parameters:
            raise DecodeError(f"{cls.__name__} must have a status, got nothing")
        return cls(FoundationStatus(parameters[0]), *_decode(cls.__name__, parameters[1:]))


@dataclass(frozen=True, slots=True)
class ModelSubscriptionAdd:
    """Config Model Subscription Add: the model listens to `address` too."""

    OPCODE: ClassVar[int] = 0x801B
    STATUS: ClassVar[type[ModelSubscriptionStatus]] = ModelSubscriptionStatus

    element_address: int
    address: int
    model_id: int

    def encode_parameters(self) -> bytes:
        """Return 6 octets."""
        return _encode(self.element_address, self.address, self.model_id)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 6 octets; raises DecodeError."""
        return cls(*_decode(cls.__name__, parameters))


@dataclass(frozen=True, slots=True)
class ModelSubscriptionDelete:
    """Config Model Subscription Delete: the model listens to `address` no more."""

    OPCODE: ClassVar[int] = 0x801C
    STATUS: ClassVar[type[ModelSubscriptionStatus]] = ModelSubscriptionStatus

    element_address: int
    address: int
    model_id: int

    def encode_parameters(self) -> bytes:
        """Return 6 octets."""
        return _encode(self.element_address, self.address, self.model_id)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 6 octets; raises DecodeError."""
        return cls(*_decode(cls.__name__, parameters))


MESSAGES: Final = (ModelSubscriptionAdd, ModelSubscriptionDelete, ModelSubscriptionStatus)
