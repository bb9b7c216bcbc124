"""Lights and groups outside of a run: commands to many nodes, and what is known afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

import structlog

from fastprovd.audiences import Audiences
from fastprovd.campaign import control
from fastprovd.campaign.groups import GroupChange
from fastprovd.campaign.memberships import all_memberships, check_room, members
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.switching import Switching
from fastprovd.campaign.ways import ForwardsNothing, Proxies, Ways, is_with
from fastprovd.clock import Clock
from fastprovd.errors import (
    BearerError,
    ConnectionLost,
    MessagesDropped,
    NoRun,
    ResponseTimeout,
    UnknownNode,
)
from fastprovd.mesh.addresses import ALL_NODES, format_address, is_unicast
from fastprovd.mesh.keys import DevKey
from fastprovd.records import Membership, Network, Node, Switched
from fastprovd.store.state import StateStore

log = structlog.get_logger(__name__)

_TIDS: Final = 256
# Links that one command loses before it ends; some proxies in a row may be dying.
_MOST_LOSSES: Final = 6

OpenSession = Callable[..., AbstractAsyncContextManager[ProxySession]]
"""Open a session through a proxy of our network, as `control.network_session` with its options."""

WayIn = Callable[[], AbstractAsyncContextManager[OpenSession]]
"""Take the radio for one request; raises BearerError, RunInProgress."""


class Controls:
    """Switches nodes and moves them between groups, and keeps what they confirm.

    All but `groups` raise RunInProgress, UnknownNode, BearerError classes and ResponseTimeout.
    `check_free` raises RunInProgress; `dev_keys` is where the stack looks for a node's DevKey;
    `keep_heard` stores the replay list, which comes before all that a node's answer proves.
    """

    def __init__(
        self,
        store: StateStore,
        network: Network,
        audiences: Audiences,
        clock: Clock,
        *,
        way_in: WayIn,
        check_free: Callable[[], None],
        dev_keys: dict[int, DevKey],
        first_tid: int,
        keep_heard: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._network = network
        self._audiences = audiences
        self._clock = clock
        self._way_in = way_in
        self._proxies = Proxies(clock)
        self._check_free = check_free
        self._dev_keys = dev_keys
        self._last_tid = first_tid
        self._keep_heard = keep_heard
        # Commands are done in the order in which they came: a light is what was said last.
        self._turn = asyncio.Lock()

    async def get_onoff(self, address: int) -> Node:
        """Ask a node for its state, return what is known of it now."""
        self._check_free()
        async with self._turn:
            return await self._get_onoff(address)

    async def _get_onoff(self, address: int) -> Node:
        await self._known([address])
        key = self._network.app_key
        onoff = await self._of_node(
            address,
            lambda session, attempts: control.get_onoff(session, key, address, attempts=attempts),
        )
        return await self._answered(address, onoff)

    async def set_onoff(self, address: int, onoff: bool, *, confirm: bool = True) -> Switched:
        """Switch a node, a group, or with 0xFFFF all; who does not confirm is named.

        Many are told at once, and then asked one by one, which takes 0.2 s each; without
        `confirm` they are not. See `control.set_onoff` for what it does to boards that provision
        others. Raises UnknownGroup, NoRun too.
        """
        self._check_free()
        tid = self._next_tid()
        async with self._turn:
            return await self._set_onoff(address, onoff, tid, confirm=confirm)

    async def _set_onoff(self, address: int, onoff: bool, tid: int, *, confirm: bool) -> Switched:
        if is_unicast(address):
            return await self._set_node(address, onoff, tid)
        addressed = await self._addressed(address)
        switching = Switching(
            onoff,
            tid,
            dst=address,
            members=addressed if confirm else (),
            app_key=self._network.app_key,
            clock=self._clock,
            answered=self._answered,
        )
        await self._over_sessions(switching.run, switching.waiting)
        unconfirmed = switching.waiting if confirm else set(addressed)
        confirmed = set(addressed) - unconfirmed
        return Switched(address, onoff, tuple(sorted(confirmed)), tuple(sorted(unconfirmed)))

    async def groups(self) -> list[Membership]:
        """Return who is in which group; also the one that each run gave to its nodes."""
        nodes = await asyncio.to_thread(self._store.nodes)
        runs = await asyncio.to_thread(self._store.runs)
        changes = await asyncio.to_thread(self._store.memberships)
        return all_memberships(nodes, runs, changes)

    async def change_group(
        self, group: int, addresses: Collection[int], *, add: bool
    ) -> list[Membership]:
        """Add nodes to a group or remove them; return their memberships, proven or not.

        What is to be is stored before anything is sent. Raises GroupsFull too.
        """
        self._check_free()
        async with self._turn:
            return await self._change_group(group, addresses, add=add)

    async def _change_group(
        self, group: int, addresses: Collection[int], *, add: bool
    ) -> list[Membership]:
        nodes = await self._known(addresses)
        before = await self.groups()
        if add:
            check_room(before, group, addresses)
        changed = {address: Membership(group, address, add) for address in sorted(nodes)}
        change = GroupChange(
            group,
            addresses,
            add=add,
            others=[m.address for m in before if m.group == group and not m.is_over],
            answering=[address for address, node in nodes.items() if node.proven],
            dev_keys=await self._load_dev_keys(addresses),
            app_key=self._network.app_key,
            clock=self._clock,
            proven=lambda address, proof: keep(replace(changed[address], proof=proof)),
        )

        async def keep(*memberships: Membership) -> None:
            await self._keep_heard()
            await asyncio.to_thread(self._store.save_memberships, memberships)
            changed.update({membership.address: membership for membership in memberships})

        async def work(session: ProxySession, ways: Ways) -> None:
            await keep(*(changed[address] for address in sorted(change.waiting)))
            await change.run(session, ways)

        try:
            await self._over_sessions(work, change.waiting)
        finally:
            self._audiences.groups_changed(await self.groups())
        return list(changed.values())

    def _next_tid(self) -> int:
        """Return a TID for one command; it keeps it however long it waits for a link."""
        self._last_tid = (self._last_tid + 1) % _TIDS
        return self._last_tid

    async def _set_node(self, address: int, onoff: bool, tid: int) -> Switched:
        await self._known([address])
        key = self._network.app_key
        present = await self._of_node(
            address,
            lambda session, attempts: control.set_onoff(
                session, key, address, onoff, tid, attempts=attempts
            ),
        )
        await self._answered(address, present)
        who = (address,)
        return Switched(address, onoff, *((who, ()) if present is onoff else ((), who)))

    async def _of_node(
        self, address: int, ask: Callable[[ProxySession, int], Awaitable[bool]]
    ) -> bool:
        """Ask one node, with so many attempts, through one proxy after the other until it answers.

        Raises ResponseTimeout when it did through none of them, ConnectionLost when no link lasted.
        """
        ways = Ways(self._proxies)
        late_s = self._clock.monotonic() + control.CONTROL_WAITS["another_try"].seconds
        failed: ResponseTimeout | ConnectionLost | None = None
        async with self._way_in() as open_session:
            while True:
                session: ProxySession | None = None
                try:
                    async with open_session(ways=ways) as session:
                        enough = control.ATTEMPTS if ways.is_trusted else control.FEW_ATTEMPTS
                        answer = await ask(session, enough)
                        if not is_with(session, address):
                            ways.helped()
                        return answer
                except (ResponseTimeout, BearerError) as error:
                    if session is None:  # no other proxy helps
                        if failed is None:
                            raise
                        log.info("no_other_proxy", reason=str(error))
                        raise failed from error
                    if not isinstance(error, ResponseTimeout | ConnectionLost):
                        raise
                    is_lost = isinstance(error, ConnectionLost)
                    # That a node does not answer says more than that a link was lost.
                    failed = failed if is_lost and failed is not None else error
                    is_late = self._clock.monotonic() > late_s
                    is_node = not is_lost and is_with(session, address)
                    if ways.is_last or is_late or is_node:
                        raise failed from error
                    if is_lost:
                        ways.lost()
                    else:
                        ways.did_not_help(for_good=ways.is_trusted)
                    log.info("another_proxy_is_tried", silent=format_address(address))

    async def _over_sessions(
        self, work: Callable[[ProxySession, Ways], Awaitable[None]], waiting: Collection[int]
    ) -> None:
        """Give `work` a session, and others when its proxy forwards nothing or its link is lost.

        Whoever is left in `waiting` is the caller's to tell; only when nobody could be asked, the
        error is raised.
        """
        begun_with = len(waiting)
        ways = Ways(self._proxies)
        was_asked = False
        losses = 0
        try:
            async with self._way_in() as open_session:
                while True:
                    session: ProxySession | None = None
                    try:
                        async with open_session(ways=ways) as session:
                            await work(session, ways)
                        return
                    except ConnectionLost as error:
                        losses += 1
                        if session is None or ways.is_last or losses > _MOST_LOSSES:
                            raise
                        log.info("link_lost_on_the_way", reason=str(error))
                        if losses > 1:  # what happens twice is not the radio
                            ways.lost()
                    except ForwardsNothing:
                        was_asked = True
                        ways.did_not_help()
                        log.info("another_proxy_is_tried", silent=len(waiting))
        except (BearerError, MessagesDropped) as error:
            if len(waiting) == begun_with and not was_asked:
                raise
            log.warning("ended_early", left=len(waiting), reason=str(error))

    async def _known(self, addresses: Collection[int]) -> dict[int, Node]:
        nodes = {node.address: node for node in await asyncio.to_thread(self._store.nodes)}
        for address in addresses:
            if address not in nodes:
                raise UnknownNode(address)
        return {address: nodes[address] for address in addresses}

    async def _addressed(self, address: int) -> list[int]:
        if address != ALL_NODES:
            return members(await self.groups(), address)
        nodes = await asyncio.to_thread(self._store.nodes)
        if not nodes:
            raise NoRun("no run has made a node yet")
        return [node.address for node in nodes]

    async def _load_dev_keys(self, addresses: Collection[int]) -> dict[int, DevKey]:
        """Return the DevKeys that we have, and let the stack know them too."""
        found = {}
        for address in addresses:
            dev_key = await asyncio.to_thread(self._store.dev_key, address)
            if dev_key is not None:
                found[address] = self._dev_keys[address] = dev_key
        return found

    async def _answered(self, address: int, onoff: bool) -> Node:
        node = (await self._known([address]))[address]
        node = replace(node, proven=True, onoff=onoff, last_seen=self._clock.utc_now())
        await self._keep_heard()
        await asyncio.to_thread(self._store.save_nodes, [node])
        self._audiences.node_changed(node)
        return node
