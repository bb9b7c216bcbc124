"""What the broker states it bears is read, and what we send is measured as it will be sent."""

from __future__ import annotations

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fastprovd.publish.client import correlation
from fastprovd.publish.limits import Limits, our_limits, packet_octets
from fastprovd.publish.messages import Message


def test_a_connack_that_says_nothing_allows_everything() -> None:
    """Absent properties have their defaults, with 3.1.1 too."""
    assert Limits.of(Properties(PacketTypes.CONNACK)) == Limits.of(None) == Limits()


def test_what_a_connack_says_is_read() -> None:
    """Each property has its place."""
    properties = Properties(PacketTypes.CONNACK)
    properties.MaximumPacketSize = 20_000
    properties.ReceiveMaximum = 3
    properties.MaximumQoS = 0
    properties.RetainAvailable = 0
    properties.WildcardSubscriptionAvailable = 0
    properties.ServerKeepAlive = 0
    assert Limits.of(properties) == Limits(20_000, 3, 0, False, False, 0)


@pytest.mark.parametrize("payload", [0, 100, 120, 16_370, 16_384, 300_000])
@pytest.mark.parametrize("correlation_data", [None, b"", b"x" * 200])
def test_a_packet_is_measured_as_paho_writes_it(
    payload: int, correlation_data: bytes | None
) -> None:
    """To the octet: one too many costs the connection."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client._sock = object()  # type: ignore[assignment]
    client.on_socket_register_write = lambda *_: None
    properties = correlation(correlation_data)
    message = Message("fastprovd/gw1/übung", bytes(payload), retain=True)
    client.publish(message.topic, message.payload, 1, True, properties)
    written = client._out_packet[0]["packet"]
    client._sock = None
    assert packet_octets(message, properties) == len(written)


def test_our_own_limits_are_small() -> None:
    """A broker with MQTT 5 sends nothing that is longer than any honest request."""
    assert our_limits().MaximumPacketSize == 131_072
    assert our_limits().ReceiveMaximum == 20
