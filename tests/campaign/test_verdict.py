"""The end of a run: who is missing, and why."""

from __future__ import annotations

from dataclasses import replace

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.verdict import (
    LAST_HEARD_UNPROVISIONED,
    MOST_NAMED,
    NAMESAKE,
    SILENT,
    SILENT_PRIMARY,
    SURPLUS,
    UNASKED,
    UNPROVISIONED,
    bounded,
    done_though,
    former_addresses,
    missing_boards,
    summary,
    target,
)
from fastprovd.records import MissingBoard, Node, NodeRole

PRIMARY = Node(2, "r", NodeRole.PRIMARY_PROVISIONER, proven=True, device_uuid=b"p" * 16)


def _node(address: int, *, proven: bool) -> Node:
    return Node(address, "r", listed=True, proven=proven)


def test_all_proven_leaves_nobody_missing() -> None:
    """As many proven nodes as boards heard and announced: nobody is missing."""
    nodes = [PRIMARY, _node(3, proven=True)]
    assert missing_boards(nodes, [], 2, 2) == ()
    assert missing_boards(nodes, [], None, 2) == ()


def test_stale_advertisement_of_a_proven_board_is_no_missing_board() -> None:
    """With every board accounted for, one that still seems unprovisioned is a stale report."""
    nodes = [PRIMARY, _node(3, proven=True)]
    assert missing_boards(nodes, [HeardBoard(b"x" * 16, "AA", -50, 0.0)], 2, 2) == ()


def test_silent_nodes_are_named_by_address() -> None:
    """A node that is listed and silent keeps the run from being done, whatever the count."""
    nodes = [PRIMARY, _node(3, proven=True), _node(4, proven=False)]
    assert missing_boards(nodes, [], None, 3) == (MissingBoard(SILENT, 4),)
    silent_primary = Node(2, "r", NodeRole.PRIMARY_PROVISIONER)
    assert missing_boards([silent_primary], [], None, 1)[0].reason == SILENT_PRIMARY


def test_a_former_address_is_no_missing_board() -> None:
    """With all announced boards answering, a silent address is one that a board had before."""
    nodes = [PRIMARY, _node(3, proven=False), _node(4, proven=True)]
    assert missing_boards(nodes, [], 2, 2) == ()
    assert former_addresses(nodes, 2, 2) == (3,)
    assert done_though((3,)).startswith("every board answered; 0x0003: it answers nothing")
    # One that answers nothing, and whose own proxy told its address, is a board all the same.
    lost = replace(_node(5, proven=False), device_address="AA")
    assert missing_boards([*nodes, lost], [], 3, 3) == (MissingBoard(SILENT, 5, None, "AA"),)
    # One that we made told it before: it may have restarted since.
    made = replace(lost, provisioned_by=1)
    assert missing_boards([*nodes, made], [], 2, 2, made_by=1) == ()
    assert former_addresses([*nodes, made], 2, 2, 1) == (3, 5)
    restarted_primary = Node(2, "r", NodeRole.PRIMARY_PROVISIONER, device_uuid=b"p" * 16)
    assert missing_boards([restarted_primary, _node(4, proven=True)], [], 1, 1) == ()


def test_a_silent_address_is_only_called_former_when_the_boards_are_counted() -> None:
    """Unannounced, it may be of a board that nobody heard; with one short, it may be that one."""
    nodes = [PRIMARY, _node(3, proven=False), _node(4, proven=True)]
    assert missing_boards(nodes, [], None, 2) == (MissingBoard(SURPLUS, 3),)
    assert missing_boards(nodes, [], 3, 2) == (MissingBoard(SILENT, 3),)
    assert former_addresses(nodes, None, 2) == former_addresses(nodes, 3, 3) == ()
    assert done_though(()) == ""
    assert missing_boards(nodes, [], 2, 2, strangers=1) == (MissingBoard(SILENT, 3),)


