"""What earlier lives left at the broker is found, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from fastprovd.publish.client import Client
from fastprovd.publish.leftovers import LIMIT_S, QUIET_S, Leftovers
from fastprovd.publish.messages import Topics
from tests.conftest import RunVirtual

TOPICS = Topics("fastprovd/gw1")


def kept(topic: str, payload: bytes = b"{}", *, retain: bool = True) -> aiomqtt.Message:
    """Return a message as the broker sends it."""
    return aiomqtt.Message(topic, payload, 0, retain, 0, None)


class Broker:
    """Sends what it has kept to whoever subscribes, each some seconds after the one before."""

    def __init__(
        self,
        saw: Callable[[aiomqtt.Message], None],
        messages: Sequence[aiomqtt.Message],
        pause_s: float = 0.0,
        code: str = "Granted QoS 0",
    ) -> None:
        self.filters: list[str] = []
        self.failure: Exception | None = None
        self._saw = saw
        self._messages = messages
        self._pause_s = pause_s
        self._code = code
        self._task: asyncio.Task[None] | None = None

    async def subscribe_retained(self, topic_filter: str) -> ReasonCode:
        """Grant, and send."""
        if self.failure is not None:
            raise self.failure
        code = ReasonCode(PacketTypes.SUBACK, self._code)
        if not code.is_failure:
            self.filters.append(topic_filter)
            self._task = asyncio.create_task(self._send())
        return code

    async def unsubscribe(self, topic_filter: str) -> None:
        """Send no more."""
        self.filters.remove(topic_filter)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _send(self) -> None:
        for message in self._messages:
            await asyncio.sleep(self._pause_s)
            self._saw(message)


def look(run_virtual: RunVirtual[Any], broker: Callable[[Leftovers], Broker]) -> Any:
    """Look once; return what was found, the leftovers, the broker, and how long it took."""

    async def main() -> Any:
        leftovers = Leftovers(TOPICS)
        there = broker(leftovers)
        before = asyncio.get_running_loop().time()
        found = await leftovers.look(cast(Client, there))
        return found, leftovers, there, asyncio.get_running_loop().time() - before

    return run_virtual(main())


def test_what_the_broker_kept_is_found(run_virtual: RunVirtual[Any]) -> None:
    """The topics of nodes, whoever of us left them; soon after the last one it is over."""
    messages = [kept("fastprovd/gw1/node/0x0002"), kept("fastprovd/gw1/node/0x010c")]
    found, leftovers, broker, took_s = look(run_virtual, lambda it: Broker(it.saw, messages, 1.0))
    assert found == {"fastprovd/gw1/node/0x0002", "fastprovd/gw1/node/0x010c"}
    assert not leftovers.is_to_look
    assert broker.filters == []
    assert took_s == pytest.approx(2.0 + QUIET_S)


@pytest.mark.parametrize(
    "message",
    [
        kept("fastprovd/gw2/node/0x0002"),
        kept("fastprovd/gw1/node/lamp"),
        kept("fastprovd/gw1/node/0x0002/extra"),
        kept("fastprovd/gw1/node/0X0002"),
        kept("fastprovd/gw1/bridge/nodes"),
        kept("fastprovd/gw1/node/0x0002", b""),
        kept("fastprovd/gw1/node/0x0002", retain=False),
    ],
)
def test_what_is_not_ours_is_left_alone(
    run_virtual: RunVirtual[Any], message: aiomqtt.Message
) -> None:
    """Another gateway's, what we never publish, and what comes now."""
    found, *_ = look(run_virtual, lambda it: Broker(it.saw, [message]))
    assert found == set()


def test_it_ends_although_more_comes(run_virtual: RunVirtual[Any]) -> None:
    """A slow link, or somebody who publishes on and on: it is bounded, and is done again."""
    messages = [kept("fastprovd/gw1/node/0x0002")] * 1_000
    found, leftovers, _, took_s = look(run_virtual, lambda it: Broker(it.saw, messages, 1.0))
    assert found
    assert leftovers.is_to_look
    assert LIMIT_S <= took_s <= LIMIT_S + QUIET_S


def test_a_broker_that_refuses_is_asked_once(run_virtual: RunVirtual[Any]) -> None:
    """No right to read, or a link that is ended for it, must not end each link again."""
    found, leftovers, *_ = look(run_virtual, lambda it: Broker(it.saw, [], code="Not authorized"))
    assert (found, leftovers.is_to_look) == (set(), False)

    def broken(leftovers: Leftovers) -> Broker:
        broker = Broker(leftovers.saw, [])
        broker.failure = aiomqtt.MqttError("gone")
        return broker

    found, leftovers, *_ = look(run_virtual, broken)
    assert (found, leftovers.is_to_look) == (set(), False)


async def test_nothing_is_noted_before_and_after() -> None:
    """Only while it looks does what comes count."""
    leftovers = Leftovers(TOPICS)
    leftovers.saw(kept("fastprovd/gw1/node/0x0009"))
    assert await leftovers.look(cast(Client, Broker(leftovers.saw, []))) == set()
