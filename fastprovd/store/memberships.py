"""Changes of groups that were asked for, and what proves them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from fastprovd.records import Membership, Proof
from fastprovd.store import rows

_COLUMNS: Final = rows.column_names(Membership)
_DECODERS: Final[rows.Decoders] = {"is_member": bool, "proof": Proof}


def load(connection: sqlite3.Connection) -> list[Membership]:
    """Return every change, by group and address."""
    found = connection.execute('select * from membership order by "group", address').fetchall()
    return [Membership(**rows.read(row, _COLUMNS, _DECODERS)) for row in found]


def save(connection: sqlite3.Connection, memberships: Iterable[Membership]) -> None:
    """Insert or replace changes by group and address."""
    for membership in memberships:
        rows.write(connection, "membership", {name: getattr(membership, name) for name in _COLUMNS})
