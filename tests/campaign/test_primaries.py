"""INFO_SET is sent until the board has told that it took it; test_run.py has the rest."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.planner import plan_run
from fastprovd.campaign.primaries import Primaries
from fastprovd.clock import SystemClock
from fastprovd.errors import ConnectionLost
from fastprovd.mesh.models.fast_provisioning import InfoSet, InfoStatus
from fastprovd.mesh.models.fast_provisioning_info import SUCCEEDED
from fastprovd.records import Run, RunState
from tests.support.context import context_of
from tests.support.fake_mesh import PRIMARY, FakeNode, Talk, talk
from tests.support.scene import Listener

CLOCK = SystemClock()
ALREADY = InfoStatus(0x40, b"\x04")


def primaries(t: Talk) -> tuple[Primaries, Listener]:
    """Be where a run is when the link went before INFO_STATUS came."""
    listener = Listener()
    run = Run("r-test", RunState.COLLECTING, CLOCK.utc_now(), match=b"\xdd\xdd")
    context = context_of(run, listener=listener, top=t.top)
    made = Primaries(context)
    plan = plan_run(7, PRIMARY, 0x7FFF, []).plans[0]
    made.add(plan, HeardBoard(b"\xdd\xdd" + bytes(14), "24:0A:C4:5E:00:01", -40, 0.0))
    return made, listener


async def test_a_start_without_an_answer_is_confirmed() -> None:
    """The next link asks once more; a board that had begun says so, and is asked no more."""
    board = FakeNode(PRIMARY)
    board.answers[InfoSet] = lambda _: ALREADY
    async with talk(board) as t:
        made, listener = primaries(t)
        await made.confirm_start(PRIMARY, t.session)
        await made.confirm_start(PRIMARY, t.session)
        assert len(board.heard) == 1
        kinds = [kind for kind, _ in listener.events]
        assert kinds == ["recovery", "fast_provisioning_started"]


async def test_a_start_that_was_lost_is_made_good() -> None:
    """A board that never heard INFO_SET begins now, and the clocks count from here."""
    board = FakeNode(PRIMARY)
    board.answers[InfoSet] = lambda _: SUCCEEDED
    async with talk(board) as t:
        made, _ = primaries(t)
        made._log.mark_info_set(CLOCK.monotonic())
        await asyncio.sleep(5)
        await made.confirm_start(PRIMARY, t.session)
        assert len(board.heard) == 1
        assert made._log.since_info_set is not None
        assert made._log.since_info_set < 5


async def test_a_start_over_a_lost_link_is_not_confirmed() -> None:
    """The next link asks again."""
    board = FakeNode(PRIMARY)
    async with talk(board) as t:
        made, _ = primaries(t)
        t.session.lost.set()
        with pytest.raises(ConnectionLost):
            await made.confirm_start(PRIMARY, t.session)
        assert board.heard == []


async def test_a_board_that_refuses_is_told_of() -> None:
    """What it has is collected all the same."""
    board = FakeNode(PRIMARY)
    board.answers[InfoSet] = lambda _: InfoStatus(0x40, b"\x01")
    async with talk(board) as t:
        made, listener = primaries(t)
        await made.confirm_start(PRIMARY, t.session)
        (_, again), (kind, data) = listener.events
        assert (again["symptom"], again["rung"]) == ("start_unconfirmed", "send_again")
        assert (kind, data["about"]) == ("warning", "INFO_SET")
