"""Who returned as an unprovisioned device, and which nodes are gone with that."""

from __future__ import annotations

from fastprovd.campaign.returned import find_returned
from fastprovd.records import Node

A, B, C, D = (bytes([number]) * 16 for number in range(1, 5))
FAST, DIRECT = "r-fast", "r-direct"
PRIMARY = Node(2, FAST, device_uuid=A)
CHILDREN = [Node(3, FAST), Node(4, FAST)]
BOARDS = dict.fromkeys((A, B, C), FAST)


def test_nobody_returned() -> None:
    """Boards on the air that were never nodes say nothing."""
    found = find_returned([D], [PRIMARY, *CHILDREN], BOARDS)
    assert (found.uuids, found.nodes, found.unplaced) == (frozenset(), (), 0)


def test_a_node_with_a_known_uuid_is_gone() -> None:
    """It alone; the others go on."""
    found = find_returned([A, D], [PRIMARY, *CHILDREN], BOARDS)
    assert (found.uuids, found.nodes, found.unplaced) == ({A}, (PRIMARY,), 0)


def test_one_of_several_without_uuid_keeps_all() -> None:
    """Nobody can tell which address it had, so it is counted."""
    found = find_returned([B], [PRIMARY, *CHILDREN], BOARDS)
    assert (found.uuids, found.nodes, found.unplaced) == ({B}, (), 1)


def test_all_of_those_without_uuid_are_gone_together() -> None:
    """Once each board that could be one of them is back."""
    found = find_returned([A, B, C], [PRIMARY, *CHILDREN], BOARDS)
    assert found.uuids == {A, B, C}
    assert {node.address for node in found.nodes} == {2, 3, 4}
    assert found.unplaced == 0


def test_a_board_that_was_never_taken_proves_nothing() -> None:
    """One child, and two boards that could be it: the one on the air may be the other."""
    found = find_returned([C], [PRIMARY, CHILDREN[0]], BOARDS)
    assert (found.nodes, found.unplaced) == ((), 1)


def test_a_board_of_a_newer_run_is_no_longer_one_of_the_older() -> None:
    """It counts where it was taken on last."""
    newer = Node(9, DIRECT, device_uuid=B)
    found = find_returned([B], [PRIMARY, *CHILDREN, newer], BOARDS | {B: DIRECT})
    assert (found.uuids, found.nodes, found.unplaced) == ({B}, (newer,), 0)
