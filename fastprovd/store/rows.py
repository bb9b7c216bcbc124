"""Records to rows and back, by field name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import Any

Value = int | float | str | bytes | None
Decoders = Mapping[str, Callable[[Any], Any]]


class DamagedValue(Exception):
    """A value in the database is none that was ever written; SQLite's checks do not see that."""


def encode_time(time: datetime) -> str:
    """Return RFC 3339 in UTC, to the microsecond; `time` is aware."""
    return time.astimezone(UTC).isoformat()


def decode_time(text: str) -> datetime:
    """Return the aware UTC time that `encode_time` wrote; raises DamagedValue."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise DamagedValue(f"{text!r} is no time") from error
    if time.tzinfo is None:
        raise DamagedValue(f"{text!r} is no time in UTC")
    return time


def _encode(value: Any) -> Value:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, datetime):
        return encode_time(value)
    if isinstance(value, bool):
        return int(value)
    return value  # type: ignore[no-any-return]


def column_names(record_type: Any, without: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the fields of a record class that are columns of its table."""
    return tuple(field.name for field in fields(record_type) if field.name not in without)


def only(connection: sqlite3.Connection, table: str) -> sqlite3.Row:
    """Return the row of a table that always has one; raises DamagedValue."""
    row: sqlite3.Row | None = connection.execute(f"select * from {table}").fetchone()  # noqa: S608
    if row is None:
        raise DamagedValue(f"table {table} is empty")
    return row


def write(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Insert `row`, or update the one of its key; names are columns of ours, never input."""
    columns = ", ".join(f'"{name}"' for name in row)
    places = ", ".join("?" * len(row))
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in row)
    connection.execute(
        f"insert into {table} ({columns}) values ({places})"  # noqa: S608
        f" on conflict do update set {changes}",
        [_encode(value) for value in row.values()],
    )


def read(row: sqlite3.Row, columns: tuple[str, ...], decoders: Decoders) -> dict[str, Any]:
    """Return the columns of `row`, each through its decoder unless it is null.

    Raises:
        DamagedValue: a value is none that was ever written.
    """
    return {name: _decode(name, row[name], decoders) for name in columns}


def _decode(name: str, value: Any, decoders: Decoders) -> Any:
    if value is None or name not in decoders:
        return value
    try:
        return decoders[name](value)
    except (ValueError, TypeError) as error:
        raise DamagedValue(f"column {name} holds {value!r}") from error
