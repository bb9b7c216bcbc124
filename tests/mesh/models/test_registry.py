"""Decoding by opcode: sample data, recordings, fuzz."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import Message, UnknownMessage, encode_message, split_opcode
from fastprovd.mesh.models import (
    configuration,
    configuration_states,
    fast_provisioning,
    generic_onoff,
)
from fastprovd.mesh.models.configuration import AppKeyAdd, AppKeyStatus, FoundationStatus
from fastprovd.mesh.models.fast_provisioning import InfoSet, NetKeyAdd
from fastprovd.mesh.models.registry import decode_message
from tests.support.access import access_payloads
from tests.support.data import RECORDING_NAMES, vectors

ALL: tuple[type[Message], ...] = (
    *configuration.MESSAGES,
    *configuration_states.MESSAGES,
    *fast_provisioning.MESSAGES,
    *generic_onoff.MESSAGES,
)
# Sent on purpose to see what the board says; each must be readable and none may be sent.
PROVOCATIONS = 17
TOO_SHORT = bytes.fromhex("c0e5020000")


def _opcode(message: type[Message]) -> bytes:
    octets = 1 if message.OPCODE < 0x80 else 2 if message.OPCODE < 0xC000 else 3
    return message.OPCODE.to_bytes(octets, "big")


def _sample(identifier: str) -> bytes:
    (entry,) = [entry for entry in vectors("messages") if entry["id"] == identifier]
    return bytes.fromhex(entry["access"]["payload"])


def test_sample_message_6_is_an_app_key_add() -> None:
    """Sample message #6 adds the sample AppKey under its two indexes."""
    message = decode_message(_sample("msg-06"))
    assert isinstance(message, AppKeyAdd)
    assert (message.app_key.bound_net_key_index, message.app_key.index) == (0x456, 0x123)
    assert message.app_key.octets.hex() == "63964771734fbd76e3b40519d1d94a48"
    assert encode_message(message) == _sample("msg-06")


def test_sample_message_16_is_an_app_key_status() -> None:
    """Sample message #16 reports success under the same indexes."""
    assert decode_message(_sample("msg-16")) == AppKeyStatus(FoundationStatus.SUCCESS, 0x456, 0x123)


@pytest.mark.parametrize(
    "access",
    [
        pytest.param(entry["access"], id=entry["id"])
        for entry in vectors("messages")
        if "access" in entry and entry["id"] not in ("msg-06", "msg-16")
    ],
)
def test_a_message_of_no_model_here_stays_readable(access: dict[str, Any]) -> None:
    """Messages of other models come out as opcode and parameters."""
    assert decode_message(bytes.fromhex(access["payload"])) == UnknownMessage(
        int(access["opcode"], 16), bytes.fromhex(access["parameters"])
    )


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_every_message_of_a_recording_is_known(name: str) -> None:
    """Each recorded access message decodes to a message of ours that encodes to its octets.

    Except those that the recording's Top sent to provoke a board, which are decoded and not sent.
    """
    refused = Counter[type]()
    payloads = [heard.payload for heard in access_payloads(name)]
    assert payloads
    for payload in payloads:
        if payload == TOO_SHORT:
            with pytest.raises(DecodeError):
                decode_message(payload)
            continue
        message = decode_message(payload)
        assert not isinstance(message, UnknownMessage)
        try:
            assert encode_message(message) == payload
        except LocalProtocolError:
            refused[type(message)] += 1
            if isinstance(message, InfoSet):
                assert split_opcode(payload)[1].startswith(message.encode_unchecked())
    if name == "info-set-errors":
        assert refused == {InfoSet: PROVOCATIONS - 1, NetKeyAdd: 1}
        assert TOO_SHORT in payloads
    else:
        assert not refused


def test_opcodes_are_unique() -> None:
    """No two messages claim one opcode."""
    assert len({message.OPCODE for message in ALL}) == len(ALL) == 36


@given(st.sampled_from(ALL).map(_opcode) | st.just(b""), st.binary(max_size=60))
def test_any_payload_gives_a_message_or_a_decode_error(opcode: bytes, rest: bytes) -> None:
    """Whatever decodes encodes again, or is one of those that must not be sent."""
    try:
        message = decode_message(opcode + rest)
    except DecodeError:
        return
    if isinstance(message, UnknownMessage):
        assert split_opcode(opcode + rest) == (message.opcode, message.parameters)
        return
    try:
        octets = encode_message(message)
    except LocalProtocolError:
        return
    assert type(decode_message(octets)) is type(message)
    assert (opcode + rest).startswith(octets) or isinstance(message, NODE_IDENTITY)


NODE_IDENTITY = (
    configuration_states.NodeIdentityGet,
    configuration_states.NodeIdentitySet,
    configuration_states.NodeIdentityStatus,
)
