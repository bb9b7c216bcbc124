"""The firmware's address arithmetic, against the values of the firmware itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.planner import (
    MAX_CHILDREN,
    Share,
    choose_node_addr_cnt,
    plan_run,
    share_size,
    we_are_faster,
)
from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.models.fast_provisioning import InfoSet
from fastprovd.mesh.models.registry import decode_message
from fastprovd.records import AddressRange
from tests.support.data import RECORDING_NAMES, recording
from tests.support.listener import listen


@pytest.mark.parametrize(
    ("first", "last", "children", "sub_shares"),
    [
        pytest.param(
            0x0002,
            0x7FFF,
            range(0x0002, 0x0008),
            "0008-155b 155c-2aaf 2ab0-4003 4004-5557 5558-6aab 6aac-7fff",
            id="everything",
        ),
        pytest.param(
            0x0008,
            0x155B,
            range(0x0008, 0x000E),
            "000e-039a 039b-0727 0728-0ab4 0ab5-0e41 0e42-11ce 11cf-155b",
            id="its first child",
        ),
        pytest.param(
            0x0400,
            0x7FFF,
            range(0x0400, 0x0406),
            "0406-18af 18b0-2d59 2d5a-4203 4204-56ad 56ae-6b57 6b58-7fff",
            id="the phone",
        ),
        pytest.param(
            0x0406,
            0x18AF,
            range(0x0406, 0x040C),
            "040c-077c 077d-0aed 0aee-0e5e 0e5f-11cf 11d0-1540 1541-18af",
            id="the phone's first child",
        ),
        pytest.param(
            0x0010,
            0x0020,
            range(0x0010, 0x0016),
            "0016-0017 0018-0019 001a-001b 001c-001d 001e-001f",
            id="small, the sixth child gets nothing",
        ),
        pytest.param(0x0016, 0x0017, range(0x0016, 0x0018), "", id="two"),
        pytest.param(0x0010, 0x0012, range(0x0010, 0x0013), "", id="three"),
        pytest.param(0x0010, 0x0017, range(0x0010, 0x0016), "0016-0016", id="eight"),
    ],
)
def test_shares_are_the_firmwares(first: int, last: int, children: range, sub_shares: str) -> None:
    """Children and sub-shares of the documented runs come out."""
    share = Share(first, last)
    assert share.children == children
    assert " ".join(f"{s.first:04x}-{s.last:04x}" for s in share.sub_shares()) == sub_shares


@given(st.integers(1, 0x7FFF), st.integers(0, 0x4000))
def test_shares_never_overlap(first: int, size: int) -> None:
    """Children and sub-shares are disjoint and stay within the share, at every level."""
    share = Share(first, min(first + size, 0x7FFF))
    given_out = list(share.children)
    for sub in share.sub_shares():
        assert sub.first <= sub.last
        given_out += range(sub.first, sub.last + 1)
    assert len(given_out) == len(set(given_out))
    assert all(share.first <= address <= share.last for address in given_out)
    assert len(share.sub_shares()) <= len(share.children) <= MAX_CHILDREN


def test_recorded_child_ranges_are_predicted() -> None:
    """Every range that a real provisioner handed to a child is a sub-share of its own range."""
    ranges = 0
    for name in RECORDING_NAMES:
        for shares in _recorded_shares(name):
            root, handed_out = shares
            reachable = {root}
            waiting = [root]
            while waiting:
                for sub in waiting.pop().sub_shares():
                    reachable.add(sub)
                    waiting.append(sub)
            for share in handed_out:
                assert share in reachable, name
                ranges += 1
    assert ranges > 60


def _recorded_shares(name: str) -> list[tuple[Share, list[Share]]]:
    handed_out: list[Share] = []
    roots: list[Share] = []
    top = int(recording(name).header["top_unicast"], 16)
    for heard in listen(name).messages.values():
        if heard.payload is None or not heard.payload.startswith(b"\xc0\xe5\x02"):
            continue
        if len(heard.payload) < 6:
            continue  # a provocation of the board that carries nothing
        message = decode_message(heard.payload)
        if (
            isinstance(message, InfoSet)
            and message.unicast_min is not None
            and message.unicast_max is not None
            and message.unicast_min < message.unicast_max
        ):
            share = Share(message.unicast_min, message.unicast_max)
            if message.makes_primary:
                roots.append(share)
            elif heard.src != top:
                handed_out.append(share)
    return [(root, [s for s in handed_out if root.first <= s.first <= root.last]) for root in roots]


def test_run_takes_the_lowest_free_block() -> None:
    """Nothing that was ever taken is planned again, and gaps that are too small are left."""
    size = 1 + share_size(5)
    taken = [AddressRange(0x0001, 0x0001, "", "us"), AddressRange(0x0010, 0x001F, "r", "run")]
    plan = plan_run(5, 0x0001, 0x7FFF, taken)
    assert plan.reserved == (0x0020, 0x0020 + size - 1)
    assert plan.share == Share(0x0021, 0x0020 + size - 1)
    assert plan.node_addr_cnt == 1
    gap = [AddressRange(0x0002 + size, 0x7FFF, "r", "run")]
    assert plan_run(5, 0x0002, 0x7FFF, gap).reserved == (0x0002, 0x0001 + size)


def test_last_addresses_are_used_though_they_are_few() -> None:
    """A block smaller than wanted serves as long as it has an address for each board."""
    plan = plan_run(20, 0x0002, 0x0030, [])
    assert plan.reserved == (0x0002, 0x0030)
    with pytest.raises(LocalProtocolError, match="no 60 free addresses"):
        plan_run(60, 0x0002, 0x0030, [])


@pytest.mark.parametrize("bounds", [(0, 5), (5, 0x8000), (9, 5)])
def test_bounds_must_be_unicast(bounds: tuple[int, int]) -> None:
    """Ranges that are none are refused."""
    with pytest.raises(LocalProtocolError, match="unicast range"):
        plan_run(2, *bounds, [])


@given(
    st.integers(1, 120),
    st.lists(st.tuples(st.integers(1, 0x7FFF), st.integers(0, 0x800)), max_size=6),
)
def test_plans_never_touch_what_was_taken(boards: int, used: list[tuple[int, int]]) -> None:
    """Whatever was taken before, a plan overlaps none of it and has room for the boards."""
    taken = [AddressRange(a, min(a + n, 0x7FFF), "r", "run") for a, n in used]
    try:
        plan = plan_run(boards, 0x0002, 0x7FFF, taken)
    except LocalProtocolError:
        return
    first, last = plan.reserved
    assert last - first >= max(1, boards - 1)
    assert all(last < other.first or first > other.last for other in taken)


def test_the_mode_is_not_the_number_of_boards() -> None:
    """The proxy comes back unconditionally with 1, so that is what is asked for."""
    assert choose_node_addr_cnt() == 1


@pytest.mark.parametrize(
    ("boards", "links", "expected"),
    [(1, 1, True), (15, 1, True), (16, 1, False), (100, 1, False), (300, 5, True), (300, 1, False)],
)
def test_who_is_faster(boards: int, links: int, expected: bool) -> None:
    """With one link we win below 16 boards; with five always."""
    assert we_are_faster(boards, links) is expected
