"""Addresses are handed out once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastprovd.errors import AddressesTaken, LocalProtocolError, StoreError
from fastprovd.mesh.keys import DevKey
from fastprovd.records import AddressRange, Run, RunState, Step, StepKind
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
    "statement",
    [
        "delete from address_range",
        "update address_range set last = first",
        "update address_range set last = last + 1",
        "update address_range set run_id = 'r-2'",
    ],
)
def test_the_database_keeps_ranges_for_good(store: StateStore, statement: str) -> None:
    """No statement frees or narrows a range of which an address was offered to a board."""
    store.reserve_addresses(TAKEN)
    store.save_dev_key(0x0018, bytes(16), DevKey(bytes(16)))
    with (
        pytest.raises(StoreError, match="an address range would be"),
        store._database.transaction() as connection,
    ):
        connection.execute(statement)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def journal(store: StateStore, *steps: Step) -> None:
    for step in (Step("r-1", StepKind.BEGUN, NOW), *steps):
        store.save_step(step)


def end(store: StateStore) -> None:
    run = Run("r-1", RunState.PARTIAL, NOW, finished=NOW)
    store.save_run(run)


def taken(store: StateStore) -> list[tuple[int, int]]:
    return [(each.first, each.last) for each in store.reserved_addresses()]


def test_what_was_offered_to_nobody_comes_back(store: StateStore) -> None:
    """With the end of the run; what left in Provisioning Data stays taken, whoever has it."""
    journal(store)
    store.reserve_addresses(TAKEN)
    store.reserve_addresses(AddressRange(0x0040, 0x0050, "r-1", "direct provisioning"))
    store.reserve_addresses(AddressRange(0x0060, 0x0061, "r-0", "of another run"))
    for address in (0x0010, 0x0011, 0x001E):
        store.save_dev_key(address, bytes(16), DevKey(bytes(16)))
    end(store)
    assert taken(store) == [(0x0010, 0x0011), (0x001E, 0x001E), (0x0060, 0x0061)]
    store.reserve_addresses(AddressRange(0x0012, 0x001D, "r-2", "again"))


def test_what_a_primary_may_hand_out_stays_taken(store: StateStore) -> None:
    """The share of one that may have got INFO_SET, also one whose answer was lost."""
    journal(
        store,
        Step("r-1", StepKind.PLAN, NOW, address=0x0010, first=0x0012, last=0x0015),
        Step("r-1", StepKind.PLAN, NOW, address=0x0011, first=0x0016, last=0x0019),
        Step("r-1", StepKind.INFO_SET, NOW, address=0x0011),
    )
    store.reserve_addresses(TAKEN)
    store.save_dev_key(0x0011, bytes(16), DevKey(bytes(16)))
    end(store)
    assert taken(store) == [(0x0011, 0x0011), (0x0016, 0x0019)]


def test_without_a_journal_nothing_comes_back(store: StateStore) -> None:
    """Nobody can tell what was offered."""
    store.reserve_addresses(TAKEN)
    end(store)
    assert store.reserved_addresses() == [TAKEN]


def test_a_run_that_was_killed_gives_back_too(store: StateStore) -> None:
    """When it is ended as interrupted."""
    journal(store)
    store.save_run(Run("r-1", RunState.PROVISIONING, NOW))
    store.reserve_addresses(TAKEN)
    store.interrupt_runs(NOW, but="r-1")
    assert store.reserved_addresses() == [TAKEN]
    store.interrupt_runs(NOW)
    assert store.reserved_addresses() == []
