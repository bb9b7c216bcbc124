"""Who answers: unicast Generic OnOff Get, a few at a time, over known and predicted addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.search import GAPS_BY_PASS, AddressSearch
from fastprovd.campaign.states import WAITS
from fastprovd.errors import ResponseTimeout
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.generic_onoff import OnOffGet

# Every answer takes two notifications of the Primary's dozen buffers, and each question 90 ms of
# its advertising queue: four at a time keep it busy and leave it room.
CONCURRENCY: Final = 4
# Below 3 the Primary does not forward (its relay is off); 7 reaches behind relays too.
TTL: Final = 7
KNOWN_ATTEMPTS: Final = 4

Answered = Callable[[int, bool], Awaitable[None]]


class RollCall:
    """Asks nodes one by one; `answered` is awaited with (address, present OnOff) for each."""

    def __init__(self, session: ProxySession, app_key: AppKey, answered: Answered) -> None:
        self._session = session
        self._app_key = app_key
        self._answered = answered

    async def ask(self, address: int, attempts: int) -> bool:
        """Return whether the node answered; raises ConnectionLost."""
        try:
            status = await self._session.request(
                OnOffGet(),
                dst=address,
                key=self._app_key,
                ttl=TTL,
                timeout_s=WAITS["answer"].seconds,
                attempts=attempts,
            )
        except ResponseTimeout:
            return False
        await self._answered(address, status.present)
        return True

    async def prove(self, addresses: Iterable[int]) -> None:
        """Ask everyone in `addresses`; raises ConnectionLost."""
        waiting = iter(sorted(addresses))

        async def one_after_another() -> None:
            for address in waiting:
                await self.ask(address, KNOWN_ATTEMPTS)

        await _together(one_after_another)

    async def search(self, search: AddressSearch, enough: Callable[[], bool]) -> None:
        """Look for nodes nobody listed, wider with each pass, until `enough`.

        Raises:
            ConnectionLost: the link went away; what was found stays found.
        """
        for search_pass in range(len(GAPS_BY_PASS)):
            await self._search_pass(search, search_pass, enough)
            if enough():
                return

    async def _search_pass(
        self, search: AddressSearch, search_pass: int, enough: Callable[[], bool]
    ) -> None:
        asked: set[int] = set()
        progress = asyncio.Condition()
        under_way = 0

        def candidates() -> Iterator[int]:
            return (a for a in search.candidates(search_pass) if a not in asked)

        async def seek() -> None:
            nonlocal under_way
            while not enough():
                address = next(candidates(), None)
                if address is None:
                    if under_way == 0:
                        return
                    async with progress:  # an answer under way may open further candidates
                        await progress.wait()
                    continue
                asked.add(address)
                under_way += 1
                try:
                    if await self.ask(address, 1):
                        search.found(address)
                    else:
                        search.tried(address, search_pass)
                finally:
                    under_way -= 1
                    async with progress:
                        progress.notify_all()

        await _together(seek)


async def _together(worker: Callable[[], Awaitable[None]]) -> None:
    """Run CONCURRENCY workers; the first exception ends all and comes out as it is."""
    tasks = [asyncio.ensure_future(worker()) for _ in range(CONCURRENCY)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