def test_boards_left_on_the_air_are_named_by_uuid() -> None:
    """A board that still advertises 0x1827 is missing by its UUID."""
    left = HeardBoard(b"x" * 16, "AA", -50, 0.0)
    assert missing_boards([PRIMARY], [left], None, 2) == (
        MissingBoard(UNPROVISIONED, None, b"x" * 16, "AA"),
    )


def test_boards_without_a_trace_are_counted() -> None:
    """Each board that was announced and never heard is one entry, and says so."""
    missing = missing_boards([PRIMARY], [], 3, 1)
    assert len(missing) == 2
    assert "expected 3 boards, heard 1" in missing[0].reason
    (unfound,) = missing_boards([PRIMARY], [], None, 2)
    assert "heard 2 boards" in unfound.reason


def test_summary_names_addresses() -> None:
    """The reason of a partial run is one sentence with what is known."""
    assert summary([MissingBoard(SILENT, 0x12)], 20) == "1 of 20 boards can not be proven: 0x0012"
    assert summary([MissingBoard(SILENT)], 20) == "1 of 20 boards can not be proven"


def test_target_is_what_was_announced_or_heard() -> None:
    """More boards heard than announced raise the target."""
    assert (target(None, 4), target(5, 4), target(3, 4)) == (4, 5, 4)


def test_no_more_boards_are_called_unprovisioned_than_are_missing() -> None:
    """Those that were heard last; the others are nodes whose UUID nobody knows."""
    nodes = [PRIMARY, _node(3, proven=True), _node(4, proven=True)]
    heard = [HeardBoard(bytes([n]) * 16, f"{n:02X}", -50, float(n)) for n in (1, 3, 2)]
    assert [board.device_address for board in missing_boards(nodes, heard, 4, 4)] == ["03"]


def test_a_run_that_broke_off_says_only_what_it_knows() -> None:
    """Nobody is called silent who was not asked, or unprovisioned who may be a node by now."""
    left = HeardBoard(b"x" * 16, "AA", -50, 0.0)
    nodes = [PRIMARY, _node(3, proven=False)]
    unasked, unprovisioned = missing_boards(nodes, [left], None, 3, is_complete=False)
    assert unasked.reason == UNASKED
    assert unprovisioned.reason == LAST_HEARD_UNPROVISIONED


def test_a_namesake_is_missing_and_names_the_other() -> None:
    """Two boards with one Device UUID are two boards, whichever of them is a node."""
    node = Node(3, "r", proven=True, device_uuid=b"x" * 16, device_address="AA")
    clone = HeardBoard(b"x" * 16, "BB", -50, 0.0)
    (missing,) = missing_boards([node], [], None, 1, namesakes=[(clone, "AA")])
    assert missing.reason == f"{NAMESAKE}; the other one: AA"
    assert missing.device_address == "BB"
    (left,) = missing_boards([node], [clone], 2, 1)
    assert (left.device_address, left.reason) == ("BB", UNPROVISIONED)


def test_a_node_is_not_excused_by_a_namesake() -> None:
    """What answers has its Device UUID, and another device address."""
    there = Node(3, "r", proven=True, device_uuid=b"x" * 16, device_address="AA")
    silent = Node(4, "r", device_uuid=b"x" * 16, device_address="BB")
    assert [m.address for m in missing_boards([there, silent], [], None, 2)] == [4]
    again = replace(silent, device_address="AA")
    assert missing_boards([there, again], [], None, 1) == ()


def test_boards_without_an_address_are_named_up_to_a_number() -> None:
    """Anybody can advertise any number; the rest is counted, and nodes are all named."""
    nodes = [MissingBoard(SILENT, address) for address in range(2, 200)]
    boards = [MissingBoard(UNPROVISIONED, None, bytes(16), "AA")] * (MOST_NAMED + 7)
    named = bounded([*boards, *nodes])
    assert [board.address for board in named if board.address] == list(range(2, 200))
    assert named[-1].reason == "and 7 more that are not named"
    assert len(named) == len(nodes) + MOST_NAMED + 1
    assert bounded(boards[:MOST_NAMED]) == tuple(boards[:MOST_NAMED])
