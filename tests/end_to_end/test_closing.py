"""The join window at the end of whole runs: closed, and nobody provisions any more."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.campaign.closing import LEFT_OPEN, NOT_TOLD
from fastprovd.campaign.settings import Close, RunSettings
from fastprovd.emulator.air import Reach
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.records import Run, RunState, Window
from tests.support.scene import Scene, device_address, scene

PERFECT = Flaws.none()
HOSTS = pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
WAYS = pytest.mark.parametrize("close", ["suspend", "onoff"])
# Provisioners take a board within 3 s of its power-on.
TAKEN_S = 40.0


async def nobody_takes(s: Scene) -> bool:
    """Switch on one more board, and see whether it stays alone."""
    board = s.air.add_board(device_address(200))
    await asyncio.sleep(TAKEN_S)
    return board.is_on_air and board.unicast_address is None


async def run_with_late_boards(s: Scene, after_s: tuple[float, ...]) -> tuple[Run, list[Board]]:
    """Run, and switch boards on so long after the boards were first told to stop."""
    late = [
        s.air.add_board(device_address(100 + number), host=s.air.boards[0].host, power_on=False)
        for number in range(len(after_s))
    ]
    run = asyncio.create_task(s.campaign.execute())
    await s.listener.reached(RunState.CLOSING)
    slept_s = 0.0
    for board, at_s in zip(late, after_s, strict=True):
        await asyncio.sleep(at_s - slept_s)
        slept_s = at_s
        board.power_on()
    return await run, late


@HOSTS
@WAYS
@pytest.mark.parametrize("boards", [1, 2, 5, 20])
async def test_nobody_joins_after_a_run(host: Host, close: Close, boards: int) -> None:
    """With every flaw and both ways of stopping; the light of each board is what it was."""
    settings = RunSettings(expected=boards, close=close)
    async with scene(boards, 3, host=host, settings=settings) as s:
        run = await s.campaign.execute()
        s.check_against_truth(run)
        assert run.t_proven_s is not None
        assert run.t_closed_s is not None
        assert run.window_evidence is not None
        assert not any(board.onoff for board in s.air.boards)
        assert await nobody_takes(s)


@HOSTS
@pytest.mark.parametrize("boards", [2, 5, 12])
@pytest.mark.parametrize("seed", [1, 2])
async def test_loss_does_not_leave_the_window_open(host: Host, boards: int, seed: int) -> None:
    """At 30 % loss whoever missed one message hears the next."""
    settings = RunSettings(expected=boards)
    async with scene(boards, seed, host=host, settings=settings) as s:
        s.air.set_default_reach(Reach(loss=0.3))
        s.check_closed(await s.campaign.execute())


@HOSTS
@WAYS
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_late_joiners_are_run_members_and_are_stopped_too(
    host: Host, close: Close, seed: int
) -> None:
    """One within the 10 s, one that the first joiner takes: known, proven, and no provisioners."""
    settings = RunSettings(expected=4, close=close)
    async with scene(4, seed, host=host, flaws=PERFECT, settings=settings) as s:
        run, late = await run_with_late_boards(s, (3.0, 14.0))
        assert late[0].unicast_address is not None
        assert run.state is RunState.DONE
        truth = {board.unicast_address for board in s.air.boards} - {None}
        assert {n.address for n in s.listener.address_list if n.proven} == truth
        assert run.heard == run.proven == len(truth)
        s.check_closed(run)
        assert await nobody_takes(s)


async def test_who_comes_after_the_provisioners_stopped_is_none_of_the_runs() -> None:
    """It stays unprovisioned, which proves the window closed, and nobody misses it."""
    settings = RunSettings(expected=4)
    async with scene(4, 1, flaws=PERFECT, settings=settings) as s:
        run, late = await run_with_late_boards(s, (15.0,))
        assert late[0].unicast_address is None
        assert (run.state, run.heard, run.missing) == (RunState.DONE, 4, ())
        assert run.window_evidence is not None
        assert run.window_evidence.endswith("though 1 could have been taken")


async def test_the_window_closes_where_the_list_is_too_long_to_read() -> None:
    """With 45 boards a late joiner is noticed on the air, found by asking, and stopped."""
    settings = RunSettings(expected=45)
    async with scene(45, 1, host=Host.NIMBLE, flaws=PERFECT, settings=settings) as s:
        run, late = await run_with_late_boards(s, (3.0,))
        assert late[0].unicast_address in s.listener.nodes
        assert run.state is RunState.DONE
        s.check_closed(run)


async def test_lights_that_are_on_stay_on() -> None:
    """The OnOff way sets each light to what the board told it is."""
    settings = RunSettings(expected=3, close="onoff")
    async with scene(3, 1, flaws=PERFECT, settings=settings) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.COLLECTING)
        primary = s.true_nodes()[s.campaign.run.primary or 0]
        primary._models.onoff.onoff = True  # type: ignore[union-attr] # somebody's switch
        end = await run
        assert end.state is RunState.DONE
        assert [b.onoff for b in s.air.boards] == [b is primary for b in s.air.boards]
        s.check_closed(end)


async def test_a_window_that_is_to_stay_open_does() -> None:
    """The run is done without closing, and later boards are still provisioned."""
    settings = RunSettings(expected=4, close="leave_open")
    async with scene(4, 1, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert (run.window, run.window_evidence) == (Window.OPEN, LEFT_OPEN)
        assert run.t_closed_s is None
        assert RunState.CLOSING not in {r.state for r in s.listener.runs}
        assert not await nobody_takes(s)


async def test_a_link_lost_while_closing_is_opened_again() -> None:
    """The Primary is found again, and the window is closed over the new link."""
    async with scene(4, 4, flaws=PERFECT) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.CLOSING)
        await asyncio.sleep(5.0)
        s.adapter.power(on=False)
        await asyncio.sleep(3.0)
        s.adapter.power(on=True)
        end = await run
        assert end.state is RunState.DONE
        s.check_closed(end)


async def primary_gone_while_closing(boards: int) -> tuple[Run, Scene]:
    """Cut the power of the Primary once everybody is proven."""
    settings = RunSettings(expected=boards, primary_return_s=40.0)
    async with scene(boards, 1, flaws=PERFECT, settings=settings) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.CLOSING)
        await asyncio.sleep(5.0)
        s.true_nodes()[s.campaign.run.primary or 0].power_off()
        return await run, s


async def test_without_any_proxy_the_window_stays_unknown() -> None:
    """The boards were told, and nobody can show it: partial, in time, and the reason says so."""
    end, _ = await primary_gone_while_closing(2)
    assert end.state is RunState.PARTIAL
    assert end.window is Window.UNKNOWN
    assert end.reason is not None
    assert end.reason.endswith("boards may still take others that match")


async def test_through_another_proxy_each_node_confirms() -> None:
    """Nobody there can confirm the suspend, so each is told to keep its light, which stops it."""
    end, s = await primary_gone_while_closing(5)
    # What became of the Primary nobody knows: it may have restarted and been taken again.
    assert end.window is Window.UNKNOWN
    assert end.window_evidence is not None
    assert "confirmed an OnOff Set to the light it had" in end.window_evidence
    assert "fell silent" in end.window_evidence
    assert not any(board.is_provisioning for board in s.air.boards if board.is_powered)


async def test_a_run_that_is_stopped_leaves_the_window_open() -> None:
    """Nobody told the boards; the result says that."""
    async with scene(4, 1, flaws=PERFECT) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.COLLECTING)
        s.campaign.stop()
        end = await run
        assert (end.state, end.window) == (RunState.STOPPED, Window.OPEN)
        assert end.window_evidence == NOT_TOLD
