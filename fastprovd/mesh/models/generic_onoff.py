"""Generic OnOff model, 0x1000 and 0x1001 (Mesh Model v1.0.1 §3.2.1); fields of one octet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import WithoutParameters, check_length, check_range

GENERIC_ONOFF_SERVER: Final = 0x1000


def _onoff(what: str, octet: int) -> bool:
    if octet > 1:
        raise DecodeError(f"{what} must be 0 or 1, got {octet}")
    return octet == 1


@dataclass(frozen=True, slots=True)
class OnOffStatus:
    """Generic OnOff Status; target and remaining time only while a transition runs.

    `remaining_time` is the octet of the Transition Time format, 0x3F when unknown.
    """

    OPCODE: ClassVar[int] = 0x8204

    present: bool
    target: bool | None = None
    remaining_time: int | None = None

    def encode_parameters(self) -> bytes:
        """Return 1 or 3 octets; raises LocalProtocolError for half a transition."""
        if self.target is None and self.remaining_time is None:
            return bytes([self.present])
        if self.target is None or self.remaining_time is None:
            raise LocalProtocolError("OnOffStatus needs target and remaining_time, or neither")
        check_range("remaining_time", self.remaining_time, 0xFF)
        return bytes([self.present, self.target, self.remaining_time])

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 1 or 3 octets; raises DecodeError."""
        check_length(cls.__name__, parameters, 1, 3)
        present = _onoff("PresentOnOff", parameters[0])
        if len(parameters) == 1:
            return cls(present)
        return cls(present, _onoff("TargetOnOff", parameters[1]), parameters[2])


@dataclass(frozen=True, slots=True)
class OnOffGet(WithoutParameters):
    """Generic OnOff Get."""

    OPCODE: ClassVar[int] = 0x8201
    STATUS: ClassVar[type[OnOffStatus]] = OnOffStatus


def _encode_set(onoff: bool, tid: int, transition_time: int | None, delay: int | None) -> bytes:
    check_range("tid", tid, 0xFF)
    if transition_time is None and delay is None:
        return bytes([onoff, tid])
    if transition_time is None or delay is None:
        raise LocalProtocolError("an OnOff Set needs transition_time and delay, or neither")
    check_range("transition_time", transition_time, 0xFF)
    check_range("delay", delay, 0xFF)
    return bytes([onoff, tid, transition_time, delay])


def _decode_set(what: str, parameters: bytes) -> tuple[bool, int, int | None, int | None]:
    check_length(what, parameters, 2, 4)
    onoff = _onoff("OnOff", parameters[0])
    if len(parameters) == 2:
        return onoff, parameters[1], None, None
    return onoff, parameters[1], parameters[2], parameters[3]


@dataclass(frozen=True, slots=True)
class OnOffSet:
    """Generic OnOff Set; `transition_time` is the octet of its format, `delay` in 5 ms steps."""

    OPCODE: ClassVar[int] = 0x8202
    STATUS: ClassVar[type[OnOffStatus]] = OnOffStatus

    onoff: bool
    tid: int
    transition_time: int | None = None
    delay: int | None = None

    def encode_parameters(self) -> bytes:
        """Return 2 or 4 octets; raises LocalProtocolError for half a transition."""
        return _encode_set(self.onoff, self.tid, self.transition_time, self.delay)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 2 or 4 octets; raises DecodeError."""
        return cls(*_decode_set(cls.__name__, parameters))


@dataclass(frozen=True, slots=True)
class OnOffSetUnacknowledged:
    """Generic OnOff Set Unacknowledged; fields as in OnOffSet."""

    OPCODE: ClassVar[int] = 0x8203

    onoff: bool
    tid: int
    transition_time: int | None = None
    delay: int | None = None

    def encode_parameters(self) -> bytes:
        """Return 2 or 4 octets; raises LocalProtocolError for half a transition."""
        return _encode_set(self.onoff, self.tid, self.transition_time, self.delay)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse 2 or 4 octets; raises DecodeError."""
        return cls(*_decode_set(cls.__name__, parameters))


MESSAGES: Final = (OnOffGet, OnOffSet, OnOffSetUnacknowledged, OnOffStatus)
