"""The ladders: one for every symptom, each with a deadline that exists and a cost for each rung."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from fastprovd.campaign.ladder import LADDERS, Rung, Symptom
from fastprovd.campaign.states import WAITS
from fastprovd.config import RunConfig
from tests.support.ladders import COSTS, TOLD
from tests.support.recovery_table import document

RECOVERY = Path(__file__).parents[2] / "RECOVERY.md"


def exists(wait: str) -> bool:
    """Tell whether a deadline is a row of WAITS, or a setting of a run."""
    settings = {f"[run] {field.name}" for field in fields(RunConfig)}
    return wait in WAITS or wait in settings


def test_every_symptom_has_a_ladder() -> None:
    """Every symptom, every rung at least once, and a cost for each."""
    assert set(LADDERS) == set(Symptom)
    assert {rung for rungs in LADDERS.values() for rung in rungs} == set(Rung)
    assert set(TOLD) == set(Symptom)
    assert set(COSTS) == set(Rung)


@pytest.mark.parametrize("symptom", Symptom)
def test_a_ladder_has_a_deadline_and_no_rung_twice(symptom: Symptom) -> None:
    """What the row names exists; asking the operator comes last."""
    rungs = LADDERS[symptom]
    assert exists(TOLD[symptom].wait)
    assert len(set(rungs)) == len(rungs)
    assert Rung.ASK_OPERATOR not in rungs[:-1]


def test_recovery_md_is_what_the_tables_say() -> None:
    """The committed file is generated; `python -m tests.support.recovery_table` writes it."""
    assert RECOVERY.read_text("utf-8").splitlines() == "\n".join(document()).splitlines()
