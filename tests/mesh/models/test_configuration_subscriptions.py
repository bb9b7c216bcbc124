"""Configuration messages that change what a model listens to."""

from __future__ import annotations

import pytest

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.models.configuration import FoundationStatus
from fastprovd.mesh.models.configuration_subscriptions import (
    MESSAGES,
    ModelSubscriptionAdd,
    ModelSubscriptionDelete,
    ModelSubscriptionStatus,
)

FULL = FoundationStatus.INSUFFICIENT_RESOURCES
SAMPLES: list[tuple[Message, str]] = [
    (ModelSubscriptionAdd(0x0005, 0xC010, 0x1000), "801b050010c00010"),
    (ModelSubscriptionDelete(0x0005, 0xC010, 0x1000), "801c050010c00010"),
    (ModelSubscriptionStatus(FULL, 0x0005, 0xC010, 0x1000), "801f05050010c00010"),
]


@pytest.mark.parametrize(("message", "payload"), SAMPLES)
def test_each_message_has_its_octets_both_ways(message: Message, payload: str) -> None:
    """Element, address and SIG model follow the opcode, little-endian, after a status if any."""
    octets = bytes.fromhex(payload)
    assert encode_message(message) == octets
    assert type(message).decode_parameters(octets[2:]) == message


@pytest.mark.parametrize(("message", "payload"), SAMPLES)
def test_any_other_length_is_refused(message: Message, payload: str) -> None:
    """Every truncation and the longer form of vendor models raise DecodeError."""
    parameters = bytes.fromhex(payload)[2:]
    for other in (
        *(parameters[:length] for length in range(len(parameters))),
        parameters + b"\0",
        parameters + b"\0\0",
    ):
        with pytest.raises(DecodeError):
            type(message).decode_parameters(other)


@pytest.mark.parametrize("at", range(3))
def test_a_number_that_does_not_fit_is_our_bug(at: int) -> None:
    """Nothing is cut to its field silently."""
    fields = [0x0005, 0xC010, 0x1000]
    fields[at] = 0x10000
    for message in (
        ModelSubscriptionAdd(*fields),
        ModelSubscriptionDelete(*fields),
        ModelSubscriptionStatus(FULL, *fields),
    ):
        with pytest.raises(LocalProtocolError):
            message.encode_parameters()


def test_both_changes_name_their_status() -> None:
    """One Status answers both, and all three are listed."""
    assert ModelSubscriptionAdd.STATUS is ModelSubscriptionDelete.STATUS is ModelSubscriptionStatus
    assert set(MESSAGES) == {type(message) for message, _ in SAMPLES}
