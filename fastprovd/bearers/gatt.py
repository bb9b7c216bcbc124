"""One GATT link: Proxy PDUs over Data In and Data Out, PB-GATT and proxy alike."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

import structlog
from bleak import BleakClient
from bleak.assigned_numbers import CharacteristicPropertyName
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.service import BleakGATTService
from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.errors import BLEAK_ERRORS, describe, is_stale
from fastprovd.edges import guarded
from fastprovd.errors import ConnectionLost, DecodeError, OtherService, WrongService
from fastprovd.mesh.beacons import MESH_PROVISIONING_SERVICE, MESH_PROXY_SERVICE
from fastprovd.mesh.proxy import MIN_VALUE_OCTETS, ProxyPduType, Reassembler, segment

# One exchange over the air at the slowest usual connection interval, with repetitions; BlueZ
# gives an ATT request 30 s, which is longer than a board waits for anything.
NOTIFY_TIMEOUT_S: Final = 5.0
# BlueZ only queues the value; past this bluetoothd does not answer any more.
WRITE_TIMEOUT_S: Final = 5.0
# A list of 120 addresses is 21 PDUs; nobody may be this far behind.
MAX_QUEUED: Final = 256

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MeshService:
    """A service that carries Proxy PDUs, as 16-bit UUIDs."""

    uuid: int
    data_in: int
    data_out: int


PROVISIONING: Final = MeshService(MESH_PROVISIONING_SERVICE, 0x2ADB, 0x2ADC)
PROXY: Final = MeshService(MESH_PROXY_SERVICE, 0x2ADD, 0x2ADE)


class GattLink:
    """Sends and receives whole Proxy PDUs; made before the client, started when it is connected.

    It does not reconnect and does not hang up: that is the bearer's business. `malformed` counts
    notifications that were no part of a Proxy PDU, `dropped` PDUs that nobody fetched in time.
    """

    def __init__(self, device_address: str, service: MeshService) -> None:
        self.malformed = 0
        self.dropped = 0
        self._device_address = device_address
        self._service = service
        self._gatt: tuple[BleakClient, BleakGATTCharacteristic] | None = None  # with Data In
        self._reassembler = Reassembler()
        self._received: deque[tuple[ProxyPduType, bytes]] = deque()
        self._arrived = asyncio.Event()
        self._writer = asyncio.Lock()
        self._lost: str | None = None
        self._log = log.bind(device_address=device_address, service=f"0x{service.uuid:04x}")

    @property
    def is_connected(self) -> bool:
        """Whether the link was up when last heard of."""
        return self._gatt is not None and self._lost is None

    @property
    def value_octets(self) -> int:
        """How many octets one write takes; BlueZ may tell more after the first exchange."""
        _, data_in = self._check()
        return max(MIN_VALUE_OCTETS, data_in.max_write_without_response_size)

    async def start(self, client: BleakClient) -> None:
        """Find the characteristics and enable notifications, before anything is written.

        Raises:
            OtherService: the board offers the other mesh service instead.
            WrongService: the board does not offer the service as it has to be, or hid it just now;
                or BlueZ shows it as it was before.
            ConnectionLost: the link went meanwhile.
            BLEAK_ERRORS: whatever bleak raises.
        """
        data_in, data_out = self._characteristics(client)
        self._gatt = client, data_in
        try:
            async with asyncio.timeout(NOTIFY_TIMEOUT_S):
                await client.start_notify(data_out, guarded(self._on_value))
        except TimeoutError as error:
            raise ConnectionLost(
                f"{self._device_address} did not confirm notifications in {NOTIFY_TIMEOUT_S:g} s"
            ) from error
        except BLEAK_ERRORS as error:
            if self._lost is None and is_stale(error):
                raise WrongService(
                    f"{self._device_address} refused notifications of 0x{self._service.uuid:04x} "
                    f"({describe(error)})"
                ) from error
            raise
        self._check()

    def _characteristics(
        self, client: BleakClient
    ) -> tuple[BleakGATTCharacteristic, BleakGATTCharacteristic]:
        """Return Data In and Data Out."""
        uuid = normalize_uuid_16(self._service.uuid)
        offered = list(client.services)
        found = [service for service in offered if service.uuid == uuid]
        if not found:
            others = [service.uuid for service in offered]
            is_other = any(normalize_uuid_16(role.uuid) in others for role in (PROVISIONING, PROXY))
            raise (OtherService if is_other else WrongService)(
                f"{self._device_address} must offer service 0x{self._service.uuid:04x}, it offers "
                f"{', '.join(uuid[4:8] for uuid in others) or 'nothing'}; look again for it"
            )
        if len(found) > 1:
            raise WrongService(
                f"{self._device_address} shows service 0x{self._service.uuid:04x} {len(found)} "
                "times, one of them is from before"
            )
        return (
            self._characteristic(found[0], self._service.data_in, "write-without-response"),
            self._characteristic(found[0], self._service.data_out, "notify"),
        )

    def _characteristic(
        self, service: BleakGATTService, uuid: int, needed: CharacteristicPropertyName
    ) -> BleakGATTCharacteristic:
        full = normalize_uuid_16(uuid)
        found = [each for each in service.characteristics if each.uuid == full]
        if len(found) != 1 or needed not in found[0].properties:
            shown = [list(each.properties) for each in found]
            raise WrongService(
                f"{self._device_address} must offer one characteristic 0x{uuid:04x} with {needed} "
                f"in service 0x{self._service.uuid:04x}, it offers {shown or 'none'}"
            )
        return found[0]

    async def send(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Hand one Proxy PDU to the controller, in order, without response.

        A PDU that was begun is written to its end even when the caller is cancelled, because half
        a PDU would spoil the next one.

        Raises:
            ConnectionLost: the link is gone, or went under the write.
        """
        async with self._writer:
            self._check()
            writing = asyncio.create_task(
                self._write_all(pdu_type, payload), name=f"write[{self._device_address}]"
            )
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                # Nobody is left to hear of it, nor to wait if we are cancelled once more.
                writing.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.wait({writing})
                raise

    async def receive(self) -> tuple[ProxyPduType, bytes]:
        """Return the next Proxy PDU; those that came before the link went are delivered first.

        Raises:
            ConnectionLost: the link is gone.
        """
        while not self._received:
            self._check()
            self._arrived.clear()
            await self._arrived.wait()
        return self._received.popleft()

    def lose(self, reason: str) -> None:
        """Note that the link is gone, and why; the first reason holds."""
        if self._lost is None:
            self._lost = reason
            self._arrived.set()

    def on_disconnected(self, _: BleakClient) -> None:
        """Take bleak's word that the link is gone.

        Before `start()` it is no link of ours: bleak tells of an establishment that failed
        (le-connection-abort-by-local), and tries again inside `connect()`.
        """
        if self._gatt is None:
            return
        if self._lost is None:
            self._log.debug("link_lost")
        self.lose("the link was lost")

    def _check(self) -> tuple[BleakClient, BleakGATTCharacteristic]:
        if self._gatt is None or self._lost is not None:
            raise ConnectionLost(f"{self._device_address}: {self._lost or 'not connected'}")
        return self._gatt

    async def _write_all(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        for value in segment(pdu_type, payload, self.value_octets):
            await self._write(value)
        self._log.debug("proxy_pdu_sent", type=pdu_type.name, octets=len(payload))

    async def _write(self, value: bytes) -> None:
        client, data_in = self._check()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await client.write_gatt_char(data_in, value, response=False)
        except BLEAK_ERRORS as error:
            self._log.debug("write_failed", error=describe(error))
            self.lose(f"a write failed ({describe(error)})")
            raise ConnectionLost(
                f"{self._device_address}: a write failed ({describe(error)})"
            ) from error

    def _on_value(self, _: BleakGATTCharacteristic, value: bytearray) -> None:
        now = asyncio.get_running_loop().time()
        self._reassembler.handle_deadline(now)
        try:
            pdu = self._reassembler.receive(bytes(value), now)
        except DecodeError as error:
            self.malformed += 1
            self._log.debug("notification_malformed", octets=len(value), error=str(error))
            return
        if pdu is None:
            return
        if len(self._received) == MAX_QUEUED:
            self._received.popleft()
            self.dropped += 1
        self._received.append(pdu)
        self._arrived.set()
        self._log.debug("proxy_pdu_received", type=pdu[0].name, octets=len(pdu[1]))
