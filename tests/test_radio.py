"""Bluetooth that comes late is waited for, whichever part of it is late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.radio import adapter_problem, bluetooth_ready, problem_now
from tests.support.doors import Bench, bench, now


async def without_adapter(b: Bench, bus: PrivateBus) -> None:
    await b.bluetoothd.unplug()
    await asyncio.sleep(40)
    b.bluetoothd.plug("hci0")


async def without_bluetoothd(b: Bench, bus: PrivateBus) -> None:
    await b.bluetoothd.kill()
    await asyncio.sleep(40)
    await b.bluetoothd.start()


async def without_bus(b: Bench, bus: PrivateBus) -> None:
    bus.kill()
    await asyncio.sleep(40)
    bus.start()
    await b.bluetoothd.start()


@pytest.mark.parametrize("adapter", ["", "hci0"])
@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (without_adapter, ("plug", "`bluetoothctl list` shows")),
        (without_bluetoothd, ("start bluetoothd",)),
        (without_bus, ("start bluetoothd",)),
    ],
)
async def test_what_is_late_is_waited_for(
    private_bus: PrivateBus, lose: Any, said: tuple[str, ...], adapter: str
) -> None:
    """Each reason is told once, with what helps."""
    async with bench(private_bus) as b:
        radio = BleakBearer(adapter)
        losing = asyncio.create_task(lose(b, private_bus))
        await asyncio.sleep(2)
        told: list[str] = []
        begun_s = now()
        await bluetooth_ready(lambda: problem_now(radio), told.append)
        assert 30 < now() - begun_s < 60
        assert told
        assert len(set(told)) == len(told)
        assert any(words in told[0] for words in said)
        await losing


async def test_who_asks_for_it_is_told_soon(private_bus: PrivateBus) -> None:
    """A person waits for a new run, so the reason comes after some attempts."""
    async with bench(private_bus) as b:
        b.adapter.power(on=False)
        begun_s = now()
        problem = await adapter_problem(BleakBearer())
        assert problem is not None
        assert "switch it on" in problem
        assert now() - begun_s < 20
        b.adapter.power(on=True)
        assert await adapter_problem(BleakBearer()) is None
