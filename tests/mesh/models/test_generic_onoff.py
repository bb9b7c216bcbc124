"""Generic OnOff messages."""

from __future__ import annotations

import pytest

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.models.generic_onoff import (
    MESSAGES,
    OnOffGet,
    OnOffSet,
    OnOffSetUnacknowledged,
    OnOffStatus,
)

ON_AIR = [
    (OnOffGet(), "8201"),
    (OnOffSet(True, 0x21), "82020121"),
    (OnOffSet(False, 0xFF, 0x3F, 0x05), "820200ff3f05"),
    (OnOffSetUnacknowledged(True, 0), "82030100"),
    (OnOffSetUnacknowledged(True, 1, 0, 0), "820301010000"),
    (OnOffStatus(True), "820401"),
    (OnOffStatus(False, True, 0x4A), "820400014a"),
]


@pytest.mark.parametrize(("message", "payload"), ON_AIR)
def test_each_form_has_its_octets_both_ways(message: Message, payload: str) -> None:
    """Short and long forms are encoded octet by octet and decoded to equal messages."""
    octets = bytes.fromhex(payload)
    assert encode_message(message) == octets
    assert type(message).decode_parameters(octets[2:]) == message


@pytest.mark.parametrize("message", [OnOffSet, OnOffSetUnacknowledged])
def test_half_a_transition_is_not_sent(
    message: type[OnOffSet] | type[OnOffSetUnacknowledged],
) -> None:
    """Transition time without delay, and the reverse, are bugs of ours."""
    for broken in (message(True, 1, transition_time=1), message(True, 1, delay=1)):
        with pytest.raises(LocalProtocolError, match="or neither"):
            broken.encode_parameters()


def test_half_a_status_is_not_sent() -> None:
    """A target without remaining time, and the reverse, are bugs of ours."""
    for broken in (OnOffStatus(True, target=True), OnOffStatus(True, remaining_time=0)):
        with pytest.raises(LocalProtocolError, match="or neither"):
            broken.encode_parameters()


@pytest.mark.parametrize(
    ("message", "parameters"),
    [
        (OnOffGet, "00"),
        (OnOffSet, "0200"),
        (OnOffSet, "010000"),
        (OnOffSetUnacknowledged, "01"),
        (OnOffSetUnacknowledged, "0100000000"),
        (OnOffStatus, ""),
        (OnOffStatus, "02"),
        (OnOffStatus, "0100"),
        (OnOffStatus, "010200"),
    ],
)
def test_prohibited_values_and_lengths_are_refused(message: type[Message], parameters: str) -> None:
    """A state above 1 and a length between the forms raise DecodeError."""
    with pytest.raises(DecodeError):
        message.decode_parameters(bytes.fromhex(parameters))


def test_get_and_set_name_their_status() -> None:
    """The acknowledged messages are answered by OnOffStatus, and all four are listed."""
    assert OnOffGet.STATUS is OnOffSet.STATUS is OnOffStatus
    assert len({message.OPCODE for message in MESSAGES}) == 4
