"""The links of an adapter, shared out among those who want one."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from fastprovd.bearers.link_limit import LinkLimit
from fastprovd.errors import NoFreeLink

# A board is served in 10 s and hung up in 2 s. When no link ends in this time, all of them are held
# for longer by whoever waits here, and by other programs.
PATIENCE_S: Final = 60.0


@dataclass(eq=False, slots=True)
class Attempt:
    """An attempt to open a link, and the link if it came about, until BlueZ has hung it up.

    Where it opened, the controller had it from soon after the attempt began, long before bleak
    says so.
    """

    begun_s: float
    is_open: bool = False
    ended_s: float = math.inf


class LinkSlots:
    """Hands out slots in the order of asking, no more than the limit allows at any time.

    A slot is `taken` from before the link is opened until BlueZ has hung it up.
    """

    def __init__(self, limit: LinkLimit) -> None:
        self.limit = limit
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._attempts: list[Attempt] = []
        self._released_s = 0.0

    async def acquire(self, *, first: bool = False, patience_s: float = PATIENCE_S) -> None:
        """Take a slot, `first` before all who wait.

        Raises:
            NoFreeLink: no slot at all was given back for as long as the patience lasts.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(turn)
        self.share_out()
        begun_s = _now()
        try:
            while not turn.done():
                left_s = max(begun_s, self._released_s) + patience_s - _now()
                if left_s <= 0:
                    raise NoFreeLink(
                        f"the adapter bears {self.limit.links().now} links, and none became free "
                        f"in {patience_s:.0f} s; use another adapter, or end what uses this one"
                    )
                await asyncio.wait({turn}, timeout=left_s)
        except BaseException:
            if turn.done():
                self.release()
            else:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Give a slot back."""
        self.taken -= 1
        self._released_s = _now()
        self.share_out()

    def share_out(self) -> None:
        """Hand out what is free; to be called when the limit has changed."""
        while self._waiting and self.taken < self.limit.allowed(_now()):
            self.taken += 1
            self._waiting.popleft().set_result(None)

    def begin(self) -> Attempt:
        """Begin an attempt to open a link."""
        attempt = Attempt(_now())
        self._attempts.append(attempt)
        return attempt

    def opened(self, attempt: Attempt) -> bool:
        """Note that a link is open; returns whether what was learnt of the limit has changed."""
        attempt.is_open = True
        changed = self.limit.opened(self._open_at(_now()))
        self.share_out()
        return changed

    def end(self, attempt: Attempt) -> None:
        """Note that BlueZ has hung it up, or that it did not come about."""
        attempt.ended_s = _now()
        running_s = min(
            (a.begun_s for a in self._attempts if a.ended_s == math.inf), default=_now()
        )
        self._attempts = [a for a in self._attempts if a.ended_s > running_s]

    def most_open(self, attempt: Attempt) -> int:
        """Return how many links were open at once while this attempt went on, up to now."""
        moments = {attempt.begun_s, *(a.begun_s for a in self._attempts)}
        return max(self._open_at(moment) for moment in moments if moment >= attempt.begun_s)

    def _open_at(self, moment_s: float) -> int:
        return sum(a.is_open and a.begun_s <= moment_s < a.ended_s for a in self._attempts)


def _now() -> float:
    return asyncio.get_running_loop().time()
