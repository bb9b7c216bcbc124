"""The journal of runs: what each was about to do, in order."""

from __future__ import annotations

import sqlite3
from typing import Final

from fastprovd.records import Step, StepKind
from fastprovd.store import rows

_COLUMNS: Final = rows.column_names(Step)
_DECODERS: Final[rows.Decoders] = {
    "kind": StepKind,
    "at": rows.decode_time,
    "node_addr_cnt": rows.between(0, 0xFFFF),
}
# Journals of so many runs are kept, and those of runs without an end.
_RUNS_KEPT: Final = 5


def append(connection: sqlite3.Connection, step: Step) -> None:
    """Add a step; the last one of a run drops the journals of old runs."""
    rows.write(connection, "journal", {name: getattr(step, name) for name in _COLUMNS})
    if step.kind is StepKind.ENDED:
        connection.execute(
            "delete from journal where run_id in"
            " (select run_id from run where finished is not null"
            "  order by number desc limit -1 offset ?)",
            (_RUNS_KEPT,),
        )


def load(connection: sqlite3.Connection, run_id: str) -> list[Step]:
    """Return the steps of a run, the first one first."""
    found = connection.execute("select * from journal where run_id = ? order by id", (run_id,))
    return [Step(**rows.read(row, _COLUMNS, _DECODERS)) for row in found]
