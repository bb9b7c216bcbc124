"""One run to measure: how long until the last address was known, until everybody was proven."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fastprovd.bearers.link_limit import START_LINKS
from fastprovd.campaign.planner import LIST_CAPACITY
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator import virtual_time
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.errors import AccessError, BearerError
from fastprovd.records import Run
from tests.bench.phone import phone
from tests.support.scene import Listener, Scene, scene

# Nobody waits longer for a minute's work.
PHONE_LIMIT_S: Final = 400.0
# The firmware's list never has more entries than LIST_CAPACITY, so there is nothing to wait for;
# whom the app kills it has killed by then.
HOPELESS_LIMIT_S: Final = 150.0


class Way(Enum):
    """Who does it, with how many links; the value is what the table calls it.

    An adapter bears 5 links unless another number is named. LEARNING is a first run over one that
    bears 20, of which nothing is known. Boards collide from 20 on, but for FAST_IDEAL.
    """

    PHONE = "phone app"
    AUTO = "ours, auto"
    AUTO_10 = "ours, auto, 10 links"
    AUTO_20 = "ours, auto, 20 links"
    LEARNING = "ours, auto, 20 links unknown"
    FAST = "ours, fast"
    FAST_IDEAL = "ours, fast, ideal air"

    @property
    def is_fast(self) -> bool:
        """Whether the boards provision each other."""
        return self in (Way.FAST, Way.FAST_IDEAL)


LINKS: Final = {Way.AUTO_10: 10, Way.AUTO_20: 20, Way.LEARNING: 20}


@dataclass(frozen=True)
class Case:
    """One run to do; odd seeds are boards with the Bluedroid host, even ones with NimBLE."""

    boards: int
    way: Way
    seed: int


@dataclass(frozen=True)
class Times:
    """Seconds until all addresses were known, and until all boards were proven; or never."""

    known_s: float | None = None
    proven_s: float | None = None


@dataclass(frozen=True)
class Result:
    """What came of a case.

    `command` counts from the command, before the scan; `info_set` from INFO_SET, or from the first
    connection where nobody gets one. `ended` is the run's state, of the phone app's way
    "complete" or "never". `killed`: boards that rebooted because too much was asked of them.
    """

    case: Case
    ended: str
    command: Times = Times()
    info_set: Times = Times()
    proven: int = 0
    killed: int = 0
    cpu_s: float = 0.0


class Stopwatch(Listener):
    """An audience that notes when all were known, and when the last one was proven."""

    def __init__(self, boards: int, now: Callable[[], float]) -> None:
        super().__init__()
        self._boards = boards
        self._now = now
        self._begun = now()
        self._known_s: float | None = None
        self._proven_s: float | None = None

    @property
    def times(self) -> Times:
        """From the command."""
        return Times(self._known_s, self._proven_s)

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        now = self._now() - self._begun
        if run.known >= self._boards and self._known_s is None:
            self._known_s = now
        if run.proven >= self._boards and self._proven_s is None:
            self._proven_s = now
        super().run_changed(run)


def measure(case: Case) -> Result:
    """Do one run, in virtual time."""
    begun = time.process_time()
    result: Result = virtual_time.run(_run(case))
    return Result(
        result.case,
        result.ended,
        result.command,
        result.info_set,
        result.proven,
        result.killed,
        time.process_time() - begun,
    )


async def _run(case: Case) -> Result:
    host = Host.BLUEDROID if case.seed % 2 else Host.NIMBLE
    method = Method.FAST if case.way.is_fast else Method.AUTO
    settings = RunSettings(method=method, expected=case.boards)
    links = LINKS.get(case.way, START_LINKS)
    stopwatch = Stopwatch(case.boards, asyncio.get_running_loop().time)
    async with scene(
        case.boards,
        case.seed,
        host=host,
        flaws=Flaws(),
        settings=settings,
        links=None if case.way is Way.LEARNING else links,
        listener=stopwatch,
        collisions=False if case.way is Way.FAST_IDEAL else None,
    ) as s:
        s.adapter.max_links = links
        if case.way is Way.PHONE:
            return await _phone(case, s)
        run = await s.campaign.execute()
        is_known, is_proven = run.known >= case.boards, run.proven >= case.boards
        return Result(
            case,
            run.state.value,
            stopwatch.times,
            Times(run.t_known_s if is_known else None, run.t_proven_s if is_proven else None),
            run.proven,
            _killed(s),
        )


async def _phone(case: Case, s: Scene) -> Result:
    begun = asyncio.get_running_loop().time()
    is_hopeless = case.boards - 1 > LIST_CAPACITY
    try:
        async with asyncio.timeout(HOPELESS_LIMIT_S if is_hopeless else PHONE_LIMIT_S):
            moments = await phone(s, case.boards)
    except (TimeoutError, AccessError, BearerError):
        return Result(case, "never", killed=_killed(s))
    return Result(
        case,
        "complete",
        Times(moments.known_s - begun),
        Times(max(0.0, moments.known_s - moments.info_set_s)),
        killed=_killed(s),
    )


def _killed(s: Scene) -> int:
    return sum(board.killed_count for board in s.air.boards)
