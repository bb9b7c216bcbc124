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
    from fastprovd.emulator.air import Air
    from fastprovd.emulator.board import Board
    from fastprovd.emulator.hosts import Flaws, Host
    from tests.system.bluez import Bluetoothd, BlueZ
    from tests.system.virtual_adapter import VirtualAdapter, virtual_adapter

    PlaceBoards = Callable[..., list[Board]]

    @pytest.fixture(scope="session")
    def numbers() -> Iterator[int]:
        """Numbers of boards: no test meets a board that BlueZ knows from another one."""
        return itertools.count(1)

    @pytest_asyncio.fixture(scope="session", loop_scope="session")
    async def bluetoothd() -> AsyncIterator[Bluetoothd]:
        """The running daemon."""
        daemon = Bluetoothd()
        daemon.start()
        yield daemon
        await daemon.end(signal.SIGTERM)

    @pytest_asyncio.fixture(scope="session", loop_scope="session")
    async def controller(bluetoothd: Bluetoothd) -> AsyncIterator[VirtualAdapter]:
        """The adapter that the guest's kernel sees."""
        async with virtual_adapter() as controller:
            yield controller

    @pytest_asyncio.fixture(loop_scope="session")
    async def bluez(controller: VirtualAdapter) -> AsyncIterator[BlueZ]:
        """What BlueZ knows, with an adapter that is ready."""
        async with BlueZ() as bluez:
            await bluez.powered_adapter()
            yield bluez

    @pytest_asyncio.fixture(loop_scope="session")
    async def place_boards(
        controller: VirtualAdapter, bluez: BlueZ, numbers: Iterator[int]
    ) -> AsyncIterator[PlaceBoards]:
        """Place boards without flaws on an air of the test's own; they boot now."""
        air = Air(seed=1)
        controller.join(air.adapter())

        def place(count: int, host: Host = Host.BLUEDROID) -> list[Board]:
            return [
                air.add_board(
                    f"24:0A:C4:5E:{number >> 8:02X}:{number & 0xFF:02X}",
                    host=host,
                    flaws=Flaws.none(),
                )
                for number in itertools.islice(numbers, count)
            ]

        yield place
        for board in air.boards:
            board.power_off()
