"""SIGKILL and power cut at every step, with every PDU and at random instants, in virtual time.

`make crash-matrix` runs all of them; `make test` a part.
"""

from __future__ import annotations

import pytest

from tests.support.crash_matrix import (
    BOARDS,
    HOSTS,
    METHODS,
    Case,
    Outcome,
    pdu_cases,
    random_case,
    run_case,
    step_cases,
)

INSTANTS = 2000
# So many are one test.
CHUNK = 20
# What belongs to each push: of the PDUs each fourth.
STRIDE = 4
FEW = [("fast", "nimble", 3), ("direct", "bluedroid", 3)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    whole = metafunc.config.getoption("--crash-matrix")
    if "chunk" in metafunc.fixturenames:
        metafunc.parametrize("chunk", range(INSTANTS // CHUNK if whole else 1))
    if "boards" in metafunc.fixturenames:
        every = [(method, host, n) for method in METHODS for host in HOSTS for n in BOARDS]
        metafunc.parametrize(("method", "host", "boards"), every if whole else FEW)


def check(record_property: pytest.RecordProperty, row: str, outcomes: dict[Case, Outcome]) -> None:
    record_property("crash_row", row)
    record_property("crash_outcomes", [outcome.json for outcome in outcomes.values()])
    wrong = {case: outcome.violations for case, outcome in outcomes.items() if outcome.violations}
    assert wrong == {}


def test_a_death_at_every_step(
    record_property: pytest.RecordProperty, method: str, host: str, boards: int
) -> None:
    """No SEQ, no address, no Primary twice; each run is resumed, and ends with the truth."""
    outcomes = {case: run_case(case) for case in step_cases(method, host, boards)}
    check(record_property, f"{method} {host}, steps", outcomes)
    assert len(outcomes) >= 12
    assert {case: o for case, o in outcomes.items() if o.end != "done" or o.died != 1} == {}


def test_a_death_with_every_pdu(
    request: pytest.FixtureRequest,
    record_property: pytest.RecordProperty,
    method: str,
    host: str,
    boards: int,
) -> None:
    """Whatever left just before, its answer finds nobody; the run is resumed to a true end."""
    whole = request.config.getoption("--crash-matrix")
    every_death = whole and boards == min(BOARDS)
    cases = list(pdu_cases(method, host, boards, every_death=every_death))
    if not whole:
        cases = cases[::STRIDE]  # each kind of death comes by turns
    outcomes = {case: run_case(case) for case in cases}
    check(record_property, f"{method} {host}, PDUs", outcomes)
    assert {case: o for case, o in outcomes.items() if o.end != "done" or o.died != 1} == {}


def test_a_death_at_random_instants(record_property: pytest.RecordProperty, chunk: int) -> None:
    """Likewise, also with two deaths, with the faults of real boards, and without resumption."""
    cases = [random_case(chunk * CHUNK + number) for number in range(CHUNK)]
    outcomes = {case: run_case(case) for case in cases}
    check(record_property, "random instants", outcomes)
