"""Rows of the table of runs, and whether what was measured is what was promised; pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastprovd.campaign.planner import choose_primaries
from fastprovd.campaign.settings import RunSettings
from fastprovd.records import RunState
from tests.bench.cases import Case, Result, Times, Way

NEVER: Final = math.inf
HEAD: Final = (
    "boards",
    "way",
    "runs",
    "ended",
    "killed",
    "known p50",
    "known p90",
    "proven p50",
    "proven p90",
    "known p50 *",
    "known p90 *",
    "proven p50 *",
    "proven p90 *",
    "CPU s a run",
)
LEGEND: Final = (
    "Seconds from the command, and * from INFO_SET (direct: from the first connection), until the "
    "last address was known and until every board was proven; a run that never came to it counts "
    "as endless. p50: the upper median; p90: the value that nine of ten runs did not exceed."
)
# From the command to the proof of every board, at p50: the real firmware took 13.3 s for 20 boards
# over 5 links (observed.md §18).
_PROVEN: Final = (
    (20, Way.AUTO, 13.5),
    (100, Way.AUTO_10, 36.0),
    (100, Way.AUTO_20, 20.0),
)

Cells = Mapping[tuple[int, Way], Sequence[Result]]


@dataclass(frozen=True)
class Quantiles:
    """Seconds that half and nine tenths of the runs took."""

    p50: float
    p90: float


def quantiles(values: Sequence[float | None]) -> Quantiles:
    """Return the quantiles of some values; `None` is never."""
    ordered = sorted(NEVER if value is None else value for value in values)
    return Quantiles(ordered[len(ordered) // 2], ordered[math.ceil(0.9 * len(ordered)) - 1])


def of(results: Sequence[Result], time: Callable[[Result], float | None]) -> Quantiles:
    """Return the quantiles of what `time` picks."""
    return quantiles([time(result) for result in results])


# The table


def row(boards: int, way: Way, results: Sequence[Result]) -> tuple[str, ...]:
    """Return the cells of one row."""
    ended = Counter(result.ended for result in results)
    return (
        str(boards),
        _named(boards, way),
        str(len(results)),
        ", ".join(f"{count} {end}" for end, count in sorted(ended.items())),
        str(sum(result.killed for result in results)),
        *_seconds(way, [result.command for result in results]),
        *_seconds(way, [result.info_set for result in results]),
        f"{sum(result.cpu_s for result in results) / len(results):.1f}",
    )


def _named(boards: int, way: Way) -> str:
    if not way.is_fast:
        return way.value
    primaries = choose_primaries(boards, RunSettings().links)
    return f"{way.value}, {primaries} Primar{'y' if primaries == 1 else 'ies'}"


def _seconds(way: Way, times: Sequence[Times]) -> Iterator[str]:
    known = quantiles([time.known_s for time in times])
    proven = quantiles([time.proven_s for time in times])
    yield from map(shown, (known.p50, known.p90))
    # The app proves nobody.
    yield from ("-", "-") if way is Way.PHONE else map(shown, (proven.p50, proven.p90))


def shown(seconds: float) -> str:
    """Return seconds as the table has them."""
    return "never" if seconds == NEVER else f"{seconds:.1f}"


# The goals


@dataclass(frozen=True)
class Goal:
    """What was promised, what was measured, and whether that is it."""

    promise: str
    measured: str
    is_met: bool

    def __str__(self) -> str:
        return f"{'met    ' if self.is_met else 'NOT MET'}  {self.promise}: {self.measured}"


def goals(cells: Cells) -> Iterator[Goal]:
    """Yield every goal that can be judged by what was measured."""
    for boards in sorted({boards for boards, _ in cells}):
        yield from _not_slower(cells, boards)
    for boards, way, proven_s in _PROVEN:
        if (boards, way) in cells:
            yield _proven_by(boards, way, cells[boards, way], proven_s)
    if (300, Way.AUTO) in cells:
        results = cells[300, Way.AUTO]
        done = sum(r.ended == RunState.DONE.value and r.proven >= 300 for r in results)
        yield Goal("300 boards are complete", f"{done} of {len(results)}", done == len(results))
    killed = sum(r.killed for (_, way), rs in cells.items() if way is not Way.PHONE for r in rs)
    yield Goal("we kill no board", f"{killed} killed", killed == 0)


def _not_slower(cells: Cells, boards: int) -> Iterator[Goal]:
    if (boards, Way.PHONE) not in cells or (boards, Way.AUTO) not in cells:
        return
    clocks: list[tuple[str, Callable[[Result], float | None]]] = [
        ("the command", lambda result: result.command.known_s)
    ]
    if boards > 1:  # a single address is known before there is an INFO_SET
        clocks.append(("INFO_SET", lambda result: result.info_set.known_s))
    of_boards = "board" if boards == 1 else "boards"
    for name, clock in clocks:
        ours, theirs = (of(cells[boards, way], clock) for way in (Way.AUTO, Way.PHONE))
        yield Goal(
            f"{boards} {of_boards}, from {name}: never slower than the phone app",
            f"p50 {shown(ours.p50)} against {shown(theirs.p50)}, "
            f"p90 {shown(ours.p90)} against {shown(theirs.p90)}",
            ours.p50 <= theirs.p50 and ours.p90 <= theirs.p90 and ours.p90 < NEVER,
        )


def _proven_by(boards: int, way: Way, results: Sequence[Result], p50_s: float) -> Goal:
    proven = of(results, lambda result: result.command.proven_s)
    return Goal(
        f"{boards} boards ({way.value}) proven at p50 within {p50_s:g} s",
        shown(proven.p50),
        proven.p50 <= p50_s,
    )


def collected(results: Sequence[Result]) -> dict[tuple[int, Way], list[Result]]:
    """Return results by cell, in the order of boards and ways."""
    cells: dict[tuple[int, Way], list[Result]] = {}
    order = list(Way)

    def rank(result: Result) -> tuple[int, int, int]:
        case: Case = result.case
        return case.boards, order.index(case.way), case.seed

    for result in sorted(results, key=rank):
        cells.setdefault((result.case.boards, result.case.way), []).append(result)
    return cells
