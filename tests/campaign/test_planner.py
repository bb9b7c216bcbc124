"""What a run asks for: addresses never used, Primaries, node_addr_cnt."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.planner import (
    choose_node_addr_cnt,
    choose_primaries,
    edge_primaries,
    is_direct,
    plan_direct,
    plan_run,
    plan_share,
    primaries_of,
    share_size,
)
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.errors import LocalProtocolError
from fastprovd.records import AddressRange


def test_run_takes_the_lowest_free_block() -> None:
    """Nothing that was ever taken is planned again, and gaps that are too small are left."""
    size = 1 + share_size(5)
    taken = [AddressRange(0x0001, 0x0001, "", "us"), AddressRange(0x0010, 0x001F, "r", "run")]
    run_plan = plan_run(5, 0x0001, 0x7FFF, taken)
    (plan,) = run_plan.plans
    assert run_plan.reserved == (0x0020, 0x0020 + size - 1)
    assert plan.primary == 0x0020
    assert plan.share == Share(0x0021, 0x0020 + size - 1)
    assert plan.node_addr_cnt == 1
    gap = [AddressRange(0x0002 + size, 0x7FFF, "r", "run")]
    assert plan_run(5, 0x0002, 0x7FFF, gap).reserved == (0x0002, 0x0001 + size)


def test_primaries_come_first_then_their_shares() -> None:
    """Three Primaries have neighbouring addresses, and shares that follow each other."""
    plans = plan_run(60, 0x0002, 0x7FFF, [], primaries=3).plans
    assert share_size(20) == 256
    assert [(plan.primary, plan.share) for plan in plans] == [
        (0x0002, Share(0x0005, 0x0104)),
        (0x0003, Share(0x0105, 0x0204)),
        (0x0004, Share(0x0205, 0x0304)),
    ]


def test_each_share_is_sized_for_its_own_part() -> None:
    """Two Primaries of 120 boards get what 60 boards want, not what 120 do."""
    shares = [plan.share.size for plan in plan_run(120, 2, 0x7FFF, [], primaries=2).plans]
    assert shares == [share_size(60)] * 2


def test_last_addresses_are_used_though_they_are_few() -> None:
    """A block smaller than wanted serves as long as it has an address for each board."""
    # 46 addresses would serve no more boards than 41; the 42 that are taken serve 42.
    assert plan_run(43, 0x0002, 0x0030, []).reserved == (0x0002, 0x002C)
    assert plan_run(20, 0x0002, 0x0030, []).reserved == (0x0002, 0x0030)
    with pytest.raises(LocalProtocolError, match="no 66 free addresses"):
        plan_run(60, 0x0002, 0x0030, [])


def test_the_largest_gap_is_used_when_none_is_large_enough() -> None:
    """Addresses below the last run serve when there are more of them than above it."""
    taken = [AddressRange(0x0040, 0x7FF0, "r", "run")]
    assert plan_run(20, 0x0002, 0x7FFF, taken).reserved == (0x0002, 0x003F)


@pytest.mark.parametrize("bounds", [(0, 5), (5, 0x8000), (9, 5)])
def test_bounds_must_be_unicast(bounds: tuple[int, int]) -> None:
    """Ranges that are none are refused."""
    with pytest.raises(LocalProtocolError, match="unicast range"):
        plan_run(2, *bounds, [])


@pytest.mark.parametrize(("boards", "primaries"), [(0, 1), (3, 0), (3, 4)])
def test_primaries_are_boards(boards: int, primaries: int) -> None:
    """There are no more Primaries than boards, and at least one."""
    with pytest.raises(LocalProtocolError, match="Primaries"):
        plan_run(boards, 2, 0x7FFF, [], primaries=primaries)


@given(
    st.integers(1, 300),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(1, 0x7FFF), st.integers(0, 0x2000)), max_size=6),
)
def test_plans_never_touch_what_was_taken(
    boards: int, primaries: int, used: list[tuple[int, int]]
) -> None:
    """Whatever was taken before, a plan overlaps none of it and has room for the boards."""
    primaries = min(primaries, boards)
    taken = [AddressRange(a, min(a + n, 0x7FFF), "r", "run") for a, n in used]
    try:
        run_plan = plan_run(boards, 0x0002, 0x7FFF, taken, primaries=primaries)
    except LocalProtocolError:
        return
    first, last = run_plan.reserved
    assert 0x0002 <= first <= last <= 0x7FFF
    assert all(last < other.first or first > other.last for other in taken)
    plans = run_plan.plans
    assert [plan.primary for plan in plans] == list(range(first, first + primaries))
    assert plans[0].share.first == first + primaries
    assert all(one.share.last + 1 == two.share.first for one, two in pairwise(plans))
    assert len({plan.share.size for plan in plans}) == 1
    part = -(-boards // primaries)
    assert all(part - 1 <= plan.share.capacity for plan in plans)
    assert all(plan.share.size <= share_size(part) for plan in plans)


def test_primaries_follow_the_boards() -> None:
    """One below 20 boards, two from 20 on."""
    assert [choose_primaries(boards, 5) for boards in (1, 19, 20, 300)] == [1, 1, 2, 2]


def test_links_bound_the_primaries() -> None:
    """Every Primary is connected at once."""
    assert [choose_primaries(300, links) for links in (1, 2, 8)] == [1, 2, 2]


def test_the_mode_is_not_the_number_of_boards() -> None:
    """The proxy comes back unconditionally with 1, so that is what is asked for."""
    assert choose_node_addr_cnt() == 1


@pytest.mark.parametrize(
    ("boards", "links", "expected"),
    [(1, 1, True), (6, 1, True), (7, 1, False), (22, 2, True), (23, 2, False), (300, 5, True)],
)
def test_who_is_faster(boards: int, links: int, expected: bool) -> None:
    """With one link we win up to 6 boards, with two up to 22; with five always."""
    assert is_direct(RunSettings(method=Method.AUTO, links=links), boards) is expected


def test_only_auto_asks_who_is_faster() -> None:
    """What is told is done; auto leaves boards to the others that it does not hear itself."""
    assert not is_direct(RunSettings(method=Method.FAST), 5)
    assert is_direct(RunSettings(method=Method.DIRECT, links=1), 300)
    assert is_direct(RunSettings(method=Method.AUTO, expected=5), 5)
    assert is_direct(RunSettings(method=Method.AUTO, expected=6), 5)


@pytest.mark.parametrize(
    ("told", "links", "boards", "primaries"),
    [(None, 5, 19, 1), (None, 5, 20, 2), (3, 5, 10, 3), (3, 2, 10, 2), (3, 5, 2, 2)],
)
def test_primaries_are_those_told(
    told: int | None, links: int, boards: int, primaries: int
) -> None:
    """The operator's number is taken as far as boards and links allow it."""
    assert primaries_of(RunSettings(primaries=told, links=links), boards) == primaries


