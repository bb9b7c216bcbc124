"""Who is in which group, as far as we know."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fastprovd.campaign.memberships import all_memberships, check_room, members
from fastprovd.errors import GroupsFull, UnknownGroup
from fastprovd.records import Membership, Node, Proof, Run, RunState

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RUNS = [Run("r-1", RunState.DONE, NOW, group=0xC000), Run("r-2", RunState.FAILED, NOW)]
NODES = [Node(2, "r-1"), Node(3, "r-1"), Node(4, "r-2")]


def test_a_node_is_in_the_group_of_its_run() -> None:
    """Unproven, and only where the run had a group."""
    assert all_memberships(NODES, RUNS, []) == [
        Membership(0xC000, 2, is_member=True),
        Membership(0xC000, 3, is_member=True),
    ]


def test_changes_come_after_the_run() -> None:
    """What was asked for since replaces what the run did, and adds to it."""
    left = Membership(0xC000, 3, is_member=False, proof=Proof.STATUS)
    joined = Membership(0xC010, 4, is_member=True)
    known = all_memberships(NODES, RUNS, [joined, left])
    assert known == [Membership(0xC000, 2, is_member=True), left, joined]
    assert members(known, 0xC000) == [2]
    assert members(known, 0xC010) == [4]
    with pytest.raises(UnknownGroup, match="0xc011"):
        members(known, 0xC011)


def test_a_fourth_group_is_refused_by_name() -> None:
    """The sentence says who is in what; the same group again is none, and others do not matter."""
    known = [Membership(group, 2, is_member=True) for group in (0xC000, 0xC010, 0xC011)]
    check_room(known, 0xC012, [3])
    check_room(known, 0xC011, [2, 3])
    with pytest.raises(GroupsFull, match=r"0x0002 is in 0xc000, 0xc010, 0xc011; remove one"):
        check_room(known, 0xC012, [2, 3])


@pytest.mark.parametrize("proof", [None, Proof.ACKNOWLEDGMENT])
def test_a_removal_makes_room_once_it_is_proven(proof: Proof | None) -> None:
    """A node that may not have heard of it may still hold the group."""
    known = [Membership(group, 2, is_member=True) for group in (0xC000, 0xC010)]
    known.append(Membership(0xC011, 2, is_member=False, proof=proof))
    if proof is None:
        with pytest.raises(GroupsFull):
            check_room(known, 0xC012, [2])
    else:
        check_room(known, 0xC012, [2])
