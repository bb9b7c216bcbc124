"""The adapter's side of the air: reports and connection attempts."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator import firmware
from fastprovd.emulator.air import Air
from fastprovd.emulator.peripheral import Report
from tests.conftest import RunVirtual
from tests.emulator.top import Top, address_of


async def test_the_first_report_comes_at_once() -> None:
    """A board that advertises is reported within an interval of the scan's start."""
    air = Air(1)
    for number in range(1, 11):
        air.add_board(address_of(number))
    await asyncio.sleep(3.2)
    reports: dict[str, float] = {}
    begun = air.loop.time()

    def observer(report: Report) -> None:
        if report.connectable:
            reports.setdefault(report.device_address, air.loop.time() - begun)

    stop = air.adapter().observe(observer)
    await asyncio.sleep(0.3)
    stop()
    assert len(reports) == 10
    assert max(reports.values()) < 0.15


async def test_a_stopped_observer_hears_nothing() -> None:
    """Stopping is per observer, and twice is once."""
    air = Air(1)
    air.add_board(address_of(1))
    first: list[Report] = []
    second: list[Report] = []
    stop_first = air.adapter().observe(first.append)
    stop_second = air.adapter().observe(second.append)
    await asyncio.sleep(4.0)
    stop_first()
    stop_first()
    heard = len(first)
    await asyncio.sleep(4.0)
    stop_second()
    assert len(first) == heard > 0
    assert len(second) > heard
    heard = len(second)
    await asyncio.sleep(4.0)
    assert len(second) == heard


async def test_an_attempt_waits_for_the_board() -> None:
    """Connecting to a board that is off succeeds once it is on the air; a cancelled one never."""
    air = Air(1)
    board = air.add_board(address_of(1), power_on=False)
    waiting, cancelled = Top(air), Top(air)
    opened: list[object] = []
    cancel = air.adapter().initiate(address_of(1), cancelled, opened.append)
    air.adapter().initiate(address_of(1), waiting, lambda link: opened.append(waiting))
    await asyncio.sleep(20.0)
    cancel()
    cancel()
    assert opened == []
    board.power_on()
    await asyncio.sleep(4.0)
    assert opened == [waiting]
    await asyncio.sleep(1.0)
    assert len(opened) == 1


def test_connecting_is_as_fast_as_advertising(run_virtual: RunVirtual[None]) -> None:
    """At a 20 ms interval a connection is open within 35 ms, with or without a scan."""

    async def main(seed: int) -> float:
        air = Air(seed)
        air.add_board(address_of(1))
        await asyncio.sleep(3.5)
        top = Top(air)
        begun = top.loop.time()
        await top.connect(address_of(1))
        return top.loop.time() - begun

    # A beacon on the air may stand in the way for its 90 ms.
    times = sorted(run_virtual(main(seed)) for seed in range(20))
    assert times[15] < 0.035
    assert times[-1] < 0.15


async def test_a_board_takes_three_links() -> None:
    """With all links taken it stops advertising; a free one makes it connectable again."""
    air = Air(1)
    board = air.add_board(address_of(1))
    tops = [Top(air, adapter=f"hci{n}") for n in range(firmware.MAX_LINKS + 1)]
    for top in tops[:-1]:
        await top.connect(address_of(1))
    assert board.advertiser.current is None
    with pytest.raises(TimeoutError):
        await tops[-1].connect(address_of(1))
    tops[0].disconnect()
    await tops[-1].connect(address_of(1))


async def test_an_unknown_address_is_never_connected() -> None:
    """An attempt to nobody waits until it is cancelled."""
    air = Air(1)
    top = Top(air)
    with pytest.raises(TimeoutError):
        await top.connect("AA:BB:CC:DD:EE:FF", 10.0)
    assert not air.adapter().is_initiating("AA:BB:CC:DD:EE:FF")
