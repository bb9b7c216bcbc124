"""The outcomes of the stall matrix as one table of text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from fastprovd.records import Run
from tests.support.outcome_table import WRONG, Cell
from tests.support.stalls import STALLS

LEGEND: Final = (
    "Each cell: runs that ended done/partial/failed, and the median of their emulated seconds; X "
    "stands for runs whose test failed. Columns: boards, and the share of transmissions lost."
)


def outcome_of(run: Run) -> str:
    """Return the end, the time, and the reasons with the number of boards of each."""
    reasons = Counter(board.reason for board in run.missing)
    said = [f"{count} x {reason}" for reason, count in sorted(reasons.items())]
    told = "; ".join(filter(None, [run.reason, *said]))
    return f"{run.state.value} {run.elapsed_s:.0f} {told}"


def lines(outcomes: Mapping[Cell, str]) -> list[str]:
    """Return the table, the sums, and how often each reason was given."""
    cells: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (stall, boards, loss, _, _), outcome in outcomes.items():
        cells[stall, f"{boards} {loss}"].append(outcome)
    columns = sorted({column for _, column in cells}, key=_numbers)
    width = max(len(stall.name) for stall in STALLS)
    told = [LEGEND, "", " " * width + "".join(f"{column:>13}" for column in columns)]
    for stall in STALLS:
        row = "".join(f"{_cell(cells.get((stall.name, column), [])):>13}" for column in columns)
        told.append(stall.name.ljust(width) + row)
    ends = Counter(outcome.split(" ")[0] for outcome in outcomes.values())
    told += ["", f"{len(outcomes)} runs: " + ", ".join(f"{n} {end}" for end, n in ends.items()), ""]
    reasons: Counter[str] = Counter()
    for outcome in outcomes.values():
        reasons.update(_reasons(outcome))
    told += [f"{count:5} runs: {reason}" for reason, count in reasons.most_common()]
    return told


def _cell(outcomes: Sequence[str]) -> str:
    if not outcomes:
        return "."
    ends = Counter(outcome.split(" ")[0] for outcome in outcomes)
    counts = "/".join(str(ends[end]) for end in ("done", "partial", "failed"))
    times = [float(outcome.split(" ")[1]) for outcome in outcomes if outcome != WRONG]
    wrong = f"X{ends[WRONG]} " if ends[WRONG] else ""
    return f"{wrong}{counts} {median(times):.0f}" if times else wrong


def _reasons(outcome: str) -> set[str]:
    """Return the reasons, without what differs from run to run."""
    told = outcome.split(" ", 2)[2] if outcome != WRONG else ""
    parts = {re.sub(r"^\d+ x ", "", part) for part in told.split("; ") if part}
    return {re.sub(r"0x[0-9a-f]{4}(, 0x[0-9a-f]{4})*|\d+", "n", part) for part in parts}


def _numbers(column: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", column))
