"""Nodes and DevKeys come back as they were saved."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import StoreError
from fastprovd.mesh.keys import DevKey
from fastprovd.records import Node, NodeRole, ParentSource
from fastprovd.store import nodes
from fastprovd.store.database import DATABASE_NAME, schema_scripts
from fastprovd.store.state import StateStore

TIMES = st.datetimes(timezones=st.just(UTC))
NODES = st.builds(
    Node,
    address=st.integers(1, 0x7FFF),
    run_id=st.text(max_size=20),
    role=st.sampled_from(NodeRole),
    listed=st.booleans(),
    proven=st.booleans(),
    device_uuid=st.none() | st.binary(min_size=16, max_size=16),
    device_address=st.none() | st.just("AA:BB:CC:DD:EE:FF"),
    elements=st.none() | st.integers(1, 255),
    provisioned_by=st.none() | st.integers(1, 0x7FFF),
    parent_source=st.none() | st.sampled_from(ParentSource),
    onoff=st.none() | st.booleans(),
    gatt_proxy=st.none() | st.booleans(),
    first_seen=st.none() | TIMES,
    last_seen=st.none() | TIMES,
)
UUID_A, UUID_B = b"a" * 16, b"b" * 16


@given(st.lists(NODES, max_size=5, unique_by=lambda node: node.address))
def test_round_trip(
    memory_database: Callable[[], AbstractContextManager[sqlite3.Connection]], saved: list[Node]
) -> None:
    """Every field of every node comes back equal and of the same type, sorted by address."""
    with memory_database() as connection:
        nodes.save(connection, saved)
        loaded = nodes.load(connection)
    assert loaded == sorted(saved, key=lambda node: node.address)
    kinds = [(type(node.onoff), type(node.gatt_proxy)) for node in loaded]
    assert kinds == [
        (type(node.onoff), type(node.gatt_proxy))
        for node in sorted(saved, key=lambda node: node.address)
    ]


def test_times_are_kept_as_utc(store: StateStore) -> None:
    """A time with another offset comes back as the same moment in UTC."""
    seen = datetime(2026, 11, 22, 9, 0, tzinfo=timezone(timedelta(hours=2)))
    store.save_nodes([Node(5, "r-1", first_seen=seen)])
    first_seen = store.nodes()[0].first_seen
    assert first_seen == seen
    assert first_seen is not None
    assert first_seen.tzinfo is UTC


def test_nodes_of_a_database_of_version_3(directory: Path) -> None:
    """They are read as nodes whose proxy nobody told anything, and it can be noted from now on."""
    directory.mkdir(mode=0o700)
    connection = sqlite3.connect(directory / DATABASE_NAME)
    connection.executescript("\n".join(schema_scripts()[:3]))
    connection.execute("pragma user_version = 3")
    connection.execute(
        "insert into node (address, run_id, role, listed, proven) values (2, 'r-1', 'node', 1, 0)"
    )
    connection.commit()
    connection.close()
    with StateStore(directory) as store:
        assert store.nodes() == [Node(2, "r-1", listed=True)]
        told = Node(2, "r-1", listed=True, gatt_proxy=False)
        store.save_nodes([told])
        assert store.nodes() == [told]


def test_a_node_is_replaced_by_address(store: StateStore) -> None:
    """Saving a node again leaves one row with the new facts."""
    store.save_nodes([Node(5, "r-1"), Node(6, "r-1")])
    store.save_nodes([Node(5, "r-1", proven=True)])
    assert store.nodes() == [Node(5, "r-1", proven=True), Node(6, "r-1")]


def test_a_list_of_nodes_is_saved_whole_or_not_at_all(store: StateStore) -> None:
    """One node that can not be saved takes the others of the list with it."""
    with pytest.raises(StoreError, match="CHECK constraint failed"):
        store.save_nodes([Node(5, "r-1"), Node(0x8000, "r-1")])
    assert store.nodes() == []


def test_dev_key_is_durable_before_provisioning_data_leaves(
    store: StateStore, crash_image: Callable[[], Path]
) -> None:
    """A process killed right after `save_dev_key` still knows the DevKey, without any node."""
    store.save_dev_key(5, UUID_A, DevKey(b"k" * 16))
    with StateStore(crash_image()) as restarted:
        dev_key = restarted.dev_key(5)
    assert dev_key is not None
    assert dev_key.octets == b"k" * 16


def test_the_newest_dev_key_of_an_address_is_used(store: StateStore) -> None:
    """After a second attempt with the address its DevKey is the one that is returned."""
    store.save_dev_key(5, UUID_A, DevKey(b"k" * 16))
    store.save_dev_key(5, UUID_B, DevKey(b"l" * 16))
    dev_key = store.dev_key(5)
    assert dev_key is not None
    assert dev_key.octets == b"l" * 16
    assert store.dev_key(6) is None
