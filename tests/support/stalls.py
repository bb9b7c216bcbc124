"""Stalls of whole runs: what happens to which board when, and whether it did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from fastprovd.campaign.settings import Method
from fastprovd.emulator import firmware
from fastprovd.emulator.advertising import QueuedPdu
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.timeline import Entry, Happening
from fastprovd.records import Run, RunState
from tests.support.scene import Scene

HOSTS: Final = (Host.BLUEDROID, Host.NIMBLE)
Happened = Callable[[], bool]
Arrange = Callable[[Scene, pytest.MonkeyPatch], Happened]


# Who and when


def by_loudness(s: Scene) -> list[Board]:
    """Return the boards as we hear them, the quietest first: the last one is made a Primary."""
    return sorted(
        s.air.boards, key=lambda board: (s.air.adapter().rssi_dbm(board.device_address), board.bit)
    )


def quiet(s: Scene, step: int) -> list[Board]:
    """Return every so manieth board, of those that we hear less than others."""
    return by_loudness(s)[: -step // 2 - 1 : step]


def when(
    s: Scene,
    is_wanted: Callable[[Entry], bool],
    then: Callable[[Board, Entry], None],
    *,
    after_s: float = 0.0,
    every: bool = False,
) -> Happened:
    """Let something happen to the board of the first entry that is wanted, or of every one."""
    loop, happened = asyncio.get_running_loop(), []
    wanted: list[Entry] = []

    def happen(entry: Entry) -> None:
        happened.append(entry)
        then(s.air.board(entry.device_address), entry)

    def watch(entry: Entry) -> None:
        if is_wanted(entry) and (every or not wanted):
            wanted.append(entry)
            loop.call_later(after_s, happen, entry)

    s.air.watchers.append(watch)
    return lambda: bool(happened)


def primary_starts(entry: Entry) -> bool:
    """Whether a board became Primary Provisioner."""
    return entry.what is Happening.RUN_STARTED and entry.detail == "primary"


def temporary_starts(entry: Entry) -> bool:
    """Whether a board became Temporary Provisioner."""
    return entry.what is Happening.RUN_STARTED and entry.detail == "temporary"


def child_configured(entry: Entry) -> bool:
    """Whether a provisioner has configured a child."""
    return entry.what is Happening.CONFIGURED


def made_by_us(entry: Entry) -> bool:
    """Whether we provisioned a board; no other board did."""
    return entry.what is Happening.PROVISIONED and not entry.detail


def has_children(entry: Entry) -> bool:
    """Whether a board has provisioned another."""
    return entry.what is Happening.COMPLETE_HEARD


def _stalled(s: Scene) -> list[Board]:
    return [b for b in s.air.boards if b.stalls.status_not_queued or b.stalls.leaked_starts]


def restart(board: Board) -> None:
    """Take its power for a second."""
    board.power_off()
    asyncio.get_running_loop().call_later(1.0, board.power_on)


# What happens


def nothing(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """Nothing but the flaws of the firmware."""
    return lambda: True


def acks_unheard(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A third of the boards do not hear the Primaries once they provision others.

    Were it all of many, the Primaries would have nothing else to send but acknowledgments.
    """

    def deafen(temporary: Board, entry: Entry) -> None:
        for board in s.air.boards:
            if board.is_primary and temporary.bit % 3 == 0:
                s.air.set_one_way(board.device_address, temporary.device_address, None)

    return when(s, temporary_starts, deafen, every=True)


