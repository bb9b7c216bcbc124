"""The air: who hears whom, loss, delay, and that the seed decides everything."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator.air import Air, Reach, collides
from fastprovd.emulator.firmware import FAST_INTERVAL_S
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.peripheral import Report
from fastprovd.emulator.timeline import Happening
from fastprovd.errors import LocalProtocolError
from tests.conftest import RunVirtual
from tests.emulator.top import Top, address_of


async def test_a_bd_addr_is_taken_once() -> None:
    """Two boards with one address are refused; boards keep the order they came in."""
    air = Air()
    first = air.add_board(address_of(1), power_on=False)
    second = air.add_board(address_of(2), host=Host.NIMBLE)
    with pytest.raises(LocalProtocolError):
        air.add_board(address_of(1))
    assert air.boards == (first, second)
    assert air.board(address_of(2)) is second
    assert (first.is_powered, second.is_powered) == (False, True)


def test_an_adapter_hears_only_what_is_in_reach(run_virtual: RunVirtual[None]) -> None:
    """No reach: no report; half the events lost: about half the reports."""

    async def main(reach: Reach | None) -> int:
        air = Air(1)
        board = air.add_board(address_of(1), host=Host.NIMBLE)
        air.set_reach("hci0", board.device_address, reach)
        await asyncio.sleep(3.1)
        reports: list[object] = []
        air.adapter().observe(reports.append)
        await asyncio.sleep(20.0)
        return len(reports)

    whole = run_virtual(main(Reach()))
    assert run_virtual(main(None)) == 0
    assert whole > 150
    assert run_virtual(main(Reach(loss=0.5))) == pytest.approx(whole / 2, rel=0.25)


async def test_reach_may_differ_by_direction() -> None:
    """Who is not heard may still hear, until both directions are set again."""
    air = Air()
    air.set_one_way("one", "other", None)
    assert (air.hears("one", "other"), air.hears("other", "one")) == (False, True)
    air.set_reach("one", "other", Reach())
    assert (air.hears("one", "other"), air.hears("other", "one")) == (True, True)


async def beacons_heard(air: Air, count: int) -> list[float]:
    """Let one board send `count` beacons, one a second, each twice; return when another heard."""
    sender, receiver = (air.add_board(address_of(n), power_on=False) for n in (1, 2))
    times: list[float] = []
    receiver.hear_beacon = lambda _: times.append(air.loop.time())  # type: ignore[method-assign]
    air.set_provisioner(receiver, active=True)
    begun = air.loop.time()
    for number in range(count):
        air.send_beacon(sender, [begun + number, begun + number + 0.25])
    await asyncio.sleep(count + 1.0)
    return [at - begun for at in times]


def test_loss_is_per_transmission(run_virtual: RunVirtual[list[float]]) -> None:
    """With 70 % loss each of the transmissions of a PDU is heard three times of ten."""

    async def main() -> list[float]:
        return await beacons_heard(Air(1, reach=Reach(loss=0.7)), 2000)

    heard = run_virtual(main())
    assert len(heard) / 4000 == pytest.approx(0.3, abs=0.03)
    assert len({int(at) for at in heard}) / 2000 == pytest.approx(1 - 0.7**2, abs=0.04)


def test_delay_is_added(run_virtual: RunVirtual[list[float]]) -> None:
    """A receiver hears each transmission `delay_s` later."""

    async def main() -> list[float]:
        return await beacons_heard(Air(1, reach=Reach(delay_s=0.5)), 2)

    assert run_virtual(main()) == pytest.approx([0.5, 0.75, 1.5, 1.75])


def test_loss_and_collisions_add_up(run_virtual: RunVirtual[list[float]]) -> None:
    """What is not lost in a collision is lost as often as `Reach` says."""

    async def main(loss: float, *, collisions: bool) -> list[float]:
        air = Air(1, reach=Reach(loss=loss), collisions=collisions)
        for number in range(10, 70):
            air.set_interval(air.add_board(address_of(number), power_on=False), FAST_INTERVAL_S)
        return await beacons_heard(air, 2000)

    colliding = len(run_virtual(main(0.0, collisions=True)))
    assert 0 < colliding < 0.8 * 4000
    assert len(run_virtual(main(0.0, collisions=False))) == 4000
    both = len(run_virtual(main(0.5, collisions=True)))
    assert both == pytest.approx(colliding / 2, rel=0.1)


def test_adapters_hear_less_where_many_advertise(run_virtual: RunVirtual[int]) -> None:
    """60 boards that advertise at 20 ms cost an adapter reports, but no board is never heard."""

    async def main(*, collisions: bool) -> tuple[int, int]:
        air = Air(1, collisions=collisions)
        for number in range(1, 61):
            air.add_board(address_of(number), host=Host.NIMBLE)
        await asyncio.sleep(5.0)
        reports: list[Report] = []
        air.adapter().observe(reports.append)
        await asyncio.sleep(10.0)
        return len(reports), len({report.device_address for report in reports})

    ideal, boards = run_virtual(main(collisions=False))
    assert boards == 60
    colliding, boards = run_virtual(main(collisions=True))
    assert boards == 60
    assert 0.4 * ideal < colliding < 0.95 * ideal


def test_a_run_with_collisions_depends_on_the_seed_only(run_virtual: RunVirtual[object]) -> None:
    """The same seed gives the same run to the microsecond, another one another run."""

    async def main(seed: int) -> list[tuple[float, str]]:
        air = Air(seed, collisions=True)
        for number in range(1, 13):
            air.add_board(address_of(number), flaws=Flaws.none())
        top = Top(air)
        await top.prepare()
        await top.start(count=1)
        await asyncio.sleep(15.0)
        return [(entry.time_s, entry.device_address) for entry in air.timeline]

    first = run_virtual(main(1))
    assert run_virtual(main(1)) == first
    assert run_virtual(main(2)) != first


async def test_a_run_works_with_delay() -> None:
    """Boards that hear each other 50 ms late still form a network."""
    air = Air(1, reach=Reach(delay_s=0.05))
    for number in range(1, 4):
        air.add_board(address_of(number), flaws=Flaws.none())
    top = Top(air)
    await top.prepare()
    await top.start(count=1)
    await asyncio.sleep(40.0)
    assert all(board.has_app_key for board in air.boards)


def test_the_number_of_boards_decides_about_collisions() -> None:
    """From 20 boards on they are shown unless somebody says otherwise."""
    assert [collides(boards) for boards in (1, 19, 20, 300)] == [False, False, True, True]


async def test_nobody_listening_costs_nothing() -> None:
    """Boards that advertise unheard set no timers but their beacon's."""
    air = Air(1)
    for number in range(1, 21):
        air.add_board(address_of(number))
    await asyncio.sleep(10.0)
    calls = 0
    call_at = air.loop.call_at

    def counting(when, callback, *args, context=None):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        return call_at(when, callback, *args, context=context)

    air.loop.call_at = counting  # type: ignore[method-assign]
    await asyncio.sleep(10.0)
    assert calls <= 20 * 2 * 4 + 5


