"""Fixtures of the tests that run in the guest: one bluetoothd and one adapter for all of them."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

IN_GUEST = "FASTPROVD_GUEST" in os.environ
# Elsewhere there is neither a bluetoothd to kill nor what these modules import.
collect_ignore_glob = [] if IN_GUEST else ["test_*.py"]

if IN_GUEST:
    pytest.register_assert_rewrite("tests.support.door_contract")

    from fastprovd.emulator.virtual_time import VirtualTimeLoop
    from tests.system.bluez import Bluetoothd, BlueZ
    from tests.system.guest_door import GuestDoor
    from tests.system.virtual_adapter import VirtualAdapter, virtual_adapter

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], VirtualTimeLoop]]:
        """Let the boards have the timers they rely on: those for one moment fire in order."""
        return {"real_time": lambda: VirtualTimeLoop(speed=1.0)}

    @pytest.fixture(scope="session")
    def numbers() -> Iterator[int]:
        """Numbers of boards: no test meets a board that BlueZ knows from another one."""
        return itertools.count(1)

    @pytest_asyncio.fixture(scope="session")
    async def bluetoothd() -> AsyncIterator[Bluetoothd]:
        """The running daemon."""
        daemon = Bluetoothd()
        daemon.start()
        yield daemon
        await daemon.end(signal.SIGTERM)

    @pytest_asyncio.fixture(scope="session")
    async def controller(bluetoothd: Bluetoothd) -> AsyncIterator[VirtualAdapter]:
        """The adapter that the guest's kernel sees."""
        async with virtual_adapter() as controller:
            yield controller

    @pytest_asyncio.fixture
    async def door(
        bluetoothd: Bluetoothd, controller: VirtualAdapter, numbers: Iterator[int]
    ) -> AsyncIterator[GuestDoor]:
        """Boards on an air of the test's own, and BlueZ with an adapter that is ready."""
        async with BlueZ() as bluez:
            await bluez.powered_adapter()
            door = GuestDoor(bluetoothd, bluez, controller, numbers)
            yield door
            door.clear()
