"""The same again and again with one daemon: nothing wears out."""

from __future__ import annotations

import pytest

from hwbench import oracles
from hwbench.bench import Bench
from hwbench.trial import Trial


@pytest.mark.slow
@pytest.mark.power
def test_soak(bench: Bench, request: pytest.FixtureRequest) -> None:
    """Each of `--soak-rounds` runs tells the truth, and no address is used twice."""
    used: set[str] = set()
    boards = len(bench.config.boards)
    with bench.daemon():
        for number in range(1, request.config.option.soak_rounds + 1):
            trial = Trial(bench, bench.fresh_boards(boards), f"soak {number}")
            run = trial.judge()
            assert run["state"] in (oracles.DONE, oracles.PARTIAL), run["reason"]
            addresses = set(trial.nodes()["addresses"])
            assert not used & addresses, "an address was used twice"
            used |= addresses
            trial.call_again()
