"""The bearer after Bluetooth came back, and what a process before it left; over D-Bus."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from bleak import BleakClient, BleakScanner
from structlog.testing import capture_logs

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.errors import BluetoothUnavailable, ConnectionLost, OtherService, StoreError
from fastprovd.store.state import StateStore
from tests.support import paced
from tests.support.doors import bench, now
from tests.support.fake_air import PROVISIONING_SERVICE, PROXY_SERVICE

ADDRESS = "00:1A:7D:DA:71:13"
# A process of ours that is killed before it can hang up.
LEAVES = """
import asyncio, os, signal, sys
from pathlib import Path
from fastprovd.bearers.adapter import BleakBearer
from fastprovd.store.state import StateStore

async def main():
    store = StateStore(Path(sys.argv[1]))
    async with BleakBearer(connect_timeout_s=60, record=store) as bearer:
        async with bearer.scan() as scan:
            heard = await anext(scan)
        async with bearer.provisioning_link(heard.device_address):
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def find(bearer: BleakBearer) -> str:
    async with bearer.scan() as scan, asyncio.timeout(10):
        return (await anext(scan)).device_address


async def is_reached(bearer: BleakBearer) -> None:
    async with bearer.provisioning_link(await find(bearer)) as link:
        assert link.is_connected


def test_links_of_a_killed_process_are_closed(private_bus: PrivateBus, tmp_path: Path) -> None:
    """BlueZ keeps them, and a board that is connected is not on the air."""
    tmp_path.chmod(0o700)

    async def main() -> None:
        async with bench(private_bus) as b:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", LEAVES, str(tmp_path)
            )
            assert await process.wait() == -signal.SIGKILL
            await asyncio.sleep(5)
            assert b.adapter.connections == 1
            with StateStore(tmp_path) as store:
                async with BleakBearer(record=store) as bearer:
                    assert store.open_links() == [b.board.address]
                    await bearer.close_left_links()
                    assert b.adapter.connections == 0
                    assert store.open_links() == []
                    await is_reached(bearer)
                assert store.open_links() == []

    # A slow clock: the program outside needs real seconds to start, within a minute of it.
    paced.run(main(), private_bus.address, pace=4)


@pytest.mark.parametrize("is_node", [True, False])
async def test_links_of_other_programs_are_left_alone(
    private_bus: PrivateBus, tmp_path: Path, is_node: bool
) -> None:
    """Also one to a node of ours, and also when a link to that board is asked for."""
    tmp_path.chmod(0o700)

    async with bench(private_bus) as b:
        address = b.board.address
        if is_node:
            with StateStore(tmp_path) as store:
                store.note_open_link(address)
                store.drop_open_links([address])
        device = await BleakScanner.find_device_by_address(address)
        assert device is not None
        async with BleakClient(device) as other:
            with StateStore(tmp_path) as store:
                async with BleakBearer(record=store) as bearer:
                    await bearer.close_left_links()
                    with pytest.raises(ConnectionLost, match="another program"):
                        async with bearer.provisioning_link(address):
                            pytest.fail("the link opened")
                    await bearer.close_left_links()
                assert store.open_links() == []
            await asyncio.sleep(4)
            assert other.is_connected
        assert b.board.log.count("connected") == 1
        async with BleakBearer() as bearer:
            await is_reached(bearer)


async def test_a_link_is_remembered_from_before_it_opens(
    private_bus: PrivateBus, tmp_path: Path
) -> None:
    """Until BlueZ has hung it up; a full disk keeps no link from being opened."""
    tmp_path.chmod(0o700)

    async with bench(private_bus) as b:
        with StateStore(tmp_path) as store:
            noted: list[tuple[str, int]] = []

            class Record:
                """Tells when it is used."""

                def open_links(self) -> list[str]:
                    return store.open_links()

                def note_open_link(self, device_address: str) -> None:
                    noted.append(("noted", b.adapter.connections))
                    store.note_open_link(device_address)
                    raise StoreError("the disk is full")

                def drop_open_links(self, device_addresses: Iterable[str]) -> None:
                    noted.append(("dropped", b.adapter.connections))
                    store.drop_open_links(device_addresses)

            async with BleakBearer(record=Record()) as bearer:
                await is_reached(bearer)
                assert store.open_links() == [b.board.address]
            assert noted == [("noted", 0), ("dropped", 0)]
            assert store.open_links() == []


async def test_a_link_that_went_with_bluetoothd_stays_on_record(
    private_bus: PrivateBus, tmp_path: Path
) -> None:
    """The kernel may have kept it, so the next bluetoothd is asked; the board is reached anyway."""
    tmp_path.chmod(0o700)

    async with bench(private_bus) as b:
        with StateStore(tmp_path) as store:
            async with BleakBearer(record=store) as bearer:
                address = await find(bearer)
                async with bearer.provisioning_link(address):
                    await b.bluetoothd.kill()
                    await asyncio.sleep(0.5)
            assert store.open_links() == [b.board.address]
            await b.bluetoothd.start()
            async with BleakBearer(record=store) as bearer:
                await bearer.close_left_links()
                assert store.open_links() == []
                await is_reached(bearer)


@pytest.mark.parametrize("remembered", [True, False])
async def test_services_from_before_the_swap_are_forgotten(
    private_bus: PrivateBus, remembered: bool
) -> None:
    """A BlueZ that shows the old role forgets the device, and then finds the new one."""
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


async def test_a_board_that_changed_its_role_is_named(private_bus: PrivateBus) -> None:
    """It is forgotten once, not again and again."""
    with capture_logs() as logs:
        async with bench(private_bus) as b, BleakBearer() as bearer:
            b.board.services = (PROVISIONING_SERVICE,)
            with pytest.raises(OtherService, match="2 attempts"):
                async with bearer.proxy_link(await find(bearer)):
                    pytest.fail("the link opened")
    assert [entry["event"] for entry in logs].count("device_forgotten") == 1


@pytest.mark.parametrize("adapter", ["", ADDRESS])
@pytest.mark.parametrize("name", ["hci0", "hci1"])
async def test_an_adapter_is_plugged_in_again(
    private_bus: PrivateBus, adapter: str, name: str
) -> None:
    """After 30 s, under whatever name; a connection that was asked for meanwhile is opened."""
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


async def is_connected(bearer: BleakBearer, address: str) -> None:
    async with bearer.provisioning_link(address) as link:
        assert link.is_connected


async def scan_in_vain(bearer: BleakBearer) -> None:
    async with bearer, bearer.scan():
        pytest.fail("the scan started")


async def test_the_bus_dies_and_comes_back(private_bus: PrivateBus) -> None:
    """With bluetoothd; the board is reached again, and the next loss is noticed again."""
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


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.01, 0.03, 0.1])
async def test_a_scan_is_cancelled_while_it_begins(private_bus: PrivateBus, after_s: float) -> None:
    """At whatever moment: BlueZ keeps no session of ours, and the next scan begins."""
    async with bench(private_bus) as b, BleakBearer() as bearer:
        await find(bearer)
        finding = asyncio.create_task(find(bearer))
        await asyncio.sleep(after_s)
        finding.cancel()
        await asyncio.wait([finding])
        assert not b.adapter.discovering
        await find(bearer)
