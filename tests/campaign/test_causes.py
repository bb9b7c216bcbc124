"""The causes: none is left out, and each row is whole."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fastprovd.campaign.states import WAITS
from fastprovd.config import RunConfig
from fastprovd.records import RunState
from tests.support.causes import CAUSES

ROOT = Path(__file__).parents[2]
STALLS, QUIRKS = 9, 17
IDS = pytest.mark.parametrize("name", CAUSES)


def names_in(module: str) -> set[str]:
    """Return the names of the tests in a module."""
    tree = ast.parse((ROOT / module).read_text("utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_stall_and_quirk_has_a_row() -> None:
    """S1 to S9 and Q1 to Q17 of the reference, and what was seen, numbered in order."""
    seen = sum(name.startswith("H") for name in CAUSES)
    expected = [f"S{n}" for n in range(1, STALLS + 1)]
    expected += [f"Q{n}" for n in range(1, QUIRKS + 1)]
    expected += [f"H{n}" for n in range(1, seen + 1)]
    assert list(CAUSES) == expected
    assert seen > 0


@IDS
def test_a_cause_is_kept_away_or_has_a_ladder(name: str) -> None:
    """With a symptom it says how it shows, after which deadline, at what cost, and how it ends."""
    cause = CAUSES[name]
    assert cause.what
    assert cause.source.startswith(("FP ", "OB "))
    assert cause.prevented or cause.symptom is not None
    told = (cause.seen_as, cause.wait, cause.cost, cause.end)
    assert all(told) if cause.symptom is not None else not any(told)
    if cause.symptom is not None:
        setting = cause.wait.removeprefix("[run] ")
        assert cause.wait in WAITS or setting in RunConfig.__dataclass_fields__
    assert cause.ends in (RunState.DONE, RunState.PARTIAL, RunState.FAILED)
    assert cause.symptom is not None or cause.ends is RunState.DONE


@IDS
def test_a_cause_has_a_scenario(name: str) -> None:
    """The test that the row names exists."""
    module, _, test = CAUSES[name].scenario.partition("::")
    assert test.startswith("test_")
    assert test in names_in(module)
