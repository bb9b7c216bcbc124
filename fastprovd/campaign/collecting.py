"""Learning every address and proving every node, over the proxies of the Primaries.

Nothing here may kill the board it asks: a NODE_ADDR_STATUS beyond 50 addresses, or the answers to
a group Get, exhaust the buffers of a board with the NimBLE host. So the list is read only while it
is safely short, and all else is asked by unicast.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, suppress
from types import MappingProxyType
from typing import Any, Final

import structlog

from fastprovd.campaign.calm import SHORTEST_S, Calm
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.control import get_node_list
from fastprovd.campaign.identifying import Identifying
from fastprovd.campaign.ladder import Rung, Symptom
from fastprovd.campaign.node_identity import end_node_identity
from fastprovd.campaign.node_times import ANY_TIME, NodeTimes, last_of
from fastprovd.campaign.planner import SAFE_LIST_ENTRIES, Plan
from fastprovd.campaign.primaries import Primaries
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.campaign.roll_call import RollCall
from fastprovd.campaign.search import AddressSearch
from fastprovd.campaign.states import WAITS, Trigger
from fastprovd.campaign.tasks import background
from fastprovd.errors import BearerError, ConnectionLost, ResponseTimeout
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.beacons import Advertisement
from fastprovd.mesh.events import PduOverheard
from fastprovd.mesh.proxy import FilterType, SetFilterType
from fastprovd.records import ParentSource, StepKind

log = structlog.get_logger()

# Scans as long as no other Primary is heard.
_WATCH_S: Final = 3600.0
# Addresses that are named in a sentence; a list has up to 120.
_ADDRESSES_NAMED: Final = 5


class Collecting:
    """What is known of the network below the Primaries; survives the loss of links."""

    def __init__(self, context: RunContext, primaries: Primaries) -> None:
        self._context = context
        self._primaries = primaries
        self._settings = context.settings
        self._log = context.log
        self._picture = context.picture
        self._watch = context.watch
        self._bearer = context.bearer
        self._top = context.top
        self._app_key = context.app_key
        self._net_key_index = context.net_key.index
        self._clock = context.clock
        self._searches = [AddressSearch(plan.share) for plan in primaries.plans]
        self._sessions: dict[int, ProxySession] = {}
        self._overheard: asyncio.Queue[PduOverheard] = asyncio.Queue(maxsize=1000)
        self._is_overheard = asyncio.Event()
        self._is_settled_down = False
        self._times = NodeTimes()
        self._read_s: dict[int, float] = {}
        self._strange: set[int] = set()
        self._last_news = self._clock.monotonic()
        self._calm = Calm(self._clock)
        self._identifying = Identifying(
            context,
            is_anybody_unplaced=self._is_anybody_unplaced,
            learn=self._learn_heard,
            may_be_ours=self._may_be_ours,
            answered=self._answered,
        )

    @property
    def sessions(self) -> Mapping[int, ProxySession]:
        """The Primaries whose proxies we are connected to, by address."""
        return MappingProxyType(self._sessions)

    @property
    def forgotten(self) -> frozenset[int]:
        """The addresses of Primaries that restarted."""
        return frozenset(self._primaries.forgotten)

    async def over_link(
        self,
        device_address: str,
        primary: int | None,
        then: Callable[[ProxySession], Awaitable[None]],
    ) -> None:
        """Collect until nothing changes, ask everybody, and go on over the same link with `then`.

        It is the proxy of `primary`, or of a node that is none; the other Primaries are linked as
        soon as they are heard.

        Raises:
            BearerError: the link could not be opened, or went away; call again.
        """
        self._sessions.clear()
        self._is_settled_down = False
        async with AsyncExitStack() as links:
            session = await self._open(device_address, links)
            await self._log.step(
                StepKind.PROXY_LINK, address=primary, device_address=device_address
            )
            if primary is None:
                await self._identifying.place(session, device_address)
            else:
                await self._take_up(primary, session)
            async with background(self._look_for_others(links), "watch"):
                self._last_news = self._clock.monotonic()
                self._calm.begin()
                await self._log.move(Trigger.PROXY_BACK)
                await self._settle(session)
                await self._end_overhearing(session)
                await self._log.move(Trigger.SETTLED, t_provisioned_s=self._t_provisioned())
                await self._log.step(StepKind.PROVING)
                if primary is None:
                    self._log.recovery(Symptom.PRIMARY_SILENT, Rung.ROLL_CALL)
                await self._roll_call(session).prove(self._unproven())
            await self._identify(self._bearer.links.now - max(1, len(self._sessions)))
            async with background(self._look_for_others(links), "watch"):
                await self.prove(session)
                # What the air tells of the last boards comes after their addresses.
                await self._log.change(t_provisioned_s=self._t_provisioned())
                await then(session)

    async def _open(self, device_address: str, links: AsyncExitStack) -> ProxySession:
        """Open a link that overhears; once all is settled the first one that does is enough."""
        overhears = not self._is_settled_down
        link = await links.enter_async_context(self._bearer.proxy_link(device_address))
        session = await links.enter_async_context(
            proxy_session(link, self._top, self._clock, overhears=overhears)
        )
        if overhears:
            session.overheard = self._overhear
        return session

    async def _end_overhearing(self, first: ProxySession) -> None:
        """Have the other proxies send our answers over their links only, not through the mesh."""
        self._is_settled_down = True
        for session in self._sessions.values():
            if session is not first:
                session.overheard = None
                with suppress(ConnectionLost):
                    await session.configure(SetFilterType(FilterType.ACCEPT_LIST))

    async def _look_for_others(self, links: AsyncExitStack) -> None:
        """Keep the picture of the air, and link to the other Primaries when they are heard."""
        while True:
            found = await self._watch.until(self._is_other_primary, _WATCH_S)
            address = None if found is None else self._primaries.advertised(found)
            if found is None or address is None:
                continue
            try:
                session = await self._open(found.device_address, links)
                await self._take_up(address, session)
            except BearerError as error:
                log.info("primary_link_failed", reason=str(error))
                await self._watch.listen(WAITS["poll"].seconds)

    async def _take_up(self, primary: int, session: ProxySession) -> None:
        """Go on over a link to a Primary; raises ConnectionLost."""
        session.expected = primary
        await self._end_identity(primary, session)
        await self._primaries.confirm_start(primary, session)
        self._sessions[primary] = session

    def _is_other_primary(self, heard: Advertisement) -> bool:
        address = self._primaries.advertised(heard)
        return address is not None and address not in self._sessions

    async def _end_identity(self, primary: int, session: ProxySession) -> None:
        """Have a Primary advertise our Network ID, at once: nobody knows how old its minute is."""
        dev_key = self._top.stack.dev_keys.get(primary)
        if dev_key is None:
            return
        try:
            await end_node_identity(session, primary, dev_key, self._net_key_index)
        except ResponseTimeout as error:
            self._log.event("warning", about=format_address(primary), reason=str(error))

    async def identify_silent(self) -> float:
        """Place the proxies that nobody can name; returns since when reports can be trusted."""
        begun = self._clock.monotonic()
        await self._identify(self._bearer.links.now)
        return begun

    async def _identify(self, links: int) -> None:
        if links > 0 and self._is_anybody_unplaced():
            self._log.recovery(self._symptom(), Rung.IDENTIFY_PROXIES)
            await self._identifying.identify(links)

    def _symptom(self) -> Symptom:
        return Symptom.ADDRESSES_MISSING if self.unaccounted() else Symptom.NODES_SILENT

    def _is_anybody_unplaced(self) -> bool:
        """Whether a proxy could be a silent node, or one whose address nobody told."""
        silent = (node for node in self._log.nodes.values() if not node.proven)
        return self.unaccounted() > 0 or any(node.device_address is None for node in silent)

    async def lose(self, primary: int) -> None:
        """Take note that the link to a Primary is gone; it is not proven until it answers again."""
        del self._sessions[primary]
        await self._log.doubt(primary)

    # Collecting

    def unaccounted(self) -> int:
        """Return for how many of the boards that we know of there is no address."""
        known = len(self._log.nodes.keys() - self._primaries.forgotten)
        return max(0, self._context.with_strangers - known)

    def _list_is_safe(self, plan: Plan) -> bool:
        """Whether the list is short however many boards are in it that we do not know of."""
        free = self._picture.unprovisioned(self._clock.monotonic(), WAITS["board_quiet"].seconds)
        known = sum(plan.share.first <= address <= plan.share.last for address in self._log.nodes)
        could_be_listed = known + max(0, self.unaccounted() - len(free))
        return could_be_listed <= SAFE_LIST_ENTRIES

    def _can_be_read(self, plan: Plan) -> bool:
        return plan.primary in self._sessions and self._list_is_safe(plan)

    async def _settle(self, session: ProxySession) -> None:
        is_told = False
        while self.unaccounted():
            await self.look(session)
            if not is_told and self.unaccounted() and self._is_without_news():
                is_told = True
                if any(map(self._can_be_read, self._primaries.plans)):
                    self._log.recovery(Symptom.ADDRESSES_MISSING, Rung.POLL_AGAIN)
            if not self.unaccounted() or self._is_settled():
                return
            await self._overhear_for(session, WAITS["poll"].seconds)

    async def look(self, session: ProxySession) -> bool:
        """Read each list if that is safe, and take what was overheard; return whether it was news.

        Raises:
            ConnectionLost: the link went away.
        """
        before = len(self._log.nodes)
        for plan in self._primaries.plans:
            if not self._can_be_read(plan):
                continue
            try:
                await self._read_list(self._sessions[plan.primary], plan.primary)
            except ConnectionLost as error:
                log.info("primary_link_lost", reason=str(error))
                await self.lose(plan.primary)
        session.check()
        await self._take_overheard()
        return len(self._log.nodes) > before

    async def _read_list(self, way: ProxySession, primary: int) -> None:
        try:
            # One attempt: the next poll is the next attempt.
            listed = await get_node_list(way, self._app_key, primary, attempts=1)
        except ResponseTimeout as error:
            log.info("list_unanswered", reason=str(error))
            await way.check_proxy()
        else:
            await self._take_list(primary, listed)

    def _is_without_news(self) -> bool:
        return self._clock.monotonic() - self._last_news >= self._settings.settle_s

    def _is_settled(self) -> bool:
        if not self._is_without_news():
            return False
        now = self._clock.monotonic()
        quiet_s = now - self._last_news
        free = self._picture.unprovisioned(now, WAITS["board_gone"].seconds)
        # Queues that are full of old copies run empty by themselves, and then boards are taken
        # again; what we ask meanwhile fills them for good (observed.md §19).
        is_calm = self._calm.quiet_s >= WAITS["calm"].seconds
        return not free or (is_calm and quiet_s >= WAITS["list_stuck"].seconds)

    async def _take_list(self, primary: int, addresses: tuple[int, ...]) -> None:
        now = self._clock.monotonic()
        if not self._log.nodes.keys() >= set(addresses):
            await self._log.step(StepKind.LIST_READ, detail=f"{len(addresses)} addresses")
        strange = [address for address in addresses if not self._may_be_ours(address)]
        if strange:
            self._warn_of(primary, strange)
        for address in addresses:
            if address in strange:
                continue
            if address not in self._log.nodes:
                since_s = self._read_s.get(primary, -math.inf)
                self._times.listed(address, since_s, now, is_own=self._is_child(address))
            await self._learn(address, listed=True)
        self._read_s[primary] = now
        self._log.publish_nodes()

    async def _overhear_for(self, session: ProxySession, seconds: float) -> None:
        """Wait, and take at once what is overheard; raises ConnectionLost."""
        end = self._clock.monotonic() + seconds
        while self.unaccounted() and (left_s := end - self._clock.monotonic()) > SHORTEST_S:
            await self._take_overheard()
            self._is_overheard.clear()
            ends = [asyncio.ensure_future(e.wait()) for e in (self._is_overheard, session.lost)]
            try:
                await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in ends:
                    waiting.cancel()
            session.check()

    def _overhear(self, event: PduOverheard) -> None:
        self._is_overheard.set()
        self._calm.heard(event)
        if event.device_key:
            self._times.answered(event.src, self._clock.monotonic())
        if not self._overheard.full():
            self._overheard.put_nowait(event)

    async def _take_overheard(self) -> None:
        shares = [plan.share for plan in self._primaries.plans]
        while not self._overheard.empty():
            event = self._overheard.get_nowait()
            if not any(share.first <= event.src <= share.last for share in shares):
                continue
            if event.device_key and event.src not in self._log.nodes:
                # A child answers the AppKey Add of its provisioner.
                await self._learn(event.src, listed=True)
                await self._log.observed_parent(event.src, event.dst)

    async def _learn(self, address: int, *, listed: bool) -> None:
        if address not in self._log.nodes:
            self._last_news = self._clock.monotonic()
            self._times.exists(address, self._last_news)
            for search in self._searches:
                search.found(address)
            await self._log.change(t_known_s=self._log.since(self._last_news))
        changes: dict[str, Any] = {"listed": True} if listed else {}
        known = self._log.nodes.get(address)
        if known is None or not known.provisioned_by:
            for plan in self._primaries.plans:
                if address in plan.share.children:
                    changes["provisioned_by"] = plan.primary
                    changes["parent_source"] = ParentSource.INFERRED
        await self._log.node(address, **changes)

    def _may_be_ours(self, address: int) -> bool:
        """Whether this run can have given the address to a board."""
        return address in self._log.nodes or any(
            plan.share.first <= address <= plan.share.last for plan in self._primaries.plans
        )

    def _warn_of(self, teller: int, addresses: Collection[int]) -> None:
        """Say, once of each, that addresses were told which we gave to nobody."""
        new = sorted(set(addresses) - self._strange)
        if not new:
            return
        self._strange.update(new)
        named = ", ".join(format_address(address) for address in new[:_ADDRESSES_NAMED])
        more = f" and {len(new) - _ADDRESSES_NAMED} more" if len(new) > _ADDRESSES_NAMED else ""
        reason = (
            f"it tells of {named}{more}, which this run gave to nobody: not counted and not asked"
        )
        self._log.event("warning", about=format_address(teller), reason=reason)

    def _is_child(self, address: int) -> bool:
        """Whether a Primary itself provisioned it, by the address."""
        return any(address in plan.share.children for plan in self._primaries.plans)

    def _t_provisioned(self) -> float | None:
        """Return when the last board became a node, if that is known; asked once all is quiet.

        Boards that are free yet do not count.
        """
        picture, now = self._picture, self._clock.monotonic()
        free = picture.unprovisioned(now, WAITS["board_gone"].seconds)
        free = sorted(free, key=lambda board: -board.last_seen_s)[: self.unaccounted()]
        others = {node.board.uuid for node in self._primaries.nodes.values()}
        others.update(board.uuid for board in free)
        left = [board for board in picture.boards.values() if board.uuid not in others]
        on_air = [picture.became_node(board) for board in left]
        if (self._settings.expected or 0) > len(picture.boards):
            on_air.append(ANY_TIME)
        last_s = self._times.last_s(last_of(on_air))
        return None if last_s is None else self._log.since(last_s)

    # Proving

    async def prove(self, session: ProxySession) -> None:
        """Ask who is not proven, and look for those that nobody listed; raises ConnectionLost."""
        roll_call = self._roll_call(session)
        await roll_call.prove(self._unproven())
        if self.unaccounted() or self._boards_of_silent_primaries():
            begun = self._clock.monotonic()

            def is_enough() -> bool:
                if self.unaccounted():
                    return False
                is_over = self._clock.monotonic() > begun + WAITS["another_address"].seconds
                return is_over or not self._boards_of_silent_primaries()

            self._log.recovery(self._symptom(), Rung.ROLL_CALL)
            for search in self._searches:
                await roll_call.search(search, is_enough)
            await self._take_overheard()
            await roll_call.prove(self._unproven())

    def _boards_of_silent_primaries(self) -> int:
        """Return how many boards may have another address: Primaries that do not answer."""
        silent = {a for a in self._primaries.nodes if not self._log.nodes[a].proven}
        known = len(self._log.nodes.keys() - self._primaries.forgotten - silent)
        return max(0, self._context.with_strangers - known)

    async def ask_unlinked(self, session: ProxySession) -> None:
        """Ask the Primaries that we have no link to, whether they are there; raises ConnectionLost.

        Nobody heard of them since they were proven.
        """
        for primary in self._primaries.nodes.keys() - self._sessions.keys():
            await self._log.doubt(primary)
        await self.ask_doubted(session)

    async def ask_doubted(self, session: ProxySession) -> bool:
        """Ask once more who fell silent; return whether somebody answers; raises ConnectionLost."""
        doubted = self._log.fell_silent
        if doubted:
            await self._roll_call(session).prove(doubted)
        return any(self._log.nodes[address].proven for address in doubted)

    def _roll_call(self, session: ProxySession) -> RollCall:
        return RollCall(
            session,
            self._app_key,
            self._clock,
            answered=self._answered,
            calm=lambda: self._be_calm(session),
            ask_again=lambda: self._log.recovery(Symptom.NODES_SILENT, Rung.ROLL_CALL),
        )

    async def _be_calm(self, session: ProxySession) -> None:
        await session.check_proxy()
        await self._calm.wait(session)

    def _unproven(self) -> list[int]:
        # Who fell silent is asked once more in the end.
        left_out = self._identifying.keyless | self._log.fell_silent
        return [a for a, node in self._log.nodes.items() if not node.proven and a not in left_out]

    async def _learn_heard(self, address: int) -> None:
        if address not in self._log.nodes:
            await self._learn(address, listed=False)

    async def _answered(self, address: int, onoff: bool) -> None:
        await self._learn_heard(address)
        await self._log.node(address, proven=True, onoff=onoff)
