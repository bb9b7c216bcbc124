"""The adapter: scans and links through bleak, one use of the radio at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import structlog
from bleak import BleakClient
from bleak.args.bluez import BlueZClientArgs
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import BaseBleakScanner

from fastprovd.bearers.bluez import find_adapter
from fastprovd.bearers.errors import BLEAK_ERRORS, describe, diagnose
from fastprovd.bearers.gatt import PROVISIONING, PROXY, GattLink, MeshService
from fastprovd.bearers.scanner import BleakScan
from fastprovd.errors import LocalProtocolError

# Connect and discovery take 0.5 to 1.6 s; a board that just went off the air never answers.
CONNECT_TIMEOUT_S: Final = 5.0
# bleak bounds its own search and connect, and hangs up in 2 s; this is for a silent bluetoothd.
_BLEAK_MARGIN_S: Final = 5.0
# Failed establishments come in bursts of radio noise; the third attempt nearly always succeeds.
CONNECT_BACK_OFF_S: Final = (0.25, 0.5, 1.0)
CONNECT_ATTEMPTS: Final = 3
# bleak gives up after 10 s.
DISCONNECT_TIMEOUT_S: Final = 12.0
# BlueZ forgets an unconnected device 30 s after its last advertisement.
_DEVICE_LIFE_S: Final = 20.0

log = structlog.get_logger(__name__)


class BleakBearer:
    """A Bluetooth adapter reached through bleak; `async with` it, everything inside.

    It never connects while it discovers: a connection and a scan wait for each other, and asking
    for a link inside a scan is a LocalProtocolError. A scan while links are open is fine. Links
    are hung up in the background, because BlueZ takes 2 s for it; the next connection to the same
    board, and the end of the bearer, wait for that.

    `adapter` is a name (`hci0`), the adapter's own address, or empty for the default one.
    """

    def __init__(
        self,
        adapter: str = "",
        scanner_backend: type[BaseBleakScanner] | None = None,
        client_backend: type[BaseBleakClient] | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        connect_attempts: int = CONNECT_ATTEMPTS,
    ) -> None:
        self._adapter = adapter
        self._adapter_name = ""
        self._scanner_backend = scanner_backend
        self._client_backend = client_backend
        self._connect_timeout_s = connect_timeout_s
        self._connect_attempts = connect_attempts
        self._is_open = False
        self._is_scanning = False
        self._radio = asyncio.Lock()
        self._devices: dict[str, tuple[BLEDevice, float]] = {}
        self._hang_ups: dict[asyncio.Task[None], str] = {}

    async def __aenter__(self) -> Self:
        self._adapter_name = self._adapter
        if ":" in self._adapter and self._scanner_backend is None:
            self._adapter_name = await find_adapter(self._adapter)
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        while self._hang_ups:
            await asyncio.wait(self._hang_ups)

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[BleakScan]:
        """Discover until the context ends; waits for a connection that is being opened.

        Raises:
            BluetoothUnavailable: discovery can not be started.
            LocalProtocolError: inside another scan.
        """
        self._check_radio("scan")
        async with self._radio:
            self._is_scanning = True
            self._forget_silent()
            scan = BleakScan(self._adapter_name, self._scanner_backend, self._remember)
            try:
                await scan.start()
                yield scan
            finally:
                try:
                    await scan.stop()
                finally:
                    self._is_scanning = False

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
        async with self._radio:
            link, client = await self._connect(device_address, service)
        try:
            yield link
        finally:
            link.lose("the link was closed")
            self._hang_up(device_address, client)

    def _check_radio(self, purpose: str) -> None:
        if not self._is_open:
            raise LocalProtocolError(f"enter the bearer before you {purpose}")
        if self._is_scanning:
            raise LocalProtocolError(f"end the scan before you {purpose}")

    async def _connect(
        self, device_address: str, service: MeshService
    ) -> tuple[GattLink, BleakClient]:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        for attempt in range(1, self._connect_attempts + 1):
            await self._hung_up(device_address)
            link = GattLink(device_address, service)
            client = self._client(device_address, link)
            try:
                value_octets = await self._open(device_address, client, link)
            except BLEAK_ERRORS as error:
                diagnosis = diagnose(error)
                log.debug(
                    "connect_failed",
                    device_address=device_address,
                    attempt=attempt,
                    error=describe(error),
                )
                if diagnosis.forgets_device:
                    self._devices.pop(device_address, None)
                if attempt == self._connect_attempts or not diagnosis.is_transient:
                    raise diagnosis.error(
                        f"could not connect to {device_address} in {attempt} attempts "
                        f"({describe(error)}); {diagnosis.advice}"
                    ) from error
                await asyncio.sleep(CONNECT_BACK_OFF_S[min(attempt, len(CONNECT_BACK_OFF_S)) - 1])
            else:
                log.info(
                    "link_opened",
                    device_address=device_address,
                    service=f"0x{service.uuid:04x}",
                    attempts=attempt,
                    value_octets=value_octets,
                    elapsed_s=round(loop.time() - started_s, 3),
                )
                return link, client
        raise LocalProtocolError("a bearer needs at least one connection attempt")

    async def _open(self, device_address: str, client: BleakClient, link: GattLink) -> int:
        try:
            async with asyncio.timeout(2 * self._connect_timeout_s + _BLEAK_MARGIN_S):
                await client.connect()
            await link.start(client)
            return link.value_octets
        except BaseException:
            self._hang_up(device_address, client)
            raise

    def _client(self, device_address: str, link: GattLink) -> BleakClient:
        self._forget_silent()
        known = self._devices.get(device_address)
        bluez = BlueZClientArgs()
        if self._adapter_name:
            bluez["adapter"] = self._adapter_name
        # With a device that BlueZ still knows bleak need not search for it first.
        return BleakClient(
            device_address if known is None else known[0],
            disconnected_callback=link.on_disconnected,
            timeout=self._connect_timeout_s,
            bluez=bluez,
            backend=self._client_backend,
        )

    def _remember(self, device: BLEDevice) -> None:
        self._devices[device.address] = (device, asyncio.get_running_loop().time())

    def _forget_silent(self) -> None:
        oldest_s = asyncio.get_running_loop().time() - _DEVICE_LIFE_S
        self._devices = {
            address: (device, seen_s)
            for address, (device, seen_s) in self._devices.items()
            if seen_s > oldest_s
        }

    def _hang_up(self, device_address: str, client: BleakClient) -> None:
        # Not in a TaskGroup: an error elsewhere must not cancel it and leave a link behind.
        task = asyncio.create_task(
            self._disconnect(device_address, client), name=f"hang_up[{device_address}]"
        )
        self._hang_ups[task] = device_address
        task.add_done_callback(self._hang_ups.pop)

    async def _hung_up(self, device_address: str) -> None:
        tasks = [task for task, address in self._hang_ups.items() if address == device_address]
        if tasks:
            await asyncio.wait(tasks)

    async def _disconnect(self, device_address: str, client: BleakClient) -> None:
        try:
            async with asyncio.timeout(DISCONNECT_TIMEOUT_S):
                await client.disconnect()
        except BLEAK_ERRORS as error:
            log.warning("disconnect_failed", device_address=device_address, error=describe(error))
        else:
            log.debug("link_closed", device_address=device_address)
