"""Nodes by unicast address, and the DevKeys of those we provisioned ourselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from fastprovd.mesh.keys import DevKey
from fastprovd.records import Node, NodeRole, ParentSource
from fastprovd.store import rows

_COLUMNS: Final = rows.column_names(Node)
_DECODERS: Final[rows.Decoders] = {
    "role": NodeRole,
    "listed": bool,
    "proven": bool,
    "onoff": bool,
    "forgotten": bool,
    "gatt_proxy": bool,
    "parent_source": ParentSource,
    "provisioned_by": rows.address,
    "elements": rows.between(0, 0xFF),
    "first_seen": rows.decode_time,
    "last_seen": rows.decode_time,
}


def load(connection: sqlite3.Connection) -> list[Node]:
    """Return every node that is not forgotten, lowest address first."""
    found = connection.execute("select * from node where not forgotten order by address")
    return [Node(**rows.read(row, _COLUMNS, _DECODERS)) for row in found]


def save(connection: sqlite3.Connection, nodes: Iterable[Node]) -> None:
    """Insert or replace nodes by address."""
    for node in nodes:
        rows.write(connection, "node", {name: getattr(node, name) for name in _COLUMNS})


def save_boards(connection: sqlite3.Connection, run_id: str, uuids: Iterable[bytes]) -> None:
    """Keep which boards a run took on; an earlier run had them no longer."""
    connection.executemany(
        "insert or replace into board (device_uuid, run_id) values (?, ?)",
        [(uuid, run_id) for uuid in uuids],
    )


def drop_boards(connection: sqlite3.Connection, run_id: str, uuids: Iterable[bytes]) -> None:
    """Forget that a run took these boards on: it did not make them nodes."""
    connection.executemany(
        "delete from board where device_uuid = ? and run_id = ?",
        [(uuid, run_id) for uuid in uuids],
    )


def load_boards(connection: sqlite3.Connection) -> dict[bytes, str]:
    """Return the run that took each board on, by Device UUID."""
    return {row["device_uuid"]: row["run_id"] for row in connection.execute("select * from board")}


def save_dev_key(
    connection: sqlite3.Connection, address: int, device_uuid: bytes, dev_key: DevKey
) -> None:
    """Keep one more DevKey of `address`."""
    connection.execute(
        "insert into dev_key (address, device_uuid, octets) values (?, ?, ?)",
        (address, device_uuid, dev_key.octets),
    )


def load_dev_key(connection: sqlite3.Connection, address: int) -> DevKey | None:
    """Return the newest DevKey of `address`, or `None` when we did not provision it."""
    row = connection.execute(
        "select octets from dev_key where address = ? order by id desc limit 1", (address,)
    ).fetchone()
    return None if row is None else DevKey(row["octets"])
