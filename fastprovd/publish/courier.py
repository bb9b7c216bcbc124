"""Brings messages to the broker, and keeps the account of those that it does not take."""

from __future__ import annotations

from typing import Final

import structlog
from paho.mqtt.reasoncodes import ReasonCode

from fastprovd.clock import Clock
from fastprovd.publish.client import PACKET_TOO_LARGE, Client, is_failure
from fastprovd.publish.delivery import Delivery
from fastprovd.publish.failures import may_be_the_message
from fastprovd.publish.fitting import fitted
from fastprovd.publish.limits import packet_octets
from fastprovd.publish.messages import Message

log = structlog.get_logger(__name__)

UPKEEP_S: Final = 60.0  # people who correct an ACL wait this long to see that it helped
MAX_NAMED: Final = 10  # topics not taken that are named in the log; the others are counted

_DENIED_ADVICE: Final = (
    "allow the topic in the broker's ACL, without a restart; until then its messages are given up"
)
_TOO_LARGE_ADVICE: Final = (
    "raise the broker's limit for the length of packets (mosquitto: max_packet_size)"
)
_HUNG_UP: Final = "the broker hung up on it twice"
_HANGS_UP_ADVICE: Final = (
    "raise the broker's limit for the length of packets (mosquitto: max_packet_size), or allow the "
    "topic in its ACL; it is tried again after an hour, or when a good connection was lost"
)


class Courier:
    """Lives as long as the publisher, across connections.

    `set_aside` counts messages that the broker did not take. `refused` are retained topics whose
    newest value it refused with a reason code: it may come to allow them.
    """

    def __init__(self, clock: Clock) -> None:
        self.set_aside = 0
        self.refused: dict[str, None] = {}
        self._clock = clock
        self._delivery = Delivery()
        self._named: dict[str, float] = {}  # topics said not to be taken, and when
        self._shortened: set[str] = set()  # retained topics said not to be whole
        self._at_broker: dict[str, bytes] = {}  # retained values that this connection has brought

    def link_begins(self) -> None:
        """A connection is tried: its broker may know nothing."""
        self._at_broker.clear()

    def link_ended(self, error: BaseException, *, lasted: bool) -> bool:
        """Draw what there is to learn from the end; return whether a message was the cause."""
        if lasted:
            self._delivery.forgive()
        if not may_be_the_message(error):
            return False
        now = self._clock.monotonic()
        culprit = self._delivery.link_ended(error.unacknowledged, error.acknowledged, now)
        return culprit is not None

    def is_at_broker(self, message: Message) -> bool:
        """Tell whether a retained value was brought on this connection already."""
        return message.retain and self._at_broker.get(message.topic) == message.payload

    def max_packet_size(self, client: Client) -> int | None:
        """Return how long a packet may be: what the broker says, or what it was seen to take."""
        known = (client.limits.maximum_packet_octets, self._delivery.safe_packet_octets)
        return min((octets for octets in known if octets is not None), default=None)

    async def publish(self, client: Client, message: Message) -> ReasonCode:
        """Publish and return the reason code; what the broker does not take is given up.

        What is longer than a packet may be is shortened if that can be.

        Raises:
            aiomqtt.MqttError: not connected, or no PUBACK in time.
        """
        whole, message = message, self._fitted(message, self._delivery.safe_packet_octets)
        if self._delivery.is_aside(message, self._clock.monotonic()):
            self._give_up(message, _HUNG_UP, _HANGS_UP_ADVICE)
            return PACKET_TOO_LARGE
        if self._delivery.is_suspect(message):
            code = await client.publish_acknowledged(message, alone=True)
        else:
            code = await client.publish_acknowledged(message)
        if code is PACKET_TOO_LARGE:
            fitting = self._fitted(message, client.limits.maximum_packet_octets)
            if fitting is not message:
                code, message = await client.publish_acknowledged(fitting), fitting
        if message.retain:
            self._at_broker[message.topic] = whole.payload
        if code is PACKET_TOO_LARGE:
            limit = client.limits.maximum_packet_octets
            reason = f"{packet_octets(message)} octets, the broker takes packets of {limit}"
            self._give_up(message, reason, _TOO_LARGE_ADVICE)
        elif is_failure(code):
            if message.retain:
                self.refused[message.topic] = None
            self._give_up(message, str(code), _DENIED_ADVICE)
        else:
            self._taken(message)
        return code

    def _fitted(self, message: Message, limit: int | None) -> Message:
        """Return what of a message a packet holds, and say once per topic that it is not all."""
        short = fitted(message, limit)
        if short is not message and message.retain and message.topic not in self._shortened:
            self._shortened.add(message.topic)
            log.warning(
                "mqtt_payload_shortened",
                topic=message.topic,
                octets=len(message.payload),
                max_packet_size=limit,
                advice="read the topics of single nodes, or pages with nodes/get and groups/get; "
                "or raise the broker's limit (mosquitto: max_packet_size)",
            )
        return short

    def _taken(self, message: Message) -> None:
        self._delivery.taken(message)
        self.refused.pop(message.topic, None)
        named_at = self._named.get(message.topic)
        # Not at once, or a broker that takes every other message would fill the log.
        if named_at is not None and self._clock.monotonic() - named_at >= UPKEEP_S:
            del self._named[message.topic]
            log.info("mqtt_publish_allowed", topic=message.topic)

    def _give_up(self, message: Message, reason: str, advice: str) -> None:
        """Count a message that the broker does not take, and say so once per topic."""
        self.set_aside += 1
        if message.topic in self._named or len(self._named) > MAX_NAMED:
            return
        self._named[message.topic] = self._clock.monotonic()
        if len(self._named) > MAX_NAMED:
            log.error("mqtt_more_denied", advice="bridge/info counts them, in mqtt.set_aside")
            return
        log.error("mqtt_publish_denied", topic=message.topic, reason=reason, advice=advice)
