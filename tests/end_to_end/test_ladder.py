"""Each cause of trouble in a whole run: it is not met, or the run ends as the table says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from fastprovd.campaign.causes import CAUSES
from fastprovd.campaign.primary import Start
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.verdict import FORMER, SILENT, SILENT_PRIMARY, SURPLUS
from fastprovd.emulator import firmware
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Entry, Happening
from fastprovd.records import Run, RunState
from tests.conftest import RunVirtual
from tests.support import stalls
from tests.support.scene import Scene, scene
from tests.support.stalls import Arrange, Happened, made_by_us, when
from tests.support.truth import check_truth

PERFECT = Flaws.none()
HOSTS = pytest.mark.parametrize("host", stalls.HOSTS, ids=lambda host: host.name)
BLUEDROID, NIMBLE = Host.BLUEDROID, Host.NIMBLE
GROUP = 0xC000


@asynccontextmanager
async def ended(
    boards: int,
    arrange: Arrange = stalls.nothing,
    *,
    patch: pytest.MonkeyPatch | None = None,
    host: Host = Host.BLUEDROID,
    flaws: Flaws = PERFECT,
    seed: int = 1,
    **settings: Any,
) -> AsyncIterator[tuple[Scene, Run]]:
    """Run through what is arranged, see that it happened and the result is true, and look at it."""
    chosen = RunSettings(**{"expected": boards, "method": Method.FAST} | settings)
    async with scene(boards, seed, host=host, flaws=flaws, settings=chosen) as s:
        happened = arrange(s, patch or pytest.MonkeyPatch())
        run = await s.campaign.execute()
        assert happened(), "the cause was not met"
        check_truth(s, run)
        yield s, run


def times(s: Scene, what: Happening, board: Board | None = None) -> list[float]:
    """Return when it happened, to one board or to any."""
    return [
        entry.time_s
        for entry in s.air.timeline
        if entry.what is what and board in (None, s.air.board(entry.device_address))
    ]


def primaries(s: Scene) -> list[Board]:
    """Return the boards that were started as Primary Provisioners."""
    return [s.air.board(e.device_address) for e in s.air.timeline if stalls.primary_starts(e)]


def proofs(s: Scene) -> list[str]:
    """Return how the run knew that its Primaries had begun."""
    return [data["proof"] for kind, data in s.listener.events if "proof" in data]


def rungs(s: Scene) -> set[str]:
    """Return the rungs that were tried."""
    return {data["rung"] for kind, data in s.listener.events if kind == "recovery"}


def is_named(run: Run, board: Board, reason: str) -> bool:
    """Tell whether the run names this board as missing for that reason, with both addresses."""
    return any(
        missing.address == board.unicast_address
        and missing.device_address == board.device_address
        and missing.reason == reason
        for missing in run.missing
    )


def on_all(**values: int) -> Arrange:
    """Switch stalls on for every board."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        for board in s.air.boards:
            for name, value in values.items():
                setattr(board.stalls, name, value)
        return lambda: True

    return arrange


def always(name: str, value: object = 1.0) -> Arrange:
    """Let a flaw show itself every time."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        patch.setattr(firmware, name, value)
        return lambda: True

    return arrange


def only(flaw: str) -> Flaws:
    """Return a firmware with one fault."""
    return replace(PERFECT, **{flaw: True})


# What we keep away


@HOSTS
def test_an_undisturbed_run_is_done(run_virtual: RunVirtual[None], host: Host) -> None:
    """Every board is known and proven, and told to stop."""

    async def main() -> None:
        async with ended(7, host=host) as (_, run):
            assert run.state is RunState.DONE
            assert (run.known, run.proven, run.reason) == (7, 7, None)

    run_virtual(main())


@HOSTS
@pytest.mark.parametrize("boards", [1, 3, 7])
def test_the_count_is_always_one(run_virtual: RunVirtual[None], host: Host, boards: int) -> None:
    """Every Primary's proxy is back 3 s after it has begun, which no other count does."""

    async def main() -> None:
        async with ended(boards, host=host) as (s, _):
            assert primaries(s)
            for primary in primaries(s):
                (begun,) = times(s, Happening.RUN_STARTED, primary)
                back = times(s, Happening.PROXY_ON, primary)[0]
                assert back - begun == pytest.approx(firmware.PROXY_ENABLE_COUNT_1_S, abs=0.1)

    run_virtual(main())


