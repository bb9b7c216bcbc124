"""Unicast addresses ever taken: none is handed out twice, also after a failed run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fastprovd.errors import AddressesTaken, LocalProtocolError
from fastprovd.mesh.addresses import format_address, is_unicast
from fastprovd.records import AddressRange


def load(connection: sqlite3.Connection) -> list[AddressRange]:
    """Return every range ever taken, lowest first."""
    rows = connection.execute(
        "select first, last, run_id, purpose from address_range order by first"
    )
    return [AddressRange(**row) for row in rows]


def reserve(connection: sqlite3.Connection, addresses: AddressRange) -> None:
    """Take a range for good.

    Raises:
        AddressesTaken: some address in it was taken before.
        LocalProtocolError: it is not a range of unicast addresses.
    """
    wanted = f"{format_address(addresses.first)}..{format_address(addresses.last)}"
    if not (
        is_unicast(addresses.first)
        and is_unicast(addresses.last)
        and addresses.first <= addresses.last
    ):
        raise LocalProtocolError(f"{wanted} is not a range of unicast addresses")
    taken = connection.execute(
        "select first, last, run_id, purpose from address_range where first <= ? and last >= ?",
        (addresses.last, addresses.first),
    ).fetchone()
    if taken is not None:
        raise AddressesTaken(
            f"{wanted} was asked for, but {format_address(taken['first'])}.."
            f"{format_address(taken['last'])} was taken before ({taken['purpose']}, "
            f"run {taken['run_id'] or 'none'}): ask for other addresses"
        )
    connection.execute(
        "insert into address_range (first, last, run_id, purpose) values (?, ?, ?, ?)",
        (addresses.first, addresses.last, addresses.run_id, addresses.purpose),
    )


def burn(connection: sqlite3.Connection, wanted: Iterable[tuple[int, int]]) -> None:
    """Take what is free yet of inclusive ranges: it was handed out, and nobody knows to whom."""
    taken = [(known.first, known.last) for known in load(connection)]
    for first, last in wanted:
        begin = first
        for low, high in [*taken, (last + 1, last + 1)]:
            if high >= begin and low <= last + 1:
                if low > begin:
                    reserve(connection, AddressRange(begin, low - 1, "", "lost by the database"))
                begin = max(begin, high + 1)
