"""Whole runs of emulated boards: times, trees, flaws, loss, power."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

import pytest

from fastprovd.emulator.air import Air, Reach
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.models.configuration import NodeReset
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffStatus
from tests.conftest import RunVirtual
from tests.emulator.top import PROXY, Top, address_of

HOSTS = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda host: host.name)


@dataclass
class Result:
    """Seconds since INFO_SET, and the scene itself."""

    air: Air
    top: Top
    begun: float
    first_link: float
    last_provisioned: float
    last_configured: float
    proxy_on_air: float
    list_complete: float
    open_to_complete: list[float]
    complete_to_configured: list[float]


async def whole_run(
    boards: int,
    seed: int,
    count: int | None,
    *,
    host: Host = Host.NIMBLE,
    flaws: Flaws | None = None,
    reach: Reach | None = None,
    span: tuple[int, int] = (0x0010, 0x0400),
) -> Result:
    """Run until every board is listed, polling every 2 s from the proxy's return."""
    air = Air(seed, reach=reach)
    for number in range(1, boards + 1):
        air.add_board(address_of(number), host=host, flaws=flaws or Flaws.none())
    await asyncio.sleep(3.0)  # all on the air, as in the recordings
    top = Top(air)
    await top.prepare()
    begun = await top.start(count=count, span=span)
    await top.back()
    async with asyncio.timeout(200.0):
        # A board can only be polled.
        while len(await top.list_addresses()) < boards - 1:  # noqa: ASYNC110
            await asyncio.sleep(2.0)
    list_complete = top.loop.time() - begun
    await asyncio.sleep(10.0)
    return measured(air, top, begun, list_complete)


def measured(air: Air, top: Top, begun: float, list_complete: float) -> Result:
    opened: dict[tuple[str, str], float] = {}
    completed: dict[int | None, float] = {}
    open_to_complete, complete_to_configured, times = [], [], {}
    for entry in air.timeline:
        t = entry.time_s - begun
        if entry.what is Happening.LINK_OPENED:
            opened[entry.device_address, entry.detail] = t
            times.setdefault("first link", t)
        elif entry.what is Happening.COMPLETE_HEARD:
            open_to_complete.append(t - opened[entry.device_address, entry.detail])
            completed[entry.address] = t
        elif entry.what is Happening.CONFIGURED:
            complete_to_configured.append(t - completed[entry.address])
            times["configured"] = t
        elif entry.what is Happening.PROVISIONED:
            times["provisioned"] = t
        elif entry.what is Happening.PROXY_ON_AIR:
            times.setdefault("proxy", t)
    return Result(
        air,
        top,
        begun,
        times.get("first link", 0.0),
        times["provisioned"],
        times.get("configured", 0.0),
        times["proxy"],
        list_complete,
        open_to_complete,
        complete_to_configured,
    )


@pytest.mark.parametrize(
    ("boards", "provisioned", "configured"),
    [
        (3, (6.7, 7.8), (7.5, 9.4)),
        (7, (11.2, 16.6), (12.0, 18.0)),
        (12, (15.5, 20.2), (16.7, 22.0)),
        (20, (24.5, 39.4), (25.0, 42.0)),
        (24, (27.0, 52.0), (29.0, 54.0)),
    ],
)
def test_a_run_takes_as_long_as_measured(
    run_virtual: RunVirtual[Result],
    boards: int,
    provisioned: tuple[float, float],
    configured: tuple[float, float],
) -> None:
    """The median of 8 seeds lies near the measured range, no run far outside."""
    runs = [run_virtual(whole_run(boards, seed, boards - 1)) for seed in range(8)]
    last = [run.last_provisioned for run in runs]
    assert provisioned[0] * 0.9 <= statistics.median(last) <= provisioned[1] * 1.1
    assert provisioned[0] * 0.55 <= min(last)
    assert max(last) <= provisioned[1] * 1.4
    last = [run.last_configured for run in runs]
    assert configured[0] * 0.9 <= statistics.median(last) <= configured[1] * 1.15


