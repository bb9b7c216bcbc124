"""Publications have their turn in order, and one that asks for it is alone."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fastprovd.publish.window import Window


async def a_turn() -> None:
    """Let everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Queue:
    """Tasks that want in, by name, and who came in so far."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def want(self, *names: str, alone: bool = False) -> None:
        """Ask for a place, one after the other."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._enter(name, alone))
            await a_turn()

    async def _enter(self, name: str, alone: bool) -> None:
        await self.window.enter(alone=alone)
        self.inside.append(name)


async def test_no_more_than_its_size_are_inside() -> None:
    """The next one comes in when one leaves, in the order of asking."""
    queue = Queue(Window(2))
    await queue.want("a", "b", "c", "d")
    assert queue.inside == ["a", "b"]
    queue.window.leave()
    await a_turn()
    assert queue.inside == ["a", "b", "c"]
    queue.window.leave()
    await a_turn()
    assert queue.inside == ["a", "b", "c", "d"]


async def test_who_asks_to_be_alone_is() -> None:
    """It waits until the others left, and those who came later wait for it."""
    queue = Queue(Window(3))
    await queue.want("a", "b")
    await queue.want("alone", alone=True)
    await queue.want("c")
    assert queue.inside == ["a", "b"]
    queue.window.leave()
    await a_turn()
    assert queue.inside == ["a", "b"]
    queue.window.leave()
    await a_turn()
    assert queue.inside == ["a", "b", "alone"]
    queue.window.leave()
    await a_turn()
    assert queue.inside == ["a", "b", "alone", "c"]


async def test_who_gives_up_takes_no_place() -> None:
    """A cancelled one is passed over, also when its turn had just come."""
    queue = Queue(Window(1))
    await queue.want("a", "b", "c", "d")
    queue.tasks["b"].cancel()
    queue.window.leave()
    await a_turn()
    assert queue.inside == ["a", "c"]
    queue.window.leave()
    queue.tasks["d"].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await queue.tasks["d"]
    await queue.want("e")
    assert queue.inside == ["a", "c", "e"]


async def test_a_failure_reaches_everybody() -> None:
    """Those who wait and those who ask later get the failure."""
    queue = Queue(Window(1))
    await queue.want("a", "b")
    queue.window.fail(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await queue.tasks["b"]
    with pytest.raises(ConnectionError):
        await queue.window.enter()
