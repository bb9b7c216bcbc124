"""The bearer through bleak's own BlueZ backend: what goes wrong on D-Bus, it survives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from bleak.exc import BleakDBusError

from fastprovd.bearers.adapter import RETURN_S, BleakBearer
from fastprovd.errors import BluetoothUnavailable, ConnectionLost, DeviceNotFound
from fastprovd.mesh.proxy import ProxyPduType
from tests.support.doors import Bench, bench, now
from tests.support.fake_air import DATA_IN, DATA_OUT

Scenario = Callable[[Bench, BleakBearer], Coroutine[Any, Any, None]]
RunOverDbus = Callable[..., None]
PDU = (ProxyPduType.PROVISIONING_PDU, b"invite")


@pytest.fixture
def run_over_dbus(private_bus: Any, run_paced: Any) -> RunOverDbus:
    """Run a scenario with a board behind D-Bus and a bearer before it."""

    def run(scenario: Scenario, adapter: str = "") -> None:
        async def main() -> None:
            async with bench(private_bus) as b:
                async with BleakBearer(adapter) as bearer:
                    await scenario(b, bearer)
                assert b.adapter.connections == 0
                assert not b.adapter.discovering

        run_paced(main())

    return run


async def find(bearer: BleakBearer) -> str:
    async with bearer.scan() as scan, asyncio.timeout(10):
        return (await anext(scan)).device_address


async def converse(b: Bench, bearer: BleakBearer, address: str) -> None:
    """Exchange one PDU in each direction."""
    b.board.on_write = lambda _, value: b.board.notify(DATA_OUT, value)
    before = len(b.board.written)
    async with bearer.provisioning_link(address) as link, asyncio.timeout(10):
        await link.send(*PDU)
        assert await link.receive() == PDU
    assert [handle for handle, _ in b.board.written[before:]] == [DATA_IN]


@pytest.mark.parametrize("adapter", ["", "hci0", "00:1A:7D:DA:71:13"])
def test_pdus_go_both_ways(run_over_dbus: RunOverDbus, adapter: str) -> None:
    """The adapter is the default one, or is named, or is told by its address."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        await converse(b, bearer, await find(bearer))

    run_over_dbus(scenario, adapter)


def test_a_failed_establishment_inside_bleak_is_no_lost_link(run_over_dbus: RunOverDbus) -> None:
    """bleak tells of a disconnect before it tries again; the link that follows is a good one."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        b.board.drop_after_open_s = 0.02
        await converse(b, bearer, address)
        assert b.board.log[:3] == ["connected", "hang up", "connected"]

    run_over_dbus(scenario)


def test_le_connection_abort_by_local_inside_bleak(run_over_dbus: RunOverDbus) -> None:
    """The same with BlueZ's word for it."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        b.adapter.fail_connects.append(
            BleakDBusError("org.bluez.Error.Failed", ["le-connection-abort-by-local"])
        )
        await converse(b, bearer, address)
        assert b.board.log.count("connected") == 1

    run_over_dbus(scenario)


def test_bluetoothd_is_killed_and_restarted(run_over_dbus: RunOverDbus) -> None:
    """A write tells of it; with the same bearer the board is reached again."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        async with bearer.provisioning_link(address) as link:
            await b.bluetoothd.kill()
            with pytest.raises(ConnectionLost, match="bluetoothd ended"):
                await link.receive()
            with pytest.raises(ConnectionLost, match="bluetoothd ended"):
                await link.send(*PDU)
            await b.bluetoothd.start()
        await converse(b, bearer, address)

    run_over_dbus(scenario)


async def power_off(b: Bench) -> None:
    b.adapter.power(on=False)


async def kill_bus(b: Bench) -> None:
    assert b.bus is not None
    b.bus.kill()


Lose = Callable[[Bench], Coroutine[Any, Any, None]]
LOSSES: dict[str, tuple[Lose, str]] = {
    "killed": (lambda b: b.bluetoothd.kill(), "bluetoothd ended"),
    "stopped": (lambda b: b.bluetoothd.terminate(), "hci0 is gone"),
    "switched off": (power_off, "hci0 was switched off"),
    "bus killed": (kill_bus, "D-Bus ended"),
}


async def scan_through(bearer: BleakBearer, lose: Coroutine[Any, Any, None]) -> None:
    """Scan, lose Bluetooth, and go on for half a second more."""
    async with bearer.scan() as scan:
        await lose
        async with asyncio.timeout(0.5):
            async for _ in scan:
                pass


@pytest.mark.parametrize("loss", LOSSES)
def test_links_and_scan_end_at_once(run_over_dbus: RunOverDbus, loss: str) -> None:
    """Within half a second, and neither end waits for a daemon that is gone."""
    lose, reason = LOSSES[loss]

    async def scenario(b: Bench, _: BleakBearer) -> None:
        async with (
            BleakBearer() as bearer,
            bearer.provisioning_link(await find(bearer)) as link,
        ):
            begun_s = now()
            with pytest.raises(BluetoothUnavailable, match=reason):
                await scan_through(bearer, lose(b))
            with pytest.raises(ConnectionLost):
                async with asyncio.timeout(0.5):
                    await link.receive()
        assert now() - begun_s < 4

    run_over_dbus(scenario)


@pytest.mark.parametrize("loss", ["killed", "switched off"])
def test_a_scan_works_after_the_return(run_over_dbus: RunOverDbus, loss: str) -> None:
    """A new one, with the same bearer."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        with pytest.raises(BluetoothUnavailable):
            await scan_through(bearer, LOSSES[loss][0](b))
        b.adapter.power(on=True)
        if loss == "killed":
            await b.bluetoothd.start()
        await asyncio.sleep(0.5)
        await converse(b, bearer, await find(bearer))

    run_over_dbus(scenario)


