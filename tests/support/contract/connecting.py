"""Connecting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from bleak.exc import BleakDBusError, BleakDeviceNotFoundError, BleakError

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.peripheral import CONNECTION_TIMEOUT, Characteristic, Service
from fastprovd.errors import DeviceNotFound, OtherService
from tests.support.contract.common import (
    ABSENT,
    HOSTS,
    IN,
    OUT,
    PROVISIONING,
    capabilities,
    found_link,
    heard_until,
)
from tests.support.door import Door, Need, contract, needs, now
from tests.support.fake_air import (
    DATA_IN,
    DATA_OUT,
    GENERIC_ACCESS,
    GENERIC_ATTRIBUTE,
    FakeBoard,
)

# BlueZ needs a while to discover them.
MANY_SERVICES = tuple(
    Service(
        0xFE00 + index,
        0x100 + 4 * index,
        (Characteristic(0xFD00 + index, 0x102 + 4 * index, frozenset({"read"})),),
    )
    for index in range(30)
)


async def _disconnected(door: Door, board: FakeBoard) -> float:
    client = door.client(await door.find(board.address))
    await client.connect()
    begun = now()
    await client.disconnect()
    return begun


async def _cancelled(door: Door, board: FakeBoard) -> float:
    """In the middle of service discovery."""
    connecting = asyncio.create_task(door.client(await door.find(board.address)).connect())
    await door.until(lambda: board.log == ["connected"])
    begun = now()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    return begun


async def _wrong_service(door: Door, board: FakeBoard) -> float:
    """The bearer connects, and does not find what it came for."""
    async with door.bearer(connect_attempts=1) as bearer:
        await heard_until(door, bearer, lambda heard: board.address in heard)
        with pytest.raises(OtherService):
            async with bearer.proxy_link(board.address):
                pass
        return now()


async def _bearer_ends(door: Door, board: FakeBoard) -> float:
    async with door.bearer() as bearer:
        await heard_until(door, bearer, lambda heard: board.address in heard)
        async with bearer.provisioning_link(board.address):
            pass
        return now()


async def _removed(door: Door, board: FakeBoard) -> float:
    """RemoveDevice."""
    client = door.client(await door.find(board.address))
    await client.connect()
    begun = now()
    await client.unpair()
    # For bleak to close its files; with BlueZ 5.66 it may still await the end of the services.
    with suppress(AssertionError):
        await client.disconnect()
    return begun


HANG_UPS: dict[str, Callable[[Door, FakeBoard], Awaitable[float]]] = {
    "disconnected": _disconnected,
    "cancelled": _cancelled,
    "wrong service": _wrong_service,
    "bearer ends": _bearer_ends,
    "removed": _removed,
}


async def _nobody(door: Door) -> bool:
    return await door.links() == set()


@contract
class Connecting:
    """How a link opens, or does not."""

    @pytest.mark.quick
    async def test_connecting_shows_the_services(self, door: Door) -> None:
        """Discovery takes half a second; the handles are those of the declarations."""
        door.place_fakes()
        device = await door.find()
        started = now()
        async with door.client(device) as client:
            assert now() - started <= 2 * door.patience
            assert now() - started >= 0.49 or door.is_real  # 0.25 s in a fast guest
            (listed,) = client.services
            assert listed.uuid == PROVISIONING
            assert {(c.uuid, c.handle) for c in listed.characteristics} == {
                (IN, DATA_IN - 1),
                (OUT, DATA_OUT - 1),
            }
            assert client.is_connected
            assert client.name == "ESP-BLE-MESH"
        assert not client.is_connected
        assert len(door.lost) == 1

    @pytest.mark.slow
    @HOSTS
    async def test_discovery_finds_what_the_firmware_shows(self, door: Door, host: Host) -> None:
        """An unprovisioned board shows 0x1827 with its handles and properties, not 0x1828."""
        (board,) = door.place_boards(1, host)
        async with door.client(await door.find(board.device_address)) as client:
            (listed,) = (found for found in client.services if found.uuid == PROVISIONING)
            assert {(c.handle, frozenset(c.properties)) for c in listed.characteristics} == {
                (c.value_handle - 1, c.properties)
                for c in host.provisioning_service.characteristics
            }
            data_in = listed.get_characteristic(IN)
            assert data_in is not None
            assert data_in.max_write_without_response_size == 20
            assert all(found.uuid[4:8] != "1828" for found in client.services)

    @pytest.mark.slow
    async def test_an_address_is_searched_first(self, door: Door) -> None:
        """A client made from an address scans by itself, and fails when nobody answers."""
        (board,) = door.place_fakes()
        async with door.client(board.address):
            pass
        board.advertising = False
        with pytest.raises(BleakDeviceNotFoundError):
            await door.client(ABSENT, timeout=3).connect()

    @pytest.mark.slow
    async def test_the_bearer_does_not_find_an_absent_board(self, door: Door) -> None:
        """Connecting to nobody ends with the error that says so."""
        async with door.bearer(connect_timeout_s=3.0, connect_attempts=1) as bearer:
            with pytest.raises(DeviceNotFound):
                async with bearer.provisioning_link(ABSENT):
                    pass

    @pytest.mark.slow
    async def test_disconnecting_takes_two_seconds(self, door: Door) -> None:
        """The link ends after BlueZ's delay; meanwhile the client is connected."""
        (board,) = door.place_fakes()
        client = door.client(await door.find())
        await client.connect()
        started = now()
        await client.disconnect()
        # The clock of the guest's boards stands while the guest does.
        assert (1.0 if door.is_real else 1.99) <= now() - started < 3.5 * door.patience
        assert board.log[-1] == "disconnected"
        assert await door.links() == set()

    @pytest.mark.slow
    @pytest.mark.parametrize("code", [0x07, 0x09, 0x0C, 0x0D])
    async def test_a_full_adapter_does_not_answer(self, door: Door, code: int) -> None:
        """Whatever the controller says, nobody tells the program; the others go on connecting."""
        first, second, third = door.place_fakes(3)
        held = door.client(await door.find(first.address))
        await held.connect()
        refused_before = door.refused
        door.limit_links(1, code)
        device = await door.find(second.address)
        with pytest.raises(TimeoutError):
            await door.client(device, timeout=2).connect()
        assert door.refused - refused_before == 1
        assert second.log == []
        assert held.is_connected
        door.limit_links(None)
        for board in (third, second):
            async with door.client(await door.find(board.address)):
                pass
        await held.disconnect()

    @pytest.mark.slow
    async def test_the_bearer_finds_out_what_the_adapter_bears(self, door: Door) -> None:
        """It learns the number from the silence, and gets to every board."""
        boards = door.place_boards(7)
        door.limit_links(3)
        left = [board.device_address for board in boards]

        async def work(bearer: BleakBearer) -> None:
            while left:
                async with bearer.provisioning_link(left.pop()) as link:
                    await capabilities(door, link)

        async with door.bearer(connect_timeout_s=2.0 * door.patience) as bearer:
            await heard_until(door, bearer, lambda heard: set(left) <= set(heard))
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(work(bearer))
            assert (bearer.links.now, bearer.links.found) == (
                3,
                "learnt: link 4 was refused (no answer)",
            )
        assert await door.links() == set()

    @pytest.mark.slow
    @pytest.mark.parametrize("way", HANG_UPS)
    async def test_every_hang_up_takes_two_seconds(self, door: Door, way: str) -> None:
        """However a program lets go of a link that had opened, BlueZ ends it two seconds later."""
        (board,) = door.place_fakes(base=MANY_SERVICES if way == "cancelled" else ())
        begun = await HANG_UPS[way](door, board)
        await door.until(lambda: board.log[-1] == "disconnected")
        assert (1.0 if door.is_real else 1.99) <= now() - begun < 3.5 * door.patience
        await door.until(lambda: _nobody(door))

    @pytest.mark.quick
    async def test_the_bearer_opens_links_side_by_side(self, door: Door) -> None:
        """Four boards at once; each link is of its own, and all of them end."""
        boards = door.place_boards(4)
        wanted = {board.device_address for board in boards}

        async def converse(bearer: BleakBearer, address: str) -> None:
            async with bearer.provisioning_link(address) as link:
                await capabilities(door, link)
                together.add(address)
                await door.until(lambda: together == wanted)

        together: set[str] = set()
        async with door.bearer(max_links=4) as bearer:
            await heard_until(door, bearer, lambda heard: wanted <= set(heard))
            async with asyncio.TaskGroup() as group:
                for address in wanted:
                    group.create_task(converse(bearer, address))
        assert await door.links() == set()

    async def test_the_bearer_leaves_no_connection_behind(self, door: Door) -> None:
        """When the bearer has ended, BlueZ has no link to the board."""
        (board,) = door.place_boards(1)
        async with found_link(door, board):
            assert board.device_address in await door.links()
        assert await door.links() == set()
        await door.until(lambda: board.link_count == 0)

    @pytest.mark.slow
    async def test_service_changed_is_subscribed(self, door: Door) -> None:
        """BlueZ asks for Service Changed by itself; it shows 0x1801, and 5.82 Generic Access."""
        (board,) = door.place_fakes(base=(GENERIC_ACCESS, GENERIC_ATTRIBUTE))
        async with door.connected() as client:
            await door.until(lambda: board.log == ["connected", "cccd 0200"])
            shown = {listed.uuid[4:8] for listed in client.services}
            assert shown - ({"1800"} if door.is_real else set()) == {"1801", "1827"}

    @pytest.mark.slow
    async def test_a_refused_connection_ends_with_the_timeout(self, door: Door) -> None:
        """A board that accepts nobody is not reached; the timeout leaves nothing behind."""
        (board,) = door.place_fakes()
        device = await door.find()
        board.connectable = False
        started = now()
        with pytest.raises(TimeoutError):
            await door.client(device).connect()
        assert 4.99 <= now() - started < 7 * door.patience
        await door.until(lambda: not door.fakes.is_used)
        assert await door.links() == set()
        board.connectable = True
        async with door.connected():
            pass

    @needs(Need.SCRIPT)
    async def test_a_connection_bluez_refuses(self, door: Door) -> None:
        """The error of a failed connect names what BlueZ said."""
        door.place_fakes()
        device = await door.find()
        door.adapter.fail_connects.append(
            BleakDBusError("org.bluez.Error.Failed", ["br-connection-canceled"])
        )
        with pytest.raises(BleakDBusError, match="br-connection-canceled"):
            await door.client(device).connect()
        async with door.client(device):
            pass

    @needs(Need.SCRIPT)
    async def test_le_connection_abort_by_local_is_tried_again(self, door: Door) -> None:
        """A link lost before BlueZ has seen it open is established again inside connect()."""
        (board,) = door.place_fakes()
        board.drop_after_open_s = 0.0
        async with door.connected() as client:
            assert client.is_connected
        assert board.log[:3] == ["connected", "hang up", "connected"]

    @pytest.mark.quick
    async def test_the_bearer_connects_again(self, door: Door) -> None:
        """A link lost at once, le-connection-abort-by-local or a moment later, is no failure."""
        (board,) = door.place_fakes()
        board.drop_after_open_s = 0.0
        await door.find()
        async with door.bearer() as bearer, bearer.provisioning_link(board.address) as link:
            assert link.is_connected
        assert board.log[:3] == ["connected", "hang up", "connected"]

    async def test_a_link_lost_during_discovery(self, door: Door) -> None:
        """Service discovery ends with the link."""
        (board,) = door.place_fakes(base=MANY_SERVICES)
        board.drop_after_open_s = 0.12
        device = await door.find()
        with pytest.raises(BleakError, match="failed to discover services, device disconnected"):
            await door.client(device).connect()
        assert await door.links() == set()

    async def test_a_second_connection_to_a_board_is_in_progress(self, door: Door) -> None:
        """Two connects at once: one is refused, and its clean-up cancels the other one."""
        (board,) = door.place_fakes()
        device = await door.find()
        board.advertising = False
        client = door.client(device, timeout=20)
        connecting = asyncio.create_task(client.connect())
        await door.until(lambda: door.fakes.is_used)
        # 5.82 says the one, 5.66 the other.
        with pytest.raises(BleakDBusError, match=r"InProgress|Operation already in progress"):
            await door.client(device).connect()
        with pytest.raises(BleakError, match=r"br-connection-canceled|failed to discover services"):
            await connecting
        await door.until(lambda: not door.fakes.is_used)
        board.advertising = True
        async with door.connected():
            pass

    @needs(Need.SCRIPT)
    async def test_no_discovery_while_connecting(self, door: Door) -> None:
        """With the quirk StartDiscovery is InProgress while a connection is pending."""
        (board,) = door.place_fakes()
        device = await door.find()
        board.advertising = False
        connecting = asyncio.create_task(door.client(device, timeout=20).connect())
        await door.until(lambda: door.fakes.is_used)
        with pytest.raises(BleakDBusError, match="InProgress"):
            await door.scanner().start()
        await self._cancel(door, connecting)

    async def test_discovery_while_connecting(self, door: Door) -> None:
        """Without it a scan hears other boards; a connect that is cancelled leaves nothing."""
        board, _ = door.place_fakes(2)
        door.set_quirks(no_discovery_while_connecting=False)
        device = await door.find()
        board.advertising = False
        connecting = asyncio.create_task(door.client(device, timeout=20).connect())
        await door.until(lambda: door.fakes.is_used)
        await door.find(door.boards[1].address)
        await self._cancel(door, connecting)

    async def _cancel(self, door: Door, connecting: asyncio.Task[None]) -> None:
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await door.until(lambda: not door.fakes.is_used)
        assert await door.links() == set()

    @needs(Need.SCRIPT)
    @pytest.mark.parametrize("slow", [True, False])
    async def test_connecting_while_another_program_scans(self, door: Door, slow: bool) -> None:
        """It works; with the quirk it may take until the kernel restarts its scan."""
        door.place_fakes()
        door.set_quirks(slow_connect_while_discovering=slow)
        device = await door.find()
        times = []
        async with door.scanning_elsewhere():
            for _ in range(4 if slow else 1):
                client = door.client(device, timeout=20)
                started = now()
                await client.connect()
                times.append(now() - started)
                await client.disconnect()
        assert (max(times) > 2) is slow
        assert max(times) < 12

    @pytest.mark.slow
    async def test_the_bearer_connects_while_another_program_scans(self, door: Door) -> None:
        """Somebody else's discovery may delay a connection, and does not prevent it."""
        (board,) = door.place_boards(1)
        async with (
            asyncio.timeout(30 * door.patience),
            door.scanning_elsewhere(),
            # BlueZ may hear the board only when it restarts its scan, every 10.24 s.
            found_link(door, board, connect_timeout_s=12.0) as link,
        ):
            await capabilities(door, link)

    async def test_a_board_that_vanished_is_not_reached(self, door: Door) -> None:
        """A supervision timeout is a lost link; without the board connecting takes its timeout."""
        (board,) = door.place_fakes()
        device = await door.find()
        client = door.client(device)
        await client.connect()
        board.advertising = False
        board.hang_up(CONNECTION_TIMEOUT)
        await door.until(lambda: bool(door.lost))
        assert not client.is_connected
        with pytest.raises(TimeoutError):
            await door.client(device, timeout=2).connect()
        await client.disconnect()
