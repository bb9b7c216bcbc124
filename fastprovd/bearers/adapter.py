"""The adapter: scans and links through bleak, never a connection into a scan."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Self

import structlog
from bleak.backends.client import BaseBleakClient
from bleak.backends.scanner import BaseBleakScanner

from fastprovd.bearers.adapter_memory import LinkMemory
from fastprovd.bearers.attempts import CONNECT_ATTEMPTS, Attempts
from fastprovd.bearers.bluez import close_left_links, find_adapter
from fastprovd.bearers.bluez_owner import BleakGuard
from fastprovd.bearers.bluez_watch import BluezWatch
from fastprovd.bearers.connection import DISCONNECT_TIMEOUT_S, Connection, Connections
from fastprovd.bearers.devices import KnownDevices
from fastprovd.bearers.errors import BLEAK_ERRORS, Remedy, describe, diagnose
from fastprovd.bearers.gatt import PROVISIONING, PROXY, GattLink, MeshService
from fastprovd.bearers.left_links import LeftLinks, LinkRecord
from fastprovd.bearers.load import AdapterLoad, Refused
from fastprovd.bearers.radio import RadioUse
from fastprovd.bearers.scanner import BleakScan
from fastprovd.bearers.slots import Attempt
from fastprovd.bearers.swaps import Swaps
from fastprovd.edges import guarded
from fastprovd.errors import (
    BearerError,
    BluetoothUnavailable,
    ConnectionLost,
    LocalProtocolError,
    NoFreeLink,
    WrongService,
)
from fastprovd.records import AdapterLinks

# Connect and discovery take 0.5 to 1.6 s; a board that just went off the air never answers.
CONNECT_TIMEOUT_S: Final = 5.0
# bleak bounds its own search and connect, and hangs up in 2 s; this is for a silent bluetoothd.
_BLEAK_MARGIN_S: Final = 5.0
# An adapter that refuses links for so long is full of other programs' links.
FULL_S: Final = 60.0
# Boards advertise several times a second, and a fresh scan tells of each of them.
_SEARCH_S: Final = 3.0
# A connection waits so long for Bluetooth to return: bluetoothd restarts in 0.6 to 2.2 s, a person
# needs half a minute to plug an adapter in again, and BlueZ some seconds to show it.
RETURN_S: Final = 45.0
_RETURN_PAUSE_S: Final = 0.5

# A board that advertises each 20 ms is heard in this time also among a hundred others.
_LEAST_SCAN_S: Final = 0.3

log = structlog.get_logger(__name__)


class BleakBearer:
    """A Bluetooth adapter reached through bleak; `async with` it, everything inside.

    It never connects while it discovers: connections and a scan wait for each other, and asking
    for a link inside a scan is a LocalProtocolError. A scan while links are open is fine, and so
    are connections beside each other, as many as the adapter bears, and no more than `max_links`;
    more wait, see `LinkLimit`. What was learnt of an adapter is kept in `memory`, and which links
    are ours in `record`. Links are hung up in the background, because BlueZ takes 2 s for it; the
    next connection to the same board, and the end of the bearer, wait for that.

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
        max_links: int | None = None,
        memory: LinkMemory | None = None,
        record: LinkRecord | None = None,
    ) -> None:
        self._adapter = adapter
        self._adapter_name = ""
        self._scanner_backend = scanner_backend
        self._client_backend = client_backend
        self._connect_timeout_s = connect_timeout_s
        self._connect_attempts = connect_attempts
        self._is_open = False
        self._scan: BleakScan | None = None
        self._left = LeftLinks(record)
        self._connections = Connections(self._ended, self._closed)
        self._lost_s = -math.inf
        self._watch = AsyncExitStack()
        self._radio = RadioUse()
        self._load = AdapterLoad(max_links, memory, self._in_use)
        self._slots = self._load.slots
        self._swaps = Swaps()
        self._guard = BleakGuard()
        self._devices = KnownDevices(client_backend, connect_timeout_s)

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
            self._connections.hang_up_all()
            await self._connections.hung_up()
        except asyncio.CancelledError:
            # Whoever is cancelled inside waits for the same; a link must not be left for it.
            await self._connections.hung_up()
            raise
        finally:
            await self._watch.aclose()

    def hurry(self) -> None:
        """Wait a second more at most for a BlueZ that does not answer: the program has to end.

        A link that it may not have hung up stays on record, for the next process to close.
        """
        if self._connections or self._scan is not None:
            self._bluetooth_lost("BlueZ does not answer, and the gateway ends")

    async def close_left_links(self) -> None:
        """Hang up the links that a process before us left at BlueZ; call it first.

        Also those that we could not hang up ourselves; never one of another program.

        Raises:
            BluetoothUnavailable: no adapter, or bluetoothd does not answer.
        """
        if not self._is_bluez:
            return
        await self._find_adapter()
        held = {connection.device_address for connection in self._connections}
        ours = await self._left.left() - held
        if ours:
            await self._left.ended(ours - await close_left_links(self._adapter_name, ours))

    async def _closed(self, device_address: str) -> None:
        if self._is_bluez:
            await self._left.ended([device_address])

    @property
    def links(self) -> AdapterLinks:
        """How many links may be open at once; it changes while one connects."""
        return self._load.links

    @asynccontextmanager
    async def scan(self, *, gives_way: bool = False) -> AsyncIterator[BleakScan]:
        """Discover until the context ends; waits for a connection that is being opened.

        One that `gives_way` ends its iteration when somebody wants to connect, who waits until its
        context has ended; not before it could hear each board that advertises fast.

        Raises:
            BluetoothUnavailable: discovery can not be started, or ended with bluetoothd or the
                adapter.
            LocalProtocolError: inside another scan.
        """
        self._check_radio("scan")
        wanted = asyncio.Event()
        turn = self._radio.scanning(wanted.set if gives_way else None)
        async with turn, self._discovery() as scan:
            ending = asyncio.create_task(_end_when(wanted, scan), name="scan_gives_way")
            try:
                yield scan
            finally:
                ending.cancel()
                await asyncio.wait({ending})

    @asynccontextmanager
    async def _discovery(self) -> AsyncIterator[BleakScan]:
        try:
            await self._find_adapter()
            await self._load.meet_first()
            self._devices.forget_silent()
            scan = self._scan = BleakScan(
                self._adapter_name,
                self._scanner_backend,
                self._devices.remember,
                self._guard.stand if self._is_bluez else None,
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
            WrongService: it answers and does not offer the service, also after BlueZ forgot it.
            ConnectionLost: it was reached and lost again, at every attempt; or another program
                uses it.
            BluetoothUnavailable: the adapter or bluetoothd is the cause.
            NoFreeLink: the adapter bears no more links, and none ended for a minute.
            LocalProtocolError: inside a scan.
        """
        async with self._link(device_address, PROXY) as link:
            yield link

    @asynccontextmanager
    async def _link(self, device_address: str, service: MeshService) -> AsyncIterator[GattLink]:
        self._check_radio("connect")
        connection = await self._borne(device_address, service)
        connection.has_slot = True
        async with self._closing(connection):
            yield connection.link

    async def _borne(self, device_address: str, service: MeshService) -> Connection:
        """Connect when the adapter has a link to spare; what it refuses is repeated later."""
        refused: Refused | None = None
        limit_s = math.inf
        try:
            while True:
                await self._load.meet()
                await self._check_free(device_address)
                await self._load.acquire(refused)
                try:
                    return await self._connect_with_slot(device_address, service, refused)
                except Refused as error:
                    refused = error
                    limit_s = min(limit_s, asyncio.get_running_loop().time() + FULL_S)
                if asyncio.get_running_loop().time() >= limit_s:
                    raise NoFreeLink(
                        f"the adapter refuses a link to {device_address} ({refused}); end what "
                        "else uses it, or use another adapter"
                    ) from refused
        except BaseException:
            if refused is not None:
                self._load.denied()
            raise

    async def _check_free(self, device_address: str) -> None:
        """Leave the link of another program alone: bleak would share it, and end it with ours."""
        if device_address not in self._load.elsewhere or device_address in self._left:
            return
        await self._load.meet(anew=True)
        if device_address in self._load.elsewhere:
            raise ConnectionLost(
                f"{device_address} is connected to another program of this machine; end its link "
                "first"
            )

    async def _connect_with_slot(
        self, device_address: str, service: MeshService, refused: Refused | None
    ) -> Connection:
        is_doubt = refused is not None and not refused.is_certain
        try:
            if is_doubt or device_address not in self._devices:
                await self._search(device_address, anew=is_doubt)
            async with self._radio.opening():
                return await self._connect(device_address, service, refused)
        except BaseException:
            # The slot of a link that did not come about, once nothing is left of it.
            hang_ups = self._connections.hang_ups(device_address)
            if hang_ups:
                hang_ups[-1].add_done_callback(guarded(lambda _: self._slots.release()))
            else:
                self._slots.release()
            raise

    async def _search(self, device_address: str, *, anew: bool) -> None:
        """Hear of a board, `anew` when BlueZ may have forgotten it with a link that was refused.

        bleak would search as well, but while others connect.
        """
        if anew:
            self._devices.forget(device_address)
        async with self._radio.searching():
            if device_address in self._devices:  # another search has heard it
                return
            try:
                async with asyncio.timeout(_SEARCH_S), self._discovery() as scan:
                    async for _ in scan:
                        if device_address in self._devices:
                            return
            except (TimeoutError, BluetoothUnavailable) as error:
                log.debug("not_heard", device_address=device_address, error=describe(error))

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
            # A scan of ours gives way: bleak may have to look for a board that it does not know.
            async with self._radio.opening():
                connection = await self._taken_over(device_address)
        except (*BLEAK_ERRORS, WrongService) as error:
            raise ConnectionLost(
                f"{device_address} did not go on as a proxy ({describe(error)}); connect again"
            ) from error
        log.info("link_kept", device_address=device_address)
        async with self._closing(connection):
            yield connection.link

    async def _taken_over(self, device_address: str) -> Connection:
        """Open the proxy on a link that is there, once BlueZ is not busy with another search."""
        attempts = Attempts(most=1)
        while True:
            try:
                return await self._open(device_address, PROXY)
            except BLEAK_ERRORS as error:
                diagnosis = diagnose(error, connecting=True)
                pause_s = attempts.pause_s(diagnosis)
                if diagnosis.remedy is not Remedy.BUSY or pause_s is None:
                    raise
                log.debug("kept_link_waits", device_address=device_address, error=describe(error))
            await asyncio.sleep(pause_s)

    @asynccontextmanager
    async def _closing(self, connection: Connection) -> AsyncIterator[None]:
        try:
            yield
        finally:
            connection.link.lose("the link was closed")
            self._connections.hang_up(connection)

    def _check_radio(self, purpose: str) -> None:
        if not self._is_open:
            raise LocalProtocolError(f"enter the bearer before you {purpose}")
        if self._radio.is_blocked:
            raise LocalProtocolError(f"end the scan before you {purpose}")

    @property
    def _is_bluez(self) -> bool:
        return self._scanner_backend is None and self._client_backend is None

    def _in_use(self) -> tuple[str, Collection[str]]:
        adapter = self._adapter_name if self._is_bluez else ""
        return adapter, {connection.device_address for connection in self._connections}

    async def _find_adapter(self) -> None:
        if self._adapter_name:
            return
        is_name = self._adapter and ":" not in self._adapter
        if is_name or not self._is_bluez:
            self._adapter_name = self._adapter
        else:
            self._adapter_name = await find_adapter(self._adapter)

    async def _connect(
        self, device_address: str, service: MeshService, before: Refused | None
    ) -> Connection:
        """Connect in some attempts; one `before`, which is not counted, was refused, or may be.

        Raises:
            Refused: the adapter bears no more, or may bear no more.
        """
        started_s = asyncio.get_running_loop().time()
        attempts = Attempts(self._connect_attempts)
        doubt = None if before is None or before.is_certain else before
        while True:
            await self._connections.hung_up(device_address)
            try:
                connection = await self._try(device_address, service, before)
            except (*BLEAK_ERRORS, BearerError) as error:
                diagnosis = diagnose(error, connecting=True)
                log.debug(
                    "connect_failed",
                    device_address=device_address,
                    attempt=attempts.number,
                    error=describe(error),
                )
                if doubt is not None:
                    self._load.denied()
                    doubt = None
                if diagnosis.error is BluetoothUnavailable and self._may_return:
                    await asyncio.sleep(_RETURN_PAUSE_S)
                    continue
                pause_s = attempts.pause_s(diagnosis)
                if pause_s is None:
                    raise diagnosis.error(
                        f"could not connect to {device_address} in {attempts.number} attempts "
                        f"({describe(error)}); {diagnosis.advice}"
                    ) from error
                if diagnosis.remedy is Remedy.FORGET:
                    await self._forget(device_address)
                if diagnosis.remedy in (Remedy.SEARCH, Remedy.FORGET):
                    self._devices.forget(device_address)
                await asyncio.sleep(pause_s)
            else:
                log.info(
                    "link_opened",
                    device_address=device_address,
                    service=f"0x{service.uuid:04x}",
                    attempts=attempts.number,
                    value_octets=connection.link.value_octets,
                    elapsed_s=round(asyncio.get_running_loop().time() - started_s, 3),
                )
                await self._learn(doubt, connection)
                return connection

    async def _learn(self, doubt: Refused | None, connection: Connection) -> None:
        """Take what an open link says about one that was refused; nobody has the link yet."""
        try:
            if doubt is not None:
                await self._load.learn(doubt)
        except BaseException:
            self._connections.hang_up(connection)
            raise

    async def _try(
        self, device_address: str, service: MeshService, before: Refused | None
    ) -> Connection:
        """Connect in one attempt; raises Refused as well."""
        attempt = self._load.begin()
        was_known = device_address in self._devices
        try:
            return await self._open(device_address, service, attempt)
        except BLEAK_ERRORS as error:
            refused = None
            if diagnose(error, connecting=True).remedy is Remedy.WAIT:
                refused = await self._load.refused(attempt, describe(error))
            elif (
                isinstance(error, TimeoutError)
                and was_known
                and before is None
                # Silence over the end of bluetoothd tells nothing of what the adapter bears.
                and self._lost_s < attempt.begun_s
            ):
                refused = self._load.doubt(attempt)
            if refused is not None:
                raise refused from error
            raise
        finally:
            if not attempt.is_open:
                self._load.end(attempt)

    async def _open(
        self, device_address: str, service: MeshService, attempt: Attempt | None = None
    ) -> Connection:
        """Open a link, with an `attempt`, or take over the one that is there."""
        await self._find_adapter()
        self._swaps.forget(device_address)
        link = GattLink(device_address, service)
        lost = guarded(link.on_disconnected)
        client = self._devices.client(device_address, self._adapter_name, lost)
        connection = Connection(device_address, link, client)
        self._connections.add(connection)
        try:
            if attempt is not None and self._is_bluez:
                await self._left.opening(device_address)
            async with asyncio.timeout(2 * self._connect_timeout_s + _BLEAK_MARGIN_S):
                if self._is_bluez:
                    await self._guard.stand()
                await client.connect()
            if attempt is not None:
                connection.attempt = attempt
                self._load.opened(attempt)
            self._devices.linked(device_address)
            await link.start(client)
            return connection
        except BaseException:
            self._connections.hang_up(connection)
            raise

    async def _forget(self, device_address: str) -> None:
        """Have BlueZ drop the device, with the services that it remembers."""
        await self._connections.hung_up(device_address)
        try:
            async with asyncio.timeout(DISCONNECT_TIMEOUT_S):
                await self._devices.client(device_address, self._adapter_name).unpair()
        except BLEAK_ERRORS as error:
            log.debug("forget_failed", device_address=device_address, error=describe(error))
        else:
            log.info("device_forgotten", device_address=device_address)

    @property
    def _may_return(self) -> bool:
        return asyncio.get_running_loop().time() < self._lost_s + RETURN_S

    def _bluetooth_lost(self, reason: str) -> None:
        log.warning(
            "bluetooth_lost",
            reason=reason,
            links=len(self._connections),
            hanging_up=len(self._hang_ups),
        )
        self._lost_s = asyncio.get_running_loop().time()
        self._adapter_name = ""
        self._devices.clear()
        for connection in self._connections:
            connection.lose(reason)
        if self._scan is not None:
            self._scan.lose(reason)

    @property
    def _hang_ups(self) -> list[asyncio.Task[None]]:
        return self._connections.hang_ups()

    def _ended(self, connection: Connection) -> None:
        try:
            if connection.attempt is not None:
                self._load.end(connection.attempt)
        finally:
            if connection.has_slot:
                self._slots.release()


async def _end_when(wanted: asyncio.Event, scan: BleakScan) -> None:
    await asyncio.sleep(_LEAST_SCAN_S)
    await wanted.wait()
    scan.end()
