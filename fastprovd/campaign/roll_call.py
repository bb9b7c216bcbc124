"""Who answers: unicast Generic OnOff Get, at a pace the mesh can bear."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.search import GAPS_BY_PASS, AddressSearch
from fastprovd.campaign.states import WAITS
from fastprovd.campaign.tasks import together
from fastprovd.clock import Clock
from fastprovd.errors import ResponseTimeout
from fastprovd.mesh.access import AcknowledgedMessage
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffStatus

# Answers under way at once; each takes two notifications of the Primary's dozen buffers.
CONCURRENCY: Final = 4
# Below 3 the Primary does not forward (its relay is off). The first attempts stay near: what
# arrives with TTL 1 is not relayed, so they can not be multiplied by nodes that are busy.
TTL_BY_ATTEMPT: Final = (3, 3, 7, 7, 7)
ATTEMPTS: Final = len(TTL_BY_ATTEMPT)

# So many known nodes in a row that do not answer mean that the mesh is too busy to ask.
MISSES_IN_A_ROW: Final = 3

_GET: Final = OnOffGet()

Answered = Callable[[int, bool], Awaitable[object]]
Calm = Callable[[], Awaitable[None]]


class Pace:
    """The time between two questions, in seconds.

    Every node relays a question and its answer once, 90 ms each, so 0.19 s keep all queues level
    whatever their number. Slow answers mean that queues are full of other traffic; missing ones
    tell nothing, and slow us down by themselves.
    """

    SHORTEST: Final = 0.19
    LONGEST: Final = 3.0
    QUICK: Final = 0.5
    SLOW: Final = 1.0

    def __init__(self, clock: Clock, shortest_s: float = SHORTEST) -> None:
        self._clock = clock
        self._shortest_s = self._interval_s = shortest_s
        self._next = clock.monotonic()

    async def wait(self) -> None:
        """Wait for one's turn."""
        now = self._clock.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._interval_s
        if turn > now:
            await asyncio.sleep(turn - now)

    def answered(self, after_s: float) -> None:
        """An answer came: quick ones shorten the interval, slow ones lengthen it."""
        if after_s < self.QUICK:
            self._interval_s = max(self._shortest_s, self._interval_s * 0.8)
        elif after_s > self.SLOW:
            self._interval_s = min(self.LONGEST, self._interval_s * 1.5)


class Rounds:
    """Goes through nodes, CONCURRENCY at once; the silent ones again after all others.

    `ask` is told the address and the number of the attempt, and returns whether it answered.
    `ask_again` is called once when there are silent ones.
    """

    def __init__(
        self,
        ask: Callable[[int, int], Awaitable[bool]],
        calm: Calm,
        ask_again: Callable[[], object] = lambda: None,
    ) -> None:
        self._ask = ask
        self._calm = calm
        self._ask_again = ask_again
        self._misses = 0

    async def through(self, addresses: Iterable[int]) -> None:
        """Ask everyone; what `ask` raises comes out."""
        silent = sorted(addresses)
        for attempt in range(ATTEMPTS):
            if not silent:
                return
            if attempt == 1:
                self._ask_again()
            await self._calm()
            waiting, silent = iter(silent), []
            await together(lambda: self._work(waiting, attempt, silent), CONCURRENCY)  # noqa: B023 - awaited

    async def _work(self, waiting: Iterable[int], attempt: int, silent: list[int]) -> None:
        for address in waiting:
            if await self._ask(address, attempt):
                self._misses = 0
                continue
            silent.append(address)
            self._misses += 1
            if self._misses % MISSES_IN_A_ROW == 0:
                await self._calm()


class RollCall:
    """Asks nodes one by one; `answered` is awaited with (address, present OnOff) for each.

    `calm` waits until the mesh has nothing left to relay. An OnOff Set as the question switches
    whom it asks. `ttl_by_attempt` has a TTL for each attempt of `Rounds` or of a search;
    `ask_again` is that of `Rounds`.
    """

    def __init__(
        self,
        session: ProxySession,
        app_key: AppKey,
        clock: Clock,
        *,
        answered: Answered,
        calm: Calm,
        question: AcknowledgedMessage[OnOffStatus] = _GET,
        ttl_by_attempt: Sequence[int] = TTL_BY_ATTEMPT,
        ask_again: Callable[[], object] = lambda: None,
    ) -> None:
        self._session = session
        self._app_key = app_key
        self._answered = answered
        self._calm = calm
        self._question = question
        self._ttl_by_attempt = ttl_by_attempt
        self._clock = clock
        self._pace = Pace(clock)
        self._rounds = Rounds(self.ask, calm, ask_again)

    async def ask(self, address: int, attempt: int) -> bool:
        """Ask once; return whether the node answered; raises ConnectionLost."""
        await self._pace.wait()
        asked = self._clock.monotonic()
        try:
            status = await self._session.request(
                self._question,
                dst=address,
                key=self._app_key,
                ttl=self._ttl_by_attempt[attempt],
                timeout_s=WAITS["answer"].seconds,
            )
        except ResponseTimeout:
            return False
        self._pace.answered(self._clock.monotonic() - asked)
        await self._answered(address, status.present)
        return True

    async def prove(self, addresses: Iterable[int]) -> None:
        """Ask everyone in `addresses`, the silent ones again after all others.

        Raises:
            ConnectionLost: the link went away.
        """
        await self._rounds.through(addresses)

    async def search(self, search: AddressSearch, enough: Callable[[], bool]) -> None:
        """Look for nodes nobody listed, wider with each pass, until `enough`.

        Raises:
            ConnectionLost: the link went away; what was found stays found.
        """
        for search_pass in range(len(GAPS_BY_PASS)):
            await self._calm()
            await _SearchPass(self, search, search_pass, enough).run()
            if enough():
                return


class _SearchPass:
    """Workers that draw candidates; an answer may open further ones for those that wait."""

    def __init__(
        self,
        roll_call: RollCall,
        search: AddressSearch,
        search_pass: int,
        enough: Callable[[], bool],
    ) -> None:
        self._roll_call = roll_call
        self._search = search
        self._pass = search_pass
        self._enough = enough
        self._asked: set[int] = set()
        self._under_way = 0
        self._progress = asyncio.Condition()

    async def run(self) -> None:
        await together(self._seek, CONCURRENCY)

    async def _seek(self) -> None:
        while not self._enough():
            candidates = self._search.candidates(self._pass)
            address = next((a for a in candidates if a not in self._asked), None)
            if address is None:
                if self._under_way == 0:
                    return
                async with self._progress:
                    await self._progress.wait()
                continue
            self._asked.add(address)
            self._under_way += 1
            try:
                if await self._roll_call.ask(address, self._pass):
                    self._search.found(address)
                else:
                    self._search.tried(address, self._pass)
            finally:
                self._under_way -= 1
                async with self._progress:
                    self._progress.notify_all()
