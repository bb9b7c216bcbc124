"""OnOff to many nodes: a few group messages switch them, then each is asked by name to confirm."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from fastprovd.campaign.calm import Calm, pause
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.roll_call import ATTEMPTS, Answered, RollCall, Rounds
from fastprovd.campaign.ways import Ways, Witness
from fastprovd.clock import Clock
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.generic_onoff import OnOffSet, OnOffSetUnacknowledged

log = structlog.get_logger()

# Nobody acknowledges a group message, and the boards of the demo send each only three times in
# 0.09 s; the next repetition must meet another moment of the air.
REPETITIONS: Final = 3
REPETITION_S: Final = 0.3
# A node whose relay is off does not forward below 3; 7 reaches behind relays too. Outside of a run
# the mesh is idle, and each node relays a message only once, whatever its TTL.
_TTL: Final = 7
# Confirming takes 0.19 s per node at the pace of a roll-call, and 2.5 s for each that stays
# silent; a quarter of all may do so before the time is over.
_CONFIRM_S: Final = 20.0
_CONFIRM_PER_NODE_S: Final = 0.8


class Switching:
    """One command; `waiting` are those that have not confirmed it yet.

    `run` may be called again over another session when the link was lost, or when its proxy
    forwards nothing: it goes on where it was. Each node is asked with an OnOff Set of its own, so
    the question is the repair too; it changes nothing for a node that has the state.
    """

    def __init__(
        self,
        onoff: bool,
        tid: int,
        *,
        dst: int,
        members: Collection[int],
        app_key: AppKey,
        clock: Clock,
        answered: Answered,
    ) -> None:
        self._onoff = onoff
        self._tid = tid
        self._dst = dst
        self._app_key = app_key
        self._clock = clock
        self._answered = answered
        self.waiting = set(members)

    async def run(self, session: ProxySession, ways: Ways) -> None:
        """Tell all, then ask those that wait.

        Raises:
            ConnectionLost: the link went away.
            ForwardsNothing: nobody but the proxy answers.
        """
        await self._tell(session)
        calm = Calm(self._clock)
        session.overheard = calm.heard
        witness = Witness(session, ways)
        roll_call = RollCall(
            session,
            self._app_key,
            self._clock,
            answered=self._take,
            calm=lambda: calm.wait(session),
            question=OnOffSet(self._onoff, self._tid),
            ttl_by_attempt=(_TTL,) * ATTEMPTS,
        )

        async def ask(address: int, attempt: int) -> bool:
            return witness.saw(address, answered=await roll_call.ask(address, attempt))

        try:
            async with asyncio.timeout(_CONFIRM_S + _CONFIRM_PER_NODE_S * len(self.waiting)):
                await Rounds(ask, lambda: calm.wait(session)).through(self.waiting)
        except TimeoutError:
            log.warning("confirming_took_too_long", unconfirmed=len(self.waiting))

    async def _tell(self, session: ProxySession) -> None:
        message = OnOffSetUnacknowledged(self._onoff, self._tid)
        for _ in range(REPETITIONS):
            session.check()
            await session.send(message, dst=self._dst, key=self._app_key, ttl=_TTL)
            # After the last one too: it must leave the adapter before the link may go.
            await pause(session, REPETITION_S)

    async def _take(self, address: int, present: bool) -> None:
        if present is self._onoff:
            self.waiting.discard(address)
        await self._answered(address, present)
