"""What a broker bears, and what we bear: the limits that CONNECT and CONNACK of MQTT 5 state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fastprovd.publish.messages import Message
from fastprovd.publish.wire import MAX_PACKET_OCTETS, encode_length

RECEIVE_MAXIMUM: Final = 20  # what the broker may send us unacknowledged; requests are rare


@dataclass(frozen=True, slots=True)
class Limits:
    """What a broker says in CONNACK that it bears (MQTT 5.0 §3.2.2.3); nothing with 3.1.1."""

    maximum_packet_octets: int | None = None
    receive_maximum: int = 65_535
    maximum_qos: int = 2
    has_retain: bool = True
    has_wildcards: bool = True
    server_keepalive_s: int | None = None

    @classmethod
    def of(cls, properties: Properties | None) -> Limits:
        """Read the properties of a CONNACK; what is not in it has its default."""

        def value(name: str, default: Any) -> Any:
            return getattr(properties, name, default)

        return cls(
            value("MaximumPacketSize", None),
            max(1, value("ReceiveMaximum", 65_535)),
            value("MaximumQoS", 2),
            bool(value("RetainAvailable", 1)),
            bool(value("WildcardSubscriptionAvailable", 1)),
            value("ServerKeepAlive", None),
        )


def packet_octets(message: Message, properties: Properties | None = None) -> int:
    """Return how long the PUBLISH of MQTT 5 with QoS 1 is (MQTT 5.0 §3.3)."""
    length = 2 + len(message.topic.encode()) + 2 + len(message.payload)
    length += 1 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
    return 1 + len(encode_length(length)) + length


def our_limits() -> Properties:
    """Return the properties of our CONNECT: what the broker may send us."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_PACKET_OCTETS
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    return properties
