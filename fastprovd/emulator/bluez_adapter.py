"""An adapter under BlueZ: device objects as BlueZ keeps them, discovery, connecting, power."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
)
from bleak.uuids import normalize_uuid_16

from fastprovd.emulator.bluez_quirks import BlueZQuirks
from fastprovd.emulator.connection import FAILED, BlueZTiming, Connection
from fastprovd.emulator.duplicate_filter import Reported
from fastprovd.emulator.link_limit import LimitedPort, Refusal
from fastprovd.emulator.peripheral import CONNECTION_TIMEOUT, AirPort, Report

IN_PROGRESS: Final = "org.bluez.Error.InProgress"
NOT_READY: Final = "org.bluez.Error.NotReady"


@dataclass(slots=True)
class DeviceObject:
    """A device as BlueZ knows it; UUIDs are spelled in full, the address as the air spells it."""

    address: str
    path: str
    rssi: int = -127
    name: str | None = None
    service_uuids: list[str] = field(default_factory=list)
    service_data: dict[str, bytes] = field(default_factory=dict)
    heard: Report | None = None  # the last report with service data
    last_seen: float = 0.0
    quiet_until: float = 0.0
    connection: Connection | None = None


@dataclass(frozen=True, slots=True)
class _Session:
    on_device: Callable[[DeviceObject], None]
    duplicates: bool


class EmulatedAdapter:
    """One adapter on the air; `bleak_backend` and `bluez` are the doors to it.

    A discovery session belongs to a client; each client is told apart by a name. `on_power` is
    called with every change of the power, after what it ended.

    `fail_scans` and `fail_connects` are scripts of faults: each start of a discovery, each
    connect takes the next entry, and fails with it unless it is `None`.

    `scan_outlives_crash`: after a crash of bluetoothd the kernel goes on scanning, and the next
    bluetoothd can not begin before that has ended; 5.66 does it, 5.82 does not.
    `remembers_services`: the services of an earlier link are shown again, without a discovery,
    until the device is removed; boards were never seen to suffer from it. `held_reports` counts
    what `hold_data` kept back.

    `max_links` bounds the links that are open at once, whosever they are, and may change at any
    time; a further one is refused by `refusal`, and `refused` counts those.
    """

    def __init__(
        self,
        air: AirPort,
        *,
        name: str = "hci0",
        address: str = "00:1A:7D:DA:71:13",
        seed: int = 0,
        timing: BlueZTiming | None = None,
        quirks: BlueZQuirks | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.timing = timing or BlueZTiming()
        self.quirks = quirks or BlueZQuirks()
        self.rng = random.Random(f"{name} {address} {seed}")
        self.fail_scans: deque[Exception | None] = deque()
        self.fail_connects: deque[Exception | None] = deque()
        self.scan_outlives_crash = False
        self.remembers_services = False
        self.max_links: int | None = None
        self.refusal = Refusal.SILENCE
        self.refused = 0
        self._air = air
        self._limited = LimitedPort(air, self._is_full)
        self._powered = True
        self._devices: dict[str, DeviceObject] = {}
        self.on_power: Callable[[bool], None] | None = None
        self._sessions: dict[str, _Session] = {}
        self._stop_observing: Callable[[], None] | None = None
        self._reported = Reported()
        self._rescan_at = 0.0
        self._orphan_scan_until = 0.0
        self._held_until = 0.0
        self.held_reports = 0

    @property
    def powered(self) -> bool:
        """Whether the adapter is on."""
        return self._powered

    @property
    def discovering(self) -> bool:
        """Whether a discovery session is open."""
        return bool(self._sessions)

    def has_session(self, client: str) -> bool:
        """Tell whether that client has a discovery session open."""
        return client in self._sessions

    @property
    def linked(self) -> frozenset[str]:
        """BD_ADDRs of the devices to which a link is open or being opened."""
        devices = self._devices.values()
        return frozenset(device.address for device in devices if device.connection is not None)

    @property
    def connections(self) -> int:
        """How many links are open or being opened."""
        return len(self.linked)

    def power(self, on: bool) -> None:
        """Switch the adapter; off ends discovery and all links."""
        self._powered = on
        if not on:
            self._end_discovery()
            for device in self._devices.values():
                if device.connection is not None:
                    device.connection.power_off(BleakDBusError(FAILED, ["Input/output error"]))
        if self.on_power is not None:
            self.on_power(on)

    def fall_silent(self) -> None:
        """Discovery seems to go on, and hears nothing until all sessions were ended."""
        if self._stop_observing is not None:
            self._stop_observing()
            self._stop_observing = None

    def lose_links(self) -> None:
        """All links go by the supervision timeout, as in a disturbance of the radio."""
        for device in self._devices.values():
            if device.connection is not None and device.connection.alive:
                device.connection.opened.result().disconnect()
                device.connection.disconnected(CONNECTION_TIMEOUT)

    def hold_data(self, seconds: float) -> None:
        """For so long go on telling the service data of now, whatever the boards advertise."""
        self._held_until = asyncio.get_running_loop().time() + seconds

    def leave_scan(self) -> None:
        """Have the kernel go on with the scan of a bluetoothd that crashed."""
        if self.scan_outlives_crash and self._sessions:
            now = asyncio.get_running_loop().time()
            self._orphan_scan_until = now + self.timing.orphan_scan_s

    def forget_everything(self) -> None:
        """Lose what bluetoothd keeps in memory, as at its end: sessions, links, devices."""
        self._end_discovery()
        for device in self._devices.values():
            if device.connection is not None:
                device.connection.hang_up()
        self._devices.clear()

    def check(self, name: str | None) -> None:
        """Find the adapter that a caller asked for by `name`, `None` for any, as bleak does.

        Raises:
            BleakError: no adapter of that name, or none that is powered.
        """
        if name and name != self.name:
            raise BleakError(f"adapter '{name}' not found")
        if not name and not self._powered:
            raise BleakBluetoothNotAvailableError(
                "No powered Bluetooth adapters found. Turn on Bluetooth and try again.",
                BleakBluetoothNotAvailableReason.POWERED_OFF,
            )

    def device(self, address: str) -> DeviceObject | None:
        """Return the device object of `address`; BlueZ forgets devices that fell silent."""
        device = self._devices.get(address)
        if device is not None and self._is_forgotten(device):
            del self._devices[address]
            return None
        return device

    async def remove_device(self, address: str) -> bool:
        """Forget a device when its link has ended; tell whether it was known."""
        device = self._devices.get(address)
        if device is None:
            return False
        if device.connection is not None and device.connection.alive:
            lost = device.connection.lost
            self.request_disconnect(device)
            await lost.wait()
        if self._devices.get(address) is device:
            del self._devices[address]
        return True

    async def start_discovery(
        self,
        on_device: Callable[[DeviceObject], None],
        *,
        duplicates: bool,
        client: str = "",
    ) -> None:
        """Call `on_device` for every device that changed, from now on; raises BleakDBusError."""
        fault = self.fail_scans.popleft() if self.fail_scans else None
        await asyncio.sleep(self.rng.uniform(*self.timing.scan_start_s))
        if fault is not None:
            raise fault
        if not self._powered:
            raise BleakDBusError(NOT_READY, ["Resource Not Ready"])
        if (
            client in self._sessions
            or asyncio.get_running_loop().time() < self._orphan_scan_until
            or (self.quirks.no_discovery_while_connecting and self._is_connecting)
        ):
            raise BleakDBusError(IN_PROGRESS, ["Operation already in progress"])
        if not self._sessions:
            for device in self._devices.values():  # BlueZ forgets the RSSI when discovery ends
                device.rssi = -127
                device.quiet_until = 0.0
            self._begin_scan()
            self._stop_observing = self._air.observe(self._heard)
        self._sessions[client] = _Session(on_device, duplicates)

    async def stop_discovery(self, client: str = "") -> None:
        """End the client's session; it is told nothing from the call on. Raises BleakDBusError."""
        running = self._sessions.pop(client, None) is not None
        if not self._sessions:
            self._end_discovery()
        await asyncio.sleep(self.rng.uniform(*self.timing.scan_stop_s))
        if not running and self._powered:
            raise BleakDBusError(FAILED, ["No discovery started"])

    async def connect(self, device: DeviceObject, on_lost: Callable[[], None]) -> Connection:
        """Open a link to `device`, however long that takes; `on_lost` is called at its end.

        Raises:
            BleakDBusError: the adapter is off, busy with this device, or a fault was asked for.
        """
        fault = self.fail_connects.popleft() if self.fail_connects else None
        await asyncio.sleep(self.timing.dbus_s)
        if fault is not None:
            raise fault
        if not self._powered:
            raise BleakDBusError(FAILED, ["Input/output error"])
        if device.connection is not None:
            raise BleakDBusError(IN_PROGRESS, ["In Progress"])
        connection = device.connection = Connection(self.timing, self.rng)
        cancel: Callable[[], None] | None = None
        try:
            if (
                self.discovering
                and self.quirks.slow_connect_while_discovering
                and self.rng.random() < 0.5
            ):
                await asyncio.sleep(self.rng.uniform(0, self.timing.discovery_restart_s))
            cancel = self._initiate(device, connection)
            if self.quirks.silent_connect:
                await connection.opened
            else:
                await self._connect_impatiently(connection)
        except BaseException:
            if cancel is not None:
                cancel()
            if connection.alive:  # cancelled in the moment in which it opened
                connection.on_lost = lambda: _unlink(device)
                self.request_disconnect(device)
            else:
                connection.opened.cancel()
                device.connection = None
            if connection.unanswered:
                self._devices.pop(device.address, None)
            raise

        def lost() -> None:
            _unlink(device)
            on_lost()

        connection.on_lost = lost
        return connection

    def cancel_connect(self, device: DeviceObject) -> None:
        """End a pending attempt to connect, as Disconnect does, whoever began it."""
        if device.connection is not None and not device.connection.opened.done():
            device.connection.power_off(BleakDBusError(FAILED, ["br-connection-canceled"]))

    def request_disconnect(self, device: DeviceObject) -> None:
        """Ask for the end of the link; it comes after BlueZ's delay, whoever waits for it."""
        if device.connection is not None:
            asyncio.get_running_loop().call_later(
                self.timing.disconnect_s, device.connection.hang_up
            )

    def _initiate(self, device: DeviceObject, connection: Connection) -> Callable[[], None]:
        if self.max_links is None:
            return self._air.initiate(device.address, connection, connection.open)

        def refused() -> None:
            self.refused += 1
            connection.refuse(self.refusal)

        return self._limited.initiate(device.address, connection, connection.open, refused)

    def _is_full(self, opening: int) -> bool:
        devices = self._devices.values()
        open_links = sum(d.connection is not None and d.connection.alive for d in devices)
        return self.max_links is not None and open_links + opening >= self.max_links

    @property
    def _is_connecting(self) -> bool:
        return any(
            device.connection is not None and not device.connection.opened.done()
            for device in self._devices.values()
        )

    async def _connect_impatiently(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(2):
                await asyncio.shield(connection.opened)
        except TimeoutError:
            raise BleakDBusError(FAILED, ["le-connection-abort-by-remote"]) from None

    def _is_forgotten(self, device: DeviceObject) -> bool:
        silent_s = asyncio.get_running_loop().time() - device.last_seen
        return device.connection is None and silent_s > self.timing.forget_s

    @property
    def _duplicates(self) -> bool:
        # BlueZ merges what its clients ask for.
        return any(session.duplicates for session in self._sessions.values())

    def _end_discovery(self) -> None:
        self._sessions.clear()
        if self._stop_observing is not None:
            self._stop_observing()
            self._stop_observing = None

    def _begin_scan(self) -> None:
        self._reported.restart()
        self._rescan_at = asyncio.get_running_loop().time() + self.timing.discovery_restart_s

    def _heard(self, report: Report) -> None:
        now = asyncio.get_running_loop().time()
        while now >= self._rescan_at:
            self._reported.restart()
            self._rescan_at += self.timing.discovery_restart_s
        if not self._reported.is_new(report, self.quirks.duplicate_filter):
            return
        device = self.device(report.device_address)
        changed = False
        if report.service_data:
            if device is None:
                device = self._add_device(report.device_address)
            if device.heard is not None and now < self._held_until:
                self.held_reports += 1
            elif device.heard is None or device.heard.service_data != report.service_data:
                changed = True
                self._take(device, report)
        elif device is None:
            if not self.quirks.bare_first_report:
                return
            device = self._add_device(report.device_address)
        elif not self.quirks.stale_service_data:
            device.last_seen = now
            return
        rssi_changed = device.rssi != report.rssi_dbm
        device.rssi = report.rssi_dbm
        device.last_seen = now
        if not changed and (now < device.quiet_until or not (self._duplicates or rssi_changed)):
            return
        device.quiet_until = now + self.timing.report_interval_s
        # Two sessions of one listener are one telling.
        for on_device in dict.fromkeys(s.on_device for s in self._sessions.values()):
            on_device(device)

    def _add_device(self, address: str) -> DeviceObject:
        path = f"/org/bluez/{self.name}/dev_{address.upper().replace(':', '_')}"
        device = self._devices[address] = DeviceObject(address, path)
        return device

    def _take(self, device: DeviceObject, report: Report) -> None:
        device.heard = report
        device.name = report.local_name or device.name
        data = _in_full(report.service_data.items())
        if self._duplicates or not self.quirks.accumulating_service_data:
            device.service_data = data
        else:
            device.service_data = device.service_data | data
        uuids = [normalize_uuid_16(uuid) for uuid in report.service_uuids]
        if self.quirks.accumulating_service_uuids:
            uuids = list(dict.fromkeys(device.service_uuids + uuids))
        device.service_uuids = uuids


def _unlink(device: DeviceObject) -> None:
    device.connection = None
    device.last_seen = asyncio.get_running_loop().time()


def _in_full(service_data: Iterable[tuple[int, bytes]]) -> dict[str, bytes]:
    return {normalize_uuid_16(uuid): bytes(data) for uuid, data in service_data}
