"""The firmware's address arithmetic, against the values of the firmware itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.shares import MAX_CHILDREN, Share, largest_share, smallest_share
from fastprovd.mesh.models.fast_provisioning import InfoSet
from fastprovd.mesh.models.registry import decode_message
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


def test_capacity_is_what_the_documented_runs_had() -> None:
    """A share serves every address of its tree; what is cut off between levels is lost."""
    assert [Share(0x10, last).capacity for last in (0x10, 0x12, 0x16, 0x17)] == [1, 3, 6, 7]
    assert Share(0x0010, 0x0020).capacity == 6 + 5 * 2
    assert Share(0x0002, 0x7FFF).capacity > 30_000


@given(st.integers(0, 300), st.integers(0, 4096))
def test_sizes_serve_their_boards(boards: int, more: int) -> None:
    """The smallest share serves the boards and none below it does; the largest one serves them."""
    smallest = smallest_share(boards)
    assert Share(1, smallest).capacity >= boards
    assert all(Share(1, size).capacity < boards for size in range(1, smallest))
    largest = largest_share(smallest + more, boards)
    assert smallest <= largest <= smallest + more
    assert Share(1, largest).capacity >= boards
    assert all(Share(1, size).capacity < boards for size in range(largest + 1, smallest + more + 1))
