"""Who is in which group, as far as we know; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from fastprovd.errors import GroupsFull, UnknownGroup
from fastprovd.mesh.addresses import format_address
from fastprovd.records import Membership, Node, Run

# The boards' OnOff Server holds three; a fourth is refused there without a word.
GROUPS_PER_NODE: Final = 3


def all_memberships(
    nodes: Iterable[Node], runs: Iterable[Run], changes: Iterable[Membership]
) -> list[Membership]:
    """Return every membership: each node is in the group of its run, unless changed since."""
    group_of_run = {run.run_id: run.group for run in runs}
    found: dict[tuple[int, int], Membership] = {}
    for node in nodes:
        group = group_of_run.get(node.run_id)
        if group is not None:
            found[group, node.address] = Membership(group, node.address, is_member=True)
    found |= {(change.group, change.address): change for change in changes}
    return [found[key] for key in sorted(found)]


def members(memberships: Iterable[Membership], group: int) -> list[int]:
    """Return who is to be in `group`; raises UnknownGroup when nobody is."""
    found = [m.address for m in memberships if m.group == group and m.is_member]
    if not found:
        raise UnknownGroup(group)
    return found


def check_room(memberships: Iterable[Membership], group: int, addresses: Collection[int]) -> None:
    """See that each of `addresses` can hold `group` too; a removal counts once it is proven.

    Raises:
        GroupsFull: some can not; the sentence names them and their groups.
    """
    held: dict[int, list[int]] = {}
    for membership in memberships:
        is_other = membership.group != group and not membership.is_over
        if is_other and membership.address in addresses:
            held.setdefault(membership.address, []).append(membership.group)
    full = {address: groups for address, groups in held.items() if len(groups) >= GROUPS_PER_NODE}
    if full:
        who = "; ".join(
            f"{format_address(address)} is in {', '.join(map(format_address, groups))}"
            for address, groups in sorted(full.items())
        )
        raise GroupsFull(
            f"a board holds {GROUPS_PER_NODE} groups and refuses a fourth without a word, so "
            f"{format_address(group)} was sent to nobody: {who}; remove one of them first"
        )
