"""Whole runs: every board gets its address, and does as it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwbench import oracles
from hwbench.bench import Bench
from hwbench.trial import Trial

RecordProperty = Callable[[str, object], None]


def run_and_switch(bench: Bench, boards: int, record_property: RecordProperty) -> None:
    """Do one run of so many boards; addresses and lights are what the consoles say."""
    chosen = bench.fresh_boards(boards)
    with bench.daemon():
        trial = Trial(bench, chosen, f"run of {boards}")
        run = trial.judge()
        for name in ("provisioned", "t_provisioned_s", "t_known_s", "elapsed_s"):
            record_property(name, run[name])
        # The stock firmware leaves some boards without AppKey: then partial is the truth.
        assert run["state"] in (oracles.DONE, oracles.PARTIAL), run["reason"]
        assert run["provisioned"] == boards
        trial.switch_every_node()
        trial.call_again()
        record_property("alive", trial.record.alive)


@pytest.mark.nodes(3)
def test_run_of_3(bench: Bench, record_property: RecordProperty) -> None:
    """Three boards: addresses unique, in range and as printed; lights on and off."""
    run_and_switch(bench, 3, record_property)


@pytest.mark.nodes(10)
def test_run_of_10(bench: Bench, record_property: RecordProperty) -> None:
    """Ten boards, more than one provisioner: the same."""
    run_and_switch(bench, 10, record_property)


@pytest.mark.slow
def test_run_of_all(bench: Bench, record_property: RecordProperty) -> None:
    """All boards of the bench: the same."""
    boards = len(bench.config.boards)
    if boards in (3, 10):
        pytest.skip(f"all are {boards}, and that run is another test")
    run_and_switch(bench, boards, record_property)
