"""Provisioning PDUs: one type octet, then parameters of exact length, big-endian.

Mesh Profile v1.0.1 §5.4.1; the 32-octet values are those of Mesh Protocol v1.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import ClassVar, Final, Protocol, Self

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.addresses import is_unicast
from fastprovd.mesh.crypto import PUBLIC_KEY_OCTETS
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey


class PduType(IntEnum):
    """The first octet of a Provisioning PDU."""

    INVITE = 0x00
    CAPABILITIES = 0x01
    START = 0x02
    PUBLIC_KEY = 0x03
    INPUT_COMPLETE = 0x04
    CONFIRMATION = 0x05
    RANDOM = 0x06
    DATA = 0x07
    COMPLETE = 0x08
    FAILED = 0x09


class Algorithm(IntEnum):
    """The Algorithm field of the Start PDU."""

    CMAC_AES128 = 0x00
    HMAC_SHA256 = 0x01

    @property
    def value_octets(self) -> int:
        """Length of Confirmation and Random."""
        return 16 if self is Algorithm.CMAC_AES128 else 32


class Algorithms(IntFlag):
    """The Algorithms field of the Capabilities PDU; bits not named here are kept."""

    CMAC_AES128 = 1 << Algorithm.CMAC_AES128
    HMAC_SHA256 = 1 << Algorithm.HMAC_SHA256

    def offers(self, algorithm: Algorithm) -> bool:
        """Whether the bit of `algorithm` is set."""
        return bool(self & 1 << algorithm)


class FailureCode(IntEnum):
    """The Error Code of the Failed PDU; a code not listed keeps its number."""

    PROHIBITED = 0x00
    INVALID_PDU = 0x01
    INVALID_FORMAT = 0x02
    UNEXPECTED_PDU = 0x03
    CONFIRMATION_FAILED = 0x04
    OUT_OF_RESOURCES = 0x05
    DECRYPTION_FAILED = 0x06
    UNEXPECTED_ERROR = 0x07
    CANNOT_ASSIGN_ADDRESSES = 0x08
    INVALID_DATA = 0x09

    @classmethod
    def _missing_(cls, value: object) -> FailureCode | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_0x{value:02X}"
        member._value_ = value
        return member


class Pdu(Protocol):
    """One Provisioning PDU."""

    TYPE: ClassVar[PduType]

    def encode_parameters(self) -> bytes:
        """Return what follows the type octet."""
        ...

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse what follows the type octet; raises DecodeError."""
        ...


def _check_length(what: PduType, parameters: bytes, *allowed: int) -> None:
    if len(parameters) not in allowed:
        lengths = " or ".join(str(length) for length in allowed)
        raise DecodeError(f"{what.name} must have {lengths} octets, got {len(parameters)}")


@dataclass(frozen=True, slots=True)
class Invite:
    """Provisioning Invite: seconds of attention."""

    TYPE: ClassVar[PduType] = PduType.INVITE

    attention_duration_s: int = 0

    def encode_parameters(self) -> bytes:
        """Return 1 octet; raises LocalProtocolError above 255."""
        if not 0 <= self.attention_duration_s <= 0xFF:
            raise LocalProtocolError(
                f"attention_duration_s must be within 0..255, got {self.attention_duration_s}"
            )
        return bytes([self.attention_duration_s])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError."""
        _check_length(cls.TYPE, parameters, 1)
        return cls(parameters[0])


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Provisioning Capabilities: what the device can; bits and numbers unknown here are kept."""

    TYPE: ClassVar[PduType] = PduType.CAPABILITIES
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">BHBBBHBH")

    number_of_elements: int
    algorithms: Algorithms
    public_key_type: int = 0
    oob_type: int = 0
    output_oob_size: int = 0
    output_oob_action: int = 0
    input_oob_size: int = 0
    input_oob_action: int = 0

    def encode_parameters(self) -> bytes:
        """Return 11 octets; raises LocalProtocolError for a number that does not fit."""
        try:
            return self.LAYOUT.pack(
                self.number_of_elements,
                self.algorithms,
                self.public_key_type,
                self.oob_type,
                self.output_oob_size,
                self.output_oob_action,
                self.input_oob_size,
                self.input_oob_action,
            )
        except struct.error as error:
            raise LocalProtocolError(f"Capabilities: {error}") from error

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 11 octets; raises DecodeError, for a device without elements too."""
        _check_length(cls.TYPE, parameters, cls.LAYOUT.size)
        elements, algorithms, *rest = cls.LAYOUT.unpack(parameters)
        if elements == 0:
            raise DecodeError("a device has at least one element, got 0")
        return cls(elements, Algorithms(algorithms), *rest)


@dataclass(frozen=True, slots=True)
class Start:
    """Provisioning Start: what the Provisioner chose; numbers as on the air."""

    TYPE: ClassVar[PduType] = PduType.START

    algorithm: int
    public_key: int = 0
    authentication_method: int = 0
    authentication_action: int = 0
    authentication_size: int = 0

    def encode_parameters(self) -> bytes:
        """Return 5 octets; raises LocalProtocolError for a number that does not fit."""
        try:
            return bytes(
                [
                    self.algorithm,
                    self.public_key,
                    self.authentication_method,
                    self.authentication_action,
                    self.authentication_size,
                ]
            )
        except ValueError as error:
            raise LocalProtocolError(f"Start: {error}") from error

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 5 octets; raises DecodeError."""
        _check_length(cls.TYPE, parameters, 5)
        return cls(*parameters)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Provisioning Public Key: X and Y, 32 octets each; not yet checked against the curve."""

    TYPE: ClassVar[PduType] = PduType.PUBLIC_KEY

    point: bytes

    def encode_parameters(self) -> bytes:
        """Return 64 octets."""
        return self.point

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 64 octets; raises DecodeError."""
        _check_length(cls.TYPE, parameters, PUBLIC_KEY_OCTETS)
        return cls(bytes(parameters))


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Provisioning Confirmation: 16 octets, 32 with HMAC_SHA256."""

    TYPE: ClassVar[PduType] = PduType.CONFIRMATION

    value: bytes

    def encode_parameters(self) -> bytes:
        """Return 16 or 32 octets."""
        return self.value

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 16 or 32 octets; raises DecodeError."""
        _check_length(cls.TYPE, parameters, 16, 32)
        return cls(bytes(parameters))


