"""Whole runs into one cause of trouble, and what tests look at in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator import firmware
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.records import Run
from tests.support import stalls
from tests.support.scene import Scene, scene
from tests.support.stalls import Arrange, Happened
from tests.support.truth import check_truth

PERFECT = Flaws.none()
HOSTS = pytest.mark.parametrize("host", stalls.HOSTS, ids=lambda host: host.name)
BLUEDROID, NIMBLE = Host.BLUEDROID, Host.NIMBLE
GROUP = 0xC000


@asynccontextmanager
async def ended(
    boards: int,
    arrange: Arrange = stalls.nothing,
    *,
    host: Host = Host.BLUEDROID,
    flaws: Flaws = PERFECT,
    seed: int = 1,
    **settings: Any,
) -> AsyncIterator[tuple[Scene, Run]]:
    """Run through what is arranged, see that it happened and the result is true, and look at it."""
    chosen = RunSettings(**{"expected": boards, "method": Method.FAST} | settings)
    with pytest.MonkeyPatch.context() as patch:
        async with scene(boards, seed, host=host, flaws=flaws, settings=chosen) as s:
            happened = arrange(s, patch)
            run = await s.campaign.execute()
            assert happened(), "the cause was not met"
            check_truth(s, run)
            yield s, run


def times(s: Scene, what: Happening, board: Board | None = None) -> list[float]:
    """Return when it happened, to one board or to any."""
    return [
        entry.time_s
        for entry in s.air.timeline
        if entry.what is what and board in (None, s.air.board(entry.device_address))
    ]


def primaries(s: Scene) -> list[Board]:
    """Return the boards that were started as Primary Provisioners."""
    return [s.air.board(e.device_address) for e in s.air.timeline if stalls.primary_starts(e)]


def proofs(s: Scene) -> list[str]:
    """Return how the run knew that its Primaries had begun."""
    return [data["proof"] for kind, data in s.listener.events if "proof" in data]


def rungs(s: Scene) -> set[str]:
    """Return the rungs that were tried."""
    return set(s.rungs())


def is_named(run: Run, board: Board, reason: str) -> bool:
    """Tell whether the run names this board as missing for that reason, with both addresses."""
    return any(
        missing.address == board.unicast_address
        and missing.device_address == board.device_address
        and missing.reason == reason
        for missing in run.missing
    )


def on_all(**values: int) -> Arrange:
    """Switch stalls on for every board."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        for board in s.air.boards:
            for name, value in values.items():
                setattr(board.stalls, name, value)
        return lambda: True

    return arrange


def always(name: str, value: object = 1.0) -> Arrange:
    """Let a flaw show itself every time."""

    def arrange(s: Scene, patch: pytest.MonkeyPatch) -> Happened:
        patch.setattr(firmware, name, value)
        return lambda: True

    return arrange


def only(flaw: str) -> Flaws:
    """Return a firmware with one fault."""
    return replace(PERFECT, **{flaw: True})
