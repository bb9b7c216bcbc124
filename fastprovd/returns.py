"""What becomes of nodes whose boards lost their power: they are forgotten, and it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from fastprovd.audiences import Audiences
from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.returned import Returned, find_returned, superseded
from fastprovd.mesh.addresses import format_address
from fastprovd.records import Membership, Node, Run, RunState, newest_list
from fastprovd.store.state import StateStore

log = structlog.get_logger(__name__)

# BlueZ tells old data once more when a scan begins; a board on the air goes on telling.
_ON_AIR_S: Final = 1.0

WhoAnswers = Callable[[Collection[int]], Awaitable[set[int]]]
"""Ask nodes by name; returns those that answer."""


class Returns:
    """Compares the boards on the air with the nodes, at a start and when a run has ended.

    An advertisement alone takes no node away. Outside of a run the nodes are asked by name before;
    a run forgets what those boards were that it made nodes itself. All methods raise StoreError.
    """

    def __init__(self, store: StateStore, audiences: Audiences) -> None:
        self._store = store
        self._audiences = audiences
        self._look: _Look | None = None
        self._run_id: str | None = None
        self._heard: list[HeardBoard] = []
        self._forgotten: dict[int, Node] = {}

    async def at_start(self, heard: Collection[HeardBoard], who_answers: WhoAnswers) -> int:
        """Take what is on the air outside of a run; return how many boards were nodes."""
        look = await asyncio.to_thread(_Look, self._store, self._audiences)
        await look.forget_superseded()
        on_air = _on_air(heard)
        asked = look.candidates(on_air)
        alive = await who_answers(asked) if asked else set()
        if alive:
            log.warning(
                "namesakes_on_the_air",
                nodes=[format_address(address) for address in sorted(alive)],
                advice="something advertises the Device UUIDs of nodes that are alive: BlueZ "
                "repeats what they were, or another device pretends to be them; they are kept",
            )
        await look.take(on_air, alive=alive)
        self._forgotten |= look.forgotten
        return len(look.uuids)

    async def run_begins(self, heard: Iterable[HeardBoard], run_id: str) -> None:
        """Take the boards that a run takes on, and keep who they are; again when there are more.

        What it made of them meanwhile is nothing that could return: the nodes from before count.
        """
        self._heard = list(heard)
        if self._look is None or self._run_id != run_id:
            self._look = await asyncio.to_thread(_Look, self._store, self._audiences)
            self._run_id = run_id
        uuids = [board.uuid for board in self._heard]
        await asyncio.to_thread(self._store.save_boards, run_id, uuids)

    async def run_ended(self, run: Run) -> None:
        """Forget what the boards were that the run has made nodes."""
        look, self._look = self._look, None
        if look is None:
            return
        nodes = await asyncio.to_thread(self._store.nodes)
        sure: dict[bytes, set[str]] = {}
        if run.state is RunState.DONE:  # whoever was heard answered
            for board in self._heard:
                sure.setdefault(board.uuid, set()).add(board.device_address)
        for node in nodes:
            if node.run_id == run.run_id and node.device_uuid and node.device_address:
                sure.setdefault(node.device_uuid, set()).add(node.device_address)
        await look.take(sure, run.run_id)
        self._forgotten |= look.forgotten

    async def lost_groups(self) -> dict[int, list[int]]:
        """Return the groups to restore, each with its nodes; asked again, there are none."""
        memberships = await asyncio.to_thread(self._store.memberships)
        nodes = await asyncio.to_thread(self._store.nodes)
        forgotten, self._forgotten = self._forgotten, {}
        return lost_groups(memberships, forgotten.values(), nodes)


class _Look:
    """One comparison, with the nodes as they were when it was made."""

    def __init__(self, store: StateStore, audiences: Audiences) -> None:
        self._store = store
        self._audiences = audiences
        self._nodes = store.nodes()
        self._boards = store.boards()
        self.uuids: frozenset[bytes] = frozenset()
        self.forgotten: dict[int, Node] = {}

    def candidates(self, on_air: Mapping[bytes, Collection[str]]) -> set[int]:
        """Return the nodes that would be forgotten if nobody asked them."""
        return {node.address for node in self._find(on_air).nodes}

    def _find(
        self, on_air: Mapping[bytes, Collection[str]], alive: Collection[int] = ()
    ) -> Returned:
        return find_returned(on_air, self._nodes, self._boards, alive)

    async def forget_superseded(self) -> None:
        """Forget nodes whose boards are nodes of a newer run; a kill may have come before that."""
        runs = await asyncio.to_thread(self._store.runs)
        order = {run.run_id: -number for number, run in enumerate(runs)}
        old = superseded(self._nodes, order)
        if old:
            await self._forget(old)
            gone = {node.address for node in old}
            self._nodes = [node for node in self._nodes if node.address not in gone]

    async def take(
        self,
        on_air: Mapping[bytes, Collection[str]],
        run_id: str | None = None,
        alive: Collection[int] = (),
    ) -> None:
        """Forget the nodes whose boards are unprovisioned and that are not `alive`, and tell so."""
        found = self._find(on_air, alive)
        new = [node for node in found.nodes if node.address not in self.forgotten]
        if not new and not found.uuids - self.uuids:
            return
        self.uuids = found.uuids
        self.forgotten.update({node.address: node for node in await self._forget(new)})
        facts = {
            "boards": len(found.uuids),
            "forgotten": [format_address(address) for address in sorted(self.forgotten)],
            "unplaced": found.unplaced,
        }
        log.warning("nodes_returned", **facts)
        self._audiences.event("nodes_returned", facts, run_id)
        nodes = await asyncio.to_thread(self._store.nodes)
        run, left = newest_list(await asyncio.to_thread(self._store.runs), nodes)
        self._audiences.nodes_changed(left, run)

    async def _forget(self, nodes: Iterable[Node]) -> list[Node]:
        forgotten = [replace(node, forgotten=True) for node in nodes]
        await asyncio.to_thread(self._store.save_nodes, forgotten)
        for node in forgotten:
            self._audiences.node_changed(node)
        return forgotten


def _on_air(heard: Iterable[HeardBoard]) -> dict[bytes, set[str]]:
    """Return the device addresses of boards that went on advertising, by Device UUID."""
    return {
        board.uuid: {board.device_address}
        for board in heard
        if board.last_seen_s - board.first_seen_s >= _ON_AIR_S
    }


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
