"""Configuration messages that read single states."""

from __future__ import annotations

from typing import Any

import pytest

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.models.configuration import FoundationStatus
from fastprovd.mesh.models.configuration_states import (
    MESSAGES,
    BeaconGet,
    BeaconStatus,
    DefaultTtlGet,
    DefaultTtlStatus,
    GattProxyGet,
    GattProxySet,
    GattProxyStatus,
    NetworkTransmitGet,
    NetworkTransmitStatus,
    NodeIdentityGet,
    NodeIdentitySet,
    NodeIdentityStatus,
    RelayGet,
    RelayStatus,
    SigModelSubscriptionGet,
    SigModelSubscriptionList,
)

SUCCESS = FoundationStatus.SUCCESS
# The first sixteen are what a fresh board says, and what it is asked or told.
ON_AIR: list[tuple[Any, str]] = [
    (BeaconGet(), "8009"),
    (BeaconStatus(0), "800b00"),
    (DefaultTtlGet(), "800c"),
    (DefaultTtlStatus(7), "800e07"),
    (GattProxyGet(), "8012"),
    (GattProxySet(0), "801300"),
    (GattProxyStatus(1), "801401"),
    (NetworkTransmitGet(), "8023"),
    (NetworkTransmitStatus(2, 1), "80250a"),
    (RelayGet(), "8026"),
    (RelayStatus(1, 2, 1), "8028010a"),
    (SigModelSubscriptionGet(0x0005, 0x1000), "802905000010"),
    (SigModelSubscriptionList(SUCCESS, 0x0005, 0x1000, ()), "802a0005000010"),
    (NodeIdentityGet(0), "80460000"),
    (NodeIdentitySet(0, 1), "8047000001"),
    (NodeIdentityStatus(SUCCESS, 0, 1), "804800000001"),
    (
        SigModelSubscriptionList(SUCCESS, 0x0005, 0x1000, (0xC000, 0xFF00)),
        "802a000500001000c000ff",
    ),
]


@pytest.mark.parametrize(("message", "payload"), ON_AIR)
def test_each_message_has_its_octets_both_ways(message: Message, payload: str) -> None:
    """The payloads seen on the air are encoded octet by octet and decoded to equal messages."""
    octets = bytes.fromhex(payload)
    assert encode_message(message) == octets
    assert type(message).decode_parameters(octets[2:]) == message


@pytest.mark.parametrize(("message", "payload"), ON_AIR[:16])
def test_any_other_length_is_refused(message: Message, payload: str) -> None:
    """Every truncation and one octet too many raise DecodeError."""
    parameters = bytes.fromhex(payload)[2:]
    for other in (*(parameters[:length] for length in range(len(parameters))), parameters + b"\0"):
        with pytest.raises(DecodeError):
            type(message).decode_parameters(other)


@pytest.mark.parametrize(
    "message",
    [
        BeaconStatus(0x100),
        DefaultTtlStatus(-1),
        GattProxyStatus(0x100),
        NetworkTransmitStatus(8, 0),
        NetworkTransmitStatus(0, 0x20),
        RelayStatus(0x100, 0, 0),
        GattProxySet(2),
        NodeIdentityGet(0x1000),
        NodeIdentitySet(0x1000, 0),
        NodeIdentitySet(0, 2),
        NodeIdentityStatus(SUCCESS, 0x1000, 0),
        SigModelSubscriptionGet(0x10000, 0),
        SigModelSubscriptionList(SUCCESS, 0, 0, (0x10000,)),
    ],
)
def test_a_number_that_does_not_fit_is_our_bug(message: Message) -> None:
    """Nothing is cut to its field silently."""
    with pytest.raises(LocalProtocolError):
        message.encode_parameters()


def test_prohibited_values_are_refused() -> None:
    """A switch is 0 or 1; nodes do not answer what is neither."""
    for message, octets in ((GattProxySet, "02"), (NodeIdentitySet, "000002")):
        with pytest.raises(DecodeError, match="must be 0 or 1, got 2"):
            message.decode_parameters(bytes.fromhex(octets))


def test_each_get_and_set_names_its_status() -> None:
    """Questions and Statuses come in pairs, and all of them are listed."""
    pairs: list[tuple[Any, type[Message]]] = [
        (BeaconGet, BeaconStatus),
        (DefaultTtlGet, DefaultTtlStatus),
        (GattProxyGet, GattProxyStatus),
        (NetworkTransmitGet, NetworkTransmitStatus),
        (GattProxySet, GattProxyStatus),
        (NodeIdentityGet, NodeIdentityStatus),
        (NodeIdentitySet, NodeIdentityStatus),
        (RelayGet, RelayStatus),
        (SigModelSubscriptionGet, SigModelSubscriptionList),
    ]
    for asked, status in pairs:
        assert asked.STATUS is status
    assert {message for pair in pairs for message in pair} == set(MESSAGES)
