"""Causes of trouble that we keep away, or that do no harm: the run is done, and says nothing."""

from __future__ import annotations

import pytest

from fastprovd.campaign.primary import Start
from fastprovd.emulator import firmware
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.timeline import Entry, Happening
from fastprovd.records import RunState
from tests.conftest import RunVirtual
from tests.support import stalls
from tests.support.causes import CAUSES
from tests.support.ended import (
    GROUP,
    HOSTS,
    always,
    ended,
    on_all,
    only,
    primaries,
    proofs,
    times,
)
from tests.support.scene import Scene
from tests.support.stalls import Arrange, Happened, made_by_us, when


@HOSTS
async def test_an_undisturbed_run_is_done(host: Host) -> None:
    """Every board is known and proven, and told to stop."""
    async with ended(7, host=host) as (_, run):
        assert run.state is RunState.DONE
        assert (run.known, run.proven, run.reason) == (7, 7, None)


@HOSTS
@pytest.mark.parametrize("boards", [1, 3, 7])
async def test_the_count_is_always_one(host: Host, boards: int) -> None:
    """Every Primary's proxy is back 3 s after it has begun, which no other count does."""
    async with ended(boards, host=host) as (s, _):
        assert primaries(s)
        for primary in primaries(s):
            (begun,) = times(s, Happening.RUN_STARTED, primary)
            back = times(s, Happening.PROXY_ON, primary)[0]
            assert back - begun == pytest.approx(firmware.PROXY_ENABLE_COUNT_1_S, abs=0.1)


async def test_a_primary_without_grandchildren_comes_back() -> None:
    """With two boards beside the Primary nobody ever reports, and the run is done."""
    async with ended(3) as (s, run):
        (primary,) = primaries(s)
        assert primary.children
        assert not any(board.children for board in s.air.boards if board is not primary)
        assert run.state is CAUSES["S1"].ends


async def test_a_primary_alone_comes_back() -> None:
    """Without any other board the run is done."""
    async with ended(1) as (_, run):
        assert run.state is CAUSES["S2"].ends


async def test_reports_that_nobody_acknowledges_delay_nothing() -> None:
    """Twenty boards, and a third of the Temporary Provisioners hears no acknowledgment."""
    async with ended(20, stalls.acks_unheard, host=Host.NIMBLE) as (_, run):
        assert run.state is CAUSES["S3"].ends


async def test_every_node_is_in_the_group() -> None:
    """The group that INFO_SET carries is valid: children take theirs, and provision others."""
    async with ended(20, host=Host.BLUEDROID) as (s, _):
        assert all(board.groups == {GROUP} for board in s.air.boards)
        temporary = [e.device_address for e in s.air.timeline if stalls.temporary_starts(e)]
        assert any(s.air.board(address).children for address in temporary)


