"""One link as the central's host sees it, and how long BlueZ takes for what it does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bleak.exc import BleakDBusError

from fastprovd.emulator.link_limit import Refusal
from fastprovd.emulator.peripheral import AttError, PeripheralLink, Service

FAILED: Final = "org.bluez.Error.Failed"
# A service that BlueZ keeps for itself.
GENERIC_ACCESS: Final = 0x1800
_SERVICE_CHANGED: Final = 0x2A05

Seconds = tuple[float, float]  # from, to: drawn evenly


@dataclass(frozen=True, slots=True)
class BlueZTiming:
    """How long BlueZ and a controller take, in seconds; measured through bleak 3.1."""

    scan_start_s: Seconds = (0.02, 0.05)
    scan_stop_s: Seconds = (0.01, 0.03)
    # The kernel ends a scan that nobody owns any more after one round of its duplicate filter.
    orphan_scan_s: float = 9.5
    # Unchanged advertisements of one device are reported no more often than this.
    report_interval_s: float = 0.1
    # The kernel restarts its scan this often; a connect behind its duplicate filter waits for it.
    discovery_restart_s: float = 10.24
    # A link lost this soon after it opened was never really established.
    establishment_s: float = 0.1
    # From the open link to resolved services.
    discover_services_s: Seconds = (0.5, 0.7)
    start_notify_s: Seconds = (0.02, 0.07)
    # A request without an answer ends the link after this long (BlueZ src/shared/att.c).
    att_timeout_s: float = 30.0
    # From Service Changed to the new objects.
    services_refresh_s: float = 0.3
    # BlueZ's own delay between Disconnect and the end of the link.
    disconnect_s: float = 2.0
    power_off_s: Seconds = (0.1, 0.2)
    dbus_s: float = 0.001
    # An unconnected device object lives this long after its last advertisement.
    forget_s: float = 30.0


class Connection:
    """A `Central` of one board; the pace of the connection events is the board's business.

    Values arrive in order, a D-Bus message later, and those that left the board before it hung up
    arrive before the loss does. `on_value` gets value handle and value; `on_refreshed` the services
    that Service Changed has brought; `on_lost` is called once, whoever ended the link. It stays
    `unanswered` when the controller bears no more links.
    """

    def __init__(self, timing: BlueZTiming, rng: random.Random) -> None:
        self.opened: asyncio.Future[PeripheralLink] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self.on_value: Callable[[int, bytes], None] | None = None
        self.on_refreshed: Callable[[tuple[Service, ...]], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self.services: tuple[Service, ...] = ()
        self.unanswered = False
        self._timing = timing
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._alive = False

    @property
    def alive(self) -> bool:
        """Whether the controller still has the link."""
        return self._alive

    def open(self, link: PeripheralLink) -> None:
        """Take the link that `AirPort.initiate` opened."""
        if self.opened.done():  # given up in the same instant
            link.disconnect()
            return
        self._alive = True
        self.opened.set_result(link)

    async def answered(self) -> bool:
        """Tell whether the board answers requests; if not, BlueZ has ended the link for it."""
        if self.opened.result().answers:
            return True
        try:
            async with asyncio.timeout(self._timing.att_timeout_s):
                await self.lost.wait()
        except TimeoutError:
            self.hang_up()
            await self.lost.wait()
        return False

    def refuse(self, refusal: Refusal) -> None:
        """Take the controller's refusal: the attempt fails, or is never answered."""
        self.unanswered = refusal is Refusal.SILENCE
        if refusal.value is not None and not self.opened.done():
            self.opened.set_exception(BleakDBusError(FAILED, [refusal.value]))

    def discover(self) -> None:
        """Take the services the board shows now; later ones come with Service Changed."""
        self.services = self.opened.result().services()

    def has(self, value_handle: int) -> bool:
        """Whether BlueZ still knows that characteristic."""
        return any(
            characteristic.value_handle == value_handle
            for service in self.services
            for characteristic in service.characteristics
        )

    def join(self, on_value: Callable[[int, bytes], None], on_lost: Callable[[], None]) -> None:
        """Take one more client: BlueZ tells all of them everything."""
        earlier_value, earlier_lost = self.on_value, self.on_lost

        def value_to_both(value_handle: int, value: bytes) -> None:
            if earlier_value is not None:
                earlier_value(value_handle, value)
            on_value(value_handle, value)

        def lost_to_both() -> None:
            if earlier_lost is not None:
                earlier_lost()
            on_lost()

        self.on_value, self.on_lost = value_to_both, lost_to_both

    def subscribe_service_changed(self) -> None:
        """Ask for Service Changed where a discovered service has it, as BlueZ does by itself."""
        for service in self.services:
            for found in service.characteristics:
                if found.uuid == _SERVICE_CHANGED and found.cccd_handle is not None:
                    # BlueZ does without when it is refused.
                    with contextlib.suppress(AttError):
                        self.opened.result().write_cccd(found.cccd_handle, b"\x02\x00")

    async def write_cccd(self, handle: int, value: bytes) -> None:
        """Have the board take notifications up or end them; takes an exchange over the air.

        Raises:
            AttError: the board refuses.
            BleakDBusError: the link is gone.
        """
        half_s = self._rng.uniform(*self._timing.start_notify_s) / 2
        await asyncio.sleep(half_s)
        await self.answered()
        self._check()
        refusal: AttError | None = None
        try:
            self.opened.result().write_cccd(handle, value)
        except AttError as error:
            refusal = error
        await asyncio.sleep(half_s)
        if refusal is not None:
            raise refusal
        self._check()

    def notified(self, value_handle: int, value: bytes) -> None:
        """Take a notification from the board."""
        if self.on_value is not None:
            self._loop.call_later(self._timing.dbus_s, self.on_value, value_handle, value)

    def services_changed(self) -> None:
        """Take Service Changed: the objects that went are known a while later."""
        self._loop.call_later(self._timing.services_refresh_s, self._refresh)

    def disconnected(self, reason: int) -> None:
        """Take the board's hang-up, or the supervision timeout."""
        self._end(self._timing.dbus_s)

    def hang_up(self) -> None:
        """End the link from our side; idempotent."""
        if self._alive:
            self.opened.result().disconnect()
            self._end(self._timing.dbus_s)

    def power_off(self, error: Exception) -> None:
        """End the link, or the attempt with `error`, because the adapter went."""
        if not self.opened.done():
            self.opened.set_exception(error)
        elif self._alive:
            self.opened.result().disconnect()
            self._end(self._rng.uniform(*self._timing.power_off_s))

    def _check(self) -> None:
        if not self._alive:
            raise BleakDBusError(FAILED, ["Not connected"])

    def _refresh(self) -> None:
        if self._alive:
            self.services = self.opened.result().services()
            if self.on_refreshed is not None:
                self.on_refreshed(self.services)

    def _end(self, delay_s: float) -> None:
        if self._alive:
            self._alive = False
            self._loop.call_later(delay_s, self._tell)

    def _tell(self) -> None:
        self.lost.set()
        if self.on_lost is not None:
            self.on_lost()
