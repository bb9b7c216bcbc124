"""Retained topics of nodes that earlier lives and earlier networks of this gateway have left."""

from __future__ import annotations

import asyncio
from typing import Final

import aiomqtt
import structlog

from fastprovd.publish.client import Client, is_failure
from fastprovd.publish.messages import Topics

log = structlog.get_logger(__name__)

QUIET_S: Final = 2.0  # a broker sends what it has retained at once; many times a slow link's delay
LIMIT_S: Final = 30.0  # the topics of 300 nodes are 150 kB, which the slowest link takes in that


class Leftovers:
    """Asks the broker which topics of nodes it keeps, once; lives as long as the publisher."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._found: set[str] = set()
        self._is_looking = False
        self._heard = asyncio.Event()
        self.is_to_look = True

    def saw(self, message: aiomqtt.Message) -> None:
        """Note a message if the broker kept it below one of our topics for nodes."""
        topic = message.topic.value
        if (
            self._is_looking
            and message.retain
            and message.payload
            and self._topics.node_address(topic) is not None
        ):
            self._found.add(topic)
            self._heard.set()

    async def look(self, client: Client) -> set[str]:
        """Return the topics of nodes that the broker keeps; ours are among them.

        It is not tried again when the broker refuses, or when it fails, as when the link ends.
        """
        self.is_to_look = False
        self._found.clear()
        self._is_looking = True
        try:
            code = await client.subscribe_retained(self._topics.every_node)
            if is_failure(code):
                log.info("left_topics_not_looked_for", reason=str(code))
                return set()
            self.is_to_look = not await self._until_quiet()
            # What was on its way before the acknowledgment of this one is counted too.
            await client.unsubscribe(self._topics.every_node)
        except Exception as error:  # noqa: BLE001 - to look round is no reason to lose a link
            log.info("left_topics_not_looked_for", reason=repr(error))
        finally:
            self._is_looking = False
        return set(self._found)

    async def _until_quiet(self) -> bool:
        """Wait until nothing more comes; return whether that was so in time."""
        loop = asyncio.get_running_loop()
        late = loop.time() + LIMIT_S
        while loop.time() < late:
            self._heard.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._heard.wait()
            except TimeoutError:
                return True
        return False
