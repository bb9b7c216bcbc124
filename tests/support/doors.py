"""The doors to the emulated boards, opened the same way: whatever holds on one holds on all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementDataCallback
from bleak.uuids import normalize_uuid_16
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez import Bluetoothd
from fastprovd.emulator.bluez_adapter import BlueZQuirks, EmulatedAdapter
from fastprovd.emulator.private_bus import PrivateBus
from tests.support.fake_air import FakeAir, FakeBoard

PROVISIONING = normalize_uuid_16(0x1827)
PROXY = normalize_uuid_16(0x1828)
IN = normalize_uuid_16(0x2ADB)
OUT = normalize_uuid_16(0x2ADC)


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Bench:
    """Boards on an air, an adapter, and bleak before the door; `bus` is None in process."""

    boards: list[FakeBoard]
    air: FakeAir
    adapter: EmulatedAdapter
    bus: PrivateBus | None
    _bluetoothd: Bluetoothd | None = None
    lost: list[float] = field(default_factory=list)

    @property
    def board(self) -> FakeBoard:
        return self.boards[0]

    @property
    def bluetoothd(self) -> Bluetoothd:
        assert self._bluetoothd is not None, "only D-Bus has one"
        return self._bluetoothd

    def scanner(
        self,
        detected: AdvertisementDataCallback | None = None,
        *,
        duplicates: bool = True,
        **bluez: Any,
    ) -> BleakScanner:
        return BleakScanner(
            detected,
            bluez={"filters": {"DuplicateData": duplicates}, **bluez},
            backend=None if self.bus else scanner_backend(self.adapter),
        )

    def client(
        self,
        device: BLEDevice | str,
        timeout: float = 5,
    ) -> BleakClient:
        return BleakClient(
            device,
            disconnected_callback=lambda _: self.lost.append(now()),
            timeout=timeout,
            backend=None if self.bus else client_backend(self.adapter),
        )

    async def find(self) -> BLEDevice:
        found = asyncio.Event()

        def detected(device: BLEDevice, advertisement: object) -> None:
            if device.address == self.board.address:
                devices.append(device)
                found.set()

        devices: list[BLEDevice] = []
        async with self.scanner(detected), asyncio.timeout(10):
            await found.wait()
        return devices[-1]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[BleakClient]:
        async with self.client(await self.find()) as client:
            yield client

    @asynccontextmanager
    async def other_program_scans(self) -> AsyncIterator[None]:
        """Let somebody else discover at the same adapter."""
        if self.bus is None:
            async with BleakScanner(backend=scanner_backend(self.adapter, "another program")):
                yield
            return
        bus = await MessageBus(bus_address=self.bus.address).connect()
        try:
            reply = await bus.call(
                Message(
                    destination="org.bluez",
                    path=f"/org/bluez/{self.adapter.name}",
                    interface="org.bluez.Adapter1",
                    member="StartDiscovery",
                )
            )
            assert reply.message_type is MessageType.METHOD_RETURN
            yield
        finally:
            # It leaves without a word; bluetoothd ends its session.
            bus.disconnect()
            await bus.wait_for_disconnect()


@asynccontextmanager
async def bench(
    bus: PrivateBus | None,
    boards: int = 1,
    quirks: BlueZQuirks | None = None,
    prepare: Callable[[FakeBoard], None] = lambda _: None,
) -> AsyncIterator[Bench]:
    """Open the D-Bus door on `bus`, or the one in process."""
    fakes = [FakeBoard(f"24:0A:C4:5E:00:{number:02X}") for number in range(1, boards + 1)]
    for fake in fakes:
        prepare(fake)
    air = FakeAir(*fakes)
    made = Bench(fakes, air, EmulatedAdapter(air, quirks=quirks), bus)
    async with AsyncExitStack() as stack:
        if bus is not None:
            made._bluetoothd = await stack.enter_async_context(
                Bluetoothd(made.adapter, bus.address)
            )
        yield made
