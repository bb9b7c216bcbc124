"""The outcomes of a matrix of runs, collected where all reports arrive, as one table of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Cell = tuple[str, ...]
Lines = Callable[[Mapping[Cell, str]], list[str]]

# The outcome of a cell whose test failed.
WRONG = "X"


class OutcomeTable:
    """A plugin of pytest that writes the table at the end of the session.

    Each test tells its `cell`, a sequence of strings that begins with `matrix`, and its `outcome`
    with record_property.
    """

    def __init__(self, path: Path, matrix: str, lines: Lines) -> None:
        self._path = path
        self._matrix = matrix
        self._lines = lines
        self._outcomes: dict[Cell, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcome of a cell."""
        told = dict(report.user_properties)
        if report.when != "call" or "cell" not in told:
            return
        matrix, *cell = map(str, told["cell"])  # type: ignore[call-overload] # pytest says object
        if matrix == self._matrix:
            self._outcomes[tuple(cell)] = str(told["outcome"]) if report.passed else WRONG

    def pytest_sessionfinish(self) -> None:
        """Write what there is."""
        self._path.write_text("\n".join(self._lines(self._outcomes)) + "\n")
