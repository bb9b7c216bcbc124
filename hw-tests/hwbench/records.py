"""What a session leaves for the report: one record per run, and the outcome of each test."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass(slots=True)
class RunRecord:
    """One run; `problems` is what the oracles found, and `faults` what the bench did in it.

    `alive` counts the nodes that answered in the second roll-call, `silent` names those that were
    proven, have not lost their power, and did not.
    """

    test: str
    run_id: str
    boards: int
    begun_s: float
    ended_s: float = 0.0
    state: str = "not ended"
    elapsed_s: float | None = None
    t_provisioned_s: float | None = None
    t_known_s: float | None = None
    t_proven_s: float | None = None
    known: int | None = None
    proven: int | None = None
    reason: str | None = None
    alive: int | None = None
    silent: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """One test: `passed`, `failed` or `skipped`, with the reason of the latter two."""

    __test__ = False

    name: str
    outcome: str
    duration_s: float
    reason: str = ""


_COLUMNS = tuple(f.name for f in fields(RunRecord) if f.name not in ("begun_s", "ended_s"))


def write_csv(path: Path, runs: Iterable[RunRecord]) -> None:
    """Write one line per run; several nodes, faults or problems are joined by a semicolon."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for run in runs:
            row = asdict(run)
            row |= {name: "; ".join(row[name]) for name in ("silent", "faults", "problems")}
            writer.writerow(row)
