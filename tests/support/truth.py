"""What a run says, held against what the boards are: true however much went wrong."""

from __future__ import annotations

from collections.abc import Collection

from fastprovd.campaign.verdict import LAST_HEARD_UNPROVISIONED, SILENT, SURPLUS, UNPROVISIONED
from fastprovd.emulator.board import Board
from fastprovd.emulator.timeline import Happening
from fastprovd.records import MissingBoard, Run, RunState, Window
from tests.support.scene import Scene

# A run listens for 3 s for boards that are left, and others may take one of them meanwhile.
MOMENT_S = 4.0


def check_truth(s: Scene, run: Run) -> None:
    """Nothing known that never was, nobody proven who did not answer, everybody accounted for."""
    boards = s.air.boards
    assert run.state in (RunState.DONE, RunState.PARTIAL, RunState.FAILED)
    assert "internal error" not in (run.reason or ""), run.reason
    assert sum(board.killed_count for board in boards) == 0, "we killed a board"
    known = s.listener.nodes
    assert {node.address for node in s.listener.address_list} <= set(known)
    assert set(known) <= _addresses(s, Happening.PROVISIONED), "an address that never was"
    proven = {address for address, node in known.items() if node.proven}
    assert proven <= _addresses(s, Happening.APP_KEY_STORED), "it can not have answered"
    assert len(proven) <= len(boards), "a board is counted twice"
    if run.state is RunState.DONE:
        _check_done(s, run, proven)
        return
    assert run.reason
    if run.state is RunState.FAILED:
        assert not any(board.is_provisioner for board in boards), "it began all the same"
        return
    _check_partial(s, run, proven)


def _check_done(s: Scene, run: Run, proven: Collection[int]) -> None:
    assert run.missing == ()
    truth = s.true_nodes()
    assert {a for a, board in truth.items() if board.has_app_key} <= set(proven)
    assert len(proven) == len(s.air.boards)
    assert run.window is Window.CLOSED, run.window_evidence
    assert [b.device_address for b in s.air.boards if b.is_provisioning] == []


def _check_partial(s: Scene, run: Run, proven: Collection[int]) -> None:
    truth = s.true_nodes()
    named = [m.address for m in run.missing if m.address is not None]
    uuids = [m.device_uuid for m in run.missing if m.address is None and m.device_uuid]
    assert len(set(named)) == len(named)
    assert len(set(uuids)) == len(uuids)
    assert not set(named) & set(proven), "proven and missing"
    former = [address for address in named if address not in truth]
    # What was last heard unprovisioned may be a node whose address nobody could tell apart.
    anonymous = sum(
        m.address is None and (m.device_uuid is None or m.reason == LAST_HEARD_UNPROVISIONED)
        for m in run.missing
    )
    # Who answered once and forgot the network since is accounted for: the run says what happened.
    answered = {
        entry.device_address
        for entry in s.air.timeline
        if entry.what is Happening.PROVISIONED and entry.address in proven
    }
    unnamed = [
        board
        for board in s.air.boards
        if board.device_address not in answered
        and board.unicast_address not in named
        and board.uuid not in uuids
    ]
    assert len(unnamed) <= anonymous + len(former), f"not accounted for: {unnamed}"
    for missing in run.missing:
        check_reason(s, missing)


def check_reason(s: Scene, missing: MissingBoard) -> None:
    """Hold the reason why a board is missing against the board."""
    board = s.true_nodes().get(missing.address or 0)
    if missing.reason == UNPROVISIONED:
        (free,) = [b for b in s.air.boards if b.uuid == missing.device_uuid]
        assert _was_free(s, free), "a node is called unprovisioned"
    elif missing.reason == SILENT and board is not None:
        assert not board.has_app_key or board.is_silent or _is_out_of_reach(s, board)
    elif missing.reason == SURPLUS:
        assert board is None or not board.has_app_key
    if board is not None and missing.device_address is not None:
        assert missing.device_address == board.device_address


def _is_out_of_reach(s: Scene, board: Board) -> bool:
    """Tell whether nobody hears it, or only with loss."""
    names = [b.device_address for b in s.air.boards if b is not board] + [s.air.adapter().name]
    reaches = [s.air.reach(board.device_address, name) for name in names]
    return all(reach is None or reach.loss > 0.0 for reach in reaches)


def _was_free(s: Scene, board: Board) -> bool:
    if board.unicast_address is None:
        return True
    since = [
        entry.time_s
        for entry in s.air.timeline
        if entry.device_address == board.device_address and entry.what is Happening.PROVISIONED
    ]
    return board.loop.time() - since[-1] < MOMENT_S


def _addresses(s: Scene, what: Happening) -> set[int]:
    """Return the addresses of boards to which it ever happened while they had them."""
    at: dict[str, int] = {}
    found = set()
    for entry in s.air.timeline:
        if entry.what is Happening.PROVISIONED and entry.address is not None:
            at[entry.device_address] = entry.address
        if entry.what is what and entry.device_address in at:
            found.add(at[entry.device_address])
    return found