def test_a_busy_board_is_asked_again(run_virtual: RunVirtual[None]) -> None:
    """After FF FF the second INFO_SET is taken."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        def stall(board: Board, entry: Entry) -> None:
            board.stalls.busy = 1

        made = when(s, made_by_us, stall)
        return lambda: made() and not any(board.stalls.busy for board in s.air.boards)

    async def main() -> None:
        async with ended(5, arrange) as (s, run):
            assert run.state is CAUSES["Q2"].ends
            assert proofs(s) == [Start.STARTED.value]

    run_virtual(main())


@HOSTS
async def test_a_swallowed_status_is_asked_for_again(host: Host) -> None:
    """The hang-up counts as a start, and over the next link the board says that it had begun."""
    swallowed, flaws = always("SWALLOWED_STATUS"), only("swallowed_info_status")
    async with ended(5, swallowed, host=host, flaws=flaws) as (s, run):
        assert run.state is CAUSES["H11"].ends
        assert proofs(s) == [Start.HUNG_UP.value, Start.ALREADY_STARTED.value]


async def test_an_unasked_success_changes_nothing() -> None:
    """Nodes without addresses of their own say success when their timers end."""
    # So few addresses are left that some nodes never become provisioners.
    tight = {"unicast_max": 0x0014, "close": "onoff"}
    async with ended(12, on_all(spurious_status=True), **tight) as (s, run):
        assert any(not board.is_provisioner for board in s.air.boards)
        assert run.state is CAUSES["Q13"].ends


@pytest.mark.parametrize("arrange", [stalls.nobody_takes, stalls.status_not_queued])
async def test_we_provision_only_when_nobody_else_does(arrange: Arrange) -> None:
    """Whenever a board becomes a node by us, no other board provisions."""
    busy: list[Entry] = []

    def watched(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        def look(entry: Entry) -> None:
            if made_by_us(entry) and any(board.is_provisioning for board in s.air.boards):
                busy.append(entry)

        s.air.watchers.append(look)
        return arrange(s, patch)

    async with ended(7, watched) as (s, _):
        assert busy == []
        assert len([entry for entry in s.air.timeline if made_by_us(entry)]) > len(primaries(s))


async def test_only_the_primary_is_connected_to_while_boards_join() -> None:
    """A child advertises our Network ID until it was started, and is left alone."""
    async with ended(20, host=Host.NIMBLE) as (s, _):
        last = max(times(s, Happening.RUN_STARTED))
        connected = {
            entry.device_address
            for entry in s.air.timeline
            if entry.what is Happening.CONNECTED and entry.time_s < last
        }
        assert connected == {primary.device_address for primary in primaries(s)}


@HOSTS
async def test_silent_sessions_are_tried_again(host: Host) -> None:
    """The first session with each board has no answer."""
    async with ended(5, stalls.sessions_silent, host=host) as (_, run):
        assert run.state is CAUSES["Q17"].ends


async def test_a_stray_advertisement_costs_seconds() -> None:
    """One more advertisement after each start, which no connection answers."""
    stray, flaws = always("STRAY_ADVERTISEMENT"), only("stray_advertisement")
    async with ended(5, stray, host=Host.NIMBLE, flaws=flaws) as (_, run):
        assert run.state is CAUSES["H4"].ends
        assert run.t_proven_s is not None
        assert run.t_proven_s < 40.0


async def test_a_false_proxy_advertisement_is_not_believed() -> None:
    """Each Primary goes on advertising; nobody connects before its proxy is back."""
    false, flaws = always("FALSE_PROXY_PROBABILITY"), only("false_proxy_advertisement")
    async with ended(5, false, flaws=flaws) as (s, run):
        assert run.state is CAUSES["H5"].ends
        for primary in primaries(s):
            (off,) = times(s, Happening.PROXY_OFF, primary)
            on = times(s, Happening.PROXY_ON, primary)[0]
            connected = times(s, Happening.CONNECTED, primary)
            assert not any(off < at < on for at in connected)


async def test_silence_after_node_identity_is_not_met() -> None:
    """Whoever lets 60 s of Node Identity go by without a link falls silent; no Primary does."""
    silence, flaws = always("SILENCE_WITHOUT_LINK"), only("silence_after_node_identity")
    async with ended(20, silence, flaws=flaws) as (s, run):
        assert run.state is CAUSES["H6"].ends
        assert not any(board.is_silent for board in s.air.boards)


async def test_a_stale_identity_is_not_connected_to() -> None:
    """For 2 s after each start BlueZ tells what the boards advertised before."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        return when(s, stalls.primary_starts, lambda *_: s.adapter.hold_data(2.0), every=True)

    async with ended(5, arrange) as (s, run):
        assert s.adapter.held_reports > 0
        assert run.state is CAUSES["H14"].ends
        for primary in primaries(s):
            on = times(s, Happening.PROXY_ON, primary)[0]
            (off,) = times(s, Happening.PROXY_OFF, primary)
            assert not any(off < at < on for at in times(s, Happening.CONNECTED, primary))
