"""The one network of a state directory: UUID, keys, our own address."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from uuid import UUID

from fastprovd.errors import CorruptStore, StoreError
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.keys import KEY_OCTETS, AppKey, NetKey
from fastprovd.records import AddressRange, Network
from fastprovd.store import counters, ranges


def exists(connection: sqlite3.Connection) -> bool:
    """Return whether the keys were made already."""
    return connection.execute("select 1 from network").fetchone() is not None


def create_or_load(
    connection: sqlite3.Connection,
    entropy: Callable[[int], bytes],
    *,
    address: int,
    net_key_index: int,
    app_key_index: int,
) -> Network:
    """Return the network; the first call makes its UUID and keys and takes our own `address`.

    Raises:
        StoreError: the network exists with another address or other key indexes.
        CorruptStore: the network is gone, but not what belongs to it.
    """
    row = connection.execute("select * from network").fetchone()
    if row is None:
        if ranges.load(connection):
            raise CorruptStore(
                "addresses were handed out, but the keys of their network are gone: restore the "
                "state directory from a backup"
            )
        uuid = UUID(bytes=entropy(16), version=4)
        connection.execute(
            "insert into network (id, mesh_uuid, net_key, net_key_index, app_key, app_key_index,"
            " address) values (1, ?, ?, ?, ?, ?, ?)",
            (
                uuid.bytes,
                entropy(KEY_OCTETS),
                net_key_index,
                entropy(KEY_OCTETS),
                app_key_index,
                address,
            ),
        )
        ranges.reserve(connection, AddressRange(address, address, "", "Top Provisioner"))
        row = connection.execute("select * from network").fetchone()
    network = Network(
        mesh_uuid=UUID(bytes=row["mesh_uuid"]),
        net_key=NetKey(row["net_key"], row["net_key_index"]),
        app_key=AppKey(row["app_key"], row["app_key_index"], row["net_key_index"]),
        iv_index=counters.load_iv_index(connection),
        address=row["address"],
    )
    _check(network, address, net_key_index, app_key_index)
    return network


def _check(network: Network, address: int, net_key_index: int, app_key_index: int) -> None:
    for what, kept, asked in (
        ("provisioner_address", format_address(network.address), format_address(address)),
        ("net_key_index", str(network.net_key.index), str(net_key_index)),
        ("app_key_index", str(network.app_key.index), str(app_key_index)),
    ):
        if kept != asked:
            raise StoreError(
                f"the network was made with {what} {kept}, the configuration says {asked}: put "
                f"[mesh] {what} back, or begin a new network with another [state] directory"
            )
