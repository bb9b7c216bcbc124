"""Values that were never written are damage, which SQLite's own checks do not see."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastprovd.errors import CorruptStore
from fastprovd.mesh.keys import DevKey
from fastprovd.records import (
    AddressRange,
    Membership,
    MissingBoard,
    Node,
    Proof,
    Run,
    RunState,
    Step,
    StepKind,
    Stranger,
    Window,
)
from fastprovd.store import rows
from fastprovd.store.database import schema_scripts
from fastprovd.store.rows import DamagedValue
from fastprovd.store.state import StateStore

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
UUID = bytes(range(16))
BOARD = "24:0A:C4:5E:00:01"


def fill(directory: Path) -> None:
    """Write a row into every table, and something into every column."""
    with StateStore(directory) as store:
        store.network()
        run = Run("r-1", RunState.DONE, NOON, 3, 3, 3, 3, 2, 2, 9, 0xC000, b"\xdd\xdd", 9.0, 1.0)
        store.save_run(run)
        store.save_run(
            Run(
                "r-1",
                RunState.DONE,
                NOON,
                window=Window.CLOSED,
                window_evidence="seen",
                reason="one is missing",
                missing=(MissingBoard("silent", 3, UUID, BOARD),),
                strangers=(Stranger("not ours", UUID, BOARD),),
                finished=NOON,
                t_closed_s=3.0,
            )
        )
        store.save_step(Step("r-1", StepKind.BEGUN, NOON, 2, UUID, BOARD, 2, 9, 1, "{}"))
        store.save_nodes([Node(2, "r-1", device_address=BOARD, first_seen=NOON, last_seen=NOON)])
        store.reserve_addresses(AddressRange(2, 9, "r-1", "a run"))
        store.save_dev_key(2, UUID, DevKey(bytes(16)))
        store.save_boards("r-1", [UUID])
        store.save_memberships([Membership(0xC010, 2, True, Proof.STATUS)])
        store.save_adapter_links(BOARD, "Linux", 5)
        store.note_open_link(BOARD)
        store.reserve_seq_block(1)


def read(directory: Path) -> None:
    """Read all that there is."""
    with StateStore(directory) as store:
        store.network()
        store.iv_index_times()
        store.reserved_addresses()
        store.memberships()
        store.nodes()
        store.boards()
        for run in store.runs():
            store.steps(run.run_id)


def damage(directory: Path, statement: str) -> None:
    """Change what triggers would guard too."""
    database = sqlite3.connect(directory / "state.db", isolation_level=None)
    for (name,) in database.execute("select name from sqlite_master where type = 'trigger'"):
        database.execute(f"drop trigger {name}")
    database.execute(statement)
    database.close()


def _texts() -> list[tuple[str, str]]:
    database = sqlite3.connect(":memory:")
    database.executescript("\n".join(schema_scripts()))
    return [
        (table, column)
        for (table,) in database.execute("select name from sqlite_master where type = 'table'")
        for _, column, kind, *_ in database.execute(f"pragma table_info({table})")
        if kind.lower() == "text"
    ]


@pytest.mark.parametrize(("table", "column"), _texts())
def test_text_that_is_no_text_is_damage(directory: Path, table: str, column: str) -> None:
    """In any column of any table."""
    fill(directory)
    damage(directory, f"""update {table} set "{column}" = cast(x'ff' as text)""")  # noqa: S608
    with pytest.raises(CorruptStore, match=r"is damaged.*restore"):
        read(directory)


@pytest.mark.parametrize(
    "statement",
    [
        "update node set role = 'nodf'",
        "update node set parent_source = 'guessed'",
        "update node set elements = -1",
        "update node set provisioned_by = 0",
        "update node set first_seen = '2026-11-22T10:00:00'",
        "update run set state = 'dona'",
        "update run set started = '2026-13-01T00:00:00Z'",
        "update run set window = 'ajar'",
        "update run set heard = 999999999999",
        "update run set known = -1",
        "update run set elapsed_s = 9e999",
        "update run set t_closed_s = -1.0",
        """update run set "group" = 70000""",
        "update missing_board set address = 0",
        "update membership set proof = 'hope'",
        "update journal set kind = 'x'",
        "update journal set at = ''",
        "update journal set node_addr_cnt = -1",
        "update iv_index set changed = 'once'",
        "delete from iv_index",
        "delete from home",
        "delete from network",
    ],
)
def test_a_value_that_was_never_written_is_damage(directory: Path, statement: str) -> None:
    """Enumerations, times, numbers without a meaning, and rows that are always there."""
    fill(directory)
    damage(directory, statement)
    with pytest.raises(CorruptStore, match="restore"):
        read(directory)


@pytest.mark.parametrize("value", [-1, 10, float("nan"), float("inf")])
def test_numbers_lie_within_their_bounds(value: float) -> None:
    """The bounds do, and what is no number or endless does not."""
    decode: Callable[[Any], Any] = rows.between(0, 9)
    assert [decode(0), decode(9)] == [0, 9]
    with pytest.raises(DamagedValue):
        decode(value)
