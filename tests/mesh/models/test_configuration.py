"""Configuration messages of keys, composition and reset."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.configuration import (
    AppKeyAdd,
    AppKeyStatus,
    CompositionDataGet,
    CompositionDataStatus,
    FoundationStatus,
    NodeReset,
    NodeResetStatus,
    pack_key_indexes,
    unpack_key_indexes,
)

KEY = bytes.fromhex("63964771734fbd76e3b40519d1d94a48")
ON_AIR = [
    (AppKeyStatus(FoundationStatus.SUCCESS, 0, 0), "800300000000"),
    (AppKeyStatus(FoundationStatus.INVALID_NET_KEY_INDEX, 1, 1), "800304011000"),
    (CompositionDataGet(), "800800"),
    (CompositionDataGet(0xFF), "8008ff"),
    (CompositionDataStatus(0, b"\x01\x02"), "02000102"),
    (NodeReset(), "8049"),
    (NodeResetStatus(), "804a"),
]


@pytest.mark.parametrize(("message", "payload"), ON_AIR)
def test_each_message_has_its_octets_both_ways(message: Message, payload: str) -> None:
    """The payloads seen on the air are encoded octet by octet and decoded to equal messages."""
    octets = bytes.fromhex(payload)
    assert encode_message(message) == octets
    opcode_octets = len(octets) - len(message.encode_parameters())
    assert type(message).decode_parameters(octets[opcode_octets:]) == message


def test_app_key_add_carries_key_and_both_indexes() -> None:
    """Indexes are packed into three octets before the key, and come out again."""
    message = AppKeyAdd(AppKey(KEY, index=0x456, bound_net_key_index=0x123))
    assert message.encode_parameters() == bytes.fromhex("236145") + KEY
    received = AppKeyAdd.decode_parameters(message.encode_parameters()).app_key
    assert (received.octets, received.index, received.bound_net_key_index) == (KEY, 0x456, 0x123)


def test_app_key_add_shows_no_key() -> None:
    """Neither repr nor str contain an octet sequence of the key."""
    message = AppKeyAdd(AppKey(KEY, index=3))
    assert repr(message) == "AppKeyAdd(app_key=AppKey(index=3))"
    assert KEY.hex() not in str(message)


def test_the_sample_message_6_is_an_app_key_add() -> None:
    """The parameters of sample message #6 decode to the sample AppKey and encode again."""
    parameters = bytes.fromhex("563412") + KEY
    message = AppKeyAdd.decode_parameters(parameters)
    assert (message.app_key.bound_net_key_index, message.app_key.index) == (0x456, 0x123)
    assert message.encode_parameters() == parameters


@given(st.integers(0, 0xFFF), st.integers(0, 0xFFF))
def test_key_indexes_come_back(net_key_index: int, app_key_index: int) -> None:
    """Any two 12-bit indexes survive packing."""
    packed = pack_key_indexes(net_key_index, app_key_index)
    assert unpack_key_indexes(packed) == (net_key_index, app_key_index)


def test_an_index_above_12_bits_is_our_bug() -> None:
    """The spill into the neighbour's bits is refused."""
    for indexes in ((0x1000, 0), (0, 0x1000), (-1, 0)):
        with pytest.raises(LocalProtocolError, match="KeyIndex"):
            pack_key_indexes(*indexes)


@given(st.integers(0, 0xFF))
def test_a_status_code_keeps_its_number(code: int) -> None:
    """Codes of the list have their name, all others a readable one."""
    status = FoundationStatus(code)
    assert status == code
    assert status.name.startswith("UNKNOWN_0x") == (code > 0x11)
    assert f"{code:02X}" in status.name or code <= 0x11


@pytest.mark.parametrize("code", [-1, 0x100, "x"])
def test_what_is_no_octet_is_no_status_code(code: Any) -> None:
    """Only an octet can be a status code."""
    with pytest.raises(ValueError, match="not a valid FoundationStatus"):
        FoundationStatus(code)


@pytest.mark.parametrize(
    ("message", "length"),
    [(AppKeyAdd, 19), (AppKeyStatus, 4), (CompositionDataGet, 1), (NodeReset, 0)],
)
def test_any_other_length_is_refused(message: type[Message], length: int) -> None:
    """Every truncation and one octet too many raise DecodeError."""
    message.decode_parameters(bytes(length))
    for other in (*range(length), length + 1):
        with pytest.raises(DecodeError, match=f"got {other}"):
            message.decode_parameters(bytes(other))


def test_a_composition_status_without_page_number_is_refused() -> None:
    """An empty Status raises DecodeError; an unsound page only when it is parsed."""
    with pytest.raises(DecodeError):
        CompositionDataStatus.decode_parameters(b"")
    status = CompositionDataStatus.decode_parameters(b"\x00\x01")
    with pytest.raises(DecodeError, match="at least 14 octets"):
        status.composition()


def test_another_page_is_not_parsed_as_page_0() -> None:
    """A node that answers with another page is taken at its word."""
    with pytest.raises(DecodeError, match="got page 1"):
        CompositionDataStatus(1, bytes(28)).composition()


def test_acknowledged_messages_name_their_status() -> None:
    """A request knows the class of its answer."""
    assert AppKeyAdd.STATUS is AppKeyStatus
    assert CompositionDataGet.STATUS is CompositionDataStatus
    assert NodeReset.STATUS is NodeResetStatus
