"""Waiting until the nodes have nothing left to relay."""

from __future__ import annotations

import asyncio
from typing import Final

from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.states import WAITS
from fastprovd.clock import Clock
from fastprovd.mesh.events import PduOverheard
from fastprovd.mesh.lower_transport import SegmentAcknowledgment

# What rounding leaves of a wait may be too little to move the clock.
SHORTEST_S: Final = 0.001


class Calm:
    """Knows when others were last heard talking; tell it with `heard`.

    A node repeats its partial Segment Acknowledgment for 10 s when a message was cut short
    (observed.md §18); that keeps nobody busy, so only what it acknowledges anew counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._acknowledged: dict[tuple[int, int], SegmentAcknowledgment] = {}
        self.begin()

    def begin(self) -> None:
        """Listen from now on: whether somebody talks will show."""
        self._last_heard = self._clock.monotonic()

    def heard(self, event: PduOverheard) -> None:
        """A PDU between others passed the proxy."""
        if event.acknowledgment is not None:
            last = self._acknowledged.get((event.src, event.dst))
            if last == event.acknowledgment:
                return
            self._acknowledged[event.src, event.dst] = event.acknowledgment
        self._last_heard = self._clock.monotonic()

    @property
    def quiet_s(self) -> float:
        """For how long nobody was heard."""
        return self._clock.monotonic() - self._last_heard

    async def wait(self, session: ProxySession) -> None:
        """Let the queues of the nodes run empty: a question now would only be one more.

        Raises:
            ConnectionLost: the link went away.
        """
        begun = self._clock.monotonic()
        calm_s = WAITS["calm"].seconds
        while self._clock.monotonic() - begun < WAITS["calm_at_last"].seconds:
            if self.quiet_s >= calm_s:
                return
            await pause(session, max(calm_s - self.quiet_s, SHORTEST_S))


async def pause(session: ProxySession, seconds: float) -> None:
    """Wait; raises ConnectionLost as soon as the link is gone."""
    try:
        async with asyncio.timeout(seconds):
            await session.lost.wait()
    except TimeoutError:
        return
    session.check()
