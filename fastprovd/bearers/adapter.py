"""The adapter: scans and links through bleak, never a connection into a scan."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Self

import structlog
from bleak import BleakClient
from bleak.args.bluez import BlueZClientArgs
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import BaseBleakScanner

from fastprovd.bearers.bluez import close_left_links, find_adapter
from fastprovd.bearers.bluez_watch import BluezWatch
from fastprovd.bearers.connection import DISCONNECT_TIMEOUT_S, Connection
from fastprovd.bearers.errors import BLEAK_ERRORS, Remedy, describe, diagnose
from fastprovd.bearers.gatt import PROVISIONING, PROXY, GattLink, MeshService
from fastprovd.bearers.radio import RadioUse
from fastprovd.bearers.scanner import BleakScan
from fastprovd.bearers.swaps import Swaps
from fastprovd.errors import (
    BluetoothUnavailable,
    ConnectionLost,
    LocalProtocolError,
    OtherService,
)

# Connect and discovery take 0.5 to 1.6 s; a board that just went off the air never answers.
CONNECT_TIMEOUT_S: Final = 5.0
# bleak bounds its own search and connect, and hangs up in 2 s; this is for a silent bluetoothd.
_BLEAK_MARGIN_S: Final = 5.0
# Failed establishments come in bursts of radio noise; the third attempt nearly always succeeds.
CONNECT_BACK_OFF_S: Final = (0.25, 0.5, 1.0)
CONNECT_ATTEMPTS: Final = 3
# Links at once, those included that BlueZ is still hanging up: what adapters of all makes bear.
MAX_LINKS: Final = 5
# A connection waits so long for Bluetooth to return: bluetoothd restarts in 0.6 to 2.2 s, a person
# needs half a minute to plug an adapter in again, and BlueZ some seconds to show it.
RETURN_S: Final = 45.0
_RETURN_PAUSE_S: Final = 0.5
# BlueZ forgets an unconnected device 30 s after its last advertisement.
_DEVICE_LIFE_S: Final = 20.0

log = structlog.get_logger(__name__)


class BleakBearer:
    """A Bluetooth adapter reached through bleak; `async with` it, everything inside.

    It never connects while it discovers: connections and a scan wait for each other, and asking
    for a link inside a scan is a LocalProtocolError. A scan while links are open is fine, and so
    are connections beside each other, up to `max_links`; more wait. Links are hung up in the
    background, because BlueZ takes 2 s for it; the next connection to the same board, and the end
    of the bearer, wait for that.

    When bluetoothd or the adapter goes, links and the scan end at once, and connections that are
    asked for soon after wait for the return. With backends of the caller's nothing is watched.

    `adapter` is a name (`hci0`), the adapter's own address, or empty for the first that is on. One
    that is not told by its name is looked for again after each loss: it may return as another hci.
    """

    def __init__(
        self,
        adapter: str = "",
        scanner_backend: type[BaseBleakScanner] | None = None,
        client_backend: type[BaseBleakClient] | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        connect_attempts: int = CONNECT_ATTEMPTS,
        max_links: int = MAX_LINKS,
    ) -> None:
        self._adapter = adapter
        self._adapter_name = ""
        self._scanner_backend = scanner_backend
        self._client_backend = client_backend
        self._connect_timeout_s = connect_timeout_s
        self._connect_attempts = connect_attempts
        self._is_open = False
        self._scan: BleakScan | None = None
        self._connections: set[Connection] = set()
        self._lost_s = -math.inf
        self._watch = AsyncExitStack()
        self._radio = RadioUse()
        self._slots = asyncio.Semaphore(max_links)
        self._swaps = Swaps()
        self._devices: dict[str, tuple[BLEDevice, float]] = {}
        self._hang_ups: dict[asyncio.Task[None], Connection] = {}

    async def __aenter__(self) -> Self:
        if self._is_bluez:
            await self._watch.enter_async_context(
                BluezWatch(
                    lambda: self._adapter_name, self._bluetooth_lost, self._swaps.characteristic
                )
            )
        self._lost_s = -math.inf
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        try:
            while self._hang_ups:
                await asyncio.wait(self._hang_ups)
        finally:
            await self._watch.aclose()

    async def close_left_links(self) -> None:
        """Hang up links to mesh boards that a process before us left at BlueZ; call it first.

        Raises:
            BluetoothUnavailable: no adapter, or bluetoothd does not answer.
        """
        if self._is_bluez:
            await self._find_adapter()
            await close_left_links(self._adapter_name)

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[BleakScan]:
        """Discover until the context ends; waits for a connection that is being opened.

        Raises:
            BluetoothUnavailable: discovery can not be started, or ended with bluetoothd or the
                adapter.
            LocalProtocolError: inside another scan.
        """
        self._check_radio("scan")
        async with self._radio.scanning():
            try:
                await self._find_adapter()
                self._forget_silent()
                scan = self._scan = BleakScan(
                    self._adapter_name, self._scanner_backend, self._remember
                )
                try:
                    await scan.start()
                    yield scan
                finally:
                    await scan.stop()
            finally:
                self._scan = None

    @asynccontextmanager
    async def provisioning_link(self, device_address: str) -> AsyncIterator[GattLink]:
        """Open PB-GATT; raises as `proxy_link`."""
        async with self._link(device_address, PROVISIONING) as link:
            yield link

    @asynccontextmanager
    async def proxy_link(self, device_address: str) -> AsyncIterator[GattLink]:
        """Open the GATT proxy.

        Raises:
            DeviceNotFound: the board does not answer.
            OtherService: it offers the other mesh service, also after BlueZ forgot it.
            WrongService: it answers and does not offer the service.
            ConnectionLost: it was reached and lost again, at every attempt.
            BluetoothUnavailable: the adapter or bluetoothd is the cause.
            LocalProtocolError: inside a scan.
        """
        async with self._link(device_address, PROXY) as link:
            yield link

    @asynccontextmanager
    async def _link(self, device_address: str, service: MeshService) -> AsyncIterator[GattLink]:
        self._check_radio("connect")
        await self._slots.acquire()
        try:
            async with self._radio.opening():
                connection = await self._connect(device_address, service)
        except BaseException:
            self._slots.release()
            raise
        connection.has_slot = True
        async with self._closing(connection):
            yield connection.link

    @asynccontextmanager
    async def kept_proxy_link(self, device_address: str) -> AsyncIterator[GattLink]:
        """Open the GATT proxy on the link of PB-GATT, which must still be open.

        The board swaps its services on the open link and bleak goes on with the old ones; so
        another client takes the link over, once BlueZ has the new ones. Both end together.

        Raises:
            ConnectionLost: that did not work; the link is being closed, open the proxy anew.
            BluetoothUnavailable: the adapter or bluetoothd is the cause.
        """
        try:
            await self._swaps.shown(device_address, seen=self._is_bluez)
            connection = await self._open(device_address, PROXY)
        except (*BLEAK_ERRORS, OtherService) as error:
            raise ConnectionLost(
                f"{device_address} did not go on as a proxy ({describe(error)}); connect again"
            ) from error
        log.info("link_kept", device_address=device_address)
        async with self._closing(connection):
            yield connection.link

    @asynccontextmanager
    async def _closing(self, connection: Connection) -> AsyncIterator[None]:
        try:
            yield
        finally:
            connection.link.lose("the link was closed")
            self._hang_up(connection)

    def _check_radio(self, purpose: str) -> None:
        if not self._is_open:
            raise LocalProtocolError(f"enter the bearer before you {purpose}")
        if self._radio.is_scanning:
            raise LocalProtocolError(f"end the scan before you {purpose}")

    @property
    def _is_bluez(self) -> bool:
        return self._scanner_backend is None and self._client_backend is None

    async def _find_adapter(self) -> None:
        if self._adapter_name:
            return
        is_name = self._adapter and ":" not in self._adapter
        if is_name or not self._is_bluez:
            self._adapter_name = self._adapter
        else:
            self._adapter_name = await find_adapter(self._adapter)

    async def _connect(self, device_address: str, service: MeshService) -> Connection:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        attempt = 1
        is_forgotten = False
        while True:
            await self._hung_up(device_address)
            try:
                connection = await self._open(device_address, service)
            except (*BLEAK_ERRORS, BluetoothUnavailable, OtherService) as error:
                diagnosis = diagnose(error)
                log.debug(
                    "connect_failed",
                    device_address=device_address,
                    attempt=attempt,
                    error=describe(error),
                )
                if diagnosis.error is BluetoothUnavailable and self._may_return:
                    await asyncio.sleep(_RETURN_PAUSE_S)
                    continue
                remedy = diagnosis.remedy
                is_hopeless = remedy is Remedy.GIVE_UP or (remedy is Remedy.FORGET and is_forgotten)
                if is_hopeless or attempt == self._connect_attempts:
                    raise diagnosis.error(
                        f"could not connect to {device_address} in {attempt} attempts "
                        f"({describe(error)}); {diagnosis.advice}"
                    ) from error
                if remedy is Remedy.FORGET:
                    await self._forget(device_address)
                    is_forgotten = True
                if remedy in (Remedy.SEARCH, Remedy.FORGET):
                    self._devices.pop(device_address, None)
                await asyncio.sleep(CONNECT_BACK_OFF_S[min(attempt, len(CONNECT_BACK_OFF_S)) - 1])
                attempt += 1
            else:
                log.info(
                    "link_opened",
                    device_address=device_address,
                    service=f"0x{service.uuid:04x}",
                    attempts=attempt,
                    value_octets=connection.link.value_octets,
                    elapsed_s=round(loop.time() - started_s, 3),
                )
                return connection

    async def _open(self, device_address: str, service: MeshService) -> Connection:
        await self._find_adapter()
        self._swaps.forget(device_address)
        link = GattLink(device_address, service)
        client = self._client(device_address, link.on_disconnected)
        connection = Connection(device_address, link, client)
        self._connections.add(connection)
        try:
            async with asyncio.timeout(2 * self._connect_timeout_s + _BLEAK_MARGIN_S):
                await client.connect()
            # BlueZ knows a board as long as it is connected, however long it was not heard.
            self._linked(device_address)
            await link.start(client)
            return connection
        except BaseException:
            self._hang_up(connection)
            raise

    async def _forget(self, device_address: str) -> None:
        """Have BlueZ drop the device, with the services that it remembers."""
        await self._hung_up(device_address)
        try:
            async with asyncio.timeout(DISCONNECT_TIMEOUT_S):
                await self._client(device_address).unpair()
        except BLEAK_ERRORS as error:
            log.debug("forget_failed", device_address=device_address, error=describe(error))
        else:
            log.info("device_forgotten", device_address=device_address)

    @property
    def _may_return(self) -> bool:
        return asyncio.get_running_loop().time() < self._lost_s + RETURN_S

    def _bluetooth_lost(self, reason: str) -> None:
        log.warning("bluetooth_lost", reason=reason, links=len(self._connections))
        self._lost_s = asyncio.get_running_loop().time()
        self._adapter_name = ""
        self._devices.clear()
        for connection in self._connections:
            connection.lose(reason)
        if self._scan is not None:
            self._scan.lose(reason)

    def _client(
        self, device_address: str, on_disconnected: Callable[[BleakClient], None] | None = None
    ) -> BleakClient:
        self._forget_silent()
        known = self._devices.get(device_address)
        bluez = BlueZClientArgs()
        if self._adapter_name:
            bluez["adapter"] = self._adapter_name
        # With a device that BlueZ still knows bleak need not search for it first.
        return BleakClient(
            device_address if known is None else known[0],
            disconnected_callback=on_disconnected,
            timeout=self._connect_timeout_s,
            bluez=bluez,
            backend=self._client_backend,
        )

    def _remember(self, device: BLEDevice) -> None:
        self._devices[device.address] = (device, asyncio.get_running_loop().time())

    def _linked(self, device_address: str) -> None:
        known = self._devices.get(device_address)
        if known is not None:
            self._remember(known[0])

    def _forget_silent(self) -> None:
        oldest_s = asyncio.get_running_loop().time() - _DEVICE_LIFE_S
        self._devices = {
            address: (device, seen_s)
            for address, (device, seen_s) in self._devices.items()
            if seen_s > oldest_s
        }

    def _hang_up(self, connection: Connection) -> None:
        # Not in a TaskGroup: an error elsewhere must not cancel it and leave a link behind.
        task = asyncio.create_task(
            connection.hang_up(), name=f"hang_up[{connection.device_address}]"
        )
        self._hang_ups[task] = connection
        task.add_done_callback(self._hung_up_one)

    def _hung_up_one(self, task: asyncio.Task[None]) -> None:
        connection = self._hang_ups.pop(task)
        self._connections.discard(connection)
        if connection.has_slot:
            self._slots.release()

    async def _hung_up(self, device_address: str) -> None:
        tasks = [
            task
            for task, connection in self._hang_ups.items()
            if connection.device_address == device_address
        ]
        if tasks:
            await asyncio.wait(tasks)
