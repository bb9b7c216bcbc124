"""A door: one way from unmodified bleak to boards that are emulated."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeVar

import pytest
from bleak import BleakClient, BleakScanner
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, AdvertisementDataCallback, BaseBleakScanner
from bleak.exc import BleakDBusError

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.air import Air
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.board import Board
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.peripheral import (
    CONNECTION_TIMEOUT,
    AirPort,
    Central,
    PeripheralLink,
    Report,
    Service,
)
from tests.support.fake_air import FakeAir, FakeBoard


def now() -> float:
    """Return the time of the clock that the boards live by."""
    return asyncio.get_running_loop().time()


class Need(Enum):
    """What a test wants of a door, and not every door can give."""

    BUS = "a message bus that can be lost"
    DAEMON = "a bluetoothd that can end"
    SCRIPT = "a BlueZ that does as it is told"


class Door(ABC):
    """Boards of one test, and what bleak needs to reach them; addresses come from `numbers`.

    There are two kinds of boards on its air: fakes, simple enough to see through, and boards with
    the demo firmware. `patience` is how much longer than on a gateway anything may take.
    """

    lacks: ClassVar[Mapping[Need, str]] = {}
    patience: ClassVar[float] = 1.0
    adapter_name: str
    scanner_backend: type[BaseBleakScanner] | None = None
    client_backend: type[BaseBleakClient] | None = None
    adapter: EmulatedAdapter  # for Need.SCRIPT

    def __init__(
        self, numbers: Iterator[int] | None = None, interval_s: float = FakeAir.INTERVAL_S
    ) -> None:
        self.fakes = FakeAir(interval_s=interval_s)
        self.boards: list[FakeBoard] = []
        self.lost: list[float] = []
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._emulated = Air(seed=1)
        self.port: AirPort = _TwoAirs(self.fakes, self._emulated.adapter())

    @property
    def is_real(self) -> bool:
        """Whether the BlueZ behind it is the real one, of one version or another."""
        return Need.SCRIPT in self.lacks

    @property
    def board(self) -> FakeBoard:
        """The first fake."""
        return self.boards[0]

    def place_fakes(self, count: int = 1, base: tuple[Service, ...] = ()) -> list[FakeBoard]:
        """Place fakes that show `base` below their mesh service."""
        placed = [FakeBoard(address, base) for address in self._addresses(count)]
        for board in placed:
            self.fakes.place(board)
        self.boards += placed
        return placed

    def place_boards(self, count: int, host: Host = Host.BLUEDROID) -> list[Board]:
        """Place boards with the demo firmware without flaws; they boot now."""
        return [
            self._emulated.add_board(address, host=host, flaws=Flaws.none())
            for address in self._addresses(count)
        ]

    def clear(self) -> None:
        """Take all boards off the air."""
        for fake in self.boards:
            fake.advertising = False
            fake.hang_up(CONNECTION_TIMEOUT)
        for board in self._emulated.boards:
            board.power_off()

    def _addresses(self, count: int) -> list[str]:
        numbers = itertools.islice(self._numbers, count)
        return [f"24:0A:C4:5E:{number >> 8:02X}:{number & 0xFF:02X}" for number in numbers]

    # bleak before the door

    def scanner(
        self,
        detected: AdvertisementDataCallback | None = None,
        *,
        duplicates: bool = True,
        **bluez: Any,
    ) -> BleakScanner:
        """Return a scanner."""
        return BleakScanner(
            detected,
            bluez={"filters": {"DuplicateData": duplicates}, **bluez},
            backend=self.scanner_backend,
        )

    def client(self, device: BLEDevice | str, timeout: float = 5) -> BleakClient:
        """Return a client; the moments at which it tells of a loss are in `lost`."""
        return BleakClient(
            device,
            disconnected_callback=lambda _: self.lost.append(now()),
            timeout=timeout * self.patience,
            backend=self.client_backend,
        )

    def bearer(self, **options: Any) -> BleakBearer:
        """Return the gateway's own radio."""
        return BleakBearer(
            scanner_backend=self.scanner_backend, client_backend=self.client_backend, **options
        )

    async def find(self, address: str | None = None) -> BLEDevice:
        """Scan until the advertisement of a board was heard, of the first fake by default."""
        wanted = address or self.board.address
        found: asyncio.Future[BLEDevice] = asyncio.get_running_loop().create_future()

        def detected(device: BLEDevice, heard: AdvertisementData) -> None:
            # BlueZ forgets a board of which it heard beacons only.
            if device.address == wanted and heard.service_data and not found.done():
                found.set_result(device)

        # With BlueZ 5.66 the scan of a bluetoothd that crashed goes on for up to 10.24 s, and
        # whoever starts another one meanwhile is told InProgress.
        async with asyncio.timeout(20 * self.patience):
            while True:
                try:
                    async with self.scanner(detected):
                        return await found
                except BleakDBusError as error:
                    if "InProgress" not in str(error):
                        raise
                    await asyncio.sleep(0.5)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[BleakClient]:
        """Find the first fake and connect to it."""
        async with self.client(await self.find()) as client:
            yield client

    async def until(
        self, holds: Callable[[], bool | Awaitable[bool]], limit_s: float = 5.0
    ) -> None:
        """Wait until something holds of which nobody tells."""
        async with asyncio.timeout(limit_s * self.patience):
            while True:
                answer = holds()
                if await answer if inspect.isawaitable(answer) else answer:
                    return
                await asyncio.sleep(0.01 * self.patience)

    # What goes on behind it

    def set_quirks(self, **quirks: bool) -> None:
        """Ask for quirks of BlueZ by the names they have in `BlueZQuirks`."""
        self.adapter.quirks = replace(self.adapter.quirks, **quirks)

    @abstractmethod
    def filter_duplicates(self, kind: DuplicateFilter) -> None:
        """Have the controller filter like that when the kernel asks it to; by default BY_ADDRESS.

        To be called before the first scan.
        """

    @abstractmethod
    def limit_links(self, links: int | None, code: int = 0x09) -> None:
        """Have the controller bear so many links, and refuse more with that HCI error code."""

    @property
    @abstractmethod
    def refused(self) -> int:
        """How many connections the controller has refused so far."""

    @abstractmethod
    async def is_discovering(self) -> bool:
        """Tell whether the adapter discovers for anybody."""

    @abstractmethod
    async def links(self) -> set[str]:
        """Return the BD_ADDRs that BlueZ says are connected or being connected."""

    @abstractmethod
    def scanning_elsewhere(self) -> AbstractAsyncContextManager[None]:
        """Let another program discover at the same adapter; it leaves without a word."""

    @abstractmethod
    async def switch_adapter(self, *, on: bool) -> None:
        """Power the adapter on or off, and wait until BlueZ has told it."""

    @abstractmethod
    async def end_bluetoothd(self, number: signal.Signals) -> None:
        """Send bluetoothd a signal and wait until it is gone."""

    @abstractmethod
    async def start_bluetoothd(self) -> None:
        """Start it and wait for a powered adapter."""

    @abstractmethod
    async def kill_bus(self) -> None:
        """Kill the message bus, which does not come back in the test."""


