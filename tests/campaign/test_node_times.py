"""When the last board became a node."""

from __future__ import annotations

import pytest

from fastprovd.campaign.node_times import ANY_TIME, NodeTimes, Span, last_of

FIRST, SECOND = 0x0003, 0x0004


def test_without_evidence_there_is_no_figure() -> None:
    """Nobody was heard, or only that a node is there, or a list was read for the first time."""
    times = NodeTimes()
    assert times.last_s(ANY_TIME) is None
    times.exists(FIRST, 50.0)
    assert times.last_s(ANY_TIME) is None
    times.listed(FIRST, float("-inf"), 40.0, is_own=True)
    assert times.last_s(ANY_TIME) is None
    times.listed(FIRST, 39.0, 41.0, is_own=False)
    assert times.last_s(ANY_TIME) is None


def test_an_answer_to_the_app_key_tells_it() -> None:
    """A child answers 0.5 to 2.4 s after it became a node."""
    times = NodeTimes()
    times.answered(FIRST, 42.4)
    assert times.last_s(ANY_TIME) == pytest.approx(41.0, abs=0.1)


def test_a_list_read_often_tells_it() -> None:
    """A child of the Primary is in its list at once: it came between two reads."""
    times = NodeTimes()
    times.listed(FIRST, 40.0, 42.0, is_own=True)
    assert times.last_s(ANY_TIME) == pytest.approx(41.0)


def test_the_last_board_counts_not_the_last_that_is_known_well() -> None:
    """A node of which only the latest time is known makes the figure unknown if it is late."""
    times = NodeTimes()
    times.listed(FIRST, 40.0, 42.0, is_own=True)
    times.exists(SECOND, 41.0)
    assert times.last_s(ANY_TIME) == pytest.approx(41.0)
    times.exists(SECOND + 1, 60.0)
    assert times.last_s(ANY_TIME) is None


def test_the_air_narrows_it_down() -> None:
    """Two spans that leave two seconds together are a figure, and neither alone is."""
    times = NodeTimes()
    times.exists(FIRST, 42.0)
    assert times.last_s(Span(40.5, 60.0)) == pytest.approx(41.25)


def test_the_mesh_is_believed_where_the_air_contradicts() -> None:
    """An advertisement is not authenticated, and BlueZ repeats old ones."""
    times = NodeTimes()
    times.answered(FIRST, 42.4)
    assert times.last_s(Span(55.0, 56.0)) == pytest.approx(41.0, abs=0.1)
    assert times.last_s(Span(1.0, 2.0)) == pytest.approx(41.0, abs=0.1)


def test_the_last_of_several() -> None:
    """It is not before the latest begin, and not after the latest end."""
    assert last_of([Span(1.0, 9.0), Span(4.0, 5.0)]) == Span(4.0, 9.0)
    assert last_of([]) == ANY_TIME
