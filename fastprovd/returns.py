"""What becomes of nodes whose boards lost their power: they are forgotten, and it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

import structlog

from fastprovd.audiences import Audiences
from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.returned import find_returned
from fastprovd.mesh.addresses import format_address
from fastprovd.records import Membership, Node
from fastprovd.store.state import StateStore

log = structlog.get_logger(__name__)

# BlueZ tells old data once more when a scan begins; a board on the air goes on telling.
_ON_AIR_S: Final = 1.0


class Returns:
    """Compares what is on the air with the nodes as they were when it was made."""

    def __init__(self, store: StateStore, audiences: Audiences) -> None:
        self._store = store
        self._audiences = audiences
        self._nodes = {node.address: node for node in store.nodes()}
        self._boards = store.boards()
        self.uuids: frozenset[bytes] = frozenset()
        self.forgotten: dict[int, Node] = {}

    @property
    def is_anybody_known(self) -> bool:
        """Whether there are nodes that could return."""
        return bool(self._nodes)

    async def take(
        self,
        heard: Iterable[HeardBoard],
        run_id: str | None = None,
        sure: Collection[bytes] = (),
    ) -> None:
        """Forget the nodes whose boards are unprovisioned, and tell so; raises StoreError.

        Those whose UUID is `sure` were, however short they were heard: they were provisioned anew.
        """
        on_air = {b.uuid for b in heard if b.last_seen_s - b.first_seen_s >= _ON_AIR_S}
        on_air |= set(sure)
        found = find_returned(on_air, self._nodes.values(), self._boards)
        new = [
            replace(node, forgotten=True)
            for node in found.nodes
            if node.address not in self.forgotten
        ]
        if not new and not found.uuids - self.uuids:
            return
        self.uuids = found.uuids
        self.forgotten.update({node.address: node for node in new})
        await asyncio.to_thread(self._store.save_nodes, new)
        for node in new:
            self._audiences.node_changed(node)
        facts = {
            "boards": len(found.uuids),
            "forgotten": [format_address(address) for address in sorted(self.forgotten)],
            "unplaced": found.unplaced,
        }
        log.warning("nodes_returned", **facts)
        self._audiences.event("nodes_returned", facts, run_id)


def lost_groups(
    memberships: Iterable[Membership], forgotten: Iterable[Node], nodes: Iterable[Node]
) -> dict[int, list[int]]:
    """Return who belongs into which group, as far as the boards of `forgotten` are nodes again.

    The group of the run is not among them; boards are told apart by their Device UUID.
    """
    now = {node.device_uuid: node.address for node in nodes if node.device_uuid and node.proven}
    again = {old.address: now[old.device_uuid] for old in forgotten if old.device_uuid in now}
    groups: dict[int, list[int]] = {}
    for membership in memberships:
        if membership.is_member and membership.address in again:
            groups.setdefault(membership.group, []).append(again[membership.address])
    return groups
