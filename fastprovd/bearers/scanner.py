"""Advertisements of mesh boards: unprovisioned devices and proxies, by service data alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Self

import structlog
from bleak import BleakScanner
from bleak.args.bluez import BlueZScannerArgs
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.devices import MAX_DEVICES
from fastprovd.bearers.errors import BLEAK_ERRORS, Remedy, describe, diagnose
from fastprovd.edges import guarded
from fastprovd.errors import BluetoothUnavailable, DecodeError
from fastprovd.mesh.beacons import (
    MESH_PROVISIONING_SERVICE,
    MESH_PROXY_SERVICE,
    RSSI_UNKNOWN,
    Advertisement,
    UnprovisionedDevice,
    decode_service_data,
)
from fastprovd.recent import keep_latest

# The later one wins when both are new: boards go from 0x1827 to 0x1828.
_SERVICES: Final = {
    normalize_uuid_16(service): service
    for service in (MESH_PROVISIONING_SERVICE, MESH_PROXY_SERVICE)
}
# Enough to follow RSSI and presence of a board; what is new passes at once.
MIN_INTERVAL_S: Final = 0.25
# Some seconds of a hundred boards at four per second; a slower reader loses the oldest.
MAX_QUEUED: Final = 1024
# So many devices in one scan end it: bleak and its record of each go with it, and another one is
# begun. A hundred boards and their neighbours are far below, whoever invents addresses is not.
MAX_DEVICES_HEARD: Final = 4096
# StartDiscovery is refused for a moment after other radio work, and while an adapter wakes up.
START_BACK_OFF_S: Final = (0.25, 0.5, 1.0)
# A healthy BlueZ answers within a second; a controller that resets needs several.
START_TIMEOUT_S: Final = 15.0
# StopDiscovery waits for the controller; past this bluetoothd does not answer any more.
STOP_TIMEOUT_S: Final = 10.0
# Discovery ended with bluetoothd or the adapter; this is for bleak to notice.
_LOST_TIMEOUT_S: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Heard:
    data: dict[int, bytes] = field(default_factory=dict)
    latest: int = 0
    quiet_until_s: float = 0.0


def _rssi(rssi_dbm: int) -> int:
    """Return a received power, or that it is unknown.

    127 is HCI's word for that (Core Specification, LE Advertising Report), 0 that of controllers
    that do not measure; as a power each would be the loudest.
    """
    return rssi_dbm if -127 < rssi_dbm < 0 else RSSI_UNKNOWN


class BleakScan:
    """One discovery, from `start()` to `stop()`; iterate it for advertisements.

    It can not tell a fresh Node Identity from one that BlueZ repeats after the board fell silent:
    compare its Random with those seen before. `malformed` and `dropped` count what was skipped.
    """

    def __init__(
        self,
        bluez_adapter: str,
        backend: type[BaseBleakScanner] | None,
        remember: Callable[[BLEDevice], None],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`prepare` is called before bleak is, and raises what bleak does."""
        self.malformed = 0
        self.dropped = 0
        self._bluez = BlueZScannerArgs(filters={"DuplicateData": True})
        if bluez_adapter:
            self._bluez["adapter"] = bluez_adapter
        self._backend = backend
        self._remember = remember
        self._prepare = prepare
        self._heard: dict[str, _Heard] = {}
        self._devices = 0
        self._queue: deque[Advertisement] = deque()
        self._arrived = asyncio.Event()
        self._scanner: BleakScanner | None = None
        self._ended = False
        self._lost: str | None = None
        self._patience: asyncio.Timeout | None = None  # with a BlueZ that was cancelled or stopped

    async def start(self) -> None:
        """Start discovery; raises BluetoothUnavailable."""
        for attempt, pause_s in enumerate((*START_BACK_OFF_S, None), 1):
            scanner = BleakScanner(
                guarded(self._on_detection),
                service_uuids=list(_SERVICES),
                scanning_mode="active",
                bluez=self._bluez,
                backend=self._backend,
            )
            try:
                await self._begin(scanner)
            except BLEAK_ERRORS as error:
                diagnosis = diagnose(error)
                log.debug("scan_start_failed", attempt=attempt, error=describe(error))
                if pause_s is None or diagnosis.remedy is Remedy.GIVE_UP:
                    raise BluetoothUnavailable(
                        f"discovery did not start after {attempt} attempts "
                        f"({describe(error)}); {diagnosis.advice}"
                    ) from error
                await asyncio.sleep(pause_s)
            else:
                log.debug("scan_started", attempts=attempt)
                return

    async def _begin(self, scanner: BleakScanner) -> None:
        """Start discovery; when we are cancelled meanwhile, it is there to be stopped.

        bleak forgets a StartDiscovery whose answer it did not wait for, and BlueZ then answers
        InProgress to all later ones.
        """
        starting = asyncio.create_task(self._start(scanner), name="scan_start")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_TIMEOUT_S) as self._patience:
                    await asyncio.wait({starting})
            if starting.done() and not starting.cancelled() and starting.exception() is None:
                self._scanner = scanner
            raise
        finally:
            if not starting.done():
                starting.add_done_callback(lambda task: task.cancelled() or task.exception())
                starting.cancel()
                await asyncio.wait({starting})
        self._scanner = scanner

    async def _start(self, scanner: BleakScanner) -> None:
        if self._prepare is not None:
            await self._prepare()
        await scanner.start()

    async def stop(self) -> None:
        """Stop discovery; a BlueZ that refuses is logged, the scan is over all the same."""
        self.end()
        scanner, self._scanner = self._scanner, None
        if scanner is None:
            return
        is_lost = self._lost is not None
        try:
            limit_s = _LOST_TIMEOUT_S if is_lost else STOP_TIMEOUT_S
            async with asyncio.timeout(limit_s) as self._patience:
                await scanner.stop()
        except BLEAK_ERRORS as error:
            (log.debug if is_lost else log.warning)("scan_stop_failed", error=describe(error))
        log.debug(
            "scan_stopped",
            devices=self._devices,
            malformed=self.malformed,
            dropped=self.dropped,
        )

    def end(self) -> None:
        """Let the iteration end once what was heard is fetched; `stop()` is yet to be called."""
        self._ended = True
        self._arrived.set()

    def lose(self, reason: str) -> None:
        """Note that discovery is over, and why; the first reason holds."""
        if self._lost is None:
            self._lost = reason
            self._arrived.set()
            if self._patience is not None and not self._patience.expired():
                limit_s = asyncio.get_running_loop().time() + _LOST_TIMEOUT_S
                self._patience.reschedule(limit_s)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Advertisement:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            if self._lost is not None:
                raise BluetoothUnavailable(f"discovery ended: {self._lost}")
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    def _count_device(self) -> None:
        self._devices += 1
        if self._devices == MAX_DEVICES_HEARD:
            log.warning(
                "scan_crowded",
                devices=self._devices,
                advice="something advertises from one address after the other; the scan begins "
                "anew",
            )
            self.end()

    def _on_detection(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        data = {
            service: advertisement.service_data[uuid]
            for uuid, service in _SERVICES.items()
            if uuid in advertisement.service_data
        }
        if not data:
            return
        now = asyncio.get_running_loop().time()
        heard = self._heard.get(device.address)
        if heard is None:
            heard = _Heard()
            self._count_device()
        keep_latest(self._heard, device.address, heard, MAX_DEVICES)
        changed = [service for service in data if heard.data.get(service) != data[service]]
        heard.data = data
        if changed:
            heard.latest = changed[-1]
        elif now < heard.quiet_until_s:
            return
        elif heard.latest not in data:
            heard.latest = next(reversed(data))
        heard.quiet_until_s = now + MIN_INTERVAL_S
        try:
            decoded = decode_service_data(heard.latest, data[heard.latest])
            if isinstance(decoded, UnprovisionedDevice) and not any(decoded.uuid):
                raise DecodeError("the Device UUID is all zeros, so the device has none")
        except DecodeError as error:
            self.malformed += 1
            log.debug("advertisement_malformed", device_address=device.address, error=str(error))
            return
        if decoded is None:
            return
        self._remember(device)
        if len(self._queue) == MAX_QUEUED:
            self._queue.popleft()
            self.dropped += 1
        rssi_dbm = _rssi(advertisement.rssi)
        self._queue.append(Advertisement(device.address, decoded, rssi_dbm, now))
        self._arrived.set()
