"""The table of runs tells what was measured, and calls a goal met only if it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench.cases import Case, Result, Times, Way, measure
from tests.bench.goals import NEVER, Quantiles, collected, goals, quantiles
from tests.bench.runs import cases, matrices, report


def results(
    boards: int, way: Way, known: Sequence[float | None], *, killed: int = 0
) -> list[Result]:
    """Return made-up results; everybody is proven 1 s after the last address."""
    return [
        Result(
            Case(boards, way, seed),
            "done",
            Times(seconds, None if seconds is None else seconds + 1.0),
            Times(seconds, seconds),
            boards,
            killed,
        )
        for seed, seconds in enumerate(known, 1)
    ]


def unmet(*cells: Sequence[Result]) -> list[str]:
    """Return the goals that these results do not meet."""
    every = collected([result for cell in cells for result in cell])
    return [goal.promise for goal in goals(every) if not goal.is_met]


def test_quantiles_count_who_never_came() -> None:
    """Half and nine tenths of the runs, the endless ones included."""
    assert quantiles([float(number) for number in range(1, 21)]) == Quantiles(11.0, 18.0)
    assert quantiles([1.0, None, None]) == Quantiles(NEVER, NEVER)
    assert quantiles([3.0]) == Quantiles(3.0, 3.0)


def test_a_slower_run_is_told() -> None:
    """Slower than the phone app in either quantile is; so is never, even beside never."""
    phone = results(12, Way.PHONE, [30.0, 35.0, 40.0])
    assert unmet(phone, results(12, Way.AUTO, [29.0, 35.0, 36.0])) == []
    assert "12 boards, from the command: never slower than the phone app" in unmet(
        phone, results(12, Way.AUTO, [29.0, 35.0, 41.0])
    )
    nobody = [results(7, way, [None]) for way in (Way.PHONE, Way.AUTO)]
    assert len(unmet(*nobody)) == 2


@pytest.mark.parametrize(
    ("cell", "promise"),
    [
        (results(20, Way.AUTO, [13.0]), "20 boards (ours, auto) proven at p50 within 13.5 s"),
        (results(100, Way.AUTO_10, [35.5]), "100 boards (ours, auto, 10 links) proven at p50"),
        (results(100, Way.AUTO_20, [19.5]), "100 boards (ours, auto, 20 links) proven at p50"),
        (results(50, Way.FAST, [9.0], killed=1), "we kill"),
    ],
)
def test_each_goal_can_be_missed(cell: Sequence[Result], promise: str) -> None:
    """A figure beyond its limit is told, and no other goal is blamed."""
    assert any(goal.startswith(promise) for goal in unmet(cell))


def test_what_the_phone_app_kills_is_not_our_fault() -> None:
    """Only boards that we killed count."""
    assert unmet(results(20, Way.PHONE, [None], killed=3)) == []


def test_three_hundred_must_be_complete_in_every_run() -> None:
    """A single partial run is told."""
    (run,) = results(300, Way.AUTO, [100.0])
    partial = Result(Case(300, Way.AUTO, 2), "partial", proven=299)
    assert unmet([run]) == []
    assert unmet([run, partial]) == ["300 boards are complete"]


def test_a_quick_bench() -> None:
    """Five boards with both hosts: the table has a row for each way, and all goals are met."""
    chosen = cases([5], 2)
    assert len(chosen) == 12
    done = [measure(case) for case in chosen]
    told = list(report(done))
    rows = [line.split(" | ") for line in told if line.startswith("| 5 ")]
    assert [row[1] for row in rows] == [
        "phone app",
        "ours, auto",
        "ours, auto, 10 links",
        "ours, auto, 20 links",
        "ours, auto, 20 links unknown",
        "ours, fast, 1 Primary",
    ]
    assert rows[1][3] == "2 done"
    assert all(float(cell) < 10.0 for cell in rows[1][5:9])
    assert unmet(done) == []
    assert sum(line.startswith("met ") for line in told) == 3


def test_matrices_are_shown_where_they_are(tmp_path: Path) -> None:
    """A table that another target wrote is printed, and of the others how to get them."""
    (tmp_path / "stall-matrix.txt").write_text("S1  D D\n")
    told = list(matrices(tmp_path))
    assert "S1  D D" in told
    assert any("`make crash-matrix`" in line for line in told)
