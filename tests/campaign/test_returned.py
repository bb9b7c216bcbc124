"""Who returned as an unprovisioned device, and which nodes are gone with that."""

from __future__ import annotations

from dataclasses import replace

from fastprovd.campaign.returned import find_returned, superseded
from fastprovd.records import Node

A, B, C, D = (bytes([number]) * 16 for number in range(1, 5))
FAST, DIRECT = "r-fast", "r-direct"
PRIMARY = Node(2, FAST, device_uuid=A)
CHILDREN = [Node(3, FAST), Node(4, FAST)]
BOARDS = dict.fromkeys((A, B, C), FAST)


def on_air(*uuids: bytes, device_address: str = "AA") -> dict[bytes, list[str]]:
    return {uuid: [device_address] for uuid in uuids}


def test_nobody_returned() -> None:
    """Boards on the air that were never nodes say nothing."""
    found = find_returned(on_air(D), [PRIMARY, *CHILDREN], BOARDS)
    assert (found.uuids, found.nodes, found.unplaced) == (frozenset(), (), 0)


def test_a_node_with_a_known_uuid_is_gone() -> None:
    """It alone; the others go on."""
    found = find_returned(on_air(A, D), [PRIMARY, *CHILDREN], BOARDS)
    assert (found.uuids, found.nodes, found.unplaced) == ({A}, (PRIMARY,), 0)


def test_one_of_several_without_uuid_keeps_all() -> None:
    """Nobody can tell which address it had, so it is counted."""
    found = find_returned(on_air(B), [PRIMARY, *CHILDREN], BOARDS)
    assert (found.uuids, found.nodes, found.unplaced) == ({B}, (), 1)


def test_all_of_those_without_uuid_are_gone_together() -> None:
    """Once each board that could be one of them is back."""
    found = find_returned(on_air(A, B, C), [PRIMARY, *CHILDREN], BOARDS)
    assert found.uuids == {A, B, C}
    assert {node.address for node in found.nodes} == {2, 3, 4}
    assert found.unplaced == 0


def test_a_board_that_was_never_taken_proves_nothing() -> None:
    """One child, and two boards that could be it: the one on the air may be the other."""
    found = find_returned(on_air(C), [PRIMARY, CHILDREN[0]], BOARDS)
    assert (found.nodes, found.unplaced) == ((), 1)


def test_a_board_of_a_newer_run_is_no_longer_one_of_the_older() -> None:
    """It counts where it was taken on last."""
    newer = Node(9, DIRECT, device_uuid=B)
    found = find_returned(on_air(B), [PRIMARY, *CHILDREN, newer], BOARDS | {B: DIRECT})
    assert (found.uuids, found.nodes, found.unplaced) == ({B}, (newer,), 0)


def test_a_namesake_takes_nobody_away() -> None:
    """The Device UUID of a node from another device address is somebody else's."""
    placed = replace(PRIMARY, device_address="AA")
    assert find_returned(on_air(A), [placed], {}).nodes == (placed,)
    found = find_returned(on_air(A, device_address="66"), [placed], {})
    assert (found.uuids, found.nodes, found.unplaced) == (frozenset(), (), 0)


def test_whoever_answers_is_not_gone() -> None:
    """Neither by its own name, nor together with others."""
    found = find_returned(on_air(A), [PRIMARY], {}, alive=[2])
    assert (found.uuids, found.nodes) == (frozenset(), ())
    found = find_returned(on_air(A, B, C), [PRIMARY, *CHILDREN], BOARDS, alive=[2, 3])
    assert (found.uuids, found.nodes, found.unplaced) == ({B, C}, (), 2)
    found = find_returned(on_air(B, C), [PRIMARY, *CHILDREN], BOARDS, alive=[2, 3, 4])
    assert (found.uuids, found.nodes, found.unplaced) == (frozenset(), (), 0)


def test_a_board_that_is_the_node_of_a_newer_run_is_no_other() -> None:
    """The same Device UUID and device address twice: the newer run has made it."""
    old = Node(2, FAST, device_uuid=A, device_address="AA")
    new = Node(9, DIRECT, device_uuid=A, device_address="AA")
    clone = Node(7, FAST, device_uuid=A, device_address="BB")
    order = {FAST: 0, DIRECT: 1}
    assert superseded([new, old, clone, *CHILDREN], order) == [old]
    assert superseded([old, clone], order) == []
