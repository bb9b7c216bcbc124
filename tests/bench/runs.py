"""How long runs take, side by side: `make bench-runs`, or `python -m tests.bench.runs [N ...]`.

Whole runs over emulated boards with all flaws on, in virtual time: (a) the phone app's way, (b)
ours with `method = "fast"`, (c) with `"direct"`. The clocks begin with the command, before the
scan.
Half of the seeds are boards with the Bluedroid host, half with NimBLE. "complete": all addresses
known within LIMIT_S; "killed": boards that rebooted because too much was asked of them.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator import virtual_time
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.records import Run
from tests.bench.phone import phone
from tests.support.scene import Listener, scene

SIZES: Final = (1, 2, 5, 7, 12, 20, 50, 100, 200, 300)
SEEDS: Final = 20
# Nobody waits longer for a minute's work.
LIMIT_S: Final = 400.0
PHONE: Final = "phone"
WAYS: Final = (PHONE, Method.FAST, Method.DIRECT)


@dataclass(frozen=True)
class Case:
    """One run to do."""

    boards: int
    way: str
    seed: int


@dataclass(frozen=True)
class Result:
    """Seconds from the command until all addresses were known, all boards proven; or never."""

    known_s: float | None = None
    proven_s: float | None = None
    proven: int = 0
    killed: int = 0


class Stopwatch(Listener):
    """An audience that notes when all were known, and when the last one was proven."""

    def __init__(self, boards: int) -> None:
        super().__init__()
        self._boards = boards
        self._begun = asyncio.get_running_loop().time()
        self.known_s: float | None = None
        self.proven_s: float | None = None

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        now = asyncio.get_running_loop().time() - self._begun
        if run.known >= self._boards and self.known_s is None:
            self.known_s = now
        if run.proven >= self._boards and self.proven_s is None:
            self.proven_s = now
        super().run_changed(run)


def measure(case: Case) -> Result:
    """Do one run."""
    return virtual_time.run(_run(case))


async def _run(case: Case) -> Result:
    host = Host.BLUEDROID if case.seed % 2 else Host.NIMBLE
    method = Method.FAST if case.way == PHONE else Method(case.way)
    settings = RunSettings(method=method, expected=case.boards, run_s=LIMIT_S)
    stopwatch = Stopwatch(case.boards)
    async with scene(
        case.boards, case.seed, host=host, flaws=Flaws(), settings=settings, listener=stopwatch
    ) as s:
        begun = asyncio.get_running_loop().time()
        known_s, proven_s, proven = None, None, 0
        if case.way == PHONE:
            try:
                async with asyncio.timeout(LIMIT_S):
                    await phone(s, case.boards)
                known_s = asyncio.get_running_loop().time() - begun
            except TimeoutError:
                pass
        else:
            run = await s.campaign.execute()
            known_s, proven_s, proven = stopwatch.known_s, stopwatch.proven_s, run.proven
        killed = sum(board.killed_count for board in s.air.boards)
        return Result(known_s, proven_s, proven, killed)


def rows(sizes: Sequence[int], seeds: int) -> Iterator[str]:
    """Yield the table, row by row."""
    yield (
        "| boards | way | complete | known p50 | known p90 | proven p50 | proven p90 | unproven "
        "| killed |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    with multiprocessing.Pool(os.cpu_count(), initializer=_be_quiet) as pool:
        for boards in sizes:
            for way in WAYS:
                cases = [Case(boards, way, seed) for seed in range(1, seeds + 1)]
                yield _row(boards, way, pool.map(measure, cases, chunksize=1))


def _row(boards: int, way: str, results: Sequence[Result]) -> str:
    known = [result.known_s for result in results if result.known_s is not None]
    proven = [result.proven_s for result in results if result.proven_s is not None]
    unproven = "-" if way == PHONE else sum(boards - result.proven for result in results)
    cells = [
        boards,
        way,
        f"{len(known)} of {len(results)}",
        *_quantiles(known, len(results)),
        *_quantiles(proven, len(results)),
        unproven,
        sum(result.killed for result in results),
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _quantiles(values: Sequence[float], of: int) -> tuple[str, str]:
    """Return p50 and p90 of `of` values, those that are missing being endless."""
    everything = sorted([*values, *[float("inf")] * (of - len(values))])
    p50 = statistics.median_high(everything)
    p90 = everything[min(of - 1, round(0.9 * of))]
    return tuple("never" if value == float("inf") else f"{value:.1f} s" for value in (p50, p90))  # type: ignore[return-value]


def _be_quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main() -> None:
    """Print the table."""
    sizes = [int(argument) for argument in sys.argv[1:]] or SIZES
    for row in rows(sizes, SEEDS):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
