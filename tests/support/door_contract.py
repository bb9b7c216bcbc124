"""What bleak and the bearer find behind every front door of the emulated boards.

A test module subclasses `DoorContract` and gives it a fixture `door`.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Final, Protocol

import pytest
from bleak import BleakClient, BleakScanner
from bleak.exc import BleakError
from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.adapter import CONNECT_TIMEOUT_S, BleakBearer
from fastprovd.bearers.gatt import PROVISIONING, GattLink
from fastprovd.campaign.primary import Outcome, provision
from fastprovd.clock import SystemClock
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.errors import BluetoothUnavailable, ConnectionLost, DeviceNotFound
from fastprovd.mesh.beacons import Advertisement, NodeIdentity, UnprovisionedDevice
from fastprovd.mesh.keys import DevKey, NetKey
from fastprovd.mesh.provisioning.pdus import PduType, ProvisioningData
from fastprovd.mesh.proxy import ProxyPduType

# A firmware without Generic Attribute service: nobody is told of the swap.
SILENT: Final = replace(
    Host.NIMBLE,
    name="without Service Changed",
    base_services=Host.NIMBLE.base_services[:1],
    service_changed_cccd=0,
)
HOSTS: Final = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda h: h.name)
INVITE: Final = bytes([PduType.INVITE, 0])
ABSENT: Final = "24:0A:C4:00:00:00"


class Door(Protocol):
    """One way from unmodified bleak to emulated boards."""

    patience: float
    """How much longer than on a gateway anything may take."""

    def place_boards(self, count: int, host: Host = Host.BLUEDROID) -> list[Board]:
        """Place boards without flaws; they boot now."""
        ...

    def written(self, board: Board) -> list[tuple[int, bytes]]:
        """Return every write that reached the board: value handle and value."""
        ...

    async def switch_adapter(self, *, on: bool) -> None:
        """Power the adapter on or off, and wait until it is so."""
        ...

    async def end_bluetoothd(self, number: signal.Signals) -> None:
        """Send bluetoothd a signal and wait until it is gone."""
        ...

    async def start_bluetoothd(self) -> None:
        """Start it and wait for a powered adapter."""
        ...

    def scanning_elsewhere(self) -> AbstractAsyncContextManager[None]:
        """Let another client of BlueZ discover meanwhile."""
        ...

    async def connected(self) -> set[str]:
        """Return the BD_ADDRs that BlueZ says are connected."""
        ...


async def heard_until(
    door: Door, bearer: BleakBearer, enough: Callable[[dict[str, Advertisement]], bool]
) -> dict[str, Advertisement]:
    """Scan until the latest advertisements by BD_ADDR are enough."""
    heard: dict[str, Advertisement] = {}
    async with asyncio.timeout(20 * door.patience), bearer.scan() as scan:
        async for advertisement in scan:
            heard[advertisement.device_address] = advertisement
            if enough(heard):
                break
    return heard


async def find(door: Door, bearer: BleakBearer, board: Board) -> None:
    """Scan until the board was heard waiting for a provisioner."""
    wanted = UnprovisionedDevice(board.uuid)
    await heard_until(
        door,
        bearer,
        lambda heard: board.device_address in heard and heard[board.device_address].data == wanted,
    )


async def capabilities(door: Door, link: GattLink) -> bytes:
    """Send Invite and return the answer."""
    async with asyncio.timeout(5 * door.patience):
        await link.send(ProxyPduType.PROVISIONING_PDU, INVITE)
        pdu_type, pdu = await link.receive()
    assert pdu_type is ProxyPduType.PROVISIONING_PDU
    assert pdu[0] == PduType.CAPABILITIES
    return pdu


async def provision_over(link: GattLink, address: int) -> None:
    """Make the board a node of a network of its own."""

    async def forget(_: DevKey) -> None:
        return

    data = ProvisioningData(NetKey(secrets.token_bytes(16)), address)
    outcome, reason = await provision(link, data, secrets.token_bytes, SystemClock(), forget)
    assert outcome is Outcome.COMPLETED, reason


@asynccontextmanager
async def client_of(door: Door, board: Board) -> AsyncIterator[BleakClient]:
    """Find the board and connect to it with bleak alone."""
    # Not by its address alone: BlueZ forgets a board of which it heard beacons only.
    device = await BleakScanner.find_device_by_filter(
        lambda device, heard: device.address == board.device_address and bool(heard.service_data),
        timeout=10 * door.patience,
    )
    assert device is not None
    async with BleakClient(device, timeout=10 * door.patience) as client:
        yield client


@asynccontextmanager
async def found_link(
    door: Door, board: Board, connect_timeout_s: float = CONNECT_TIMEOUT_S
) -> AsyncIterator[GattLink]:
    """Find the board and open PB-GATT, with a bearer for this alone."""
    async with BleakBearer(connect_timeout_s=connect_timeout_s) as bearer:
        await find(door, bearer, board)
        async with bearer.provisioning_link(board.device_address) as link:
            yield link


class DoorContract:
    """The list; each test brings boards of its own."""

    @pytest.mark.parametrize("count", [1, 20, 100])
    async def test_every_board_is_heard(self, door: Door, count: int) -> None:
        """A scan tells all boards, with their Device UUIDs."""
        boards = {b.device_address: UnprovisionedDevice(b.uuid) for b in door.place_boards(count)}
        async with BleakBearer() as bearer:
            heard = await heard_until(door, bearer, lambda heard: boards.keys() <= heard.keys())
        assert {address: heard[address].data for address in boards} == boards

    @HOSTS
    async def test_discovery_finds_the_services_of_the_board(self, door: Door, host: Host) -> None:
        """An unprovisioned board shows 0x1827 with its handles and properties, not 0x1828."""
        (board,) = door.place_boards(1, host)
        async with client_of(door, board) as client:
            found = {
                (characteristic.uuid, characteristic.handle, frozenset(characteristic.properties))
                for service in client.services
                if service.uuid == normalize_uuid_16(PROVISIONING.uuid)
                for characteristic in service.characteristics
            }
            services = {service.uuid for service in client.services}
        assert found == {
            # BlueZ numbers a characteristic by its declaration, which precedes the value.
            (normalize_uuid_16(c.uuid), c.value_handle - 1, c.properties)
            for c in host.provisioning_service.characteristics
        }
        assert normalize_uuid_16(0x1828) not in services

    async def test_a_write_takes_20_octets(self, door: Door) -> None:
        """At ATT_MTU 23 the 21st octet is refused, nothing is sent, and the link stays."""
        (board,) = door.place_boards(1)
        async with client_of(door, board) as client:
            data_in = client.services.get_characteristic(normalize_uuid_16(PROVISIONING.data_in))
            assert data_in is not None
            assert data_in.max_write_without_response_size == 20
            with pytest.raises(BleakError, match="Failed to initiate write"):
                await client.write_gatt_char(data_in, bytes(21), response=False)
            await client.write_gatt_char(data_in, bytes(20), response=False)
            await self._until(door, lambda: bool(door.written(board)))
            assert client.is_connected
        assert [len(value) for _, value in door.written(board)] == [20]

    async def test_300_writes_arrive_in_order(self, door: Door) -> None:
        """Writes without response are neither lost nor reordered."""
        (board,) = door.place_boards(1)
        async with client_of(door, board) as client:
            data_in = client.services.get_characteristic(normalize_uuid_16(PROVISIONING.data_in))
            assert data_in is not None
            values = [number.to_bytes(2, "big") * 10 for number in range(300)]
            for value in values:
                await client.write_gatt_char(data_in, value, response=False)
            await self._until(door, lambda: len(door.written(board)) == len(values))
        assert [value for _, value in door.written(board)] == values

    @HOSTS
    async def test_notifications_are_on_before_the_first_write(
        self, door: Door, host: Host
    ) -> None:
        """The answer to the first PDU is heard."""
        (board,) = door.place_boards(1, host)
        async with found_link(door, board) as link:
            await capabilities(door, link)

    @HOSTS
    async def test_the_old_service_is_of_no_use_after_the_swap(
        self, door: Door, host: Host
    ) -> None:
        """Once BlueZ has taken Service Changed, a write to 0x1827 fails instead of being lost."""
        (board,) = door.place_boards(1, host)
        async with found_link(door, board) as link:
            await provision_over(link, 0x0005)
            async with asyncio.timeout(5 * door.patience):
                with pytest.raises(ConnectionLost):
                    await self._send_for_ever(link)
            assert board.link_count == 1

    @pytest.mark.parametrize(
        "host", [Host.NIMBLE, Host.BLUEDROID, SILENT], ids=lambda host: host.name
    )
    async def test_a_node_shows_the_proxy_on_the_next_connection(
        self, door: Door, host: Host
    ) -> None:
        """After the swap of the services a new connection finds 0x1828, and it works."""
        (board,) = door.place_boards(1, host)
        async with BleakBearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await provision_over(link, 0x0005)
            async with (
                asyncio.timeout(20 * door.patience),
                bearer.proxy_link(board.device_address) as link,
            ):
                pdu_type, _ = await link.receive()
        assert pdu_type is ProxyPduType.MESH_BEACON

    async def test_a_node_is_heard_as_a_node(self, door: Door) -> None:
        """BlueZ's memory of the old advertisement does not hide the new one."""
        (board,) = door.place_boards(1)
        async with BleakBearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await provision_over(link, 0x0005)
            await heard_until(
                door,
                bearer,
                lambda heard: (
                    board.device_address in heard
                    and isinstance(heard[board.device_address].data, NodeIdentity)
                ),
            )

    async def test_a_board_that_vanishes_ends_its_link(self, door: Door) -> None:
        """Loss of power is told to whoever waits for a PDU."""
        (board,) = door.place_boards(1)
        async with found_link(door, board) as link:
            await capabilities(door, link)
            board.power_off()
            with pytest.raises(ConnectionLost):
                async with asyncio.timeout(5 * door.patience):
                    await link.receive()
            assert not link.is_connected

    async def test_an_absent_board_is_not_found(self, door: Door) -> None:
        """Connecting to nobody ends with the error that says so."""
        async with BleakBearer(connect_timeout_s=3.0, connect_attempts=1) as bearer:
            with pytest.raises(DeviceNotFound):
                async with bearer.provisioning_link(ABSENT):
                    pass

    async def test_a_connection_is_opened_while_another_client_scans(self, door: Door) -> None:
        """Somebody else's discovery may delay a connection, and does not prevent it."""
        (board,) = door.place_boards(1)
        async with (
            asyncio.timeout(30 * door.patience),
            door.scanning_elsewhere(),
            # BlueZ may hear the board only when it restarts its scan, every 10.24 s.
            found_link(door, board, connect_timeout_s=12.0) as link,
        ):
            await capabilities(door, link)

    async def test_a_second_scan_of_the_same_client_is_refused(self, door: Door) -> None:
        """BlueZ says InProgress, and the first scan goes on."""
        (board,) = door.place_boards(1)
        async with BleakBearer() as first, BleakBearer() as second, first.scan() as scan:
            with pytest.raises(BluetoothUnavailable, match="InProgress"):
                async with second.scan():
                    pass
            async with asyncio.timeout(20 * door.patience):
                assert (await anext(scan)).device_address == board.device_address

    async def test_no_connection_is_left_behind(self, door: Door) -> None:
        """When the bearer has ended, BlueZ has no link to the board."""
        (board,) = door.place_boards(1)
        async with found_link(door, board):
            assert board.device_address in await door.connected()
        assert await door.connected() == set()
        await self._until(door, lambda: board.link_count == 0)

    async def test_the_adapter_is_switched_off_and_on(self, door: Door) -> None:
        """Off ends the link and refuses scans; on, everything works again."""
        (board,) = door.place_boards(1)
        async with BleakBearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await door.switch_adapter(on=False)
                with pytest.raises(ConnectionLost):
                    async with asyncio.timeout(5 * door.patience):
                        await link.receive()
            with pytest.raises(BluetoothUnavailable):
                async with bearer.scan():
                    pass
        await door.switch_adapter(on=True)
        await self._works(door, board)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
    async def test_bluetoothd_ends_and_comes_back(self, door: Door, number: signal.Signals) -> None:
        """Its end fails what is under way with the bearer's errors; a restart heals everything."""
        (board,) = door.place_boards(1)
        async with BleakBearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await capabilities(door, link)
                await door.end_bluetoothd(number)
                # After SIGKILL bleak notices nothing until it is used.
                with pytest.raises(ConnectionLost):
                    await link.send(ProxyPduType.PROVISIONING_PDU, INVITE)
            with pytest.raises(BluetoothUnavailable):
                async with bearer.scan():
                    pass
        await door.start_bluetoothd()
        await self._works(door, board)

    async def _works(self, door: Door, board: Board) -> None:
        async with found_link(door, board) as link:
            await capabilities(door, link)

    async def _send_for_ever(self, link: GattLink) -> None:
        while True:
            await link.send(ProxyPduType.PROVISIONING_PDU, INVITE)
            await asyncio.sleep(0.1)

    async def _until(self, door: Door, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10 * door.patience):
            while not holds():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