def test_direct_runs_take_an_address_for_each_board() -> None:
    """In a row; where fewer are left, that is told."""
    assert plan_direct(5, 0x0010, 0x7FFF, []) == (0x0010, 0x0014)
    assert plan_direct(5, 0x0010, 0x0014, []) == (0x0010, 0x0014)
    with pytest.raises(LocalProtocolError, match="no 6 free addresses"):
        plan_direct(6, 0x0010, 0x0014, [])


def test_a_node_hands_out_what_is_above_its_own_address() -> None:
    """As many addresses as a Primary of so many boards gets; fewer where they serve the boards."""
    assert plan_share(3, 0x0007, 0x0002, 0x7FFF, []) == Share(0x0008, 0x0107)
    taken = [AddressRange(0x0002, 0x0010, "r", "us")]
    assert plan_share(3, 0x0007, 0x0002, 0x0020, taken) == Share(0x0011, 0x0020)
    # 46 addresses would serve 41 boards.
    assert plan_share(42, 0x0001, 0x0002, 0x002F, []) == Share(0x0002, 0x002B)
    with pytest.raises(LocalProtocolError, match="no 6 free addresses"):
        plan_share(6, 0x001B, 0x0002, 0x0020, taken)


@pytest.mark.parametrize(
    ("links", "heard", "primaries"), [(5, 1, 1), (5, 2, 2), (5, 9, 3), (2, 9, 2)]
)
def test_a_few_nodes_reach_out(links: int, heard: int, primaries: int) -> None:
    """Three, or as many as there are; each is connected at once."""
    assert edge_primaries(RunSettings(links=links), heard) == primaries