class _TwoAirs:
    """An `AirPort` to fakes and emulated boards alike."""

    def __init__(self, fakes: FakeAir, emulated: AirPort) -> None:
        self._fakes = fakes
        self._emulated = emulated

    def observe(self, observer: Callable[[Report], None]) -> Callable[[], None]:
        stops = [air.observe(observer) for air in (self._fakes, self._emulated)]

        def stop() -> None:
            for stop_one in stops:
                stop_one()

        return stop

    def initiate(
        self, device_address: str, central: Central, opened: Callable[[PeripheralLink], None]
    ) -> Callable[[], None]:
        is_fake = device_address in self._fakes.boards
        air: AirPort = self._fakes if is_fake else self._emulated
        return air.initiate(device_address, central, opened)


class RunOnDoor(Protocol):
    """Opens a door and runs a test in front of it; each door has a fixture of this name."""

    door: type[Door]

    def __call__(self, scenario: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Run the scenario to its end."""
        ...


Test = TypeVar("Test", bound=Callable[..., Coroutine[Any, Any, None]])


def needs(need: Need) -> Callable[[Test], Test]:
    """Mark a test that only some doors can run."""

    def mark(test: Test) -> Test:
        test.need = need  # type: ignore[attr-defined]
        return test

    return mark


def run_on_door(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make `async def test(..., door, ...)` a plain test that runs wherever the door opens.

    No plugin runs it, because each door has a clock and a loop of its own.
    """
    before = inspect.signature(test)
    need: Need | None = getattr(test, "need", None)

    def run(*bound: Any, run_on_door: RunOnDoor, **parameters: Any) -> None:
        if need in run_on_door.door.lacks:
            pytest.skip(run_on_door.door.lacks[need])
        run_on_door(lambda door: test(*bound, door=door, **parameters))

    wanted = [
        p.replace(name="run_on_door", kind=p.KEYWORD_ONLY)
        if p.name == "door"
        else p.replace(kind=p.KEYWORD_ONLY if p.name != "self" else p.kind)
        for p in before.parameters.values()
    ]
    functools.update_wrapper(run, test)
    run.need = need  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined] # pytest would take it for the test
    run.__signature__ = before.replace(parameters=wanted)  # type: ignore[attr-defined]
    return run


C = TypeVar("C", bound=type)


def contract(tests: C) -> C:
    """Let `run_on_door` run every test of a class."""
    for name, test in list(vars(tests).items()):
        if name.startswith("test_"):
            setattr(tests, name, run_on_door(test))
    return tests
