"""What the outbox holds in memory while the disk takes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count
from typing import Final

from fastprovd.publish.messages import Message

MAX_ROWS: Final = 1_000
MAX_OCTETS: Final = 2**20
# Above every number that the database gives.
_FIRST_ID: Final = 1 << 62


class Spare:
    """Messages in order, under numbers of their own; a retained topic keeps its newest value.

    Past the bounds the oldest messages go, those not retained first; `hold` counts them. `gone`
    are the numbers of messages in the database that could not be deleted there yet.
    """

    def __init__(self) -> None:
        self._ids = count(_FIRST_ID)
        self._octets = 0
        self.messages: dict[int, Message] = {}
        self.counters: dict[str, int] = {}
        self.gone: set[int] = set()

    def hold(self, messages: Iterable[Message]) -> int:
        """Keep messages; return how many had to go for them."""
        for message in messages:
            if message.retain:
                self.delete([i for i, held in self.messages.items() if _is_older(held, message)])
            self.messages[next(self._ids)] = message
            self._octets += _octets(message)
        dropped = 0
        while len(self.messages) > MAX_ROWS or self._octets > MAX_OCTETS:
            oldest = min(self.messages, key=lambda i: (self.messages[i].retain, i))
            self.delete([oldest])
            dropped += 1
        return dropped

    def delete(self, ids: Iterable[int]) -> list[int]:
        """Forget messages; return the numbers that are none of these."""
        others = []
        for entry_id in ids:
            message = self.messages.pop(entry_id, None)
            if message is None:
                others.append(entry_id)
            else:
                self._octets -= _octets(message)
        return others

    def discard_retained(self, topics: Collection[str], up_to: int) -> None:
        """Forget retained values up to number `up_to`."""
        held = self.messages.items()
        self.delete(
            [i for i, message in held if message.retain and message.topic in topics and i <= up_to]
        )

    def last_id(self) -> int:
        """Return the newest number; 0 without any message."""
        return max(self.messages, default=0)

    def clear(self) -> None:
        """Forget all: the database has it."""
        self.delete(list(self.messages))
        self.counters.clear()
        self.gone.clear()


def _is_older(held: Message, message: Message) -> bool:
    return held.retain and held.topic == message.topic


def _octets(message: Message) -> int:
    return len(message.topic.encode()) + len(message.payload)
