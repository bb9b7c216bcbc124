"""Runs, the boards that they could not call done, and strangers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from fastprovd.records import MissingBoard, Run, RunState, Stranger, Window
from fastprovd.store import rows

_COLUMNS: Final = rows.column_names(Run, without=frozenset({"missing", "strangers"}))
_MISSING_COLUMNS: Final = rows.column_names(MissingBoard)
_STRANGER_COLUMNS: Final = rows.column_names(Stranger)
_SECONDS: Final = ("elapsed_s", "t_provisioned_s", "t_known_s", "t_proven_s", "t_closed_s")
_DECODERS: Final[rows.Decoders] = {
    "state": RunState,
    "window": Window,
    "started": rows.decode_time,
    "finished": rows.decode_time,
    **dict.fromkeys(("expected", "heard", "known", "proven"), rows.boards),
    **dict.fromkeys(("primary", "unicast_min", "unicast_max", "group"), rows.address),
    **dict.fromkeys(_SECONDS, rows.seconds),
}
_BOARD_DECODERS: Final[rows.Decoders] = {"address": rows.address}
_INTERRUPTED: Final = "fastprovd was stopped or restarted in the middle of the run"


def load_all(connection: sqlite3.Connection) -> list[Run]:
    """Return every run, the one that was begun last first, whatever the clock said then."""
    found = connection.execute("select * from run order by number desc").fetchall()
    return [_run(connection, row) for row in found]


def load(connection: sqlite3.Connection, run_id: str) -> Run | None:
    """Return one run, or `None` when there is none of that name."""
    row = connection.execute("select * from run where run_id = ?", (run_id,)).fetchone()
    return None if row is None else _run(connection, row)


def save(connection: sqlite3.Connection, run: Run) -> None:
    """Insert or replace a run with its missing boards and strangers."""
    connection.execute("delete from missing_board where run_id = ?", (run.run_id,))
    connection.execute("delete from stranger where run_id = ?", (run.run_id,))
    rows.write(connection, "run", {name: getattr(run, name) for name in _COLUMNS})
    connection.execute(
        "update run set number = (select coalesce(max(number), 0) + 1 from run)"
        " where run_id = ? and number is null",
        (run.run_id,),
    )
    lists: tuple[tuple[str, Sequence[object], tuple[str, ...]], ...] = (
        ("missing_board", run.missing, _MISSING_COLUMNS),
        ("stranger", run.strangers, _STRANGER_COLUMNS),
    )
    for table, boards, columns in lists:
        for position, board in enumerate(boards):
            facts = {name: getattr(board, name) for name in columns}
            rows.write(connection, table, {"run_id": run.run_id, "position": position, **facts})


def interrupt(
    connection: sqlite3.Connection, finished: datetime, but: str | None = None
) -> list[Run]:
    """End every other run than `but` without an end as interrupted; return them as they are now."""
    ended = [
        replace(run, state=RunState.INTERRUPTED, finished=finished, reason=_INTERRUPTED)
        for run in load_all(connection)
        if not run.state.is_end and run.run_id != but
    ]
    for run in ended:
        save(connection, run)
    return ended


def _run(connection: sqlite3.Connection, row: sqlite3.Row) -> Run:
    missing = connection.execute(
        "select * from missing_board where run_id = ? order by position", (row["run_id"],)
    )
    strangers = connection.execute(
        "select * from stranger where run_id = ? order by position", (row["run_id"],)
    )
    return Run(
        **rows.read(row, _COLUMNS, _DECODERS),
        missing=tuple(
            MissingBoard(**rows.read(m, _MISSING_COLUMNS, _BOARD_DECODERS)) for m in missing
        ),
        strangers=tuple(Stranger(**rows.read(s, _STRANGER_COLUMNS, {})) for s in strangers),
    )
