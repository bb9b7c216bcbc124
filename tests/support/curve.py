"""The boards by themselves, as they were measured: how fast AppKeys spread, what relaying costs.

A throw-away Top gives INFO_SET and is silent from then on (OB 19).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastprovd.emulator import firmware, virtual_time
from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.frames import MeshFrame
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.iv_index import IvIndex
from tests.emulator.top import Top, address_of

SHARES: Final = (0.25, 0.50, 0.75, 0.90, 1.00)
# Of the roots; the first address that they give is UNICAST_MIN.
ROOT: Final = 0x0005
UNICAST_MIN: Final = 0x0010
# All have booted, and none has fallen back to slow advertising yet.
SETTLED_S: Final = 5.0
# Twice and a half what the slowest measured run took.
LIMIT_S: Final = 300.0


@dataclass(frozen=True)
class Setup:
    """Boards, how many of them are Primary Provisioners, and the addresses these may give."""

    boards: int
    roots: int
    addresses: int
    collisions: bool


@dataclass(frozen=True)
class Curve:
    """What came of a run.

    `seconds` from INFO_SET until the SHARES of the boards had their AppKey, infinite for never;
    `provisioned_s` until the last was a node; `copies` how often a board that relayed a message
    sent it; `parents` provisioners with children.
    """

    seconds: tuple[float, ...]
    provisioned_s: float
    copies: float
    parents: int
    cpu_s: float


class _CountingAir(Air):
    """Counts who relayed what how often."""

    def __init__(self, seed: int, *, collisions: bool) -> None:
        super().__init__(seed, collisions=collisions)
        self.relayed: Counter[tuple[int, int, int]] = Counter()

    def send_mesh(self, sender: Board, frame: MeshFrame, times: list[float]) -> None:
        """Count a PDU that is not on its first hop, and send it."""
        pdu = frame.network.decode(frame.raw, IvIndex())
        assert pdu is not None
        if 0 < pdu.ttl < firmware.DEFAULT_TTL:
            self.relayed[pdu.src, pdu.seq, sender.bit] += 1
        super().send_mesh(sender, frame, times)


def curve(setup: Setup, seed: int) -> Curve:
    """Do one run, in virtual time."""
    begun = time.process_time()
    air, started = virtual_time.run(_run(setup, seed))
    return Curve(
        tuple(_moment(air, Happening.APP_KEY_STORED, started, share) for share in SHARES),
        _moment(air, Happening.PROVISIONED, started, 1.0),
        air.relayed.total() / max(1, len(air.relayed)),
        sum(bool(board.children) for board in air.boards),
        time.process_time() - begun,
    )


async def _run(setup: Setup, seed: int) -> tuple[_CountingAir, float]:
    air = _CountingAir(seed, collisions=setup.collisions)
    for number in range(1, setup.boards + 1):
        air.add_board(address_of(number), host=Host.NIMBLE, flaws=Flaws.none())
    await asyncio.sleep(SETTLED_S)
    # Two Tops of one address and NetKey: none may use a sequence number of the other.
    tops = [Top(air, first_seq=1000 * at, adapter=f"hci{at}") for at in range(setup.roots)]
    for at, top in enumerate(tops):
        await top.prepare(ROOT + at)
    started = air.loop.time()
    span = setup.addresses // setup.roots
    for at, top in enumerate(tops):
        first = UNICAST_MIN + at * span
        await top.start(ROOT + at, count=1, span=(first, first + span - 1))
    stored = asyncio.Event()
    air.watchers.append(lambda _: stored.set() if all(b.has_app_key for b in air.boards) else None)
    with suppress(TimeoutError):
        await asyncio.wait_for(stored.wait(), LIMIT_S)
    return air, started


def _moment(air: Air, what: Happening, started: float, share: float) -> float:
    """Return when that happened to a share of the boards, in seconds from `started`."""
    times = sorted(entry.time_s for entry in air.timeline if entry.what is what)
    wanted = math.ceil(share * len(air.boards))
    return times[wanted - 1] - started if len(times) >= wanted else math.inf
