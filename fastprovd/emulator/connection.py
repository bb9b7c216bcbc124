"""One link as the central's controller and host run it: connection events, queues, hang-up."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fastprovd.emulator.peripheral import PeripheralLink, Service

Seconds = tuple[float, float]  # from, to: drawn evenly


@dataclass(frozen=True, slots=True)
class BlueZTiming:
    """How long BlueZ and a controller take, in seconds; measured through bleak 3.1."""

    scan_start_s: Seconds = (0.02, 0.05)
    scan_stop_s: Seconds = (0.01, 0.03)
    # Unchanged advertisements of one device are reported no more often than this.
    report_interval_s: float = 0.1
    # The kernel restarts its scan this often; a connect behind its duplicate filter waits for it.
    discovery_restart_s: float = 10.24
    # From the open link to resolved services.
    discover_services_s: Seconds = (0.5, 0.7)
    start_notify_s: Seconds = (0.02, 0.07)
    connection_interval_s: float = 0.03
    # From the last connection event to the disconnect event of the host.
    hang_up_s: Seconds = (0.0, 0.012)
    # From Service Changed to the new objects.
    services_refresh_s: float = 0.3
    # BlueZ's own delay between Disconnect and the end of the link.
    disconnect_s: float = 2.0
    power_off_s: Seconds = (0.1, 0.2)
    dbus_s: float = 0.001
    # An unconnected device object lives this long after its last advertisement.
    forget_s: float = 30.0


# What a controller commonly moves in one connection event in each direction.
PACKETS_PER_EVENT = 6


class Connection:
    """A `Central` of one board: moves values at connection events, in order, both ways.

    Notifications that left the board before it hung up arrive before the hang-up does. `on_value`
    gets value handle and value, `on_lost` is called once, whoever ended the link.
    """

    def __init__(self, timing: BlueZTiming, rng: random.Random) -> None:
        self.opened: asyncio.Future[PeripheralLink] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self.on_value: Callable[[int, bytes], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self.services: tuple[Service, ...] = ()
        self.gone_handles: frozenset[int] = frozenset()
        self._timing = timing
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._anchor = 0.0
        self._outgoing: deque[tuple[int, bytes]] = deque()
        self._incoming: deque[tuple[int, bytes]] = deque()
        self._alive = False
        self._event: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def alive(self) -> bool:
        """Whether the controller still has the link."""
        return self._alive

    def discover(self) -> tuple[Service, ...]:
        """Take the services the board shows now."""
        self.services = self.opened.result().services()
        return self.services

    def open(self, link: PeripheralLink) -> None:
        """Take the link that `AirPort.initiate` opened."""
        if self.opened.done():  # given up in the same instant
            link.disconnect()
            return
        self._alive = True
        self._anchor = self._loop.time()
        self.opened.set_result(link)

    def write(self, handle: int, value: bytes) -> None:
        """Queue a Write Command for the next connection event."""
        self._outgoing.append((handle, value))
        self._schedule()

    def notified(self, value_handle: int, value: bytes) -> None:
        """Take a notification from the board."""
        self._incoming.append((value_handle, value))
        self._schedule()

    def services_changed(self) -> None:
        """Take Service Changed: the objects that went are known a while later."""
        self._loop.call_later(self._timing.services_refresh_s, self._refresh)

    def disconnected(self, reason: int) -> None:
        """Take the board's hang-up, or the supervision timeout."""
        self._alive = False
        self._outgoing.clear()
        self._schedule()

    def hang_up(self) -> None:
        """End the link from our side; idempotent."""
        if self._alive:
            self._alive = False
            self.opened.result().disconnect()
            self._end()

    def power_off(self, error: Exception) -> None:
        """End the link, or the attempt with `error`, because the adapter went."""
        if not self.opened.done():
            self.opened.set_exception(error)
        elif self._alive:
            self._alive = False
            self.opened.result().disconnect()
            self._loop.call_later(self._rng.uniform(*self._timing.power_off_s), self._end)

    def _schedule(self) -> None:
        if self._event is None and not self._ended:
            interval = self._timing.connection_interval_s
            passed = math.floor((self._loop.time() - self._anchor) / interval + 1e-9)
            self._event = self._loop.call_at(
                self._anchor + (passed + 1) * interval, self._connection_event
            )

    def _connection_event(self) -> None:
        self._event = None
        incoming = min(len(self._incoming), PACKETS_PER_EVENT)
        for _ in range(min(len(self._outgoing), PACKETS_PER_EVENT)):
            if not self._outgoing:  # the board hung up on what it got
                break
            self.opened.result().write_command(*self._outgoing.popleft())
        for _ in range(incoming):
            handle, value = self._incoming.popleft()
            if self.on_value is not None:
                self.on_value(handle, value)
        if self._outgoing or self._incoming:
            self._schedule()
        elif not self._alive:
            self._loop.call_later(self._rng.uniform(*self._timing.hang_up_s), self._end)

    def _refresh(self) -> None:
        if self._alive:
            visible = self.opened.result().services()
            self.gone_handles = _handles(self.services) - _handles(visible)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._event is not None:
            self._event.cancel()
        self._loop.call_later(self._timing.dbus_s, self._tell)

    def _tell(self) -> None:
        self.lost.set()
        if self.on_lost is not None:
            self.on_lost()


def _handles(services: tuple[Service, ...]) -> frozenset[int]:
    return frozenset(
        characteristic.value_handle
        for service in services
        for characteristic in service.characteristics
    )