def test_pb_adv_sessions_take_as_long_as_measured(run_virtual: RunVirtual[Result]) -> None:
    """Link open to Complete 1.7/3.0/8.0 s, Complete to configured 0.7/1.6/8.6 s."""
    runs = [run_virtual(whole_run(n, seed, n - 1)) for n in (3, 7, 12, 20) for seed in range(8)]
    sessions = [t for run in runs for t in run.open_to_complete]
    assert 1.5 <= min(sessions) <= 2.2
    assert statistics.median(sessions) == pytest.approx(3.0, rel=0.25)
    assert max(sessions) <= 11.0
    configurations = [t for run in runs for t in run.complete_to_configured]
    assert 0.4 <= min(configurations) <= 1.0
    assert statistics.median(configurations) == pytest.approx(1.6, rel=0.35)
    assert max(configurations) <= 16.0
    assert all(0.0 <= run.first_link <= 4.9 for run in runs)


@pytest.mark.parametrize("boards", [7, 12, 20])
def test_count_1_is_starved_and_faster(run_virtual: RunVirtual[Result], boards: int) -> None:
    """The proxy is on at 3 s but mostly reachable later; the list is complete 5 to 8 s after."""
    for seed in range(4):
        run = run_virtual(whole_run(boards, seed, 1))
        assert run.list_complete - run.last_provisioned == pytest.approx(6.0, abs=6.0)
        other = run_virtual(whole_run(boards, seed, boards - 1))
        assert other.list_complete >= run.list_complete - 8.0


@HOSTS
async def test_the_tree_is_sound(host: Host) -> None:
    """Every board has one parent, its own address, AppKey and group; nobody takes more than 6."""
    run = await whole_run(20, 5, 1, host=host)
    boards = run.air.boards
    primary = next(board for board in boards if board.is_primary)
    assert len({board.unicast_address for board in boards}) == 20
    assert all(board.has_app_key and board.groups == {0xC000} for board in boards)
    assert all(
        board.parent in {b.device_address for b in boards}
        for board in boards
        if board is not primary
    )
    assert primary.parent is None
    assert all(len(board.children) <= 6 for board in boards)
    assert set(primary.listed_addresses) == {
        board.unicast_address for board in boards if board is not primary
    }
    for board in boards:
        for child in board.children:
            assert run.air.board(child).parent == board.device_address


async def test_at_most_three_links_at_once() -> None:
    """No provisioner has more than three PB-ADV links."""
    run = await whole_run(20, 2, 1)
    links: dict[str, int] = {}
    for entry in run.air.timeline:
        if entry.what is Happening.LINK_OPENED:
            links[entry.device_address] = links.get(entry.device_address, 0) + 1
            assert links[entry.device_address] <= 3
        elif entry.what is Happening.LINK_CLOSED:
            links[entry.device_address] -= 1


def test_the_same_seed_gives_the_same_run(run_virtual: RunVirtual[Result]) -> None:
    """Timeline and every octet the Top hears depend on the seed alone."""

    def of(seed: int) -> tuple[object, object]:
        run = run_virtual(whole_run(12, seed, 1, host=Host.BLUEDROID, flaws=Flaws()))
        return run.air.timeline, run.top.notified_values

    assert of(3) == of(3)
    assert of(3)[0] != of(4)[0]


async def test_a_hundred_boards_take_seconds() -> None:
    """100 boards are provisioned, configured and listed within seconds of CPU."""
    begun = time.process_time()
    run = await whole_run(100, 1, 1, host=Host.BLUEDROID, span=(0x0010, 0x7FFF))
    assert time.process_time() - begun < 30.0
    assert all(board.has_app_key for board in run.air.boards)
    assert run.last_provisioned < 150.0


@pytest.mark.parametrize(("boards", "loss"), [(7, 0.2), (7, 0.3), (12, 0.3)])
def test_loss_delays_but_does_not_end_a_run(
    run_virtual: RunVirtual[Result], boards: int, loss: float
) -> None:
    """With lossy air all boards get an address and the AppKey; some seeds list late."""
    for seed in range(3):
        run = run_virtual(whole_run(boards, seed, boards - 1, reach=Reach(loss)))
        assert all(board.has_app_key for board in run.air.boards)
        assert run.list_complete < 60.0


