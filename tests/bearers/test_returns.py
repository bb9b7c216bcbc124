"""The bearer after Bluetooth came back, and what a process before it left; over D-Bus."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus
from structlog.testing import capture_logs

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.errors import BluetoothUnavailable, ConnectionLost, OtherService
from tests.support import paced
from tests.support.doors import bench, now
from tests.support.fake_air import PROVISIONING_SERVICE, PROXY_SERVICE

RunPaced = Callable[[Coroutine[Any, Any, Any]], Any]
ADDRESS = "00:1A:7D:DA:71:13"
# A program of somebody's that connects and is killed before it can hang up.
CONNECTS = """
import asyncio
from bleak import BleakClient, BleakScanner

async def main():
    device = await BleakScanner.find_device_by_filter(lambda *_: True, timeout=60)
    await BleakClient(device, timeout=60).connect()
    print("connected", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def find(bearer: BleakBearer) -> str:
    async with bearer.scan() as scan, asyncio.timeout(10):
        return (await anext(scan)).device_address


async def is_reached(bearer: BleakBearer) -> None:
    async with bearer.provisioning_link(await find(bearer)) as link:
        assert link.is_connected


def test_links_of_a_killed_process_are_closed(private_bus: PrivateBus) -> None:
    """BlueZ keeps them, and a board that is connected is not on the air."""

    async def main() -> None:
        async with bench(private_bus) as b, BleakBearer() as bearer:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CONNECTS, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert await process.stdout.readline() == b"connected\n"
            process.kill()
            await process.wait()
            await asyncio.sleep(5)
            assert b.adapter.connections == 1
            await bearer.close_left_links()
            assert b.adapter.connections == 0
            await is_reached(bearer)

    # A slow clock: the program outside needs real seconds to start, within a minute of it.
    paced.run(main(), private_bus.address, pace=4)


@pytest.mark.parametrize("remembered", [True, False])
def test_services_from_before_the_swap_are_forgotten(
    run_paced: RunPaced, private_bus: PrivateBus, remembered: bool
) -> None:
    """A BlueZ that shows the old role forgets the device, and then finds the new one."""

    async def main() -> None:
        with capture_logs() as logs:
            async with bench(private_bus) as b, BleakBearer() as bearer:
                b.adapter.remembers_services = remembered
                b.board.services = (PROVISIONING_SERVICE,)
                address = await find(bearer)
                async with bearer.provisioning_link(address):
                    b.board.services = (PROXY_SERVICE,)
                async with bearer.proxy_link(address) as link:
                    assert link.is_connected
        assert [entry["event"] for entry in logs].count("device_forgotten") == remembered

    run_paced(main())


def test_a_board_that_changed_its_role_is_named(
    run_paced: RunPaced, private_bus: PrivateBus
) -> None:
    """It is forgotten once, not again and again."""

    async def main() -> None:
        with capture_logs() as logs:
            async with bench(private_bus) as b, BleakBearer() as bearer:
                b.board.services = (PROVISIONING_SERVICE,)
                with pytest.raises(OtherService, match="2 attempts"):
                    async with bearer.proxy_link(await find(bearer)):
                        pytest.fail("the link opened")
        assert [entry["event"] for entry in logs].count("device_forgotten") == 1

    run_paced(main())


@pytest.mark.parametrize("adapter", ["", ADDRESS])
@pytest.mark.parametrize("name", ["hci0", "hci1"])
def test_an_adapter_is_plugged_in_again(
    run_paced: RunPaced, private_bus: PrivateBus, adapter: str, name: str
) -> None:
    """After 30 s, under whatever name; a connection that was asked for meanwhile is opened."""

    async def main() -> None:
        async with bench(private_bus) as b, BleakBearer(adapter) as bearer:
            address = await find(bearer)
            async with bearer.provisioning_link(address) as link:
                await b.bluetoothd.unplug()
                with pytest.raises(ConnectionLost):
                    await link.receive()
            connecting = asyncio.create_task(is_connected(bearer, address))
            await asyncio.sleep(30)
            with pytest.raises(BluetoothUnavailable):
                await scan_in_vain(BleakBearer(adapter))
            b.bluetoothd.plug(name)
            await connecting

    run_paced(main())


async def is_connected(bearer: BleakBearer, address: str) -> None:
    async with bearer.provisioning_link(address) as link:
        assert link.is_connected


async def scan_in_vain(bearer: BleakBearer) -> None:
    async with bearer, bearer.scan():
        pytest.fail("the scan started")


def test_the_bus_dies_and_comes_back(run_paced: RunPaced, private_bus: PrivateBus) -> None:
    """With bluetoothd; the board is reached again, and the next loss is noticed again."""

    async def main() -> None:
        async with bench(private_bus) as b, BleakBearer() as bearer:
            await is_reached(bearer)
            private_bus.kill()
            await asyncio.sleep(3)
            private_bus.start()
            await b.bluetoothd.start()
            await asyncio.sleep(1)
            async with bearer.provisioning_link(await find(bearer)) as link:
                await b.bluetoothd.kill()
                begun_s = now()
                with pytest.raises(ConnectionLost, match="bluetoothd ended"):
                    await link.receive()
                assert now() - begun_s < 1

    run_paced(main())


def test_another_adapter_may_vanish(run_paced: RunPaced, private_bus: PrivateBus) -> None:
    """One that is not in use is no loss, also when none is named."""

    async def main() -> None:
        async with bench(private_bus) as b, BleakBearer() as bearer:
            async with bearer.provisioning_link(await find(bearer)) as link:
                other = MessageBus(bus_address=private_bus.address)
                await other.connect()
                await other.send(
                    Message(
                        message_type=MessageType.SIGNAL,
                        path="/",
                        interface="org.freedesktop.DBus.ObjectManager",
                        member="InterfacesRemoved",
                        signature="oas",
                        body=["/org/bluez/hci1", ["org.bluez.Adapter1"]],
                    )
                )
                await asyncio.sleep(1)
                other.disconnect()
                await other.wait_for_disconnect()
                assert link.is_connected
            assert b.board.log.count("connected") == 1

    run_paced(main())


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.01, 0.03, 0.1])
def test_a_scan_is_cancelled_while_it_begins(
    run_paced: RunPaced, private_bus: PrivateBus, after_s: float
) -> None:
    """At whatever moment: BlueZ keeps no session of ours, and the next scan begins."""

    async def main() -> None:
        async with bench(private_bus) as b, BleakBearer() as bearer:
            await find(bearer)
            finding = asyncio.create_task(find(bearer))
            await asyncio.sleep(after_s)
            finding.cancel()
            await asyncio.wait([finding])
            assert not b.adapter.discovering
            await find(bearer)

    run_paced(main())
