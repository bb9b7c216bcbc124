"""No board that is not ours gets in, unless it comes when nobody can refuse it any more."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.strangers import FREE, GONE, NEVER_HEARD, TAKEN
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.records import RunState, Stranger
from tests.support.scene import device_address, scene
from tests.support.strangers import run_among_strangers

PERFECT = Flaws.none()
SEEDS = 60
OURS = tuple(device_address(number) for number in (1, 2, 3))
NEAR = device_address(9)
FAR = "AC:67:B2:00:00:01"


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
async def test_strangers_stay_out_or_are_named(seed: int) -> None:
    """On the air before INFO_SET: never provisioned; after it: named in the result."""
    outcome = await run_among_strangers(seed)
    assert outcome.taken_in_time == set()
    assert outcome.taken_late <= outcome.named
    assert outcome.is_refused or outcome.run.state in (RunState.DONE, RunState.PARTIAL)


async def test_a_longer_match_value_keeps_strangers_out() -> None:
    """The allow list is sent as its common beginning: the run goes on beside a stranger."""
    settings = RunSettings(expected=3, allow=OURS)
    async with scene(3, 1, flaws=PERFECT, settings=settings) as s:
        stranger = s.air.add_board(FAR, flaws=PERFECT)
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert run.match == s.air.board(OURS[0]).uuid[:7]
        assert run.strangers == ()
        assert stranger.unicast_address is None
        assert s.store.run(run.run_id) == run


async def test_a_single_board_is_matched_whole() -> None:
    """A match value of 16 octets gets through INFO_SET, and its neighbour stays out."""
    settings = RunSettings(expected=1, allow=OURS[:1])
    async with scene(2, 1, host=Host.NIMBLE, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert run.match == s.air.board(OURS[0]).uuid
        assert [b.unicast_address for b in s.air.boards] == [run.primary, None]


@pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
@pytest.mark.parametrize("lists", [{"allow": OURS}, {"deny": (NEAR,)}], ids=("allow", "deny"))
async def test_a_run_does_not_start_among_strangers(
    host: Host, lists: dict[str, tuple[str, ...]]
) -> None:
    """A board that the match value would let in fails the run by name; nobody is provisioned."""
    settings = RunSettings(expected=3, **lists)
    async with scene(3, 2, host=host, flaws=PERFECT, settings=settings) as s:
        s.air.add_board(NEAR, host=host, flaws=PERFECT)
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert run.reason is not None
        assert NEAR in run.reason
        assert "power them off" in run.reason
        assert run.window is None
        assert not any(board.is_provisioner for board in s.air.boards)


async def test_a_stranger_that_comes_after_the_scan_is_refused() -> None:
    """The last look, over the link to the Primary, finds whoever was switched on meanwhile."""
    settings = RunSettings(expected=3, deny=(NEAR,))
    async with scene(3, 2, flaws=PERFECT, settings=settings) as s:
        stranger = s.air.add_board(NEAR, flaws=PERFECT, power_on=False)
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.CONNECTING)
        stranger.power_on()
        end = await run
        assert end.state is RunState.FAILED
        assert end.reason is not None
        assert NEAR in end.reason
        assert stranger.unicast_address is None
        assert RunState.CONFIGURING_PRIMARY in {r.state for r in s.listener.runs}


async def test_strangers_are_let_in_when_told_so() -> None:
    """The run starts, the stranger is a node in the end, and the result says so."""
    settings = RunSettings(expected=3, deny=(NEAR,), allow_strangers=True)
    async with scene(3, 2, flaws=PERFECT, settings=settings) as s:
        stranger = s.air.add_board(NEAR, flaws=PERFECT)
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert stranger.unicast_address in s.listener.nodes
        assert [(b.device_uuid, b.device_address) for b in run.strangers] == [(stranger.uuid, NEAR)]
        assert run.strangers[0].reason in (TAKEN, GONE)


async def test_a_stranger_after_the_start_is_warned_of_and_counted() -> None:
    """It does not stand in for a board of ours that is missing: the run ends partial."""
    settings = RunSettings(expected=4, scan_s=8.0, deny=(NEAR,))
    async with scene(3, 2, flaws=PERFECT, settings=settings) as s:
        stranger = s.air.add_board(NEAR, flaws=PERFECT, power_on=False)
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.COLLECTING)
        stranger.power_on()
        end = await run
        assert stranger.unicast_address in s.listener.nodes
        assert end.proven == 4
        assert end.state is RunState.PARTIAL
        assert [b.device_uuid for b in end.strangers] == [stranger.uuid]
        warned = [data["about"] for kind, data in s.listener.events if kind == "warning"]
        assert warned == [NEAR]


async def test_a_stranger_that_nobody_takes_is_told_as_such() -> None:
    """It came too late to be refused, and no provisioner hears it."""
    settings = RunSettings(expected=3, deny=(NEAR,))
    async with scene(3, 2, flaws=PERFECT, settings=settings) as s:
        stranger = s.air.add_board(NEAR, flaws=PERFECT, power_on=False)
        for address in OURS:
            s.air.set_reach(NEAR, address, None)
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.COLLECTING)
        stranger.power_on()
        end = await run
        assert end.state is RunState.DONE
        assert end.strangers == (Stranger(FREE, stranger.uuid, NEAR),)


async def test_a_board_that_we_never_heard_is_told_by_its_address() -> None:
    """One address more than boards: something out of our reach was provisioned."""
    settings = RunSettings(expected=3, deny=(FAR,))
    async with scene(3, 2, flaws=PERFECT, settings=settings) as s:
        s.air.set_reach(NEAR, "hci0", None)
        s.air.add_board(NEAR, flaws=PERFECT)
        run = asyncio.create_task(s.campaign.execute())
        end = await run
        assert end.known == 4
        assert end.strangers == (Stranger(NEVER_HEARD),)
