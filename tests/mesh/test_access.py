"""Access layer: opcodes, payload limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import (
    MAX_PAYLOAD_OCTETS,
    WithoutParameters,
    check_range,
    encode_message,
    split_opcode,
)
from tests.support.data import vectors

ACCESS_VECTORS = [
    pytest.param(entry["access"], id=entry["id"])
    for entry in vectors("messages")
    if "access" in entry
]


@dataclass(frozen=True, slots=True)
class Sample:
    """A message with free parameters."""

    OPCODE: ClassVar[int] = 0xC0E502

    parameters: bytes

    def encode_parameters(self) -> bytes:
        return self.parameters

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        return cls(parameters)


def _message(opcode: int, parameters: bytes = b"") -> Any:
    message_class = type("Numbered", (Sample,), {"OPCODE": opcode, "__slots__": ()})
    return message_class(parameters)


@pytest.mark.parametrize("access", ACCESS_VECTORS)
def test_sample_payloads_are_split_and_joined_as_published(access: dict[str, str]) -> None:
    """The access payloads of the sample data split into opcode and parameters, and join again."""
    opcode, parameters = split_opcode(bytes.fromhex(access["payload"]))
    assert opcode == int(access["opcode"], 16)
    assert parameters == bytes.fromhex(access["parameters"])
    assert encode_message(_message(opcode, parameters)) == bytes.fromhex(access["payload"])


@pytest.mark.parametrize("opcode", [0x00, 0x7E, 0x8000, 0xBFFF, 0xC00000, 0xC0E502, 0xFFFFFF])
def test_the_bounds_of_each_opcode_length_survive(opcode: int) -> None:
    """The first and last opcode of each length are encoded and found again."""
    assert split_opcode(encode_message(_message(opcode, b"\x01"))) == (opcode, b"\x01")


@pytest.mark.parametrize("opcode", [-1, 0x7F, 0x80, 0x7FFF, 0xC000, 0xBFFFFF, 0x1000000])
def test_numbers_that_are_no_opcode_are_not_encoded(opcode: int) -> None:
    """A number outside the three ranges is a bug of ours."""
    with pytest.raises(LocalProtocolError, match="no access opcode"):
        encode_message(_message(opcode))


@pytest.mark.parametrize("payload", ["", "7f", "7f00", "80", "c0", "c0e5"])
def test_empty_reserved_and_cut_opcodes_are_refused(payload: str) -> None:
    """No opcode, the reserved one and a cut one raise DecodeError."""
    with pytest.raises(DecodeError):
        split_opcode(bytes.fromhex(payload))


def test_a_payload_has_at_most_380_octets() -> None:
    """380 octets pass in both directions, 381 in none."""
    longest = Sample(bytes(MAX_PAYLOAD_OCTETS - 3))
    payload = encode_message(longest)
    assert split_opcode(payload) == (Sample.OPCODE, longest.parameters)
    with pytest.raises(LocalProtocolError, match="at most 380"):
        encode_message(Sample(longest.parameters + b"\x00"))
    with pytest.raises(DecodeError, match="got 381"):
        split_opcode(payload + b"\x00")


@given(st.binary(max_size=400))
def test_any_payload_splits_or_raises_decode_error(payload: bytes) -> None:
    """Whatever splits joins to the same octets; all else is a DecodeError."""
    try:
        opcode, parameters = split_opcode(payload)
    except DecodeError:
        return
    assert encode_message(_message(opcode, parameters)) == payload


def test_a_message_without_parameters_accepts_none() -> None:
    """WithoutParameters encodes to nothing and refuses anything."""
    assert WithoutParameters().encode_parameters() == b""
    assert isinstance(WithoutParameters.decode_parameters(b""), WithoutParameters)
    with pytest.raises(DecodeError, match="0 octets"):
        WithoutParameters.decode_parameters(b"\x00")


def test_a_number_outside_its_field_is_our_bug() -> None:
    """check_range accepts both bounds and names the field that breaks them."""
    check_range("field", 0, 7)
    check_range("field", 7, 7)
    for value in (-1, 8):
        with pytest.raises(LocalProtocolError, match="field must be within"):
            check_range("field", value, 7)
