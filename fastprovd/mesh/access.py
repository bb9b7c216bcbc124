"""Access messages: opcodes of 1, 2 and 3 octets, then parameters (Mesh Profile v1.0.1 §3.7.3).

Parameters are little-endian; an opcode is written as the number of its octets on the air, so the
vendor opcode C0 of company 0x02E5 is 0xC0E502.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, Self, TypeVar

from fastprovd.errors import DecodeError, LocalProtocolError

# 32 segments of 12 octets less the TransMIC of 4 octets.
MAX_PAYLOAD_OCTETS: Final = 380
_RESERVED_OPCODE: Final = 0x7F


class Message(Protocol):
    """One access message; decoding accepts what the air brings, encoding only what is legal."""

    OPCODE: ClassVar[int]

    def encode_parameters(self) -> bytes:
        """Return the parameters; raises LocalProtocolError for values that must not be sent."""
        ...

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse the parameters; raises DecodeError."""
        ...


StatusT_co = TypeVar("StatusT_co", bound=Message, covariant=True)


class AcknowledgedMessage(Message, Protocol[StatusT_co]):
    """A message that is answered by its Status, so that `request(message)` knows its result."""

    @property
    def STATUS(self) -> type[StatusT_co]:
        """The class of the answer."""
        ...


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A received message of no model here; it has no encoder, so it can not be sent."""

    opcode: int
    parameters: bytes


class WithoutParameters:
    """Both codecs of a message that is its opcode only."""

    __slots__ = ()

    def encode_parameters(self) -> bytes:
        """Return no octets."""
        return b""

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Accept no octets; raises DecodeError."""
        check_length(cls.__name__, parameters, 0)
        return cls()


def check_length(what: str, parameters: bytes, *allowed: int) -> None:
    """Raise DecodeError unless `parameters` has one of the `allowed` lengths."""
    if len(parameters) not in allowed:
        lengths = " or ".join(str(length) for length in allowed)
        raise DecodeError(f"{what} must have {lengths} octets of parameters, got {len(parameters)}")


def check_range(what: str, value: int, maximum: int) -> None:
    """Raise LocalProtocolError unless `value` is within 0..`maximum`."""
    if not 0 <= value <= maximum:
        raise LocalProtocolError(f"{what} must be within 0..0x{maximum:x}, got {value}")


def encode_message(message: Message) -> bytes:
    """Return the access payload, 1..380 octets.

    Raises:
        LocalProtocolError: a value that must not be sent, or a payload that is too long.
    """
    payload = _encode_opcode(message.OPCODE) + message.encode_parameters()
    if len(payload) > MAX_PAYLOAD_OCTETS:
        raise LocalProtocolError(
            f"an access payload has at most {MAX_PAYLOAD_OCTETS} octets, got {len(payload)}"
        )
    return payload


def split_opcode(payload: bytes) -> tuple[int, bytes]:
    """Return opcode and parameters of an access payload.

    Raises:
        DecodeError: empty, too long, a cut opcode, or the reserved opcode 0x7F.
    """
    if not 1 <= len(payload) <= MAX_PAYLOAD_OCTETS:
        raise DecodeError(
            f"an access payload has 1..{MAX_PAYLOAD_OCTETS} octets, got {len(payload)}"
        )
    first = payload[0]
    if first == _RESERVED_OPCODE:
        raise DecodeError("opcode 0x7F is reserved")
    octets = 1 if first < 0x80 else 2 if first < 0xC0 else 3
    if len(payload) < octets:
        raise DecodeError(f"an opcode of {octets} octets is cut after {len(payload)}")
    return int.from_bytes(payload[:octets], "big"), bytes(payload[octets:])


def _encode_opcode(opcode: int) -> bytes:
    if 0 <= opcode < _RESERVED_OPCODE:
        return bytes([opcode])
    if 0x8000 <= opcode <= 0xBFFF:
        return opcode.to_bytes(2, "big")
    if 0xC00000 <= opcode <= 0xFFFFFF:
        return opcode.to_bytes(3, "big")
    raise LocalProtocolError(f"0x{opcode:x} is no access opcode")