async def test_two_primaries_share_the_boards() -> None:
    """Two roots with disjoint ranges: every board in exactly one list, no address twice."""
    air = Air(1)
    for number in range(1, 13):
        air.add_board(address_of(number), flaws=Flaws.none())
    await asyncio.sleep(3.0)
    top = Top(air)
    await top.prepare(2)
    top.disconnect()
    second = Top(air, adapter="hci1", first_seq=100_000)
    await second.prepare(3)
    second.disconnect()
    for own, root, span in ((second, 3, (0x4000, 0x7EFF)), (top, 2, (0x0100, 0x3FFF))):
        await own.connect(await own.find_proxy(root))
        own.subscribe(PROXY)
        await own.start(root, count=None, span=span)
    await asyncio.sleep(60.0)
    roots = [board for board in air.boards if board.is_primary]
    lists = [set(root.listed_addresses) for root in roots]
    assert len(roots) == 2
    assert not lists[0] & lists[1]
    others = {b.unicast_address for b in air.boards if not b.is_primary}
    assert lists[0] | lists[1] == others
    assert len(others) == 10


async def test_a_small_range_leaves_proxies() -> None:
    """With 0010 to 0013 all children are plain nodes, keep their proxy, and answer through it."""
    air = Air(2)
    for number in range(1, 6):
        air.add_board(address_of(number), flaws=Flaws.none())
    await asyncio.sleep(3.0)
    top = Top(air)
    await top.prepare()
    await top.start(count=4, span=(0x0010, 0x0013))
    await asyncio.sleep(40.0)
    plain = [board for board in air.boards if not board.is_primary]
    assert {board.unicast_address for board in plain} == {0x10, 0x11, 0x12, 0x13}
    assert not any(board.is_provisioner for board in plain)
    assert all(board.groups == {0xC000} for board in plain)
    await top.connect(plain[0].device_address)
    top.subscribe(PROXY)
    for board in air.boards:
        assert board.unicast_address is not None
        answer = await top.request(OnOffGet(), dst=board.unicast_address)
        assert answer[0].message == OnOffStatus(False)


async def test_reach_shapes_the_tree() -> None:
    """A board that only a Temporary Provisioner hears is provisioned by that one."""
    air = Air(1)
    first, middle, far = (air.add_board(address_of(n), flaws=Flaws.none()) for n in (1, 2, 3))
    air.set_reach(first.device_address, far.device_address, None)
    air.set_reach("hci0", middle.device_address, None)
    air.set_reach("hci0", far.device_address, None)
    top = Top(air)
    assert await top.prepare() == first.device_address
    await top.start(count=100)
    await asyncio.sleep(40.0)
    assert far.parent == middle.device_address
    assert first.listed_addresses == (middle.unicast_address, far.unicast_address)
    await top.back()
    assert far.unicast_address is not None
    answer = await top.request(OnOffGet(), dst=far.unicast_address)
    assert answer[0].src == far.unicast_address


@pytest.mark.parametrize(("boards", "dies"), [(7, False), (10, False), (20, True)])
def test_a_group_get_kills_a_nimble_primary(
    run_virtual: RunVirtual[None], boards: int, dies: bool
) -> None:
    """All answers meet in 0.1 s: up to 10 boards are survived, 20 never."""

    async def main(seed: int) -> bool:
        run = await whole_run(boards, seed, 1, flaws=Flaws())
        primary = next(board for board in run.air.boards if board.unicast_address == 5)
        before = len(run.top.received)
        run.top.send(OnOffGet(), dst=0xC000)
        await asyncio.sleep(2.0)
        if primary.killed_count == 0:
            assert len(run.top.received) - before == boards
        return primary.killed_count == 1

    assert {run_virtual(main(seed)) for seed in range(3)} == {dies}


