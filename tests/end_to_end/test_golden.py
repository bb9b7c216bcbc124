"""Runs journal, tell and come to what they did before; a change of that has to be meant."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import RunVirtual
from tests.support.golden import DIRECTORY, RUNS, lines_of


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_as_it_was(run_virtual: RunVirtual[Any], name: str) -> None:
    """Line by line; `python -m tests.support.golden` writes the files anew."""
    expected = (DIRECTORY / f"{name}.txt").read_text("utf-8").splitlines()
    assert run_virtual(lines_of(name)) == expected


def test_no_golden_run_is_left_over() -> None:
    """Each file belongs to a run."""
    assert {path.stem for path in DIRECTORY.iterdir()} == set(RUNS)
