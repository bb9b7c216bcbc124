"""Expected times: what was measured comes out, and between and beyond it nothing odd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.times import (
    EMULATED,
    EXTRAPOLATED,
    MEASURED,
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
        (35, 1, Expected(37.7, 56.1, EMULATED)),
        (100, 3, Expected(62.0, 170.0, EMULATED)),
        (101, 1, Expected(84.8, 170.0, EXTRAPOLATED)),
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
    """Five links provision eleven boards in three rounds."""
    assert direct_time(11, 5).middle_s == pytest.approx(3 * 1.75)
    assert direct_time(11, 1).middle_s == pytest.approx(11 * 1.75)
