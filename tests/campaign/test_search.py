"""The search of predicted addresses."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.search import GAPS_BY_PASS, AddressSearch
from fastprovd.campaign.shares import Share

ROOT = Share(0x0010, 0x03FF)


def _grow(rng: random.Random, boards: int) -> set[int]:
    """Let boards join a tree as the firmware does: each under a random provisioner with room."""
    free = [(ROOT, list(ROOT.children), ROOT.sub_shares())]
    nodes: set[int] = set()
    while len(nodes) < boards and free:
        share, children, sub_shares = rng.choice(free)
        nodes.add(children.pop(0))
        if sub_shares:
            sub = sub_shares.pop(0)
            free.append((sub, list(sub.children), sub.sub_shares()))
        if not children:
            free.remove((share, children, sub_shares))
    return nodes


def _search(
    nodes: set[int], silent: set[int], passes: int = len(GAPS_BY_PASS)
) -> tuple[set[int], int]:
    search, found, asked = AddressSearch(ROOT), set(), 0
    for search_pass in range(passes):
        while (address := next(search.candidates(search_pass), None)) is not None:
            asked += 1
            if address in nodes and address not in silent:
                found.add(address)
                search.found(address)
            else:
                search.tried(address, search_pass)
    return found, asked


@given(st.randoms(use_true_random=False), st.integers(0, 110))
def test_first_pass_finds_every_node_of_a_tree_without_gaps(
    rng: random.Random, boards: int
) -> None:
    """When every node answers, one pass finds all, with at most two questions for each node."""
    nodes = _grow(rng, boards)
    found, asked = _search(nodes, set(), passes=1)
    assert found == nodes
    assert asked <= 2 * len(nodes) + 1


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_later_passes_look_behind_a_silent_node(rng: random.Random, boards: int) -> None:
    """A node that never answers hides none of its siblings."""
    nodes = _grow(rng, boards)
    silent = {rng.choice(sorted(nodes))}
    # A board without AppKey was never given a share, so nothing can be below it.
    found, _ = _search(nodes, silent)
    siblings = {a for a in ROOT.children if a in nodes} - silent
    assert siblings <= found
    assert not found & silent


def test_nothing_is_asked_twice_in_a_pass() -> None:
    """A silent network ends the search after the root's own children."""
    _, asked = _search(set(), set())
    assert asked == 1 + 2 + 6 + 6


def test_listed_nodes_open_their_branch() -> None:
    """What the list told counts as existing, without a question."""
    search = AddressSearch(ROOT)
    for address in ROOT.children:
        search.found(address)
    starts = [sub.first for sub in ROOT.sub_shares()]
    assert list(search.candidates(0)) == starts
