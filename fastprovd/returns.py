"""What becomes of nodes whose boards lost their power: they are forgotten, and it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from fastprovd.audiences import Audiences
from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.census import Asked
from fastprovd.campaign.returned import Returned, find_returned, superseded
from fastprovd.mesh.addresses import format_address
from fastprovd.records import Membership, Node, Run, RunState, newest_list
from fastprovd.store.state import StateStore

log = structlog.get_logger(__name__)

# BlueZ tells old data once more when a scan begins; a board on the air goes on telling.
_ON_AIR_S: Final = 1.0

# Nodes that a sentence names; the rest is counted.
_NAMED: Final = 5

WhoAnswers = Callable[[Collection[int]], Awaitable[Asked]]
"""Ask nodes by name."""
WhoIsUnprovisioned = Callable[[Collection[str]], Awaitable[set[str]]]
"""Invite devices over links of their own; returns the device addresses of those that answer."""


async def _nobody_was_asked(addresses: Collection[int]) -> Asked:
    """Without a radio nothing is known of anybody."""
    return Asked(frozenset())


async def _nobody_was_invited(device_addresses: Collection[str]) -> set[str]:
    """Nor shown by anybody."""
    return set()


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

    async def at_start(
        self,
        heard: Collection[HeardBoard],
        who_answers: WhoAnswers = _nobody_was_asked,
        who_is_unprovisioned: WhoIsUnprovisioned = _nobody_was_invited,
    ) -> int:
        """Take what is on the air outside of a run; return how many boards were nodes.

        Nodes are asked by name; without somebody to ask all are kept. Where no proxy of ours can
        carry the question, as after a power cut of all boards, and of boards whose address is not
        known, the board itself has to show that it is unprovisioned.
        """
        look = await asyncio.to_thread(_Look, self._store, self._audiences)
        await look.forget_superseded()
        on_air = _on_air(heard)
        in_doubt = look.find(on_air)
        addresses = [node.address for node in in_doubt.nodes]
        asked = await who_answers(addresses) if addresses else Asked(frozenset())
        found = look.find(on_air, asked.answering)
        if found.unplaced or not asked.silent.issuperset(node.address for node in found.nodes):
            device_addresses = {a for uuid in found.uuids for a in on_air[uuid]}
            shown = await who_is_unprovisioned(device_addresses)
            found = look.find(look.proven(on_air, shown, asked.silent), asked.answering)
        self._tell_namesakes(in_doubt.uuids - found.uuids, on_air)
        await look.take(found)
        self._forgotten |= look.forgotten
        return len(look.uuids)

    def _tell_namesakes(
        self, uuids: Collection[bytes], on_air: Mapping[bytes, Collection[str]]
    ) -> None:
        if not uuids:
            return
        addresses = sorted(address for uuid in uuids for address in on_air[uuid])
        more = f" and {len(addresses) - _NAMED} more" if len(addresses) > _NAMED else ""
        about = ", ".join(addresses[:_NAMED]) + more
        reason = (
            "advertises the Device UUID of a node of ours that was not shown to have restarted: "
            "BlueZ repeats what it was before, or another device pretends to be it; the node is "
            "kept"
        )
        log.warning("namesakes_on_the_air", about=about, reason=reason)
        self._audiences.event("warning", {"about": about, "reason": reason}, None)

    async def run_begins(self, heard: Iterable[HeardBoard], run_id: str) -> None:
        """Take the boards that a run takes on, and keep who they are; again when there are more.

        What it made of them meanwhile is nothing that could return: the nodes from before count.
        """
        self._heard = list(heard)
        if self._look is None or self._run_id != run_id:
            self._look = await asyncio.to_thread(_Look, self._store, self._audiences)
            self._run_id = run_id
        uuids = [b.uuid for b in self._heard if not self._look.is_of_nameless(b.uuid, run_id)]
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
        await look.take(look.find(sure), run.run_id)
        await asyncio.to_thread(self._keep_boards, run, nodes, sure)
        self._forgotten |= look.forgotten

    def _keep_boards(self, run: Run, nodes: Iterable[Node], sure: Collection[bytes]) -> None:
        """Keep which boards the run has made nodes, as far as it shows.

        Anybody can advertise any Device UUID, so nothing else is kept of what was heard. Where
        others provisioned some it may be any board but those that are told to be left.
        """
        heard = {board.uuid for board in self._heard}
        left = heard
        if any(node.run_id == run.run_id and node.device_uuid is None for node in nodes):
            left = {b.device_uuid for b in run.missing if b.address is None and b.device_uuid}
        self._store.save_boards(run.run_id, heard.intersection(sure))
        self._store.drop_boards(run.run_id, left.difference(sure))

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

    def is_of_nameless(self, uuid: bytes, run_id: str) -> bool:
        """Whether the board may be a node of another run whose address is not known.

        Then it stays that run's until it is shown to be another one's.
        """
        taken_by = self._boards.get(uuid)
        return taken_by != run_id and any(
            node.run_id == taken_by and node.device_uuid is None for node in self._nodes
        )

    def find(
        self, on_air: Mapping[bytes, Collection[str]], alive: Collection[int] = ()
    ) -> Returned:
        """Return what the boards on the air tell, but for nodes that are `alive`."""
        return find_returned(on_air, self._nodes, self._boards, alive)

    def proven(
        self,
        on_air: Mapping[bytes, Collection[str]],
        unprovisioned: Collection[str],
        silent: Collection[int],
    ) -> dict[bytes, set[str]]:
        """Return of `on_air` what showed to be unprovisioned, or may be a node that is `silent`."""
        asked = {node.device_uuid for node in self._nodes if node.address in silent}
        runs = {n.run_id for n in self._nodes if n.address in silent and n.device_uuid is None}
        asked |= {uuid for uuid, run_id in self._boards.items() if run_id in runs}
        proven = {
            uuid: {a for a in addresses if uuid in asked or a in unprovisioned}
            for uuid, addresses in on_air.items()
        }
        return {uuid: addresses for uuid, addresses in proven.items() if addresses}

    async def forget_superseded(self) -> None:
        """Forget nodes whose boards are nodes of a newer run; a kill may have come before that."""
        runs = await asyncio.to_thread(self._store.runs)
        order = {run.run_id: -number for number, run in enumerate(runs)}
        old = superseded(self._nodes, order)
        if old:
            await self._forget(old)
            gone = {node.address for node in old}
            self._nodes = [node for node in self._nodes if node.address not in gone]

    async def take(self, found: Returned, run_id: str | None = None) -> None:
        """Forget the nodes whose boards returned, and tell so."""
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
    on_air: dict[bytes, set[str]] = {}
    for board in heard:
        if board.last_seen_s - board.first_seen_s >= _ON_AIR_S:
            on_air.setdefault(board.uuid, set()).add(board.device_address)
    return on_air


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
