"""When a run begins, and whom it takes on that comes on the air later."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.timeline import Happening
from fastprovd.records import RunState
from tests.support.scene import Scene, scene

PERFECT = Flaws.none()


def first_link_s(s: Scene) -> float:
    """Return when we connected to a board for the first time."""
    return min(e.time_s for e in s.air.timeline if e.what is Happening.CONNECTED)


@pytest.mark.parametrize("method", [Method.DIRECT, Method.AUTO])
async def test_a_direct_run_begins_with_as_many_boards_as_links(method: Method) -> None:
    """The others are heard meanwhile, also those that come on the air long after."""
    settings = RunSettings(expected=9, method=method)
    async with scene(9, 3, flaws=PERFECT, settings=settings) as s:
        late = s.air.boards[6:]
        for board in late:
            board.power_off()
        running = asyncio.create_task(s.campaign.execute())
        await asyncio.sleep(12.0)
        for board in late:
            board.power_on()
        run = await running
        assert first_link_s(s) < 4.0
        assert run.state is RunState.DONE
        assert (run.heard, run.proven) == (9, 9)


async def test_a_board_that_never_comes_is_waited_for() -> None:
    """No longer than the time to listen; the others are nodes by then."""
    settings = RunSettings(expected=7, method=Method.DIRECT, scan_s=20.0)
    async with scene(6, 3, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        assert first_link_s(s) < 4.0
        assert (run.state, run.proven) == (RunState.PARTIAL, 6)
        assert 20.0 < run.elapsed_s < 40.0


async def test_without_a_number_all_are_heard_first() -> None:
    """Nobody knows then how many there are, and who would be faster."""
    settings = RunSettings(method=Method.DIRECT)
    async with scene(9, 3, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        on_air = max(e.time_s for e in s.air.timeline if e.what is Happening.ON_AIR)
        assert first_link_s(s) > on_air
        assert (run.state, run.proven) == (RunState.DONE, 9)


async def test_a_fast_run_hears_all_first() -> None:
    """Boards that provision each other are faster than we are over PB-GATT once they run."""
    settings = RunSettings(expected=9, method=Method.FAST)
    async with scene(9, 3, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        on_air = max(e.time_s for e in s.air.timeline if e.what is Happening.ON_AIR)
        assert first_link_s(s) > on_air
        assert run.state is RunState.DONE
