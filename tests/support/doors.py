"""The doors to the emulated boards that need no machine of their own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from bleak import BleakScanner

from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez import Bluetoothd
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.emulator.private_bus import PrivateBus
from tests.support.bluez_client import BluezClient
from tests.support.door import Door, Need, now

__all__ = ["Bench", "DbusDoor", "InProcessDoor", "bench", "now"]


class Bench(Door):
    """What both doors of the emulated BlueZ have in common; `bus` is None in process."""

    bus: PrivateBus | None = None

    def __init__(self) -> None:
        super().__init__()
        self.adapter = EmulatedAdapter(self.port)
        self.adapter_name = self.adapter.name

    @property
    def bluetoothd(self) -> Bluetoothd:
        """The daemon."""
        raise NotImplementedError(self.lacks[Need.DAEMON])

    def filter_duplicates(self, kind: DuplicateFilter) -> None:
        """Tell the adapter."""
        self.adapter.quirks = replace(self.adapter.quirks, duplicate_filter=kind)

    def limit_links(self, links: int | None, code: int = 0x09) -> None:
        """Tell the adapter; BlueZ makes no difference between the codes."""
        self.adapter.max_links = links

    @property
    def refused(self) -> int:
        """Ask the adapter."""
        return self.adapter.refused

    async def is_discovering(self) -> bool:
        """Ask the adapter."""
        return self.adapter.discovering

    async def links(self) -> set[str]:
        """Ask the adapter."""
        return set(self.adapter.linked)

    async def switch_adapter(self, *, on: bool) -> None:
        """Power the adapter; it tells at once, links take a moment."""
        self.adapter.power(on=on)
        await asyncio.sleep(self.adapter.timing.power_off_s[1])

    async def end_bluetoothd(self, number: signal.Signals) -> None:
        """End it as that signal does."""
        await (self.bluetoothd.kill() if number is signal.SIGKILL else self.bluetoothd.terminate())

    async def start_bluetoothd(self) -> None:
        """Start it; the real one needs half a second at the least."""
        await self.bluetoothd.start()
        await asyncio.sleep(0.5)

    async def kill_bus(self) -> None:
        """Kill the private bus."""
        assert self.bus is not None, self.lacks[Need.BUS]
        self.bus.kill()


class InProcessDoor(Bench):
    """Backend classes for bleak."""

    lacks = {  # noqa: RUF012 - it is one for all
        Need.BUS: "bleak's backend is replaced, and the bus with it",
        Need.DAEMON: "bleak's backend is replaced, and with it what bluetoothd would answer",
    }

    def __init__(self) -> None:
        super().__init__()
        self.scanner_backend = scanner_backend(self.adapter)
        self.client_backend = client_backend(self.adapter)

    @asynccontextmanager
    async def scanning_elsewhere(self) -> AsyncIterator[None]:
        """Let somebody else discover at the same adapter."""
        async with BleakScanner(backend=scanner_backend(self.adapter, "another program")):
            yield


class DbusDoor(Bench):
    """An `org.bluez` on a private bus, for bleak's own BlueZ backend."""

    def __init__(self, bus: PrivateBus) -> None:
        super().__init__()
        self.bus = bus
        self._bluetoothd = Bluetoothd(self.adapter, bus.address)

    @property
    def bluetoothd(self) -> Bluetoothd:
        """The emulated one."""
        return self._bluetoothd

    @asynccontextmanager
    async def scanning_elsewhere(self) -> AsyncIterator[None]:
        """Let another client of BlueZ discover meanwhile."""
        async with BluezClient() as other:
            await other.start_discovery(f"/org/bluez/{self.adapter_name}")
            yield


@asynccontextmanager
async def bench(bus: PrivateBus | None, boards: int = 1) -> AsyncIterator[Bench]:
    """Open the D-Bus door on `bus`, or the one in process, with fakes behind it."""
    async with AsyncExitStack() as stack:
        opened: Bench
        if bus is None:
            opened = InProcessDoor()
        else:
            opened = DbusDoor(bus)
            await stack.enter_async_context(opened.bluetoothd)
        opened.place_fakes(boards)
        yield opened
        opened.clear()
