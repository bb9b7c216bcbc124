"""Which of some nodes answer, through as many proxies as that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from fastprovd.campaign.calm import Calm
from fastprovd.campaign.control import network_session
from fastprovd.campaign.ports import Bearer
from fastprovd.campaign.proxy_session import ProxySession, TopProvisioner
from fastprovd.campaign.roll_call import RollCall, Rounds
from fastprovd.campaign.ways import ForwardsNothing, Proxies, Ways, Witness
from fastprovd.clock import Clock
from fastprovd.errors import BearerError
from fastprovd.mesh.keys import AppKey
from fastprovd.records import Node

# A node that is off costs five attempts of at most 3 s, four nodes are asked at once; and a few
# proxies may have to be found and given up before.
_FIRST_S: Final = 60.0
_EACH_S: Final = 4.0

log = structlog.get_logger(__name__)


class Census:
    """Asks nodes by name; `nodes` are all of the network, whose proxies may carry the questions."""

    def __init__(
        self,
        bearer: Bearer,
        top: TopProvisioner,
        clock: Clock,
        app_key: AppKey,
        nodes: Collection[Node],
    ) -> None:
        self._bearer = bearer
        self._top = top
        self._clock = clock
        self._app_key = app_key
        self._nodes = nodes

    async def answering(self, addresses: Collection[int]) -> set[int]:
        """Return which of these nodes answer; nobody, where no proxy of ours is on the air."""
        waiting = set(addresses)
        ways = Ways(Proxies(self._clock))
        try:
            async with asyncio.timeout(_FIRST_S + _EACH_S * len(waiting)):
                while waiting:
                    async with network_session(
                        self._bearer, self._top, self._clock, nodes=self._nodes, ways=ways
                    ) as session:
                        try:
                            await self._ask(session, ways, waiting)
                            break
                        except ForwardsNothing:
                            ways.did_not_help()
        except (BearerError, TimeoutError) as error:
            log.info("census_ended_early", left=len(waiting), reason=str(error))
        return set(addresses) - waiting

    async def _ask(self, session: ProxySession, ways: Ways, waiting: set[int]) -> None:
        calm = Calm(self._clock)
        session.overheard = calm.heard

        async def wait() -> None:
            await calm.wait(session)

        async def answered(address: int, _: bool) -> None:
            waiting.discard(address)

        witness = Witness(session, ways)
        roll_call = RollCall(session, self._app_key, self._clock, answered=answered, calm=wait)

        async def ask(address: int, attempt: int) -> bool:
            return witness.saw(address, answered=await roll_call.ask(address, attempt))

        await Rounds(ask, wait).through(waiting)
