"""To which devices links of ours are open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


def load(connection: sqlite3.Connection) -> list[str]:
    """Return their BD_ADDRs."""
    rows = connection.execute("select device_address from open_link order by device_address")
    return [str(row["device_address"]) for row in rows]


def note(connection: sqlite3.Connection, device_address: str) -> None:
    """Keep one more, or again."""
    connection.execute("insert or ignore into open_link values (?)", (device_address,))


def drop(connection: sqlite3.Connection, device_addresses: Iterable[str]) -> None:
    """Forget these; those that are not kept are no matter."""
    connection.executemany(
        "delete from open_link where device_address = ?",
        ((device_address,) for device_address in device_addresses),
    )
