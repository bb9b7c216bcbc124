"""Causes of trouble that show: the run climbs a ladder, and ends as the table says."""

from __future__ import annotations

from typing import Any, Final

import pytest

from fastprovd.campaign.ladder import LADDERS
from fastprovd.campaign.primary import Start
from fastprovd.campaign.settings import Method
from fastprovd.campaign.verdict import FORMER, SILENT, SILENT_PRIMARY, SURPLUS
from fastprovd.emulator import firmware
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.timeline import Entry, Happening
from fastprovd.records import Run, RunState
from tests.conftest import RunVirtual
from tests.support import stalls
from tests.support.causes import CAUSES
from tests.support.ended import (
    BLUEDROID,
    HOSTS,
    NIMBLE,
    ended,
    is_named,
    on_all,
    only,
    primaries,
    proofs,
    rungs,
    times,
)
from tests.support.scene import Scene
from tests.support.stalls import Arrange, Happened, when


def first_is_busy_for_good(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A board says nothing over PB-GATT, however often it is tried."""
    s.air.boards[0].stalls.silent_sessions = 1000
    return lambda: s.air.boards[0].unicast_address is None


# What boards meet, and each rung that is told then, with its symptom.
CLIMBS: Final[list[tuple[int, Arrange, dict[str, Any], set[tuple[str, str]]]]] = [
    (5, stalls.nothing, {}, set()),
    (20, stalls.nothing, {}, set()),
    (5, on_all(pending=True), {}, {("start_unconfirmed", "link_again")}),
    (
        5,
        stalls.status_not_queued,
        {},
        {
            ("start_unconfirmed", "send_again"),
            ("addresses_missing", "poll_again"),
            ("addresses_missing", "identify_proxies"),
            ("addresses_missing", "roll_call"),
            ("window_open", "stop_again"),
            ("boards_left", "provision_directly"),
        },
    ),
    (
        5,
        stalls.primary_off,
        {},
        {
            ("primary_silent", "another_proxy"),
            ("primary_silent", "wake_primary"),
            ("primary_silent", "roll_call"),
            ("nodes_silent", "roll_call"),
            ("nodes_silent", "ask_operator"),
            ("addresses_missing", "identify_proxies"),
            ("addresses_missing", "roll_call"),
        },
    ),
    (
        5,
        stalls.board_restarts,
        {},
        {
            ("nodes_silent", "roll_call"),
            ("nodes_silent", "identify_proxies"),
            ("window_open", "stop_again"),
        },
    ),
    (
        1,
        stalls.primary_off,
        {},
        {
            ("primary_silent", "another_proxy"),
            ("primary_silent", "spare_proxy"),
            ("nodes_silent", "ask_operator"),
        },
    ),
    (7, stalls.we_hear_half, {"method": Method.AUTO}, {("boards_unheard", "further_primary")}),
    (
        5,
        stalls.nothing,
        {"expected": 6, "method": Method.DIRECT},
        {("boards_unheard", "ask_operator")},
    ),
    (
        5,
        first_is_busy_for_good,
        {"method": Method.DIRECT},
        {("boards_left", "ask_operator")},
    ),
]


def test_every_rung_is_met() -> None:
    """What follows climbs each ladder to its end, and no rung that it has not."""
    pairs = {
        (symptom.name.lower(), rung.name.lower())
        for symptom, rungs in LADDERS.items()
        for rung in rungs
    }
    assert set().union(*(told for *_, told in CLIMBS)) == pairs


@pytest.mark.parametrize(("boards", "arrange", "settings", "told"), CLIMBS)
async def test_each_rung_is_told(
    boards: int, arrange: Arrange, settings: dict[str, Any], told: set[tuple[str, str]]
) -> None:
    """As a `recovery` event with its symptom; a run that nothing disturbs tells none."""
    async with ended(boards, arrange, host=NIMBLE, **settings) as (s, _):
        assert s.climbed() == told


async def test_full_tables_of_the_primary_hide_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with room for 6 addresses, and a replay list for 10 sources, in a run of 20."""
    monkeypatch.setattr(firmware, "LIST_CAPACITY", 6)
    monkeypatch.setattr(firmware, "REPLAY_LIST", 10)
    async with ended(20, host=Host.NIMBLE) as (s, run):
        assert all(len(primary.listed_addresses) <= 6 for primary in primaries(s))
        assert run.state is CAUSES["Q6"].ends


async def test_boards_that_can_not_report_are_found() -> None:
    """The Primaries do not hear those below their children; the predicted addresses answer."""
    async with ended(20, stalls.reports_unheard, host=Host.BLUEDROID) as (_, run):
        assert run.state is CAUSES["S4"].ends


@HOSTS
async def test_a_pending_board_fails_the_run(host: Host) -> None:
    """All boards wait for a NetKey; the reason is the board's."""
    async with ended(5, on_all(pending=True), host=host) as (_, run):
        assert run.state is CAUSES["S6"].ends
        assert run.reason is not None
        assert "refuses INFO_SET" in run.reason


@HOSTS
async def test_a_status_that_is_not_queued_costs_time(host: Host) -> None:
    """The board believes that it provisions, and does not; we do."""
    async with ended(5, stalls.status_not_queued, host=host) as (s, run):
        assert run.state is CAUSES["S7"].ends
        assert Start.ALREADY_STARTED.value in proofs(s)
        assert "provision_directly" in rungs(s)


@HOSTS
async def test_a_primary_that_begins_with_nobody_costs_time(host: Host) -> None:
    """It counts six devices that are not there; we provision all."""
    async with ended(5, stalls.starts_leaked, host=host) as (s, run):
        assert run.state is CAUSES["S8"].ends
        assert "provision_directly" in rungs(s)


@pytest.mark.parametrize(("boards", "host"), [(1, NIMBLE), (5, BLUEDROID), (5, NIMBLE)])
async def test_a_primary_without_power_is_named(host: Host, boards: int) -> None:
    """The others are proven through another proxy, if there are others."""
    async with ended(boards, stalls.primary_off, host=host) as (s, run):
        assert run.state is CAUSES["S9"].ends
        assert run.reason is not None
        silent = [m for m in run.missing if m.reason == SILENT_PRIMARY]
        assert len(silent) == 1
        assert run.proven >= boards - 1 - len(s.without_app_key())


@pytest.mark.parametrize(("boards", "host"), [(1, BLUEDROID), (5, NIMBLE)])
async def test_a_primary_that_restarts_is_taken_again(boards: int, host: Host) -> None:
    """By another board, or by us; the address that it had is told."""
    async with ended(boards, stalls.primary_restarts, host=host) as (s, run):
        left = s.without_app_key()  # it had no time to give them one
        assert run.state is (RunState.PARTIAL if left else CAUSES["H24"].ends)
        assert {missing.address for missing in run.missing} == left
        warned = [data for kind, data in s.listener.events if kind == "warning"]
        assert [data["about"] for data in warned if data["reason"] == FORMER] == ["0x0002"]


@pytest.mark.parametrize(("boards", "host"), [(5, BLUEDROID), (5, NIMBLE), (20, NIMBLE)])
async def test_a_primary_out_of_our_reach_is_gone_around(host: Host, boards: int) -> None:
    """Over another proxy it answers like all others."""
    async with ended(boards, stalls.primary_out_of_our_reach, host=host) as (s, run):
        assert run.state is CAUSES["H25"].ends
        if len(primaries(s)) == 1:
            assert "another_proxy" in rungs(s)


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


async def test_a_child_that_only_its_parent_hears_is_provisioned_by_us() -> None:
    """Its parent ignores it after its restart, and nobody else is in reach."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        def part(parent: Board, entry: Entry) -> None:
            for board in s.air.boards:
                if board not in (parent, s.air.board(entry.detail)):
                    s.air.set_reach(board.device_address, entry.detail, None)
            stalls.restart(s.air.board(entry.detail))

        return when(s, stalls.child_configured, part)

    async with ended(5, arrange) as (_, run):
        assert run.state is CAUSES["Q7"].ends
        assert run.reason is not None
        assert FORMER in run.reason


@HOSTS
async def test_a_lost_complete_is_named(host: Host) -> None:
    """The board is found by its proxy, and named with both its addresses."""
    async with ended(5, stalls.completes_lost, host=host) as (s, run):
        assert run.state is CAUSES["Q8"].ends
        (lost,) = [board for board in s.air.boards if board.stalls.complete_lost]
        assert is_named(run, lost, SILENT)
        assert len(run.missing) == 1


async def test_boards_without_app_key_are_named() -> None:
    """All of them, with both addresses, and nobody else."""
    flaws, missing = only("missing_app_keys"), stalls.app_keys_missing
    async with ended(12, missing, flaws=flaws) as (s, run):
        assert run.state is CAUSES["H7"].ends
        left = [s.true_nodes()[address] for address in s.without_app_key()]
        assert len(run.missing) == len(left) > 0
        assert all(is_named(run, board, SILENT) for board in left)


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
async def test_a_primary_without_a_timer_is_woken(host: Host) -> None:
    """A node whose proxy is on tells it NODE_ADDR; 10 s later its proxy is on the air."""
    async with ended(5, stalls.proxy_timer_fails, host=host) as (s, run):
        assert run.state is CAUSES["H9"].ends
        assert "wake_primary" in rungs(s)
        (primary,) = primaries(s)
        (begun,) = times(s, Happening.RUN_STARTED, primary)
        assert times(s, Happening.PROXY_ON, primary)[0] - begun > 90.0


@HOSTS
async def test_a_full_queue_is_waited_for(host: Host) -> None:
    """For 37 s after the start there is no moment to connect to the Primary."""
    async with ended(5, stalls.queue_full, host=host) as (_, run):
        assert run.state is CAUSES["H12"].ends


@HOSTS
async def test_boards_that_nobody_takes_are_provisioned_by_us(host: Host) -> None:
    """A board that hears only us is a node in the end."""
    async with ended(5, stalls.nobody_takes, host=host) as (s, run):
        assert run.state is CAUSES["H22"].ends
        assert "provision_directly" in rungs(s)


@HOSTS
async def test_boards_that_we_do_not_hear_are_found(host: Host) -> None:
    """Half of them are out of our reach; the others provision them."""
    async with ended(7, stalls.we_hear_half, host=host) as (_, run):
        assert run.state is CAUSES["H23"].ends


@HOSTS
async def test_nodes_of_ours_reach_boards_that_we_do_not_hear(host: Host) -> None:
    """We provision whom we hear, and some of them become Primaries for the others."""
    async with ended(7, stalls.we_hear_half, host=host, method=Method.AUTO) as (s, run):
        assert run.state is CAUSES["H26"].ends
        assert "further_primary" in rungs(s)
