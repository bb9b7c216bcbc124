"""Requests from their arrival to their answer, in bounded memory and with few words.

A message is looked at as it arrives, so that no queue fills unseen: a refusal is there at once,
what is executed has its answer later. Answers wait here until they can be published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiomqtt
import structlog

from fastprovd.publish.client import correlation
from fastprovd.publish.fitting import packet_overhead
from fastprovd.publish.messages import Topics
from fastprovd.publish.reply_topics import is_reply_topic
from fastprovd.publish.requests import Answer, RequestDesk

log = structlog.get_logger(__name__)

MAX_HELD_OCTETS: Final = 16 * 2**20
"""Of answers that wait: some 30,000 refusals, beside the 256 MB of the service unit."""

SENDERS: Final = 8  # half of what may be in flight, so that events get through a flood
_OCTETS_EACH: Final = 512  # what Python needs for one answer beside its octets


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes; `reply_topic` is None where only the plain topic will do."""

    command: str
    reply_topic: str | None
    correlation_data: bytes | None

    @property
    def octets(self) -> int:
        """What it takes to hold it, about."""
        return _OCTETS_EACH + len(self.reply_topic or "") + len(self.correlation_data or b"")


class Intake:
    """Takes requests through a desk; open while a connection lasts."""

    def __init__(self, desk: RequestDesk, topics: Topics, base_topic: str) -> None:
        self._desk = desk
        self._topics = topics
        self._base_topic = base_topic
        self._ready: asyncio.Queue[tuple[Reply, bytes, int]] = asyncio.Queue()
        self._held_octets = 0
        self._dropped = 0
        self._lost = 0
        self._is_open = False

    def open(self) -> None:
        """A connection is there; say what did not get out since the last one."""
        self._is_open = True
        lost, self._lost = self._lost, 0
        if lost:
            log.warning("mqtt_responses_lost", responses=lost, reason="the connection ended")

    def close(self) -> None:
        """The connection is gone, and with it who could be answered."""
        self._is_open = False
        while not self._ready.empty():
            self._release(self._ready.get_nowait()[2])
            self._lost += 1

    def take_dropped(self) -> int:
        """Return how many requests were beyond what can be held since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def take(
        self, message: aiomqtt.Message, *, retain_is_told: bool, max_packet_size: int | None
    ) -> None:
        """Begin to answer a message, if it is a request; never waits.

        `retain_is_told`: the retain flag of a live message is that of its sender (MQTT 5).
        """
        command = self._topics.command(message.topic.value)
        if command is None:
            return
        reply = self._reply(command, message)
        if not self._is_open or self._held_octets + reply.octets > MAX_HELD_OCTETS:
            self._dropped += 1
            return
        max_octets = None
        if max_packet_size is not None:
            topic = max(self._topics.response(command), reply.reply_topic or "", key=len)
            max_octets = max_packet_size - packet_overhead(
                topic, correlation(reply.correlation_data)
            )
        answer = self._desk.begin(
            command,
            message.payload if isinstance(message.payload, bytes) else b"",
            retained=message.retain,
            may_clear=not retain_is_told,
            max_octets=max_octets,
        )
        if isinstance(answer, bytes):
            self._hold(reply, answer, reply.octets + len(answer))
            return
        # The octets of a result are there once, however many have asked for it.
        self._held_octets += reply.octets
        answer.add_done_callback(partial(self._executed, reply))

    async def send_forever(self, send: Callable[[Reply, bytes], Awaitable[None]]) -> None:
        """Publish answers one after the other; several tasks may do it."""
        while True:
            reply, payload, octets = await self._ready.get()
            try:
                await send(reply, payload)
            except BaseException:
                self._lost += 1
                raise
            finally:
                self._release(octets)

    def _reply(self, command: str, message: aiomqtt.Message) -> Reply:
        topic = getattr(message.properties, "ResponseTopic", None)
        if topic is None or not is_reply_topic(topic, self._base_topic):
            return Reply(command, None, None)
        return Reply(command, topic, getattr(message.properties, "CorrelationData", None))

    def _executed(self, reply: Reply, task: asyncio.Task[Answer]) -> None:
        self._release(reply.octets)
        if not task.cancelled():
            self._hold(reply, task.result().payload, reply.octets)

    def _hold(self, reply: Reply, payload: bytes, octets: int) -> None:
        if not self._is_open:
            self._lost += 1
            return
        self._held_octets += octets
        self._ready.put_nowait((reply, payload, octets))

    def _release(self, octets: int) -> None:
        self._held_octets -= octets
