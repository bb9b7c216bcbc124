"""Messages that the broker does not take: found out, set aside, so that they block no other; pure.

A broker may refuse a message with a reason code. It may also just hang up: with MQTT 3.1.1 that
is all it can do. Then what was on its way is suspect, and is sent alone on the next link. What
was alone when a link ended for the second time, on a link on which the broker took others, is set
aside. Where it was longer than all that was taken, its length may be the reason: shorter ones are
made then, half as long each time, and two such set everything aside that is as long. Else it is
its topic, which two of them set aside. All of it is tried again some time later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastprovd.publish.messages import Message

MAX_SUSPECTS: Final = 1_000  # far more than one link has in flight; older ones are forgotten
ENOUGH: Final = 2  # one may be chance: a link that broke while it was sent
SAFE_PACKET_OCTETS: Final = 8_192  # what is tried first; brokers on small machines take less
FORGIVEN_AFTER_S: Final = 3600.0  # each trial costs two links, and the broker may be mended


class Delivery:
    """Who is suspect and who is set aside; lives as long as the publisher, across links."""

    def __init__(self) -> None:
        self._longest_taken = 0
        self.forgive()

    def forgive(self) -> None:
        """Try everything again: the broker may be another one by now."""
        self._suspects: dict[Message, None] = {}
        self._aside: set[Message] = set()
        self._topics: dict[str, int] = {}
        self._long: list[int] = []
        self._since = 0.0

    def is_suspect(self, message: Message) -> bool:
        """Tell whether a message has to be alone on its way."""
        is_long = bool(self._long) and _octets(message) > self._longest_taken
        return is_long or message in self._suspects or message.topic in self._topics

    def is_aside(self, message: Message, now: float) -> bool:
        """Tell whether the broker hangs up on a message, by all that is known of it."""
        if self._aside and now - self._since >= FORGIVEN_AFTER_S:
            self.forgive()
        return (
            message in self._aside
            or self._topics.get(message.topic, 0) >= ENOUGH
            or (len(self._long) >= ENOUGH and _octets(message) >= min(self._long))
        )

    @property
    def safe_packet_octets(self) -> int | None:
        """How long a packet is that the broker may well take, once it hung up on a longer one."""
        if not self._long:
            return None
        return max(min(SAFE_PACKET_OCTETS, min(self._long) // 2), self._longest_taken)

    def taken(self, message: Message) -> None:
        """The broker acknowledged a message."""
        self._suspects.pop(message, None)
        self._topics.pop(message.topic, None)
        self._longest_taken = max(self._longest_taken, _octets(message))
        self._long = [octets for octets in self._long if octets > self._longest_taken]

    def link_ended(
        self, unacknowledged: Sequence[Message], others_taken: int, now: float
    ) -> Message | None:
        """A link ended while these were on their way; return the one set aside for it, if any.

        `others_taken`: how many others the broker acknowledged on that link. A broker that takes
        nothing is no reason to set anything aside.
        """
        if len(unacknowledged) == 1 and others_taken and self.is_suspect(unacknowledged[0]):
            (message,) = unacknowledged
            self._set_aside(message, now)
            return message
        self._suspects |= dict.fromkeys(unacknowledged)
        for message in list(self._suspects)[:-MAX_SUSPECTS]:
            del self._suspects[message]
        return None

    def _set_aside(self, message: Message, now: float) -> None:
        if not self._aside:
            self._since = now
        self._suspects.pop(message, None)
        self._aside.add(message)
        if _octets(message) > self._longest_taken:
            self._long.append(_octets(message))
        else:
            self._topics[message.topic] = self._topics.get(message.topic, 0) + 1


def _octets(message: Message) -> int:
    return len(message.topic.encode()) + len(message.payload)