def test_rssi_is_fixed_per_adapter_and_board(run_virtual: RunVirtual[None]) -> None:
    """The same seed gives the same RSSI, path loss below -45 dBm, different per board."""

    async def main(seed: int) -> list[int]:
        air = Air(seed)
        return [air.adapter().rssi_dbm(address_of(number)) for number in range(20)]

    values = run_virtual(main(1))
    assert values == run_virtual(main(1))
    assert values != run_virtual(main(2))
    assert all(-75 <= value <= -45 for value in values)
    assert len(set(values)) > 5


async def test_the_timeline_tells_the_truth() -> None:
    """Entries come in order of time and name board, happening and address."""
    air = Air(1)
    board = air.add_board(address_of(1), flaws=Flaws.none())
    top = Top(air)
    await top.prepare()
    await top.start(count=1)
    what = [entry.what for entry in air.timeline]
    assert what == [
        Happening.POWERED_ON,
        Happening.ON_AIR,
        Happening.CONNECTED,
        Happening.PROVISIONED,
        Happening.APP_KEY_STORED,
        Happening.RUN_STARTED,
        Happening.PROXY_OFF,
        Happening.DISCONNECTED,
    ]
    times = [entry.time_s for entry in air.timeline]
    assert times == sorted(times)
    provisioned = air.timeline[3]
    assert (provisioned.device_address, provisioned.address) == (board.device_address, 5)
