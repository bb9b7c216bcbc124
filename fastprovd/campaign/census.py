"""Which of some nodes answer by name, through as many proxies as that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import structlog

from fastprovd.campaign.calm import Calm
from fastprovd.campaign.control import network_session
from fastprovd.campaign.ports import Bearer
from fastprovd.campaign.proxy_session import ProxySession, TopProvisioner
from fastprovd.campaign.roll_call import TTL_BY_ATTEMPT, Pace, Rounds
from fastprovd.campaign.states import WAITS
from fastprovd.campaign.ways import ForwardsNothing, Proxies, Ways, Witness
from fastprovd.clock import Clock
from fastprovd.errors import BearerError, MessagesDropped, ResponseTimeout
from fastprovd.mesh.access import AcknowledgedMessage
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.models.configuration_states import DefaultTtlGet
from fastprovd.mesh.models.generic_onoff import OnOffGet
from fastprovd.records import Node

# A node that is off costs five attempts of at most 3 s, four nodes are asked at once; and a few
# proxies may have to be found and given up before.
_FIRST_S: Final = 60.0
_EACH_S: Final = 4.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who answered, and who is `silent` though a proxy of ours carried the question.

    Of whoever is in neither nothing is known: no proxy with our NetKey was found, or it was lost.
    """

    answering: frozenset[int]
    silent: frozenset[int] = frozenset()


class Census:
    """Asks nodes by name; `nodes` are all of the network, whose proxies may carry the questions.

    A node of which there is one of the `dev_keys` is asked under it, which only this node has; any
    other one under the AppKey.
    """

    def __init__(
        self,
        bearer: Bearer,
        top: TopProvisioner,
        clock: Clock,
        app_key: AppKey,
        nodes: Collection[Node],
        dev_keys: Mapping[int, DevKey] = MappingProxyType({}),
    ) -> None:
        self._bearer = bearer
        self._top = top
        self._clock = clock
        self._app_key = app_key
        self._nodes = nodes
        self._dev_keys = dev_keys
        top.stack.dev_keys.update(dev_keys)

    async def answering(self, addresses: Collection[int]) -> set[int]:
        """Return which of these nodes answer; nobody, where no proxy of ours is on the air."""
        return set((await self.ask(addresses)).answering)

    async def ask(self, addresses: Collection[int]) -> Asked:
        """Ask these nodes."""
        waiting = set(addresses)
        is_carried = False
        ways = Ways(Proxies(self._clock))
        try:
            async with asyncio.timeout(_FIRST_S + _EACH_S * len(waiting)):
                while waiting:
                    async with network_session(
                        self._bearer, self._top, self._clock, nodes=self._nodes, ways=ways
                    ) as session:
                        try:
                            is_carried = await self._ask(session, ways, waiting)
                            break
                        except ForwardsNothing:
                            ways.did_not_help()
        except (BearerError, MessagesDropped, TimeoutError) as error:
            log.info("census_ended_early", left=len(waiting), reason=str(error))
        silent = frozenset(waiting if is_carried else ())
        return Asked(frozenset(addresses) - waiting, silent)

    async def _ask(self, session: ProxySession, ways: Ways, waiting: set[int]) -> bool:
        """Ask who waits; return whether the proxy has shown that it carried the questions.

        Raises:
            ForwardsNothing: another proxy is to be tried.
            ConnectionLost: the link went away, or the proxy does not have our NetKey.
        """
        calm = Calm(self._clock)
        session.overheard = calm.heard
        witness, pace = Witness(session, ways), Pace(self._clock)

        async def wait() -> None:
            await calm.wait(session)

        async def ask(address: int, attempt: int) -> bool:
            await pace.wait()
            asked_s = self._clock.monotonic()
            is_there = await self._is_there(session, address, TTL_BY_ATTEMPT[attempt])
            if is_there:
                pace.answered(self._clock.monotonic() - asked_s)
                waiting.discard(address)
            return witness.saw(address, answered=is_there)

        await Rounds(ask, wait).through(waiting)
        if waiting:
            # Anybody can advertise our Network ID, and swallow what we send.
            await session.check_proxy()
        return ways.is_trusted or witness.forwards

    async def _is_there(self, session: ProxySession, address: int, ttl: int) -> bool:
        dev_key = self._dev_keys.get(address)
        question: AcknowledgedMessage[Any] = OnOffGet() if dev_key is None else DefaultTtlGet()
        try:
            await session.request(
                question,
                dst=address,
                key=self._app_key if dev_key is None else dev_key,
                ttl=ttl,
                timeout_s=WAITS["answer"].seconds,
            )
        except MessagesDropped:
            raise
        except ResponseTimeout:
            return False
        return True
