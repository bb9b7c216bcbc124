"""Expected times: what was measured comes out, and between and beyond it nothing odd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.times import (
    EXTRAPOLATED,
    MEASURED,
    MEASURED_CLOCK,
    Expected,
    direct_time,
    fast_time,
)


@pytest.mark.parametrize(
    ("boards", "primaries", "expected"),
    [
        (1, 1, Expected(3.6, 3.7, MEASURED)),
        (7, 1, Expected(18.2, 21.6, MEASURED)),
        (20, 1, Expected(32.4, 46.2, MEASURED)),
        (20, 2, Expected(33.4, 35.2, MEASURED)),
        (16, 2, Expected(28.8, 29.7, MEASURED)),
        (35, 1, Expected(38.7, 61.1, MEASURED_CLOCK)),
        (50, 2, Expected(33.4, 60.0, MEASURED_CLOCK)),
        (100, 3, Expected(61.0, 105.0, MEASURED_CLOCK)),
        (101, 1, Expected(64.4, 120.9, EXTRAPOLATED)),
    ],
)
def test_times_are_those_of_the_runs(boards: int, primaries: int, expected: Expected) -> None:
    """At a measured size the measured times, between two of them what lies between."""
    assert fast_time(boards, primaries) == expected


@given(st.integers(1, 10_000), st.integers(1, 32))
def test_more_boards_take_longer(boards: int, primaries: int) -> None:
    """Neither end of the expected time ever falls with the number of boards."""
    one, more = fast_time(boards, primaries), fast_time(boards + 1, primaries)
    assert 0 < one.low_s <= one.high_s
    assert one.low_s <= more.low_s
    assert one.high_s <= more.high_s


def test_links_share_the_boards() -> None:
    """Rounds of 3.1 s, of which the last need not wait for BlueZ to hang up (observed.md §18)."""
    assert direct_time(20, 5).middle_s == 11.0
    assert direct_time(20, 10).middle_s == 4.8
    assert direct_time(20, 20).middle_s == 1.7
    assert direct_time(11, 1).middle_s == pytest.approx(10 * 3.1 + 1.7)
