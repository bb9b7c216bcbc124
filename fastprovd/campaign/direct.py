"""Provisioning every board ourselves, some at a time: PB-GATT, keys, group, proof, hang-up.

It needs every board in our own reach. In return no provisioner is ever started: nobody takes
strangers in, no AppKey gets lost between boards, and we know every DevKey.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from fastprovd.campaign.air_picture import MAX_BOARDS, HeardBoard, quietest_first
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.node_identity import end_node_identity
from fastprovd.campaign.planner import EDGE_PROXIES
from fastprovd.campaign.ports import Link
from fastprovd.campaign.primary import Outcome, add_app_key, provision
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.campaign.reservations import Reservations
from fastprovd.campaign.resumption import Offer
from fastprovd.campaign.states import WAITS, RunEnd
from fastprovd.campaign.tasks import background, keep_busy
from fastprovd.errors import (
    AccessError,
    BearerError,
    ConnectionLost,
    LocalProtocolError,
    OtherService,
)
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.beacons import Advertisement
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.models.configuration_states import GattProxySet
from fastprovd.mesh.models.fast_provisioning import InfoSet
from fastprovd.mesh.models.generic_onoff import OnOffGet
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.records import StepKind

log = structlog.get_logger()

# BlueZ forgets a board 30 s after its last advertisement, and a connection takes some seconds.
_KNOWN_S: Final = 15.0
# Early enough to be heard again before that.
_OLD_S: Final = 8.0
# Sessions with each board before it counts as one that can not be provisioned.
_SESSIONS_EACH: Final = 3
# Proxies that stay on the air: a few for a small network, then one for so many nodes.
_FIRST_PROXIES: Final = 3
_NODES_PER_PROXY: Final = 12
# Addresses that are taken at once; what is left of the last block comes back with the run's end.
_BLOCK: Final = 16


@dataclass(slots=True)
class _Task:
    """A board to provision, and what came of it; `address` is what it has, or may have.

    Its proxy stays on the air if it `stays`.
    """

    board: HeardBoard
    stays: bool
    sessions: int = 0
    address: int | None = None
    is_node: bool = False
    linked_s: float = -math.inf
    reason: str = ""

    @property
    def seen_s(self) -> float:
        """When BlueZ was last seen to know the board."""
        return max(self.board.last_seen_s, self.linked_s)


class Direct:
    """Provisions boards; `failed` has the UUIDs of those that are no nodes, and why.

    `proxies` are the nodes whose proxy stays on the air, with their boards.
    """

    def __init__(self, context: RunContext) -> None:
        self._settings = context.settings
        self._log = context.log
        self._picture = context.picture
        self._watch = context.watch
        self._bearer = context.bearer
        self._clock = context.clock
        self._entropy = context.entropy
        self._top = context.top
        self._app_key = context.app_key
        self._net_key = context.net_key
        self._reservations = Reservations(context)
        self._addresses: deque[int] = deque()
        self._tasks: deque[_Task] = deque()
        self._changed = asyncio.Event()
        self._count = 0
        self._taking = asyncio.Lock()
        self.failed: dict[bytes, str] = {}
        self.proxies: list[tuple[int, HeardBoard]] = []

    async def reserve(self, boards: int) -> None:
        """See that there is room for so many boards, and take the first addresses of it.

        The others are taken as sessions get to need them: who only advertises costs none.

        Raises:
            RunEnd: there is no room.
        """
        lacking = boards - len(self._addresses)
        if lacking > 0:
            await self._reservations.check_room(lacking)
            await self._take_block(lacking)

    async def _take_block(self, lacking: int) -> None:
        async with self._taking:
            if not self._addresses:
                block = await self._reservations.direct(min(lacking, _BLOCK))
                self._addresses.extend(block)

    async def try_reserve(self, boards: int) -> bool:
        """The same for boards that the run can do without; returns whether there are addresses."""
        return await self._try(self.reserve(boards))

    async def _try(self, reserving: Awaitable[None]) -> bool:
        try:
            await reserving
        except RunEnd as end:
            self._log.event("warning", about="unicast addresses", reason=end.reason)
            return False
        return True

    async def provision(self, boards: Iterable[HeardBoard]) -> None:
        """Provision these boards, loudest first, and those that are added meanwhile.

        `reserve` addresses for them before.
        """
        boards = sorted(boards, key=lambda board: board.rank, reverse=True)
        edge = quietest_first(boards)[: EDGE_PROXIES if self._is_any_unheard() else 0]
        for board in boards:
            self._add(board, stays=board in edge)
        while self._tasks:
            # Beside the links the boards that wait are heard again, so that BlueZ knows them.
            async with background(self._watch.run(self._is_to_listen), "watch"):
                await keep_busy(self._next_job, lambda: self._bearer.links.now, self._changed)
            await self._hear_again()

    def add(self, board: HeardBoard) -> None:
        """Provision one more board, while `provision` is at it."""
        if len(self._tasks) >= MAX_BOARDS:
            fleeting = (t for t in self._tasks if t.sessions == 0 and t.board.reports == 1)
            oldest = next(fleeting, None)
            if oldest is None:
                return
            self._tasks.remove(oldest)
        self._add(board, stays=False)
        self._changed.set()

    def _add(self, board: HeardBoard, *, stays: bool) -> None:
        rank = self._count
        self._count += 1
        stays = stays or rank < _FIRST_PROXIES or rank % _NODES_PER_PROXY == 0
        self._tasks.append(_Task(board, stays))

    def go_on(self, offers: Iterable[Offer], unoffered: Iterable[int]) -> None:
        """Take over from an earlier process the addresses that it reserved and did not offer.

        The boards that it offered others to are finished with the next `provision`.
        """
        self._addresses.extend(unoffered)
        for offer in offers:
            task = _Task(offer.board, stays=True, address=offer.address)
            task.is_node = offer.address in self._log.nodes
            self._tasks.append(task)

    def _is_to_listen(self) -> bool:
        """Whether a board is yet to be heard, or BlueZ may soon have forgotten one that waits."""
        old_s = self._clock.monotonic() - _OLD_S
        return self._is_any_unheard() or any(task.seen_s < old_s for task in self._tasks)

    def _is_any_unheard(self) -> bool:
        return (self._settings.expected or 0) > len(self._picture.boards)

    async def _hear_again(self) -> None:
        """Listen until BlueZ knows all boards again that are left; who is not heard loses a try."""
        begun = self._clock.monotonic()
        left = {task.board.device_address: task for task in self._tasks}

        def is_last(heard: Advertisement) -> bool:
            task = left.pop(heard.device_address, None)
            if task is not None:
                task.linked_s = heard.seen_s
            return not left

        if left:
            # Fresh scans tell each board at once, unless another program keeps its own going.
            await self._watch.until(is_last, WAITS["board_gone"].seconds)
        for task in left.values():
            if task.seen_s < begun:
                task.sessions += 1
                task.reason = "the board is not on the air any more"
                self._keep(task)

    def _next_job(self) -> Coroutine[Any, Any, None] | None:
        task = self._next()
        if task is None:
            return None
        self._tasks.remove(task)
        return self._work(task)

    async def _work(self, task: _Task) -> None:
        task.sessions += 1
        task.reason = ""
        try:
            await (self._make(task) if task.address is None else self._finish(task))
        except OtherService as error:
            # It forgot what we made of it, or was never told: it waits to be provisioned.
            task.is_node = False
            task.address = None
            task.reason = str(error)
        except (AccessError, BearerError, LocalProtocolError) as error:
            task.reason = str(error)
        if task.reason:
            # As a node it has a minute to live; a board that is none waits behind the others.
            is_node = task.address is not None
            (self._tasks.appendleft if is_node else self._tasks.append)(task)
            self._keep(task)

    def _next(self) -> _Task | None:
        """Return a board that BlueZ knows; bleak would scan for any other, between connections."""
        oldest_s = self._clock.monotonic() - _KNOWN_S
        return next((task for task in self._tasks if task.seen_s > oldest_s), None)

    def _keep(self, task: _Task) -> None:
        """Tell what went wrong; the board stays on the list while it has a try left."""
        self._log.event("warning", about=task.board.device_address, reason=task.reason)
        if task.sessions >= _SESSIONS_EACH:
            self._tasks.remove(task)
            if not task.is_node:
                self.failed[task.board.uuid] = task.reason

    # One board

    async def _make(self, task: _Task) -> None:
        """Provision a board and, on the same link if that works, make it a useful node."""
        board = task.board
        async with self._bearer.provisioning_link(board.device_address) as link:
            self._linked(task)
            if not self._addresses:
                await self._try(self._take_block(len(self._tasks) + 1))
            if not self._addresses:
                raise LocalProtocolError("no unicast address is left in [mesh] unicast_min..max")
            address = self._addresses.popleft()
            outcome, task.reason = await provision(
                link,
                ProvisioningData(self._net_key, address, self._top.stack.iv_index),
                self._entropy,
                self._clock,
                lambda dev_key: self._top.keep_dev_key(
                    address, board.uuid, dev_key, self._log.offer(address, board)
                ),
            )
            if outcome is Outcome.NOTHING_SENT:
                self._addresses.append(address)
                return
            task.address = address
            if outcome is Outcome.COMPLETED:
                await self._note_node(task, address)
                async with self._bearer.kept_proxy_link(board.device_address) as proxy:
                    await self._equip(proxy, task, address)
                return
        # Complete may be lost on the way; a board that took its address offers the proxy now.
        await self._finish(task)

    async def _finish(self, task: _Task) -> None:
        """Make a node of ours a useful one, over a link of its own."""
        address = task.address
        if address is None:
            return
        async with self._bearer.proxy_link(task.board.device_address) as link:
            self._linked(task)
            await self._note_node(task, address)
            task.reason = ""
            await self._equip(link, task, address)

    def _linked(self, task: _Task) -> None:
        task.linked_s = self._clock.monotonic()
        self._changed.set()  # the adapter may bear more than was known

    async def _note_node(self, task: _Task, address: int) -> None:
        """Journal that the board is a node, if that is new, and that it is about to get its key."""
        if task.is_node:
            await self._log.step(StepKind.APP_KEY_ADD, address=address)
            return
        task.is_node = True
        board = task.board
        for node in list(self._log.nodes.values()):
            is_it = (node.device_uuid, node.device_address) == (board.uuid, board.device_address)
            if is_it and node.address != address:
                # What it answered before its restart was under an address that it forgot.
                await self._log.node(node.address, proven=False)
        self.failed.pop(board.uuid, None)
        ours = self._top.stack.address
        await self._log.made(address, board, ours, StepKind.PROVISIONED, StepKind.APP_KEY_ADD)

    async def _equip(self, link: Link, task: _Task, address: int) -> None:
        async with proxy_session(link, self._top, self._clock, overhears=False) as session:
            await self._configure(session, address, stays=task.stays)
        if task.stays:
            self.proxies.append((address, task.board))

    async def _configure(self, session: ProxySession, address: int, *, stays: bool) -> None:
        """Give AppKey and group, have it answer, and settle what it advertises from now on."""
        dev_key, limit_s = self._top.stack.dev_keys[address], WAITS["onoff"].seconds
        await add_app_key(session, address, dev_key, self._app_key)
        # Its answer says that an action is missing; the group is subscribed all the same.
        await session.request(
            InfoSet(group_addr=self._settings.group),
            dst=address,
            key=self._app_key,
            ttl=0,
            timeout_s=limit_s,
            attempts=3,
        )
        status = await session.request(
            OnOffGet(), dst=address, key=self._app_key, ttl=0, timeout_s=limit_s, attempts=3
        )
        await self._log.node(
            address, StepKind.CONFIGURED, proven=True, onoff=status.present, gatt_proxy=stays
        )
        # A board with the Bluedroid host dies when Node Identity ends by itself, so it must not
        # come to that whatever becomes of its proxy.
        await end_node_identity(session, address, dev_key, self._net_key.index)
        if not stays:
            await self._switch_proxy_off(session, address, dev_key)

    async def _switch_proxy_off(self, session: ProxySession, address: int, dev_key: DevKey) -> None:
        """Take the node off the air for connections; the link stays until we hang up."""
        try:
            await session.request(
                GattProxySet(0),
                dst=address,
                key=dev_key,
                ttl=0,
                timeout_s=WAITS["onoff"].seconds,
                attempts=3,
            )
        except ConnectionLost:
            # Up to ESP-IDF v4.0 the board hung up before it answered (read in its source); where
            # it did not get the message, its proxy stays, which does no harm.
            log.info("link_lost_with_proxy_off", addr=format_address(address))
