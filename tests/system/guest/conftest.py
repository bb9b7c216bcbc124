"""Fixtures of the tests that run in the guest: one loop, bluetoothd and adapter for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

# BlueZ hangs up 2 s after it was asked to, and ends the scan of a program that left within one.
SETTLE_S = 15.0
# For what the kernel does after that.
SETTLED_S = 0.3

IN_GUEST = "FASTPROVD_GUEST" in os.environ
# Elsewhere there is neither a bluetoothd to kill nor what these modules import.
collect_ignore_glob = [] if IN_GUEST else ["test_*.py"]

if IN_GUEST:
    pytest.register_assert_rewrite("tests.support.contract")

    from fastprovd.emulator.virtual_time import VirtualTimeLoop
    from tests.support.door import RunOnDoor
    from tests.support.paced import close_bleak
    from tests.system.guest_door import GuestDoor
    from tests.system.program import bluetoothd, system_bus
    from tests.system.virtual_adapter import virtual_adapter

    async def settle(door: GuestDoor) -> None:
        """Let BlueZ and kernel end what a test began: a connect meanwhile may be aborted."""
        # What does not end shows in the next test; after the end of the bus nothing is left.
        with contextlib.suppress(TimeoutError, OSError, EOFError):
            async with asyncio.timeout(SETTLE_S):
                while await door.is_discovering() or await door.links():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLED_S)

    class _Runner:
        """Opens the door for one test after the other."""

        door = GuestDoor

        def __init__(self) -> None:
            # The boards have the timers they rely on: those for one moment fire in order.
            self._runner = asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(speed=1.0))
            self._stack = AsyncExitStack()
            self._bus, self._bluetoothd = system_bus(), bluetoothd()
            # No test meets a board that BlueZ knows from another one.
            self._numbers = itertools.count(1)

        def start(self) -> None:
            self._bus.start()
            self._bluetoothd.start()
            self._controller = self._runner.run(self._stack.enter_async_context(virtual_adapter()))

        def __call__(self, scenario: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
            async def main() -> None:
                door = GuestDoor(self._bus, self._bluetoothd, self._controller, self._numbers)
                ours = asyncio.all_tasks()
                async with door:
                    try:
                        await scenario(door)
                    finally:
                        # What a failed test has begun is not for the next one.
                        left = asyncio.all_tasks() - ours
                        for task in left:
                            task.cancel()
                        await asyncio.gather(*left, return_exceptions=True)
                        await close_bleak()
                        await settle(door)

            self._runner.run(main())

        def end(self) -> None:
            async def main() -> None:
                await self._stack.aclose()
                await self._bluetoothd.end(signal.SIGTERM)
                await self._bus.end(signal.SIGTERM)

            with self._runner:
                self._runner.run(main())

    @pytest.fixture(scope="session")
    def run_on_door() -> Iterator[RunOnDoor]:
        """Run a test before the real bluetoothd."""
        runner = _Runner()
        runner.start()
        yield runner
        runner.end()