def test_twelve_answers_kill_a_nimble_primary_sometimes(run_virtual: RunVirtual[None]) -> None:
    """At N = 12 the buffers just suffice in some runs."""

    async def main(seed: int) -> bool:
        run = await whole_run(12, seed, 1, flaws=Flaws())
        primary = next(board for board in run.air.boards if board.unicast_address == 5)
        run.top.send(OnOffGet(), dst=0xC000)
        await asyncio.sleep(2.0)
        return primary.killed_count == 1

    assert {run_virtual(main(seed)) for seed in range(12)} == {False, True}


async def test_a_group_get_is_harmless_to_bluedroid() -> None:
    """Every configured board answers a roll-call of 20, within half a second or so."""
    run = await whole_run(20, 1, 1, host=Host.BLUEDROID, flaws=Flaws())
    before = len(run.top.received)
    run.top.send(OnOffGet(), dst=0xC000)
    await asyncio.sleep(2.0)
    configured = {b.unicast_address for b in run.air.boards if b.has_app_key}
    assert {event.src for event in run.top.received[before:]} == configured


def test_bluedroid_leaves_boards_without_app_key(run_virtual: RunVirtual[Result]) -> None:
    """About 0, 0.2, 0.5 and 3 boards at N = 3, 7, 12 and 20; they are listed; a switch ends it."""

    def missing(boards: int, seed: int) -> int:
        run = run_virtual(whole_run(boards, seed, 1, host=Host.BLUEDROID, flaws=Flaws()))
        primary = next(board for board in run.air.boards if board.is_primary)
        left = [board for board in run.air.boards if not board.has_app_key]
        assert all(board.unicast_address in primary.listed_addresses for board in left)
        assert all(board.advertiser.current is not None for board in left)
        return len(left)

    mean = {n: statistics.mean(missing(n, seed) for seed in range(10)) for n in (3, 7, 12, 20)}
    assert mean[3] == 0
    assert 0.0 <= mean[7] <= 0.8
    assert 0.1 <= mean[12] <= 1.4
    assert 1.5 <= mean[20] <= 4.5


@HOSTS
async def test_a_power_cycle_forgets_the_network(host: Host) -> None:
    """Off: links are lost by timeout, the air is silent; on: unprovisioned, with the same UUID."""
    air = Air()
    board = air.add_board(address_of(1), host=host)
    top = Top(air)
    await top.prepare()
    board.power_off()
    assert [reason for _, reason in top.disconnections] == [0x08]
    assert board.advertiser.current is None
    with pytest.raises(TimeoutError):
        await top.find(lambda report: True, 30.0)
    board.power_on()
    begun = top.loop.time()
    assert await top.find_unprovisioned() == board.device_address
    assert top.loop.time() - begun < 3.2
    assert board.unicast_address is None
    assert await top.prepare(6) == board.device_address


async def test_node_reset_silences_a_board() -> None:
    """Node Reset is answered; after that only a power cycle brings the board back."""
    air = Air()
    board = air.add_board(address_of(1))
    top = Top(air)
    await top.prepare()
    await top.request(NodeReset(), dst=5, key=top.stack.dev_keys[5])
    top.disconnect()
    await asyncio.sleep(1.0)
    assert board.is_silent
    with pytest.raises(TimeoutError):
        await top.find(lambda report: True, 20.0)
    board.power_off()
    board.power_on()
    await top.find_unprovisioned()


async def test_a_board_taken_by_others_says_nothing_to_the_top() -> None:
    """While provisioners run, a Top's Invite to a new board is not answered; it hangs up later."""
    run = await whole_run(4, 1, 1)
    late = run.air.add_board(address_of(0x80), host=Host.NIMBLE, flaws=Flaws.none())
    top = Top(run.air, adapter="hci1")
    await top.find(lambda report: report.device_address == late.device_address, 5.0)
    await top.connect(late.device_address)
    connected = top.loop.time()
    with pytest.raises(TimeoutError):
        await top.provision(0x0300)
    await top.until(lambda: bool(top.disconnections), 10.0)
    assert top.disconnections[0][1] == 0x13
    assert 1.5 <= top.disconnections[0][0] - connected <= 6.0
    assert late.is_provisioner
