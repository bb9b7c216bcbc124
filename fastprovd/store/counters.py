"""IV Index, SEQ and replay list: they only go forward, and are durable before use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from fastprovd.errors import LocalProtocolError, SeqSpaceExhausted, StoreError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.store import home, rows

SEQ_NUMBERS: Final = 1 << 24  # SEQ has 24 bits (Mesh Profile v1.0.1 §3.4.4.5)
# What a database that is adopted leaves out: months of commands. 255 adoptions fit.
ADOPTION_GAP: Final = 1 << 16

_IV_INDEX_DECODERS: Final[rows.Decoders] = {
    "changed": rows.decode_time,
    "recovered": rows.decode_time,
}


def load_iv_index(connection: sqlite3.Connection) -> IvIndex:
    """Return the IV Index, 0 in a new network."""
    row = rows.only(connection, "iv_index")
    return IvIndex(row["value"], bool(row["update_in_progress"]))


def save_iv_index(
    connection: sqlite3.Connection, iv_index: IvIndex, at: datetime | None, *, recovers: bool
) -> None:
    """Move the IV Index forward: a larger value, or the end of an IV Update at the same value.

    Raises:
        StoreError: it would go backwards.
    """
    current = load_iv_index(connection)
    if (iv_index.value, not iv_index.update_in_progress) < (
        current.value,
        not current.update_in_progress,
    ):
        raise StoreError(f"the IV Index would go backwards from {current} to {iv_index}")
    connection.execute(
        "update iv_index set value = :value, update_in_progress = :update,"
        " changed = iif(:recovers, null, :at), recovered = iif(:recovers, :at, recovered)",
        {
            "value": iv_index.value,
            "update": int(iv_index.update_in_progress),
            "at": None if at is None else rows.encode_time(at),
            "recovers": recovers,
        },
    )


def load_iv_index_times(
    connection: sqlite3.Connection,
) -> tuple[datetime | None, datetime | None]:
    """Return its last regular change since the last recovery, and that; `None` without."""
    row = rows.only(connection, "iv_index")
    times = rows.read(row, ("changed", "recovered"), _IV_INDEX_DECODERS)
    return times["changed"], times["recovered"]


def reserve_seq(connection: sqlite3.Connection, size: int) -> range:
    """Reserve `size` SEQ numbers under the IV Index that we transmit with.

    After a clean stop they begin with the first number not used, else after all reserved before.

    Raises:
        SeqSpaceExhausted: fewer than `size` are left.
    """
    if not 1 <= size <= SEQ_NUMBERS:
        raise LocalProtocolError(f"a SEQ block has 1..{SEQ_NUMBERS} numbers, got {size}")
    iv_index = load_iv_index(connection).transmit
    connection.execute(
        "insert or ignore into seq values (?, ?, null)", (iv_index, home.seq_floor(connection))
    )
    row = connection.execute("select * from seq where iv_index = ?", (iv_index,)).fetchone()
    start: int = row["reserved"] if row["next_clean"] is None else row["next_clean"]
    block = range(start, start + size)
    if block.stop > SEQ_NUMBERS:
        raise SeqSpaceExhausted(
            f"only {SEQ_NUMBERS - start} of {SEQ_NUMBERS} SEQ numbers are left under IV Index "
            f"{iv_index}: wait until the network has finished an IV Update, or begin a new network "
            "with another [state] directory and reset every board"
        )
    connection.execute(
        "update seq set reserved = max(reserved, ?), next_clean = null where iv_index = ?",
        (block.stop, iv_index),
    )
    return block


def reserved_seq(connection: sqlite3.Connection, iv_index: int) -> int:
    """Return below which number SEQ were reserved under an IV Index; 0: none."""
    row = connection.execute("select reserved from seq where iv_index = ?", (iv_index,)).fetchone()
    return 0 if row is None else int(row["reserved"])


def newest_seq(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the newest IV Index that we ever sent with, and below which SEQ were reserved."""
    row = connection.execute("select * from seq order by iv_index desc limit 1").fetchone()
    return (0, 0) if row is None else (int(row["iv_index"]), int(row["reserved"]))


def raise_seq(connection: sqlite3.Connection, iv_index: int, reserved: int) -> None:
    """Take note that SEQ below `reserved` may have been used under an IV Index."""
    connection.execute(
        "insert into seq values (?, ?, null) on conflict do update"
        " set reserved = max(reserved, excluded.reserved), next_clean = null",
        (iv_index, reserved),
    )


def skip_seq(connection: sqlite3.Connection, count: int) -> None:
    """Leave out `count` numbers: an unknown part of them may have been used.

    Raises:
        SeqSpaceExhausted: fewer are left.
    """
    iv_index = load_iv_index(connection).transmit
    row = connection.execute("select * from seq where iv_index = ?", (iv_index,)).fetchone()
    if row is not None and row["reserved"] + count > SEQ_NUMBERS:
        raise SeqSpaceExhausted(
            f"fewer than {count} SEQ numbers are left under IV Index {iv_index}: begin a new "
            "network with another [state] directory and reset every board"
        )
    connection.execute(
        "update seq set reserved = min(reserved + ?, ?), next_clean = null", (count, SEQ_NUMBERS)
    )


def release_seq(connection: sqlite3.Connection, next_seq: int, iv_index: int) -> None:
    """Note after a clean stop that `next_seq` was never used under `iv_index`, nor any above.

    Raises:
        LocalProtocolError: `next_seq` lies above what was reserved.
    """
    changed = connection.execute(
        "update seq set next_clean = :next where iv_index = :iv and :next between 0 and reserved",
        {"next": next_seq, "iv": iv_index},
    ).rowcount
    if not changed:
        raise LocalProtocolError(f"SEQ {next_seq} was never reserved under IV Index {iv_index}")


def load_replay(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """Return `(src, iv_index, seq)` of the newest message heard from each source, by source."""
    rows = connection.execute("select src, iv_index, seq from replay order by src")
    return [(row["src"], row["iv_index"], row["seq"]) for row in rows]


def save_replay(connection: sqlite3.Connection, entries: Iterable[tuple[int, int, int]]) -> None:
    """Keep each `(src, iv_index, seq)` that is newer than the one kept for its source."""
    connection.executemany(
        "insert into replay (src, iv_index, seq) values (?, ?, ?)"
        " on conflict (src) do update set iv_index = excluded.iv_index, seq = excluded.seq"
        " where (excluded.iv_index, excluded.seq) > (iv_index, seq)",
        entries,
    )
