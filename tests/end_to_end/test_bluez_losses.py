"""Runs that lose bluetoothd or the adapter, over D-Bus: each goes on, and tells the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.campaign.air_picture import AirPicture
from fastprovd.campaign.inventory import Inventory
from fastprovd.campaign.watch import Watch
from fastprovd.emulator.bluez import Bluetoothd
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.mesh.beacons import Advertisement
from fastprovd.records import RunState
from tests.support.scene import Scene, scene

BOARDS = 5
# bluetoothd restarts in 0.6 to 2.2 s to a powered adapter.
RESTARTS_IN_S = 2.2

Fault = Callable[[Scene, Bluetoothd], Coroutine[Any, Any, None]]


@asynccontextmanager
async def bluez_scene(bus: PrivateBus) -> AsyncIterator[tuple[Scene, Bluetoothd]]:
    daemons: list[Bluetoothd] = []

    @asynccontextmanager
    async def door(adapter: EmulatedAdapter) -> AsyncIterator[BleakBearer]:
        async with Bluetoothd(adapter, bus.address) as bluetoothd, BleakBearer() as bearer:
            daemons.append(bluetoothd)
            yield bearer

    async with scene(BOARDS, 1, flaws=Flaws.none(), door=door) as s:
        yield s, daemons[0]


async def restart_bluetoothd(_: Scene, bluetoothd: Bluetoothd) -> None:
    await bluetoothd.kill()
    await asyncio.sleep(RESTARTS_IN_S)
    await bluetoothd.start()


async def restart_bluetoothd_under_a_scan(s: Scene, bluetoothd: Bluetoothd) -> None:
    s.adapter.scan_outlives_crash = True
    await restart_bluetoothd(s, bluetoothd)


async def adapter_off_for_30_s(s: Scene, _: Bluetoothd) -> None:
    s.adapter.power(on=False)
    await asyncio.sleep(30)
    s.adapter.power(on=True)


async def deaf_scanner(s: Scene, _: Bluetoothd) -> None:
    # Meant for a scan that was begun: the adapter is quiet right after a connection.
    while not s.adapter.discovering:  # noqa: ASYNC110 - it happens outside the test
        await asyncio.sleep(0.01)
    s.adapter.fall_silent()


async def run_with(
    bus: PrivateBus, fault: Fault, state: RunState, after_s: float
) -> tuple[RunState, float, list[str]]:
    """Inject `fault` so long after the run came to `state`; return its end, seconds, log events."""
    loop = asyncio.get_running_loop()
    with capture_logs() as logs:
        async with bluez_scene(bus) as (s, bluetoothd):
            begun_s = loop.time()
            executing = asyncio.create_task(s.campaign.execute())
            await s.listener.reached(state)
            await asyncio.sleep(after_s)
            assert s.campaign.run.state is state, "the fault must hit the phase it is meant for"
            await fault(s, bluetoothd)
            run = await executing
            took_s = loop.time() - begun_s
            truth = s.true_nodes()
            nodes = s.listener.nodes
            if run.state is RunState.DONE:
                assert len(truth) == BOARDS
                assert {a for a, node in nodes.items() if node.proven} == set(truth)
                assert {node.address for node in s.listener.address_list} == set(truth)
            else:
                assert run.state is RunState.PARTIAL, run.reason
                assert run.reason
                assert set(nodes) <= set(truth)
        assert s.adapter.connections == 0
        assert not s.adapter.discovering
    return run.state, took_s, [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("state", "after_s"),
    [
        (RunState.SCANNING, 0.5),
        (RunState.CONNECTING, 0.0),
        (RunState.PROVISIONING_PRIMARY, 0.1),
        (RunState.CONFIGURING_PRIMARY, 0.1),
        (RunState.PROVISIONING, 2.0),
        (RunState.COLLECTING, 0.05),
        (RunState.PROVING, 0.05),
    ],
    ids=lambda value: value.name if isinstance(value, RunState) else "",
)
async def test_bluetoothd_is_killed_and_restarted(
    private_bus: PrivateBus, state: RunState, after_s: float
) -> None:
    """In every phase of the run; all boards become nodes, known and proven."""
    end, _, logs = await run_with(private_bus, restart_bluetoothd, state, after_s)
    assert "bluetooth_lost" in logs
    assert end is RunState.DONE


@pytest.mark.parametrize(
    "fault", [restart_bluetoothd, restart_bluetoothd_under_a_scan, adapter_off_for_30_s]
)
async def test_scanning_is_back_soon(private_bus: PrivateBus, fault: Fault) -> None:
    """Within ten seconds of the return boards are heard again."""
    loop = asyncio.get_running_loop()
    async with bluez_scene(private_bus) as (s, bluetoothd):
        watch = Watch(
            s.bearer,
            AirPicture(Inventory(b"\xdd\xdd"), next(iter(s.top.stack.net_keys.values()))),
            lambda _: None,
            lambda _: None,
        )
        heard_s: list[float] = []

        def hear(advertisement: Advertisement) -> bool:
            heard_s.append(advertisement.seen_s)
            return False

        watching = asyncio.create_task(watch.until(hear, 60))
        await asyncio.sleep(2)
        assert heard_s
        await fault(s, bluetoothd)
        back_s = loop.time()
        heard_s.clear()
        await asyncio.sleep(10)
        assert heard_s
        assert heard_s[0] > back_s
        watching.cancel()
        await asyncio.wait([watching])


@pytest.mark.parametrize("state", [RunState.PROVISIONING, RunState.COLLECTING])
async def test_the_adapter_is_off_for_30_s(private_bus: PrivateBus, state: RunState) -> None:
    """While the boards provision each other, they need no adapter of ours."""
    end, took_s, logs = await run_with(private_bus, adapter_off_for_30_s, state, 0.05)
    assert "bluetooth_lost" in logs
    assert end is RunState.DONE
    assert took_s > 30


async def test_a_scanner_falls_silent(private_bus: PrivateBus) -> None:
    """Scans begin anew all the time, so the run goes on."""
    end, _, _ = await run_with(private_bus, deaf_scanner, RunState.PROVISIONING, 0.0)
    assert end is RunState.DONE
