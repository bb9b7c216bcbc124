"""The door through the real bluetoothd and kernel; implements `door_contract.Door`."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from tests.system.bluez import PATIENCE_S, Bluetoothd, BlueZ
from tests.system.virtual_adapter import VirtualAdapter
from tests.system.write_log import LoggingPort

_POLL_S: Final = 0.05


class GuestDoor:
    """Boards of one test on an air of their own."""

    patience = 3.0  # one processor without hardware virtualisation does everything

    def __init__(
        self,
        bluetoothd: Bluetoothd,
        bluez: BlueZ,
        controller: VirtualAdapter,
        numbers: Iterator[int],
    ) -> None:
        self.air = Air(seed=1)
        self._port = LoggingPort(self.air.adapter())
        self._bluetoothd = bluetoothd
        self._bluez = bluez
        self._numbers = numbers
        controller.join(self._port)

    def place_boards(self, count: int, host: Host = Host.BLUEDROID) -> list[Board]:
        """Place boards without flaws; they boot now."""
        return [
            self.air.add_board(
                f"24:0A:C4:5E:{number >> 8:02X}:{number & 0xFF:02X}",
                host=host,
                flaws=Flaws.none(),
            )
            for number in itertools.islice(self._numbers, count)
        ]

    def clear(self) -> None:
        """Take the boards off the air."""
        for board in self.air.boards:
            board.power_off()

    def written(self, board: Board) -> list[tuple[int, bytes]]:
        """Return every write that reached the board: value handle and value."""
        return self._port.written[board.device_address]

    async def switch_adapter(self, *, on: bool) -> None:
        """Power the adapter on or off, and wait until it is so."""
        adapter = await self._bluez.adapter()
        await self._bluez.power(adapter, on=on)
        async with asyncio.timeout(PATIENCE_S):
            while await self._bluez.is_powered(adapter) != on:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_POLL_S)

    async def end_bluetoothd(self, number: signal.Signals) -> None:
        """Send bluetoothd a signal and wait until it is gone."""
        await self._bluetoothd.end(number)

    async def start_bluetoothd(self) -> None:
        """Start it and wait for a powered adapter."""
        self._bluetoothd.start()
        await self._bluez.powered_adapter()

    @asynccontextmanager
    async def scanning_elsewhere(self) -> AsyncIterator[None]:
        """Let another client of BlueZ discover meanwhile."""
        async with BlueZ() as other:
            await other.start_discovery(await self._bluez.adapter())
            yield

    async def connected(self) -> set[str]:
        """Return the BD_ADDRs that BlueZ says are connected."""
        return await self._bluez.connected_devices()