@dataclass(frozen=True, slots=True)
class Random:
    """Provisioning Random: 16 octets, 32 with HMAC_SHA256."""

    TYPE: ClassVar[PduType] = PduType.RANDOM

    value: bytes

    def encode_parameters(self) -> bytes:
        """Return 16 or 32 octets."""
        return self.value

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 16 or 32 octets; raises DecodeError."""
        _check_length(cls.TYPE, parameters, 16, 32)
        return cls(bytes(parameters))


@dataclass(frozen=True, slots=True)
class Data:
    """Provisioning Data: 25 octets encrypted and a MIC of 8, see ProvisioningData."""

    TYPE: ClassVar[PduType] = PduType.DATA
    MIC_OCTETS: ClassVar[int] = 8

    encrypted: bytes

    def encode_parameters(self) -> bytes:
        """Return 33 octets."""
        return self.encrypted

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 33 octets; raises DecodeError."""
        _check_length(cls.TYPE, parameters, ProvisioningData.LAYOUT.size + cls.MIC_OCTETS)
        return cls(bytes(parameters))


@dataclass(frozen=True, slots=True)
class Complete:
    """Provisioning Complete."""

    TYPE: ClassVar[PduType] = PduType.COMPLETE

    def encode_parameters(self) -> bytes:
        """Return no octets."""
        return b""

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Accept no octets; raises DecodeError."""
        _check_length(cls.TYPE, parameters, 0)
        return cls()


@dataclass(frozen=True, slots=True)
class Failed:
    """Provisioning Failed."""

    TYPE: ClassVar[PduType] = PduType.FAILED

    code: FailureCode

    def encode_parameters(self) -> bytes:
        """Return 1 octet."""
        return bytes([self.code])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 octet; raises DecodeError."""
        _check_length(cls.TYPE, parameters, 1)
        return cls(FailureCode(parameters[0]))


PDUS: Final[dict[PduType, type[Pdu]]] = {
    pdu.TYPE: pdu
    for pdu in (
        Invite,
        Capabilities,
        Start,
        PublicKey,
        Confirmation,
        Random,
        Data,
        Complete,
        Failed,
    )
}


def encode_pdu(pdu: Pdu) -> bytes:
    """Return type octet and parameters."""
    return bytes([pdu.TYPE]) + pdu.encode_parameters()


def split_type(pdu: bytes) -> tuple[PduType, bytes]:
    """Return type and parameters.

    Raises:
        DecodeError: empty, or a type that is reserved.
    """
    if not pdu:
        raise DecodeError("a Provisioning PDU has at least its type, got nothing")
    try:
        return PduType(pdu[0]), bytes(pdu[1:])
    except ValueError:
        raise DecodeError(f"unknown Provisioning PDU type 0x{pdu[0]:02x}") from None


@dataclass(frozen=True, slots=True)
class ProvisioningData:
    """What a device becomes a node with; the NetKey carries its index."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">16sHBIH")

    net_key: NetKey = field(repr=False)
    unicast_address: int
    iv_index: IvIndex = field(default_factory=IvIndex)
    key_refresh: bool = False

    def encode(self) -> bytes:
        """Return 25 octets in clear; raises LocalProtocolError for an impossible address."""
        if not is_unicast(self.unicast_address):
            raise LocalProtocolError(
                f"a node needs a unicast address, got 0x{self.unicast_address:04x}"
            )
        flags = self.key_refresh | self.iv_index.update_in_progress << 1
        return self.LAYOUT.pack(
            self.net_key.octets,
            self.net_key.index,
            flags,
            self.iv_index.value,
            self.unicast_address,
        )

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Parse 25 octets; index and address are taken as they are; raises DecodeError."""
        if len(octets) != cls.LAYOUT.size:
            raise DecodeError(f"Provisioning Data must have 25 octets, got {len(octets)}")
        key, index, flags, iv_index, address = cls.LAYOUT.unpack(octets)
        return cls(NetKey(key, index), address, IvIndex(iv_index, bool(flags & 2)), bool(flags & 1))
