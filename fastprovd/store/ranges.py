"""Unicast addresses that are taken: none is handed out twice, also after a failed run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fastprovd.errors import AddressesTaken, LocalProtocolError
from fastprovd.mesh.addresses import format_address, is_unicast
from fastprovd.records import AddressRange, StepKind
from fastprovd.store import journal


def load(connection: sqlite3.Connection) -> list[AddressRange]:
    """Return every range that is taken, lowest first."""
    rows = connection.execute(
        "select first, last, run_id, purpose from address_range order by first"
    )
    return [AddressRange(**row) for row in rows]


def reserve(connection: sqlite3.Connection, addresses: AddressRange) -> None:
    """Take a range; see `release` for what comes back.

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
    _insert(connection, addresses)


def release(connection: sqlite3.Connection, run_id: str) -> None:
    """Give back what a run that ends has reserved and offered to nobody, as its journal shows.

    Kept is each address that left in Provisioning Data, and the share of each Primary that may have
    got INFO_SET, since nobody can tell what it handed out.
    """
    steps = journal.load(connection, run_id)
    if not any(step.kind is StepKind.BEGUN for step in steps):
        return
    told = {step.address for step in steps if step.kind is StepKind.INFO_SET}
    kept = [
        (step.first, step.last)
        for step in steps
        if step.kind is StepKind.PLAN
        and step.address in told
        and step.first is not None
        and step.last is not None
    ]
    used = connection.execute("select address from dev_key union select address from node")
    kept += [(row["address"], row["address"]) for row in used]
    for taken in [each for each in load(connection) if each.run_id == run_id]:
        _narrow(connection, taken, _within(taken, kept))


def _within(taken: AddressRange, kept: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is to be kept of a range, lowest first, neighbours joined."""
    pieces: list[tuple[int, int]] = []
    for first, last in sorted(kept):
        first, last = max(first, taken.first), min(last, taken.last)
        if first > last:
            continue
        if pieces and first <= pieces[-1][1] + 1:
            pieces[-1] = pieces[-1][0], max(last, pieces[-1][1])
        else:
            pieces.append((first, last))
    return pieces


def _narrow(
    connection: sqlite3.Connection, taken: AddressRange, pieces: Sequence[tuple[int, int]]
) -> None:
    if not pieces:
        connection.execute("delete from address_range where first = ?", (taken.first,))
        return
    for first, last in pieces[1:]:
        _insert(connection, replace(taken, first=first, last=last))
    connection.execute(
        "update address_range set first = ?, last = ? where first = ?", (*pieces[0], taken.first)
    )


def _insert(connection: sqlite3.Connection, addresses: AddressRange) -> None:
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
