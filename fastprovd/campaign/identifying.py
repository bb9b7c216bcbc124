"""Placing the proxies on the air that nobody can name: each is asked for its own address.

A board that was left without AppKey keeps its proxy on the air, and answers a filter message,
which is under the NetKey.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from fastprovd.campaign.context import RunContext
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.campaign.states import WAITS
from fastprovd.campaign.tasks import together
from fastprovd.errors import BearerError, ResponseTimeout
from fastprovd.mesh.models.generic_onoff import OnOffGet

log = structlog.get_logger()

# Over its own link a node with the AppKey answers at once; the bind race lasts milliseconds.
_ATTEMPTS: Final = 2


class Identifying:
    """`learn` is awaited with each address that a proxy tells, `answered` with who has the AppKey.

    `is_anybody_unplaced` says whether there is anything to find. `keyless` are the addresses that
    answered nothing over a link of their own. Nodes that an earlier run made are none of this one.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        is_anybody_unplaced: Callable[[], bool],
        learn: Callable[[int], Awaitable[None]],
        answered: Callable[[int, bool], Awaitable[None]],
    ) -> None:
        self._log = context.log
        self._picture = context.picture
        self._watch = context.watch
        self._bearer = context.bearer
        self._top = context.top
        self._app_key = context.app_key
        self._clock = context.clock
        self._store = context.store
        self._is_anybody_unplaced = is_anybody_unplaced
        self._learn = learn
        self._answered = answered
        self.keyless: set[int] = set()

    async def identify(self, links: int) -> None:
        """Ask the proxies, `links` side by side; while nodes send nothing, no report is stale."""
        if links < 1 or not self._is_anybody_unplaced():
            return
        begun = self._clock.monotonic()
        await self._watch.listen(WAITS["quiet_air"].seconds)
        placed = {node.device_address for node in self._log.nodes.values()}
        proxies = deque(p for p in self._picture.proxies_since(begun) if p not in placed)
        await together(lambda: self._work(proxies, begun + WAITS["identify"].seconds), links)

    async def _work(self, proxies: deque[str], deadline: float) -> None:
        while proxies and self._is_anybody_unplaced():
            if self._clock.monotonic() > deadline:
                log.warning("proxies_left_unidentified", reason=WAITS["identify"].reason)
                return
            device_address = proxies.popleft()
            try:
                await self._identify(device_address)
            except BearerError as error:
                log.info("proxy_not_identified", address=device_address, reason=str(error))

    async def _identify(self, device_address: str) -> None:
        async with (
            self._bearer.proxy_link(device_address) as link,
            proxy_session(link, self._top, self._clock) as session,
        ):
            address = await self.place(session, device_address)
            node = self._log.nodes.get(address)
            if node is not None and not node.proven:
                await self._ask(session, address)

    async def place(self, session: ProxySession, device_address: str) -> int:
        """Have a proxy tell its unicast address; note which board has it, if it is of this run.

        Raises:
            ConnectionLost: the link went away, or the proxy does not tell.
        """
        await session.check_proxy()
        address = await session.server_address
        reserved = await asyncio.to_thread(self._store.reserved_addresses)
        others = [taken for taken in reserved if taken.run_id != self._log.run.run_id]
        if any(taken.first <= address <= taken.last for taken in others):
            log.info("proxy_of_an_earlier_run", address=device_address)
            return address
        board = self._picture.board_at(device_address)
        await self._learn(address)
        await self._log.node(
            address,
            device_address=device_address,
            device_uuid=None if board is None else board.uuid,
        )
        return address

    async def _ask(self, session: ProxySession, address: int) -> None:
        try:
            status = await session.request(
                OnOffGet(),
                dst=address,
                key=self._app_key,
                ttl=0,
                timeout_s=WAITS["onoff"].seconds,
                attempts=_ATTEMPTS,
            )
        except ResponseTimeout:
            self.keyless.add(address)
        else:
            await self._answered(address, status.present)
