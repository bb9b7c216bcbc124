"""Every stall, with loss, in runs of 1 to 100 boards: it ends in time, and what it says is true.

`make stall-matrix` runs the whole product. `make test` runs a diagonal of it, without 100 boards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from fastprovd.campaign.settings import RunSettings
from fastprovd.emulator.air import Reach
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.records import Run
from tests.conftest import RunVirtual
from tests.support.scene import scene
from tests.support.stall_table import outcome_of
from tests.support.stalls import HOSTS, STALLS, Stall
from tests.support.truth import check_truth

LOSSES = (0, 10, 20, 30)
# How many seeds for each host; with 100 boards each cell has one host.
SEEDS = {1: 1, 5: 2, 20: 1, 100: 1}
# With each push a stall is met with one of these numbers of boards, in turn, and these many cells.
SMALL = (5, 1, 5, 20)
STRIDE = 9
# To close what is open when the run's own limit strikes.
MARGIN_S = 30.0


class Case(NamedTuple):
    """One run of the matrix; the loss is in percent."""

    stall: Stall
    boards: int
    loss: int
    host: Host
    seed: int

    @property
    def cell(self) -> list[str]:
        """Where it stands in the table."""
        return [self.stall.name, str(self.boards), f"{self.loss} %", self.host.name, str(self.seed)]


def whole() -> Iterator[Case]:
    """Yield the whole matrix."""
    for row, stall in enumerate(STALLS):
        for boards, seeds in SEEDS.items():
            if boards < stall.least:
                continue
            for column, loss in enumerate(LOSSES):
                for number, host in enumerate(HOSTS):
                    is_its_turn = (
                        boards < 100 or stall.hosts != HOSTS or (row + column) % 2 == number
                    )
                    if host in stall.hosts and is_its_turn:
                        for seed in range(1, seeds + 1):
                            yield Case(stall, boards, loss, host, seed)


def diagonal() -> Iterator[Case]:
    """Yield some cells of every stall, others for each."""
    for row, stall in enumerate(STALLS):
        boards = max(SMALL[row % len(SMALL)], stall.least)
        cells = [case for case in whole() if case.stall is stall and case.boards == boards]
        yield from cells[row * 3 % min(STRIDE, len(cells)) :: STRIDE]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        is_whole = metafunc.config.getoption("--stall-matrix")
        cases = list(whole() if is_whole else diagonal())
        metafunc.parametrize("case", cases, ids=["-".join(case.cell) for case in cases])


def test_a_stalled_run_ends_with_the_truth(
    run_virtual: RunVirtual[Run],
    monkeypatch: pytest.MonkeyPatch,
    record_property: pytest.RecordProperty,
    case: Case,
) -> None:
    """In bounded time, nobody invented, counted twice or killed, and every board accounted for."""
    record_property("cell", ["stalls", *case.cell])
    settings = RunSettings(method=case.stall.method, expected=case.boards)

    async def main() -> Run:
        async with (
            asyncio.timeout(settings.run_s + MARGIN_S),
            scene(case.boards, case.seed, host=case.host, flaws=Flaws(), settings=settings) as s,
        ):
            s.air.set_default_reach(Reach(case.loss / 100))
            happened = case.stall.arrange(s, monkeypatch)
            run = await s.campaign.execute()
            assert happened(), "the stall was not met"
            check_truth(s, run)
            return run

    record_property("outcome", outcome_of(run_virtual(main())))


def test_the_matrix_is_large_and_its_diagonal_meets_everything() -> None:
    """At least 400 runs; with each push every stall, every loss and both hosts are met."""
    cases = list(diagonal())
    assert len(list(whole())) >= 400
    assert {case.stall.name for case in cases} == {stall.name for stall in STALLS}
    assert {case.loss for case in cases} == set(LOSSES)
    assert {case.host for case in cases} == set(HOSTS)