@pytest.mark.parametrize("adapter", ["", "hci0"])
def test_a_connection_waits_for_the_return(run_over_dbus: RunOverDbus, adapter: str) -> None:
    """A restart of bluetoothd costs no attempt; one that stays away is told in the end."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        await b.bluetoothd.kill()
        connecting = asyncio.create_task(converse(b, bearer, address))
        await asyncio.sleep(2.2)
        await b.bluetoothd.start()
        await connecting
        await b.bluetoothd.kill()
        begun_s = now()
        with pytest.raises(BluetoothUnavailable, match="start"):
            await converse(b, bearer, address)
        assert RETURN_S - 1 < now() - begun_s < RETURN_S + 3

    run_over_dbus(scenario, adapter)


def test_a_hang_up_under_way_does_not_wait_for_a_dead_daemon(run_over_dbus: RunOverDbus) -> None:
    """Neither the two seconds of BlueZ nor the ten of bleak."""

    async def scenario(b: Bench, _: BleakBearer) -> None:
        async with BleakBearer() as bearer:
            async with bearer.provisioning_link(await find(bearer)):
                pass
            await asyncio.sleep(0.1)
            begun_s = now()
            await b.bluetoothd.kill()
        assert now() - begun_s < 2

    run_over_dbus(scenario)


def test_bluetoothd_is_stopped_and_restarted(run_over_dbus: RunOverDbus) -> None:
    """The link is lost, nothing starts without it, and everything with it."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        async with bearer.provisioning_link(address) as link:
            await b.bluetoothd.terminate()
            with pytest.raises(ConnectionLost):
                await link.receive()
        with pytest.raises(BluetoothUnavailable):
            await find(bearer)
        with pytest.raises((BluetoothUnavailable, DeviceNotFound)):
            await converse(b, bearer, address)
        await b.bluetoothd.start()
        await asyncio.sleep(0.5)
        await converse(b, bearer, await find(bearer))

    run_over_dbus(scenario)


def test_the_bus_is_gone(run_over_dbus: RunOverDbus) -> None:
    """The link is lost at once; without the bus there is no Bluetooth."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        assert b.bus is not None
        async with bearer.provisioning_link(address) as link:
            b.bus.kill()
            with pytest.raises(ConnectionLost):
                await link.receive()
        with pytest.raises(BluetoothUnavailable):
            await find(bearer)
        with pytest.raises(BluetoothUnavailable):
            await converse(b, bearer, address)

    run_over_dbus(scenario)


def test_the_adapter_goes_off_and_on(run_over_dbus: RunOverDbus) -> None:
    """Both uses of the radio are refused while it is off."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        b.adapter.power(on=False)
        await asyncio.sleep(0.5)
        with pytest.raises(BluetoothUnavailable):
            await find(bearer)
        with pytest.raises(BluetoothUnavailable):
            await converse(b, bearer, address)
        b.adapter.power(on=True)
        await asyncio.sleep(0.5)
        await converse(b, bearer, await find(bearer))

    run_over_dbus(scenario)


def test_the_services_swap_on_the_link(run_over_dbus: RunOverDbus) -> None:
    """A write to the old service loses the link; the next one finds the proxy."""

    async def scenario(b: Bench, bearer: BleakBearer) -> None:
        address = await find(bearer)
        async with bearer.provisioning_link(address) as link:
            b.board.become_node()
            await asyncio.sleep(1)
            assert link.is_connected
            with pytest.raises(ConnectionLost, match="UnknownObject"):
                await link.send(*PDU)
        async with bearer.proxy_link(address) as link:
            await link.send(ProxyPduType.NETWORK_PDU, b"x")

    run_over_dbus(scenario)
