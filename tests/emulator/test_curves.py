"""Boards by themselves take as long as the unmodified firmware, on both airs (OB 19).

A few runs of `make bench-air`, with room for what few seeds happen to give.
"""

from __future__ import annotations

import statistics

import pytest

from tests.support.curve import Setup, curve


@pytest.mark.parametrize("collisions", [False, True])
def test_twelve_boards_do_not_mind_collisions(collisions: bool) -> None:
    """The last of 12 is provisioned after 16.1 to 30.3 s, with collisions and without."""
    last = [curve(Setup(12, 1, 1008, collisions), seed).provisioned_s for seed in range(1, 7)]
    assert 16.1 <= statistics.median(last) <= 30.3
    assert max(last) <= 30.3 * 1.1


def test_fifty_boards_with_collisions() -> None:
    """With two roots the last AppKey is there after 33 to 45 s, and copies are rare."""
    curves = [curve(Setup(50, 2, 300, collisions=True), seed) for seed in (1, 2, 3)]
    assert all(33.0 * 0.85 <= one.seconds[-1] <= 45.0 * 1.1 for one in curves)
    assert statistics.median(one.copies for one in curves) <= 1.1


def test_a_hundred_boards_without_collisions() -> None:
    """With two roots the last AppKey is there after 82 to 99 s; relayed is 5 to 9 times."""
    one = curve(Setup(100, 2, 600, collisions=False), 1)
    assert 82.0 * 0.9 <= one.seconds[-1] <= 99.0 * 1.15
    assert 4.0 <= one.copies <= 9.0


def test_a_hundred_boards_with_collisions() -> None:
    """Faster than without: 61 to 68 s, and each board sends what it relays once."""
    one = curve(Setup(100, 2, 600, collisions=True), 2)
    assert 61.0 * 0.9 <= one.seconds[-1] <= 68.0 * 1.1
    assert 25.0 <= one.seconds[0] <= 40.0
    assert 1.0 <= one.copies <= 1.1
