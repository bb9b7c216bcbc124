"""Learning every address and proving every node, over the Primary Provisioner's proxy.

Nothing here may kill the board it asks: a NODE_ADDR_STATUS beyond 50 addresses, or the answers to
a group Get, exhaust the buffers of a board with the NimBLE host. So the list is read only while it
is safely short, and all else is asked by unicast.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from fastprovd.campaign.calm import Calm, pause
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.control import get_node_list
from fastprovd.campaign.planner import SAFE_LIST_ENTRIES, Plan
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.campaign.roll_call import RollCall
from fastprovd.campaign.search import AddressSearch
from fastprovd.campaign.states import WAITS, Trigger
from fastprovd.campaign.tasks import background
from fastprovd.campaign.verdict import target
from fastprovd.errors import BearerError, ResponseTimeout
from fastprovd.mesh.addresses import is_unicast
from fastprovd.mesh.events import PduOverheard
from fastprovd.records import ParentSource

log = structlog.get_logger()


class Collecting:
    """What is known of the network below one Primary; survives the loss of its link.

    `confirm` sees to it that the Primary was started, over each new link to it.
    """

    def __init__(
        self,
        context: RunContext,
        plan: Plan,
        confirm: Callable[[ProxySession], Awaitable[None]],
    ) -> None:
        self._plan = plan
        self._confirm = confirm
        self._settings = context.settings
        self._log = context.log
        self._picture = context.picture
        self._watch = context.watch
        self._strangers = context.strangers
        self._bearer = context.bearer
        self._top = context.top
        self._app_key = context.app_key
        self._clock = context.clock
        self._search = AddressSearch(plan.share)
        self._overheard: asyncio.Queue[PduOverheard] = asyncio.Queue(maxsize=1000)
        self._last_news = self._clock.monotonic()
        self._calm = Calm(self._clock)

    async def over_link(
        self, device_address: str, then: Callable[[ProxySession], Awaitable[None]]
    ) -> None:
        """Collect until nothing changes, ask everybody, and go on over the same link with `then`.

        Raises:
            BearerError: the link could not be opened, or went away; call again.
        """
        async with (
            self._bearer.proxy_link(device_address) as link,
            proxy_session(link, self._top, self._clock) as session,
            background(self._watch.run(), "watch"),
        ):
            session.overheard = self._overhear
            self._last_news = self._clock.monotonic()
            self._calm.heard()
            await self._log.move(Trigger.PRIMARY_BACK)
            await self._confirm(session)
            await self._settle(session)
            await self._log.move(Trigger.SETTLED, t_provisioned_s=self._t_provisioned())
            await self.prove(session)
            await then(session)

    async def identify_silent(self) -> float:
        """Ask proxies that nobody can place for their address, once the nodes are quiet.

        A board that was left without AppKey keeps its proxy on the air, and answers a filter
        message, which is under the NetKey. Returns since when reports can be trusted.
        """
        begun = self._clock.monotonic()
        if self._is_short():
            await self._watch.listen(WAITS["quiet_air"].seconds)
            await self._identify_all(begun)
        return begun

    async def _identify_all(self, begun: float) -> None:
        placed = {node.device_address for node in self._log.nodes.values()}
        for device_address in self._picture.proxies_since(begun):
            if device_address in placed or not self._is_short():
                continue
            if self._clock.monotonic() - begun > WAITS["identify"].seconds:
                log.warning("proxies_left_unidentified", reason=WAITS["identify"].reason)
                return
            try:
                await self._identify(device_address)
            except (BearerError, TimeoutError) as error:
                log.info("proxy_not_identified", address=device_address, reason=str(error))

    # Collecting

    def _is_short(self) -> bool:
        proven = sum(node.proven for node in self._log.nodes.values())
        return proven < max(self._target(), len(self._log.nodes))

    def _target(self) -> int:
        ours = target(self._settings.expected, len(self._picture.boards))
        return ours + len(self._strangers.taken())

    def unaccounted(self) -> int:
        """Return for how many of the boards that we know of there is no address."""
        return max(0, self._target() - len(self._log.nodes))

    def _list_is_safe(self) -> bool:
        """Whether the list is short however many boards are in it that we do not know of."""
        free = self._picture.unprovisioned(self._clock.monotonic(), WAITS["board_quiet"].seconds)
        could_be_listed = max(self._target() - len(free), len(self._log.nodes))
        return could_be_listed <= SAFE_LIST_ENTRIES

    async def _settle(self, session: ProxySession) -> None:
        while self.unaccounted():
            await self.look(session)
            if not self.unaccounted() or self._is_settled():
                return
            await pause(session, WAITS["poll"].seconds)

    async def look(self, session: ProxySession) -> bool:
        """Read the list if that is safe, and take what was overheard; return whether it was news.

        Raises:
            ConnectionLost: the link went away.
        """
        before = len(self._log.nodes)
        if self._list_is_safe():
            try:
                # One attempt: the next poll is the next attempt.
                listed = await get_node_list(session, self._app_key, self._plan.primary, attempts=1)
            except ResponseTimeout as error:
                log.info("list_unanswered", reason=str(error))
            else:
                await self._take_list(listed)
        await self._take_overheard()
        return len(self._log.nodes) > before

    def _is_settled(self) -> bool:
        now = self._clock.monotonic()
        quiet_s = now - self._last_news
        if quiet_s < self._settings.settle_s:
            return False
        free = self._picture.unprovisioned(now, WAITS["board_gone"].seconds)
        return not free or quiet_s >= WAITS["list_stuck"].seconds

    async def _take_list(self, addresses: tuple[int, ...]) -> None:
        for address in addresses:
            if not is_unicast(address):
                log.warning("list_entry_ignored", address=address)
                continue
            await self._learn(address, listed=True)
        self._log.publish_nodes()

    def _overhear(self, event: PduOverheard) -> None:
        self._calm.heard()
        if not self._overheard.full():
            self._overheard.put_nowait(event)

    async def _take_overheard(self) -> None:
        share = self._plan.share
        while not self._overheard.empty():
            event = self._overheard.get_nowait()
            if not share.first <= event.src <= share.last:
                continue
            if event.device_key and event.src not in self._log.nodes:
                # A child answers the AppKey Add of its provisioner.
                await self._learn(event.src, listed=True)
                await self._log.observed_parent(event.src, event.dst)

    async def _learn(self, address: int, *, listed: bool) -> None:
        if address not in self._log.nodes:
            self._last_news = self._clock.monotonic()
            self._search.found(address)
            await self._log.change(t_known_s=self._log.since(self._last_news))
        changes: dict[str, object] = {"listed": True} if listed else {}
        known = self._log.nodes.get(address)
        if address in self._plan.share.children and (known is None or not known.provisioned_by):
            changes |= {
                "provisioned_by": self._plan.primary,
                "parent_source": ParentSource.INFERRED,
            }
        await self._log.node(address, **changes)

    def _t_provisioned(self) -> float | None:
        """When the last board left 0x1827; asked once all is quiet, later reports may be stale."""
        primary = self._log.nodes[self._plan.primary].device_uuid
        last = [b.last_seen_s for b in self._picture.boards.values() if b.uuid != primary]
        seen = self._log.since(max(last)) if last else 0.0
        known = self._log.run.t_known_s
        return seen if seen is None or known is None or self.unaccounted() else min(seen, known)

    # Proving

    async def prove(self, session: ProxySession) -> None:
        roll_call = self._roll_call(session)
        await roll_call.prove(self._unproven())
        if self.unaccounted():
            await roll_call.search(self._search, lambda: not self.unaccounted())
            await self._take_overheard()
            await roll_call.prove(self._unproven())

    def _roll_call(self, session: ProxySession) -> RollCall:
        return RollCall(
            session,
            self._app_key,
            self._clock,
            answered=self._answered,
            calm=lambda: self._calm.wait(session),
        )

    def _unproven(self) -> list[int]:
        return [node.address for node in self._log.nodes.values() if not node.proven]

    async def _answered(self, address: int, onoff: bool) -> None:
        if address not in self._log.nodes:
            await self._learn(address, listed=False)
        await self._log.node(address, proven=True, onoff=onoff)
        await self._log.change(t_proven_s=self._log.since_info_set)

    async def _identify(self, device_address: str) -> None:
        board = self._picture.board_at(device_address)
        async with (
            self._bearer.proxy_link(device_address) as link,
            proxy_session(link, self._top, self._clock) as session,
        ):
            async with asyncio.timeout(WAITS["configuration"].seconds):
                address = await session.server_address
            if address not in self._log.nodes:
                await self._learn(address, listed=False)
            await self._log.node(
                address,
                device_address=device_address,
                device_uuid=None if board is None else board.uuid,
            )
            await self._roll_call(session).prove([address])