def test_a_primary_without_grandchildren_comes_back(run_virtual: RunVirtual[None]) -> None:
    """With two boards beside the Primary nobody ever reports, and the run is done."""

    async def main() -> None:
        async with ended(3) as (s, run):
            (primary,) = primaries(s)
            assert primary.children
            assert not any(board.children for board in s.air.boards if board is not primary)
            assert run.state is CAUSES["S1"].ends

    run_virtual(main())


def test_a_primary_alone_comes_back(run_virtual: RunVirtual[None]) -> None:
    """Without any other board the run is done."""

    async def main() -> None:
        async with ended(1) as (_, run):
            assert run.state is CAUSES["S2"].ends

    run_virtual(main())


def test_reports_that_nobody_acknowledges_delay_nothing(run_virtual: RunVirtual[None]) -> None:
    """Twenty boards, and a third of the Temporary Provisioners hears no acknowledgment."""

    async def main() -> None:
        async with ended(20, stalls.acks_unheard, host=Host.NIMBLE) as (_, run):
            assert run.state is CAUSES["S3"].ends

    run_virtual(main())


def test_every_node_is_in_the_group(run_virtual: RunVirtual[None]) -> None:
    """The group that INFO_SET carries is valid: children take theirs, and provision others."""

    async def main() -> None:
        async with ended(20, host=Host.BLUEDROID) as (s, _):
            assert all(board.groups == {GROUP} for board in s.air.boards)
            temporary = [e.device_address for e in s.air.timeline if stalls.temporary_starts(e)]
            assert any(s.air.board(address).children for address in temporary)

    run_virtual(main())


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
def test_a_swallowed_status_is_asked_for_again(
    run_virtual: RunVirtual[None], monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    """The hang-up counts as a start, and over the next link the board says that it had begun."""

    async def main() -> None:
        swallowed, flaws = always("SWALLOWED_STATUS"), only("swallowed_info_status")
        async with ended(5, swallowed, patch=monkeypatch, host=host, flaws=flaws) as (s, run):
            assert run.state is CAUSES["H11"].ends
            assert proofs(s) == [Start.HUNG_UP.value, Start.ALREADY_STARTED.value]

    run_virtual(main())


def test_an_unasked_success_changes_nothing(run_virtual: RunVirtual[None]) -> None:
    """Nodes without addresses of their own say success when their timers end."""

    async def main() -> None:
        # So few addresses are left that some nodes never become provisioners.
        tight = {"unicast_max": 0x0014, "close": "onoff"}
        async with ended(12, on_all(spurious_status=True), **tight) as (s, run):
            assert any(not board.is_provisioner for board in s.air.boards)
            assert run.state is CAUSES["Q13"].ends

    run_virtual(main())


@pytest.mark.parametrize("arrange", [stalls.nobody_takes, stalls.status_not_queued])
def test_we_provision_only_when_nobody_else_does(
    run_virtual: RunVirtual[None], arrange: Arrange
) -> None:
    """Whenever a board becomes a node by us, no other board provisions."""

    async def main() -> None:
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

    run_virtual(main())


def test_only_the_primary_is_connected_to_while_boards_join(run_virtual: RunVirtual[None]) -> None:
    """A child advertises our Network ID until it was started, and is left alone."""

    async def main() -> None:
        async with ended(20, host=Host.NIMBLE) as (s, _):
            last = max(times(s, Happening.RUN_STARTED))
            connected = {
                entry.device_address
                for entry in s.air.timeline
                if entry.what is Happening.CONNECTED and entry.time_s < last
            }
            assert connected == {primary.device_address for primary in primaries(s)}

    run_virtual(main())


@HOSTS
def test_silent_sessions_are_tried_again(run_virtual: RunVirtual[None], host: Host) -> None:
    """The first session with each board has no answer."""

    async def main() -> None:
        async with ended(5, stalls.sessions_silent, host=host) as (_, run):
            assert run.state is CAUSES["Q17"].ends

    run_virtual(main())


def test_a_stray_advertisement_costs_seconds(
    run_virtual: RunVirtual[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more advertisement after each start, which no connection answers."""

    async def main() -> None:
        stray, flaws = always("STRAY_ADVERTISEMENT"), only("stray_advertisement")
        async with ended(5, stray, patch=monkeypatch, host=Host.NIMBLE, flaws=flaws) as (_, run):
            assert run.state is CAUSES["H4"].ends
            assert run.t_proven_s is not None
            assert run.t_proven_s < 40.0

    run_virtual(main())


def test_a_false_proxy_advertisement_is_not_believed(
    run_virtual: RunVirtual[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Primary goes on advertising; nobody connects before its proxy is back."""

    async def main() -> None:
        false, flaws = always("FALSE_PROXY_PROBABILITY"), only("false_proxy_advertisement")
        async with ended(5, false, patch=monkeypatch, flaws=flaws) as (s, run):
            assert run.state is CAUSES["H5"].ends
            for primary in primaries(s):
                (off,) = times(s, Happening.PROXY_OFF, primary)
                on = times(s, Happening.PROXY_ON, primary)[0]
                connected = times(s, Happening.CONNECTED, primary)
                assert not any(off < at < on for at in connected)

    run_virtual(main())


def test_silence_after_node_identity_is_not_met(
    run_virtual: RunVirtual[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lets 60 s of Node Identity go by without a link falls silent; no Primary does."""

    async def main() -> None:
        silence, flaws = always("SILENCE_PROBABILITY"), only("silence_after_node_identity")
        async with ended(20, silence, patch=monkeypatch, flaws=flaws) as (s, run):
            assert run.state is CAUSES["H6"].ends
            assert not any(board.is_silent for board in s.air.boards)

    run_virtual(main())


def test_a_stale_identity_is_not_connected_to(run_virtual: RunVirtual[None]) -> None:
    """For 2 s after each start BlueZ tells what the boards advertised before."""

    async def main() -> None:
        def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
            return when(s, stalls.primary_starts, lambda *_: s.adapter.hold_data(2.0), every=True)

        async with ended(5, arrange) as (s, run):
            assert s.adapter.held_reports > 0
            assert run.state is CAUSES["H14"].ends
            for primary in primaries(s):
                on = times(s, Happening.PROXY_ON, primary)[0]
                (off,) = times(s, Happening.PROXY_OFF, primary)
                assert not any(off < at < on for at in times(s, Happening.CONNECTED, primary))

    run_virtual(main())


def test_full_tables_of_the_primary_hide_nobody(
    run_virtual: RunVirtual[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list with room for 6 addresses, and a replay list for 10 sources, in a run of 20."""

    async def main() -> None:
        monkeypatch.setattr(firmware, "LIST_CAPACITY", 6)
        monkeypatch.setattr(firmware, "REPLAY_LIST", 10)
        async with ended(20, host=Host.NIMBLE) as (s, run):
            assert all(len(primary.listed_addresses) <= 6 for primary in primaries(s))
            assert run.state is CAUSES["Q6"].ends

    run_virtual(main())


# What has a ladder


def test_boards_that_can_not_report_are_found(run_virtual: RunVirtual[None]) -> None:
    """The Primaries do not hear those below their children; the predicted addresses answer."""

    async def main() -> None:
        async with ended(20, stalls.reports_unheard, host=Host.BLUEDROID) as (_, run):
            assert run.state is CAUSES["S4"].ends

    run_virtual(main())


@HOSTS
def test_a_pending_board_fails_the_run(run_virtual: RunVirtual[None], host: Host) -> None:
    """All boards wait for a NetKey; the reason is the board's."""

    async def main() -> None:
        async with ended(5, on_all(pending=True), host=host) as (_, run):
            assert run.state is CAUSES["S6"].ends
            assert run.reason is not None
            assert "refuses INFO_SET" in run.reason

    run_virtual(main())


@HOSTS
def test_a_status_that_is_not_queued_costs_time(run_virtual: RunVirtual[None], host: Host) -> None:
    """The board believes that it provisions, and does not; we do."""

    async def main() -> None:
        async with ended(5, stalls.status_not_queued, host=host) as (s, run):
            assert run.state is CAUSES["S7"].ends
            assert Start.ALREADY_STARTED.value in proofs(s)
            assert "provision_directly" in rungs(s)

    run_virtual(main())


@HOSTS
def test_a_primary_that_begins_with_nobody_costs_time(
    run_virtual: RunVirtual[None], host: Host
) -> None:
    """It counts six devices that are not there; we provision all."""

    async def main() -> None:
        async with ended(5, stalls.starts_leaked, host=host) as (s, run):
            assert run.state is CAUSES["S8"].ends
            assert "provision_directly" in rungs(s)

    run_virtual(main())


@pytest.mark.parametrize(("boards", "host"), [(1, NIMBLE), (5, BLUEDROID), (5, NIMBLE)])
def test_a_primary_without_power_is_named(
    run_virtual: RunVirtual[None], host: Host, boards: int
) -> None:
    """The others are proven through another proxy, if there are others."""

    async def main() -> None:
        async with ended(boards, stalls.primary_off, host=host) as (s, run):
            assert run.state is CAUSES["S9"].ends
            assert run.reason is not None
            silent = [m for m in run.missing if m.reason == SILENT_PRIMARY]
            assert len(silent) == (boards > 1)
            assert run.proven >= boards - 1 - len(s.without_app_key())

    run_virtual(main())


@pytest.mark.parametrize(("boards", "host"), [(1, BLUEDROID), (5, NIMBLE)])
def test_a_primary_that_restarts_is_taken_again(
    run_virtual: RunVirtual[None], boards: int, host: Host
) -> None:
    """By another board, or by us; the address that it had is told."""

    async def main() -> None:
        async with ended(boards, stalls.primary_restarts, host=host) as (s, run):
            left = s.without_app_key()  # it had no time to give them one
            assert run.state is (RunState.PARTIAL if left else CAUSES["H24"].ends)
            assert {missing.address for missing in run.missing} == left
            warned = [data for kind, data in s.listener.events if kind == "warning"]
            assert [data["about"] for data in warned if data["reason"] == FORMER] == ["0x0002"]

    run_virtual(main())


@pytest.mark.parametrize(("boards", "host"), [(5, BLUEDROID), (5, NIMBLE), (20, NIMBLE)])
def test_a_primary_out_of_our_reach_is_gone_around(
    run_virtual: RunVirtual[None], host: Host, boards: int
) -> None:
    """Over another proxy it answers like all others."""

    async def main() -> None:
        async with ended(boards, stalls.primary_out_of_our_reach, host=host) as (s, run):
            assert run.state is CAUSES["H25"].ends
            if len(primaries(s)) == 1:
                assert "another_proxy" in rungs(s)

    run_virtual(main())


@HOSTS
def test_a_board_under_two_addresses_is_told(run_virtual: RunVirtual[None], host: Host) -> None:
    """With the boards counted it is a former address, else it might be of one more board."""

    async def main(expected: int | None) -> Run:
        async with ended(5, stalls.board_restarts, host=host, expected=expected) as (s, run):
            assert {n.address for n in s.listener.address_list if n.proven} == set(s.true_nodes())
            assert run.known == 6
            return run

    run = run_virtual(main(5))
    assert run.state is CAUSES["Q4"].ends
    assert run.reason is not None
    assert FORMER in run.reason
    assert run.missing == ()
    run = run_virtual(main(None))
    assert run.state is RunState.PARTIAL
    assert [missing.reason for missing in run.missing] == [SURPLUS]


def test_a_child_that_only_its_parent_hears_is_provisioned_by_us(
    run_virtual: RunVirtual[None],
) -> None:
    """Its parent ignores it after its restart, and nobody else is in reach."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        def part(parent: Board, entry: Entry) -> None:
            for board in s.air.boards:
                if board not in (parent, s.air.board(entry.detail)):
                    s.air.set_reach(board.device_address, entry.detail, None)
            stalls.restart(s.air.board(entry.detail))

        return when(s, stalls.child_configured, part)

    async def main() -> None:
        async with ended(5, arrange) as (_, run):
            assert run.state is CAUSES["Q7"].ends
            assert run.reason is not None
            assert FORMER in run.reason

    run_virtual(main())


@HOSTS
def test_a_lost_complete_is_named(run_virtual: RunVirtual[None], host: Host) -> None:
    """The board is found by its proxy, and named with both its addresses."""

    async def main() -> None:
        async with ended(5, stalls.completes_lost, host=host) as (s, run):
            assert run.state is CAUSES["Q8"].ends
            (lost,) = [board for board in s.air.boards if board.stalls.complete_lost]
            assert is_named(run, lost, SILENT)
            assert len(run.missing) == 1

    run_virtual(main())


def test_boards_without_app_key_are_named(
    run_virtual: RunVirtual[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, with both addresses, and nobody else."""

    async def main() -> None:
        flaws, missing = only("missing_app_keys"), stalls.app_keys_missing
        async with ended(12, missing, patch=monkeypatch, flaws=flaws) as (s, run):
            assert run.state is CAUSES["H7"].ends
            left = [s.true_nodes()[address] for address in s.without_app_key()]
            assert len(run.missing) == len(left) > 0
            assert all(is_named(run, board, SILENT) for board in left)

    run_virtual(main())


@pytest.mark.parametrize(
    ("boards", "after_s", "host"), [(5, 2.0, BLUEDROID), (5, 8.0, NIMBLE), (20, 8.0, BLUEDROID)]
)
def test_a_primary_that_falls_silent_is_named(
    run_virtual: RunVirtual[None], host: Host, boards: int, after_s: float
) -> None:
    """Before its proxy is back, or with our link open, which then answers nothing."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        def silence(board: Board, entry: Entry) -> None:
            board.fall_silent("stuck")

        return when(s, stalls.primary_starts, silence, after_s=after_s)

    async def main() -> None:
        async with ended(boards, arrange, host=host) as (s, run):
            assert run.state is CAUSES["H8"].ends
            silent = primaries(s)[0]
            assert is_named(run, silent, SILENT_PRIMARY)
            # It had no time to give them the AppKey.
            left = s.without_app_key()
            assert {m.address for m in run.missing} == {silent.unicast_address} | left

    run_virtual(main())


@HOSTS
def test_a_primary_without_a_timer_is_woken(run_virtual: RunVirtual[None], host: Host) -> None:
    """A node whose proxy is on tells it NODE_ADDR; 10 s later its proxy is on the air."""

    async def main() -> None:
        async with ended(5, stalls.proxy_timer_fails, host=host) as (s, run):
            assert run.state is CAUSES["H9"].ends
            assert "wake_primary" in rungs(s)
            (primary,) = primaries(s)
            (begun,) = times(s, Happening.RUN_STARTED, primary)
            assert times(s, Happening.PROXY_ON, primary)[0] - begun > 90.0

    run_virtual(main())


@HOSTS
def test_a_full_queue_is_waited_for(run_virtual: RunVirtual[None], host: Host) -> None:
    """For 37 s after the start there is no moment to connect to the Primary."""

    async def main() -> None:
        async with ended(5, stalls.queue_full, host=host) as (_, run):
            assert run.state is CAUSES["H12"].ends

    run_virtual(main())


@HOSTS
def test_boards_that_nobody_takes_are_provisioned_by_us(
    run_virtual: RunVirtual[None], host: Host
) -> None:
    """A board that hears only us is a node in the end."""

    async def main() -> None:
        async with ended(5, stalls.nobody_takes, host=host) as (s, run):
            assert run.state is CAUSES["H22"].ends
            assert "provision_directly" in rungs(s)

    run_virtual(main())


@HOSTS
def test_boards_that_we_do_not_hear_are_found(run_virtual: RunVirtual[None], host: Host) -> None:
    """Half of them are out of our reach; the others provision them."""

    async def main() -> None:
        async with ended(7, stalls.we_hear_half, host=host) as (_, run):
            assert run.state is CAUSES["H23"].ends

    run_virtual(main())


@HOSTS
def test_nodes_of_ours_reach_boards_that_we_do_not_hear(
    run_virtual: RunVirtual[None], host: Host
) -> None:
    """We provision whom we hear, and some of them become Primaries for the others."""

    async def main() -> None:
        async with ended(7, stalls.we_hear_half, host=host, method=Method.AUTO) as (s, run):
            assert run.state is CAUSES["H26"].ends
            assert "further_primary" in rungs(s)

    run_virtual(main())
