"""The network is made once and loaded ever after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import RFC_4122

import pytest

from fastprovd.errors import CorruptStore, StoreError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.records import AddressRange
from fastprovd.store.state import StateStore


def test_a_new_network_takes_its_keys_from_entropy(store: StateStore) -> None:
    """UUID, NetKey and AppKey come from three draws of the entropy source, indexes as asked."""
    network = store.network(net_key_index=3, app_key_index=4)
    assert (network.mesh_uuid.version, network.mesh_uuid.variant) == (4, RFC_4122)
    assert network.net_key.octets == bytes([2]) * 16
    assert network.app_key.octets == bytes([3]) * 16
    assert (network.net_key.index, network.app_key.index) == (3, 4)
    assert network.app_key.bound_net_key_index == 3
    assert network.iv_index == IvIndex(0)
    assert network.address == 0x0001


def test_our_own_address_is_taken(store: StateStore) -> None:
    """No board can be given the address of the Top Provisioner."""
    store.network(address=0x0007)
    assert store.reserved_addresses() == [AddressRange(7, 7, "", "Top Provisioner")]


def test_the_same_network_after_a_crash(store: StateStore, crash_image: Callable[[], Path]) -> None:
    """The keys are durable when `network()` returns, and no second network is ever made."""
    network = store.network()
    store.set_iv_index(IvIndex(5))
    with StateStore(crash_image()) as restarted:
        again = restarted.network()
    assert again.mesh_uuid == network.mesh_uuid
    assert again.net_key.octets == network.net_key.octets
    assert again.app_key.octets == network.app_key.octets
    assert again.iv_index == IvIndex(5)


@pytest.mark.parametrize("what", ["address", "net_key_index", "app_key_index"])
def test_a_changed_identity_is_refused(store: StateStore, what: str) -> None:
    """A network that exists is not silently used with another address or index."""
    store.network()
    changed = {what: 9}
    with pytest.raises(StoreError, match=r"the network was made with .* put \[mesh\]"):
        store.network(**changed)


def test_keys_that_are_gone_are_not_made_anew(store: StateStore) -> None:
    """Where addresses were handed out, a missing network is damage, not a first start."""
    store.network()
    with store._database.transaction() as connection:
        connection.execute("delete from network")
    with pytest.raises(CorruptStore, match="restore the state directory"):
        store.network()


def test_failed_creation_leaves_nothing(directory: Path) -> None:
    """Entropy that fails half-way leaves no network, and the next call makes a whole one."""
    draws = iter([b"u" * 16, b"n" * 16])

    def short_of_entropy(size: int) -> bytes:
        try:
            return next(draws)
        except StopIteration:
            raise OSError(5, "Input/output error") from None

    with StateStore(directory, entropy=short_of_entropy) as store, pytest.raises(StoreError):
        store.network()
    with StateStore(directory) as store:
        assert store.reserved_addresses() == []
        assert store.network().net_key.octets != b"n" * 16


def test_no_key_is_in_the_repr(store: StateStore) -> None:
    """The repr of the network shows indexes, no octets."""
    shown = repr(store.network())
    for octet in (2, 3):
        assert repr(bytes([octet]) * 16)[2:-1] not in shown
        assert (bytes([octet]) * 16).hex() not in shown
