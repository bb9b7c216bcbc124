"""The loss of the adapter, of bluetoothd, and of the bus."""

from __future__ import annotations

import asyncio
import signal

import pytest
from bleak.exc import BleakBluetoothNotAvailableError, BleakDBusError, BleakError

from fastprovd.errors import BluetoothUnavailable, ConnectionLost
from fastprovd.mesh.proxy import ProxyPduType
from tests.support.contract.common import IN, INVITE, Record, capabilities, find, works
from tests.support.door import Door, Need, contract, needs, now


@contract
class Losses:
    """What is under way fails with errors that say so; the return heals everything."""

    @pytest.mark.slow
    async def test_the_adapter_goes_off_and_on(self, door: Door) -> None:
        """Links are lost, scans and connects are refused; switched on, all of it works again."""
        door.place_fakes()
        device = await door.find()
        scanner = door.scanner()
        async with door.client(device):
            await scanner.start()
            await door.switch_adapter(on=False)
            await door.until(lambda: len(door.lost) == 1, 1)
            await scanner.stop()
        with pytest.raises(BleakBluetoothNotAvailableError):
            await door.scanner().start()
        with pytest.raises(BleakDBusError, match="NotReady"):
            await door.scanner(adapter=door.adapter_name).start()
        with pytest.raises(BleakDBusError, match="Input/output error"):
            await door.client(device).connect()
        await door.switch_adapter(on=True)
        async with door.connected() as client:
            assert client.is_connected

    @pytest.mark.slow
    async def test_the_adapter_goes_off_under_a_connect(self, door: Door) -> None:
        """A pending connection ends with an error.

        BlueZ 5.66 tells that the link opened and was lost; with 5.82 it takes bleak's timeout.
        """
        (board,) = door.place_fakes()
        device = await door.find()
        board.advertising = False
        connecting = asyncio.create_task(door.client(device).connect())
        await door.until(lambda: door.fakes.is_used)
        await door.switch_adapter(on=False)
        with pytest.raises((BleakError, TimeoutError)) as failed:
            await connecting
        assert door.is_real or "Input/output error" in str(failed.value)
        assert await door.links() == set()

    async def test_the_bearer_loses_the_adapter(self, door: Door) -> None:
        """Off ends the bearer's link and refuses its scans; on, everything works again."""
        (board,) = door.place_boards(1)
        async with door.bearer() as bearer:
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
        await works(door, board)

    @pytest.mark.slow
    async def test_a_removed_device_is_forgotten(self, door: Door) -> None:
        """RemoveDevice ends the link, and the device must be found again."""
        (board,) = door.place_fakes()
        device = await door.find()
        client = door.client(device)
        await client.connect()
        await client.unpair()
        await door.until(lambda: board.log[-1] == "disconnected")
        with pytest.raises(BleakError) as failed:
            await door.client(device).connect()
        # The real BlueZ may take the device away a moment after its link.
        gone = "failed to discover services" in str(failed.value)
        assert "not found" in str(failed.value) or (door.is_real and gone)
        await client.disconnect()
        async with door.connected():
            pass

    @pytest.mark.slow
    @needs(Need.DAEMON)
    @pytest.mark.parametrize("found_again", [True, False])
    async def test_bluetoothd_is_killed(self, door: Door, found_again: bool) -> None:
        """bleak stays deaf and says it is connected, until disconnect() has failed.

        That takes ten seconds when the board was found again, because BlueZ accepts to disconnect
        it. BlueZ 5.82 may know it without.
        """
        (board,) = door.place_fakes()
        client = door.client(await door.find())
        await client.connect()
        seen: list[float] = []
        scanner = door.scanner(lambda _, __: seen.append(now()))
        await scanner.start()
        await door.end_bluetoothd(signal.SIGKILL)
        await door.until(lambda: board.log[-1] == "disconnected")
        with pytest.raises(BleakDBusError, match=r"ServiceUnknown|NameHasNoOwner|Spawn"):
            await client.write_gatt_char(IN, b"x", response=False)
        await door.start_bluetoothd()
        seen.clear()
        await asyncio.sleep(2)
        assert (client.is_connected, door.lost, seen) == (True, [], [])
        with pytest.raises(BleakDBusError, match="UnknownObject"):
            await client.write_gatt_char(IN, b"x", response=False)
        with pytest.raises(BleakDBusError, match="No discovery started"):
            await scanner.stop()
        if found_again:
            await door.find()
        started = now()
        with pytest.raises((TimeoutError, BleakDBusError)) as failed:
            await client.disconnect()
        assert (now() - started > 9.9) is isinstance(failed.value, TimeoutError)
        assert isinstance(failed.value, TimeoutError) is found_again or door.is_real
        assert not client.is_connected
        assert len(door.lost) == 1
        async with door.connected() as client:
            assert client.is_connected

    @pytest.mark.slow
    @needs(Need.DAEMON)
    async def test_bluetoothd_is_stopped(self, door: Door) -> None:
        """The loss is told at once; there is no Bluetooth until the restart, then all works."""
        (board,) = door.place_fakes()
        client = door.client(await door.find())
        await client.connect()
        scanner = door.scanner()
        await scanner.start()
        await door.end_bluetoothd(signal.SIGTERM)
        await door.until(lambda: len(door.lost) == 1, 1)
        assert board.log[-1] == "disconnected"
        with pytest.raises(BleakError, match="Service Discovery has not been performed yet"):
            await client.write_gatt_char(IN, b"x", response=False)
        with pytest.raises(BleakBluetoothNotAvailableError, match="No Bluetooth adapters"):
            await door.scanner().start()
        await door.start_bluetoothd()
        with pytest.raises(BleakDBusError, match="No discovery started"):
            await scanner.stop()
        await client.disconnect()
        async with door.connected() as client:
            assert client.is_connected

    @needs(Need.DAEMON)
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
    async def test_the_bearer_loses_bluetoothd(self, door: Door, number: signal.Signals) -> None:
        """Its end fails what is under way with the bearer's errors; a restart heals everything.

        The kernel keeps the links of a bluetoothd that is killed, and the next one shows them.
        """
        (board,) = door.place_boards(1)
        record = Record()
        async with door.bearer(record=record) as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await capabilities(door, link)
                await door.end_bluetoothd(number)
                with pytest.raises(ConnectionLost):
                    await link.send(ProxyPduType.PROVISIONING_PDU, INVITE)
            with pytest.raises(BluetoothUnavailable):
                async with bearer.scan():
                    pass
        await door.start_bluetoothd()
        async with door.bearer(record=record) as bearer:
            await bearer.close_left_links()
        await works(door, board)

    @pytest.mark.slow
    @needs(Need.DAEMON)
    async def test_bluetoothd_is_not_there_at_first(self, door: Door) -> None:
        """Without the service nothing starts; once it is there, the same program goes on."""
        door.place_fakes()
        await door.end_bluetoothd(signal.SIGKILL)
        with pytest.raises(BleakDBusError, match=r"ServiceUnknown|Spawn"):
            await door.scanner().start()
        await door.start_bluetoothd()
        async with door.connected() as client:
            assert client.is_connected

    @needs(Need.DAEMON)
    async def test_bluetoothd_is_killed_under_a_connect(self, door: Door) -> None:
        """The pending call is answered by the bus."""
        (board,) = door.place_fakes()
        device = await door.find()
        board.advertising = False
        connecting = asyncio.create_task(door.client(device, timeout=30).connect())
        await door.until(lambda: door.fakes.is_used)
        await door.end_bluetoothd(signal.SIGKILL)
        with pytest.raises(BleakDBusError, match="NoReply"):
            await connecting
        await door.start_bluetoothd()
        assert await door.links() == set()

    @needs(Need.BUS)
    async def test_the_bus_is_gone(self, door: Door) -> None:
        """The loss is told at once, everything else fails, disconnect() does not."""
        (board,) = door.place_fakes()
        device = await door.find()
        client = door.client(device)
        await client.connect()
        await door.kill_bus()
        await door.until(lambda: len(door.lost) == 1, 1)
        await door.until(lambda: board.log[-1] == "disconnected")
        for attempt in (door.scanner().start(), door.client(device).connect()):
            with pytest.raises(OSError):  # noqa: PT011 - socket gone or refused
                await attempt
        await client.disconnect()