def reports_unheard(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The Primaries do not hear Temporary Provisioners once they have children."""

    def part(parent: Board, entry: Entry) -> None:
        for board in s.air.boards:
            if board.is_primary and board is not parent:
                s.air.set_reach(parent.device_address, board.device_address, None)

    return when(s, has_children, part, every=True)


def status_not_queued(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The first Primary has no buffer for INFO_STATUS."""

    def stall(board: Board, entry: Entry) -> None:
        board.stalls.status_not_queued = True

    made = when(s, made_by_us, stall)
    return lambda: made() and not any(board.children for board in _stalled(s))


def starts_leaked(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The first Primary believes that it has six devices under way already."""

    def stall(board: Board, entry: Entry) -> None:
        board.stalls.leaked_starts = firmware.MAX_NODE_NUM

    made = when(s, made_by_us, stall)
    return lambda: made() and not any(board.children for board in _stalled(s))


def primary_restarts(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The first Primary loses power for a second, 8 s after its start."""
    return when(s, primary_starts, lambda board, entry: restart(board), after_s=8.0)


def primary_off(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The first Primary loses power for good, 10 s after its start."""
    return when(s, primary_starts, lambda board, entry: board.power_off(), after_s=10.0)


def primary_out_of_our_reach(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """We do not hear the first Primary any more, 1 s after its start; the boards do."""

    def part(board: Board, entry: Entry) -> None:
        s.air.set_reach(s.air.adapter().name, board.device_address, None)

    return when(s, primary_starts, part, after_s=1.0)


def primary_silent(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The first Primary sends and hears nothing any more, 8 s after its start."""
    return when(s, primary_starts, lambda board, entry: board.fall_silent("stuck"), after_s=8.0)


def proxy_timer_fails(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The first Primary has no timer for the return of its proxy."""
    begun: list[Board] = []

    def stall(board: Board, entry: Entry) -> None:
        board.stalls.proxy_timer_fails = 1
        begun.append(board)

    when(s, made_by_us, stall)
    return lambda: bool(begun) and not begun[0].stalls.proxy_timer_fails


def queue_full(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The queue of the first Primary does not run empty for 37 s."""

    def fill(board: Board, entry: Entry) -> None:
        while board.queue.put(QueuedPdu(lambda times: None)):
            pass

    when(s, primary_starts, fill, after_s=1.0)
    return when(s, primary_starts, fill, after_s=19.0)


def board_restarts(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A board loses power for a second, 3 s after it was configured."""
    return when(
        s, child_configured, lambda _, entry: restart(s.air.board(entry.detail)), after_s=3.0
    )


def board_off(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A board loses power for good, 3 s after it was configured."""
    return when(
        s, child_configured, lambda _, entry: s.air.board(entry.detail).power_off(), after_s=3.0
    )


def completes_lost(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """Every fourth board is not heard saying Complete."""
    boards = quiet(s, 4)
    for board in boards:
        board.stalls.complete_lost = True
    return lambda: any(b.unicast_address is not None and not b.has_app_key for b in boards)


def app_keys_missing(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A third of the boards is left without AppKey."""
    patch.setattr(firmware, "MISSING_APP_KEY", ((1, 0.33, 0.33),))
    return lambda: True


def sessions_silent(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """The first PB-GATT session with each board gets no answer."""
    for board in s.air.boards:
        board.stalls.silent_sessions = 1
    return lambda: not all(board.stalls.silent_sessions for board in s.air.boards)


def nobody_takes(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """Every fourth board hears and is heard by us, and by no other board."""
    for board in quiet(s, 4):
        for other in s.air.boards:
            if other is not board:
                s.air.set_reach(board.device_address, other.device_address, None)
    return lambda: True


def we_hear_half(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """Every second board is out of our own reach, though not of the others'."""
    for board in quiet(s, 2):
        s.air.set_reach(s.air.adapter().name, board.device_address, None)
    return lambda: True


def joins_late(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A board is switched on 3 s after the others were first told to stop."""
    late = quiet(s, 1)[0]
    late.power_off()

    def moved(run: Run) -> None:
        if run.state is RunState.CLOSING:
            asyncio.get_running_loop().call_later(3.0, late.power_on)

    s.listener.watchers.append(moved)
    return lambda: late.is_powered


def board_restarts_directly(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A board that we provisioned loses power for a second, 0.1 s later."""
    return when(s, made_by_us, lambda board, entry: restart(board), after_s=0.1)


def board_off_directly(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
    """A board loses power for good while the first is provisioned."""
    return when(s, made_by_us, lambda board, entry: quiet(s, 1)[0].power_off())


@dataclass(frozen=True)
class Stall:
    """One row of the matrix; it needs `least` boards."""

    name: str
    arrange: Arrange
    least: int = 1
    method: Method = Method.FAST
    hosts: tuple[Host, ...] = HOSTS


STALLS: Final = (
    Stall("nothing", nothing),
    Stall("ACKs of reports unheard", acks_unheard, 20),
    Stall("reports unheard", reports_unheard, 20),
    Stall("INFO_STATUS not queued", status_not_queued),
    Stall("starts leaked", starts_leaked),
    Stall("Primary restarts", primary_restarts),
    Stall("Primary off", primary_off),
    Stall("Primary out of our reach", primary_out_of_our_reach),
    Stall("Primary silent for good", primary_silent),
    Stall("timer of the proxy fails", proxy_timer_fails),
    Stall("advertising queue full", queue_full),
    Stall("a board restarts", board_restarts, 5),
    Stall("a board is switched off", board_off, 5),
    Stall("Complete lost", completes_lost, 5),
    Stall("AppKeys missing", app_keys_missing, 5, hosts=(Host.BLUEDROID,)),
    Stall("PB-GATT silent", sessions_silent),
    Stall("boards that nobody takes", nobody_takes, 5),
    Stall("boards that we do not hear", we_hear_half, 5),
    Stall("a board joins late", joins_late, 5),
    Stall("direct, PB-GATT silent", sessions_silent, 1, Method.DIRECT),
    Stall("direct, a board restarts", board_restarts_directly, 1, Method.DIRECT),
    Stall("direct, a board is switched off", board_off_directly, 5, Method.DIRECT),
    Stall("direct, boards that we do not hear", we_hear_half, 5, Method.DIRECT),
)
