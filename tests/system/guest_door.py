"""The door through the real bluetoothd and kernel."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

from fastprovd.emulator.duplicate_filter import DuplicateFilter
from tests.support.bluez_client import PATIENCE_S, BluezClient
from tests.support.door import Door, Need
from tests.system.program import Program

if TYPE_CHECKING:
    from tests.system.virtual_adapter import ScanCommand, VirtualAdapter

_POLL_S: Final = 0.05


class GuestDoor(Door):
    """`async with` it: what a test has ended runs again afterwards."""

    lacks = {Need.SCRIPT: "the real BlueZ can not be told what to do, or when"}  # noqa: RUF012
    patience = 3.0  # one processor without hardware virtualisation does everything

    def __init__(
        self, bus: Program, bluetoothd: Program, controller: VirtualAdapter, numbers: Iterator[int]
    ) -> None:
        super().__init__(numbers, interval_s=0.1)
        self._bus = bus
        self._bluetoothd = bluetoothd
        self._bluez = BluezClient()
        self._controller = controller
        controller.join(self.port)

    async def __aenter__(self) -> Self:
        await self._bluez.__aenter__()
        self._adapter = await self._bluez.powered_adapter()
        self.adapter_name = self._adapter.rpartition("/")[2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.clear()
        self._controller.duplicate_filter = DuplicateFilter.BY_ADDRESS
        self._controller.max_links = None
        await self._bluez.__aexit__()
        if not self._bus.is_running:
            await self._bluetoothd.end(signal.SIGKILL)
            self._bus.start()
        if not self._bluetoothd.is_running:
            self._bluetoothd.start()

    def set_quirks(self, **quirks: bool) -> None:
        """Leave BlueZ as it is."""

    @property
    def scan_commands(self) -> Sequence[ScanCommand]:
        """What the kernel has asked of the controller since the guest began."""
        return self._controller.scan_commands

    def filter_duplicates(self, kind: DuplicateFilter) -> None:
        """Tell the controller."""
        self._controller.duplicate_filter = kind

    def limit_links(self, links: int | None, code: int = 0x09) -> None:
        """Tell the controller."""
        self._controller.max_links = links
        self._controller.refusal = code

    @property
    def refused(self) -> int:
        """Ask the controller."""
        return self._controller.refused

    async def is_discovering(self) -> bool:
        """Ask BlueZ."""
        return await self._bluez.is_on(self._adapter, "Discovering")

    async def links(self) -> set[str]:
        """Ask BlueZ; it does not tell of a link that is being opened."""
        return await self._bluez.connected_devices()

    @asynccontextmanager
    async def scanning_elsewhere(self) -> AsyncIterator[None]:
        """Let another client of BlueZ discover meanwhile."""
        async with BluezClient() as other:
            await other.start_discovery(self._adapter)
            yield

    async def switch_adapter(self, *, on: bool) -> None:
        """Ask BlueZ, which may be busy, until it is so."""
        await self._bluez.power(self._adapter, on=on)
        async with asyncio.timeout(PATIENCE_S):
            while await self._bluez.is_on(self._adapter, "Powered") != on:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)

    async def end_bluetoothd(self, number: signal.Signals) -> None:
        """Send it a signal and wait until it is gone."""
        await self._bluetoothd.end(number)

    async def start_bluetoothd(self) -> None:
        """Start it and wait for a powered adapter."""
        self._bluetoothd.start()
        self._adapter = await self._bluez.powered_adapter()

    async def kill_bus(self) -> None:
        """Kill the system bus; bluetoothd ends by itself."""
        await self._bus.end(signal.SIGKILL)
