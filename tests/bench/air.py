"""The emulator held against the firmware: `make bench-air`, or `python -m tests.bench.air`.

Prints, for each row of OB 19, what was measured on the unmodified firmware and what emulated
boards do with the same ranges, seed by seed: without collisions and with them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.curve import SHARES, Curve, Setup, curve

SEEDS: Final = 6
# 0010-4000, what "large" was.
LARGE: Final = 0x4000 - 0x0010
COPIES_IDEAL: Final = (5.0, 9.0)
COPIES_COLLIDING: Final = (1.0, 1.1)
Range = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """A setup and what was measured of it: lowest and highest of all runs, in seconds.

    One range is that of the last board, five are those of the SHARES.
    """

    name: str
    setup: Setup
    measured: tuple[Range, ...]
    copies: Range | None = None


ROWS: Final = (
    Row("12, one root, large", Setup(12, 1, LARGE, False), ((16.1, 30.3),)),
    Row("12, one root, large", Setup(12, 1, LARGE, True), ((16.1, 30.3),)),
    Row("50, one root, large", Setup(50, 1, LARGE, False), ((50.2, 75.6),)),
    Row("50, two roots, 6 a board", Setup(50, 2, 300, False), ((45.4, 50.0),)),
    Row("50, two roots, 6 a board", Setup(50, 2, 300, True), ((33.0, 45.0),)),
    Row(
        "100, one root, large",
        Setup(100, 1, LARGE, False),
        ((26, 36), (39, 52), (68, 87), (86, 103), (99, 120)),
        COPIES_IDEAL,
    ),
    Row(
        "100, one root, 6 a board",
        Setup(100, 1, 600, False),
        ((38, 38), (59, 59), (76, 76), (89, 89), (97, 97)),
        COPIES_IDEAL,
    ),
    Row(
        "100, two roots, large",
        Setup(100, 2, LARGE, False),
        ((23, 23), (39, 39), (69, 69), (92, 92), (105, 105)),
        COPIES_IDEAL,
    ),
    Row(
        "100, two roots, 6 a board",
        Setup(100, 2, 600, False),
        ((21, 23), (34, 42), (59, 74), (75, 88), (82, 99)),
        COPIES_IDEAL,
    ),
    Row(
        "100, one root, large",
        Setup(100, 1, LARGE, True),
        ((35, 35), (45, 45), (54, 54), (59, 59), (64, 64)),
        COPIES_COLLIDING,
    ),
    Row(
        "100, two roots, 6 a board",
        Setup(100, 2, 600, True),
        ((32, 37), (41, 48), (49, 58), (55, 64), (61, 68)),
        COPIES_COLLIDING,
    ),
)
HEAD: Final = ("boards, ranges", "air", "run", "25/50/75/90/100 % [s]", "copies", "CPU [s]")


def lines(row: Row, curves: Sequence[Curve]) -> Iterator[tuple[str, ...]]:
    """Yield what was measured, what each seed gave, and their medians."""
    air = "collisions" if row.setup.collisions else "ideal"
    copies = "-" if row.copies is None else "{:g}..{:g}".format(*row.copies)
    yield row.name, air, "measured", " ".join(map(_spelled, row.measured)), copies, ""
    for seed, one in enumerate(curves, 1):
        yield "", "", f"seed {seed}", _seconds(one.seconds), f"{one.copies:.2f}", f"{one.cpu_s:.1f}"
    median = [statistics.median(one.seconds[at] for one in curves) for at in range(len(SHARES))]
    copies = f"{statistics.median(one.copies for one in curves):.2f}"
    yield "", "", "median", _seconds(median), copies, ""


def _spelled(measured: Range) -> str:
    low, high = measured
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _seconds(seconds: Sequence[float]) -> str:
    return "/".join(f"{s:.0f}" for s in seconds)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The emulator held against the firmware.")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="runs of each row")
    seeds = parser.parse_args().seeds
    cases = [(row.setup, seed) for row in ROWS for seed in range(1, seeds + 1)]
    with multiprocessing.Pool(os.cpu_count() or 1) as pool:
        results = pool.starmap(curve, cases, chunksize=1)
    sys.stdout.write("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|\n")
    for at, row in enumerate(ROWS):
        for line in lines(row, results[at * seeds : (at + 1) * seeds]):
            sys.stdout.write("| " + " | ".join(line) + " |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
