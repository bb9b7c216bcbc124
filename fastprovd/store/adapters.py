"""How many links each adapter bears."""

from __future__ import annotations

import sqlite3


def load(connection: sqlite3.Connection, address: str, system: str) -> int | None:
    """Return the number that was found under this `system`; what was found under another goes."""
    connection.execute("delete from adapter where address = ? and system <> ?", (address, system))
    row = connection.execute("select links from adapter where address = ?", (address,)).fetchone()
    return None if row is None else int(row["links"])


def save(connection: sqlite3.Connection, address: str, system: str, links: int | None) -> None:
    """Keep the number, or forget it."""
    if links is None:
        connection.execute("delete from adapter where address = ?", (address,))
    else:
        connection.execute("replace into adapter values (?, ?, ?)", (address, system, links))
