"""Addresses are handed out once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastprovd.errors import AddressesTaken, LocalProtocolError, StoreError
from fastprovd.records import AddressRange
from fastprovd.store.state import StateStore

TAKEN = AddressRange(0x0010, 0x0020, "r-1", "fast provisioning")


@pytest.mark.parametrize(
    ("first", "last"),
    [(0x10, 0x20), (0x0F, 0x10), (0x20, 0x21), (0x18, 0x18), (0x01, 0x7FFF)],
)
def test_overlap_is_refused_and_named(store: StateStore, first: int, last: int) -> None:
    """Any overlap with what was ever taken is refused, naming the run that has it."""
    store.reserve_addresses(TAKEN)
    with pytest.raises(AddressesTaken, match=r"0x0010\.\.0x0020 was taken .* run r-1"):
        store.reserve_addresses(AddressRange(first, last, "r-2", "retry"))
    assert store.reserved_addresses() == [TAKEN]


def test_ranges_survive_a_crash(store: StateStore, crash_image: Callable[[], Path]) -> None:
    """A range is durable when the call returns, so a killed run's addresses stay taken."""
    store.reserve_addresses(TAKEN)
    neighbour = AddressRange(0x0021, 0x0021, "r-1", "primary")
    store.reserve_addresses(neighbour)
    with StateStore(crash_image()) as restarted:
        assert restarted.reserved_addresses() == [TAKEN, neighbour]
        with pytest.raises(AddressesTaken):
            restarted.reserve_addresses(TAKEN)


@pytest.mark.parametrize(("first", "last"), [(0, 5), (0x7FFF, 0x8000), (6, 5)])
def test_only_unicast_ranges_are_taken(store: StateStore, first: int, last: int) -> None:
    """The unassigned address, groups and a range turned round are bugs of the caller."""
    with pytest.raises(LocalProtocolError, match="not a range of unicast addresses"):
        store.reserve_addresses(AddressRange(first, last, "r-1", "wrong"))


@pytest.mark.parametrize(
    "statement", ["delete from address_range", "update address_range set last = first"]
)
def test_the_database_keeps_ranges_for_good(store: StateStore, statement: str) -> None:
    """No statement frees or narrows a range."""
    store.reserve_addresses(TAKEN)
    with (
        pytest.raises(StoreError, match="an address range would be"),
        store._database.transaction() as connection,
    ):
        connection.execute(statement)
