"""What there is to tell: the newest retained values, and events in order, on their way to disk.

What is told goes into memory at once, and from there by a writer into the outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

import structlog

from fastprovd.clock import Clock
from fastprovd.errors import StoreError
from fastprovd.publish.client import finish
from fastprovd.publish.messages import (
    Message,
    Topics,
    event_message,
    groups_message,
    list_to_json,
    node_message,
    nodes_message,
    run_message,
)
from fastprovd.publish.outbox import Outbox
from fastprovd.records import Membership, Node, Run

log = structlog.get_logger(__name__)

IN_FLIGHT_TIMEOUT_S: Final = 1.0  # of a commit, or of publications, that a stop finds under way
MAX_IN_MEMORY: Final = 1_000  # a writer that hangs this long hangs for good
WRITE_RETRY_S: Final = 5.0  # a full disk does not empty itself at once


class News:
    """Takes what happens and never raises; `to_send` is set when the outbox has got something.

    `retained` are the newest values by topic. Its calls belong into one event loop.
    """

    def __init__(self, topics: Topics, outbox: Outbox, clock: Clock) -> None:
        """Go on with the numbers that the outbox keeps; raises StoreError."""
        self.retained: dict[str, Message] = {}
        self.to_send = asyncio.Event()
        self._topics = topics
        self._outbox = outbox
        self._clock = clock
        self._list: dict[str, Any] = {}  # what the newest one says
        self._listed: set[int] = set()  # the addresses in it
        self._seq = outbox.counter("event_seq")
        self._revision = outbox.counter("nodes_revision")
        self._waiting: dict[str | int, Message] = {}  # a retained topic once, at its newest
        self._keys = count()
        self._lost = 0
        self._to_write = asyncio.Event()

    def begin(self) -> None:
        """Tell that there is nothing yet, where nobody has told anything."""
        now = self._clock.utc_now()
        if self._topics.run not in self.retained:
            self.tell(lambda: [run_message(self._topics, None, now)])
        if self._topics.nodes not in self.retained:
            self.nodes_changed([], None)
        if self._topics.groups not in self.retained:
            self.groups_changed([])

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        self.tell(lambda: [run_message(self._topics, run, self._clock.utc_now())])

    def node_changed(self, node: Node) -> None:
        """A node became known, or more is known about it; one that is gone has no topic left."""
        if node.forgotten and node.address not in self._listed:
            self.clear([self._topics.node(node.address)])
        else:
            self.tell(lambda: [node_message(self._topics, node)])

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list may be new; topics of nodes that are not in it any more are cleared.

        A list that says what the last one said is not told again.
        """

        def render() -> list[Message]:
            listed = list_to_json(nodes, run)
            lists = []
            if listed != self._list:
                self._revision += 1
                self._list = listed
                self._listed = {node.address for node in nodes}
                now = self._clock.utc_now()
                lists.append(nodes_message(self._topics, nodes, run, self._revision, now))
            singles = [node_message(self._topics, node) for node in nodes]
            present = {message.topic for message in singles}
            prefix = self._topics.nodes_prefix
            gone = [
                _clearing(topic)
                for topic in self.retained
                if topic.startswith(prefix) and topic not in present
            ]
            return [
                *lists,
                *(single for single in singles if self.retained.get(single.topic) != single),
                *gone,
            ]

        self.tell(render)

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group, whole."""
        self.tell(lambda: [groups_message(self._topics, memberships, self._clock.utc_now())])

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened; `data` is JSON-ready."""

        def render() -> list[Message]:
            now = self._clock.utc_now()
            message = event_message(self._topics, self._seq + 1, kind, data, run_id, now)
            self._seq += 1
            return [message]

        self.tell(render)

    def clear(self, topics: Sequence[str]) -> None:
        """The broker shall keep nothing more of these topics."""
        self.tell(lambda: [_clearing(topic) for topic in topics])

    def tell(self, render: Callable[[], list[Message]]) -> None:
        """Take the messages that `render` returns; a failure of it is only logged."""
        try:
            messages = render()
        except Exception:  # the run must go on, whatever it tells us
            log.exception("publication_not_rendered")
            return
        for message in messages:
            self._remember(message)
        self._to_write.set()

    def in_order(self) -> list[Message]:
        """Return the newest retained values, those of the gateway before those of single nodes."""
        topics = self._topics
        first = (topics.info, topics.nodes, topics.groups, topics.run)
        others = [message for topic, message in self.retained.items() if topic not in first]
        return [*(self.retained[topic] for topic in first), *others]

    def take_lost(self) -> int:
        """Return how many events were more than memory holds since the last call."""
        lost, self._lost = self._lost, 0
        return lost

    async def write_forever(self) -> None:
        """Bring what is told into the outbox."""
        failing = False
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            if await self.write(quiet=failing):
                failing = False
            else:
                failing = True
                await asyncio.sleep(WRITE_RETRY_S)
                self._to_write.set()

    async def write(self, *, quiet: bool = False) -> bool:
        """Bring what waits into the outbox; return whether it took it."""
        batch, self._waiting = self._waiting, {}
        counters = {"event_seq": self._seq, "nodes_revision": self._revision}
        try:
            writing = asyncio.to_thread(self._outbox.put_all, list(batch.values()), counters)
            await finish(writing, IN_FLIGHT_TIMEOUT_S)
        except StoreError as error:
            report = log.debug if quiet else log.error
            report("outbox_not_written", reason=str(error))
            self._waiting = batch | self._waiting
            return False
        self.to_send.set()
        return True

    def _remember(self, message: Message) -> None:
        if message.retain:
            self._waiting.pop(message.topic, None)
            self._waiting[message.topic] = message
            self.retained[message.topic] = message
            if not message.payload:
                del self.retained[message.topic]
            return
        self._waiting[next(self._keys)] = message
        if len(self._waiting) > MAX_IN_MEMORY:
            events = [key for key in self._waiting if isinstance(key, int)]
            if len(events) > MAX_IN_MEMORY:
                del self._waiting[events[0]]
                self._lost += 1


def _clearing(topic: str) -> Message:
    """Return what makes a broker forget the retained value of a topic."""
    return Message(topic, b"", retain=True)
