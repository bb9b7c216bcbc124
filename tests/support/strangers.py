"""Runs with boards around that are not ours; for tests and for `tests.bench.strangers`."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from fastprovd.campaign.settings import RunSettings
from fastprovd.emulator.air import Reach
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.timeline import Happening
from fastprovd.records import Run, RunState
from tests.support.scene import Scene, device_address, scene

LOSSES = (0.0, 0.1, 0.3)
# To hear a board once, to end the scan, and until the Primary has both segments of INFO_SET.
HEARD_S = 0.3


@dataclass
class Outcome:
    """What became of a run and of the strangers around it, by BD_ADDR."""

    run: Run
    ours: set[str] = field(default_factory=set)
    taken_in_time: set[str] = field(default_factory=set)
    taken_late: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)

    @property
    def is_refused(self) -> bool:
        """Whether a stranger kept the run from starting."""
        reason = self.run.reason or ""
        return self.run.state is RunState.FAILED and "would be provisioned too" in reason


async def run_among_strangers(seed: int) -> Outcome:
    """Run 1 to 3 boards with an inventory while 1 or 2 strangers are switched on, some late."""
    chance = random.Random(f"{seed}/strangers")
    host = chance.choice((Host.BLUEDROID, Host.NIMBLE))
    boards = chance.randint(1, 3)
    ours = [device_address(number) for number in range(1, boards + 1)]
    near, far = "24:0A:C4:5E:FF:{:02X}", "AC:67:B2:00:{:02X}:01"
    theirs = [chance.choice((near, far)).format(n) for n in range(chance.randint(1, 2))]
    lists = chance.choice(({"allow": tuple(ours)}, {"deny": tuple(theirs)}))
    settings = RunSettings(expected=boards, scan_s=15.0, **lists)
    async with scene(boards, seed, host=host, settings=settings) as s:
        s.air.set_default_reach(Reach(loss=chance.choice(LOSSES)))
        strangers = [s.air.add_board(address, host=host, power_on=False) for address in theirs]
        later = [
            asyncio.create_task(_switch_on(board, chance.choice((0.0, chance.uniform(0.0, 6.0)))))
            for board in strangers
        ]
        run = await s.campaign.execute()
        await asyncio.gather(*later)
        outcome = _outcome(s, run, strangers)
        outcome.ours = set(ours)
        return outcome


async def _switch_on(board: Board, after_s: float) -> None:
    await asyncio.sleep(after_s)
    board.power_on()


def _outcome(s: Scene, run: Run, strangers: list[Board]) -> Outcome:
    begun = [e.time_s for e in s.air.timeline if e.what is Happening.RUN_STARTED]
    on_air = {e.device_address: e.time_s for e in s.air.timeline if e.what is Happening.ON_AIR}
    outcome = Outcome(run)
    outcome.named = {b.device_address for b in run.strangers if b.device_address is not None}
    for board in strangers:
        if board.unicast_address is None:
            continue
        in_time = on_air[board.device_address] + HEARD_S < begun[0]
        taken = outcome.taken_in_time if in_time else outcome.taken_late
        taken.add(board.device_address)
    return outcome
