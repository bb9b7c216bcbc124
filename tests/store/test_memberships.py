"""Changes of groups in the database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fastprovd.records import Membership, Node, Proof
from fastprovd.store.database import DATABASE_NAME, schema_scripts
from fastprovd.store.state import StateStore

JOINED = Membership(0xC010, 3, is_member=True)
LEFT = Membership(0xC000, 2, is_member=False, proof=Proof.STATUS)


def test_changes_are_kept_and_replaced(store: StateStore) -> None:
    """The newest word about a node and a group counts; the order is that of group and address."""
    assert store.memberships() == []
    store.save_memberships([JOINED, LEFT])
    assert store.memberships() == [LEFT, JOINED]
    proven = Membership(0xC010, 3, is_member=True, proof=Proof.ANSWER)
    store.save_memberships([proven])
    assert store.memberships() == [LEFT, proven]


def test_a_database_of_version_1_gets_the_table(directory: Path) -> None:
    """Its nodes stay, and groups can be kept from now on."""
    directory.mkdir(mode=0o700)
    connection = sqlite3.connect(directory / DATABASE_NAME)
    connection.executescript(schema_scripts()[0])
    connection.execute("pragma user_version = 1")
    connection.execute(
        "insert into node (address, run_id, role, listed, proven) values (2, 'r-1', 'node', 1, 0)"
    )
    connection.commit()
    connection.close()
    with StateStore(directory) as store:
        assert store.nodes() == [Node(2, "r-1", listed=True)]
        store.save_memberships([JOINED])
        assert store.memberships() == [JOINED]
