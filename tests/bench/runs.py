"""How long runs take, side by side: `make bench-runs`, or `python -m tests.bench.runs [N ...]`.

Whole runs over emulated boards with all flaws on, in virtual time: the phone app's way, ours with
`method = "auto"` over adapters that bear 5, 10 and 20 links, and with `"fast"` and as many
Primaries as the planner gives, on an air with collisions and on an ideal one. Half of the seeds are
boards with the Bluedroid host, half with NimBLE. At the end every goal is told met or not, and the
exit code is 1 if one is not. All of it takes forty minutes on two CPUs.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from fastprovd.campaign.planner import LIST_CAPACITY
from fastprovd.emulator.air import collides
from tests.bench.cases import HOPELESS_LIMIT_S, PHONE_LIMIT_S, Case, Result, Way, measure
from tests.bench.goals import HEAD, LEGEND, collected, goals, row

SIZES: Final = (1, 2, 5, 7, 12, 20, 50, 100, 200, 300)
SEEDS: Final = 20
# Beyond, the trees of a fast run drown in what they relay; nobody would choose it.
FAST_UP_TO: Final = 100
QUICK_SIZES: Final = (1, 5, 12)
QUICK_SEEDS: Final = 2
MATRICES: Final = ("fault-matrix", "stall-matrix", "crash-matrix")


def cases(sizes: Iterable[int], seeds: int) -> list[Case]:
    """Return all runs to do, those that take longest first."""
    chosen = []
    for boards in sizes:
        for way in Way:
            if way.is_fast and boards > FAST_UP_TO:
                continue
            if way is Way.FAST_IDEAL and not collides(boards):
                continue  # the same as FAST
            chosen += [Case(boards, way, seed) for seed in range(1, seeds + 1)]
    return sorted(chosen, key=lambda case: (-case.boards, not case.way.is_fast))


def report(results: Sequence[Result]) -> Iterator[str]:
    """Yield the table, its legend and the goals."""
    cells = collected(results)
    rows = [HEAD, *(row(boards, way, cell) for (boards, way), cell in cells.items())]
    yield "| " + " | ".join(rows[0]) + " |"
    yield "|" + "---|" * len(HEAD)
    for cells_of_row in rows[1:]:
        yield "| " + " | ".join(cells_of_row) + " |"
    yield ""
    yield LEGEND
    yield (
        f'"never": not within {PHONE_LIMIT_S:g} s for the phone app, not in the whole run for us. '
        f"With more than {LIST_CAPACITY + 1} boards the list that the app reads can not hold them "
        f"all, and its runs are ended after {HOPELESS_LIMIT_S:g} s."
    )
    yield ""
    yield from map(str, goals(cells))


def matrices(directory: Path) -> Iterator[str]:
    """Yield the outcome tables that other targets have left there, or how to make them."""
    for name in MATRICES:
        path = directory / f"{name}.txt"
        yield ""
        if path.exists():
            yield f"Outcomes of `make {name}`, from {path.name}:"
            yield from path.read_text("utf-8").splitlines()
        else:
            yield f"Outcomes of whole runs with faults: `make {name}`."


def measured(chosen: Sequence[Case], processes: int) -> Iterator[Result]:
    """Do all runs, on so many processors, in any order."""
    with multiprocessing.Pool(processes, initializer=_be_quiet) as pool:
        yield from pool.imap_unordered(measure, chosen)


def _be_quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main() -> int:
    """Print everything; how far it is goes to standard error."""
    parser = argparse.ArgumentParser(description="How long runs take, side by side.")
    parser.add_argument("sizes", type=int, nargs="*", metavar="N", help="numbers of boards")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"runs of each (default: {SEEDS})")
    parser.add_argument("--quick", action="store_true", help="few boards and seeds")
    options = parser.parse_args()
    sizes = options.sizes or (QUICK_SIZES if options.quick else SIZES)
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    chosen = cases(sizes, seeds)
    results = []
    for result in measured(chosen, os.cpu_count() or 1):
        results.append(result)
        case = result.case
        sys.stderr.write(
            f"{len(results)} of {len(chosen)} runs; boards {case.boards}, {case.way.value}, "
            f"seed {case.seed}: {result.ended}\n"
        )
    for line in (*report(results), *matrices(Path.cwd())):
        sys.stdout.write(f"{line}\n")
    return 0 if all(goal.is_met for goal in goals(collected(results))) else 1


if __name__ == "__main__":
    sys.exit(main())
