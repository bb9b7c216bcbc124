"""The contract of all doors, at the two that need no machine of their own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastprovd.emulator.private_bus import PrivateBus
from tests.support.contract import DoorContract
from tests.support.door import Door, RunOnDoor
from tests.support.doors import DbusDoor, InProcessDoor, bench

Run = Callable[[Coroutine[Any, Any, None]], None]


class _Runner:
    def __init__(self, door: type[Door], bus: PrivateBus | None, run: Run) -> None:
        self.door = door
        self._bus = bus
        self._run = run

    def __call__(self, scenario: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with bench(self._bus, boards=0) as door:
                await scenario(door)

        self._run(main())


class TestInProcess(DoorContract):
    """In emulated time."""

    @pytest.fixture
    def run_on_door(self, run_virtual: Run) -> RunOnDoor:
        """Open the door in process."""
        return _Runner(InProcessDoor, None, run_virtual)


class TestDbus(DoorContract):
    """In emulated time that waits for the bus."""

    @pytest.fixture
    def run_on_door(self, private_bus: PrivateBus, run_paced: Run) -> RunOnDoor:
        """Open the door on a private bus."""
        return _Runner(DbusDoor, private_bus, run_paced)
