"""Ends of runs that the disk did not take: they were told, and are stored as soon as it does."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog

from fastprovd.records import Run

log = structlog.get_logger(__name__)

# A disk that is full or failing is asked again so often: somebody has to make room first.
PAUSE_S: Final = 5.0
# Whoever goes on asking for runs shall not fill the memory too; a run beyond was told all the same.
_MOST: Final = 16


class Ended(Protocol):
    """A run that is over; `not_kept` says why its end could not be stored yet."""

    @property
    def run(self) -> Run:
        """The run as it ended."""
        ...

    @property
    def not_kept(self) -> str | None:
        """Why the last attempt to store its end failed; `None` once it is stored."""
        ...

    async def keep_end(self) -> bool:
        """Store its end, if that is not done yet; return whether it is."""
        ...


class Ends:
    """Stores them in the order of the runs, and tries until it has done so or is closed."""

    def __init__(self) -> None:
        self._waiting: list[Ended] = []
        self._settling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def keep(self, ended: Ended) -> bool:
        """Return whether the end of a run is stored; if it is not, that is done later."""
        if not self._waiting and await ended.keep_end():
            return True
        if len(self._waiting) < _MOST:
            self._waiting.append(ended)
        log.error(
            "run_end_not_stored",
            run_id=ended.run.run_id,
            reason=ended.not_kept,
            advice="make room on the disk of the state directory, or repair it; it is tried again",
        )
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._go_on(), name="keep_ends")
        return False

    async def settle(self) -> str | None:
        """Store what waits; return what still hinders that, `None` when nothing waits any more."""
        async with self._settling:
            while self._waiting:
                ended = self._waiting[0]
                if not await ended.keep_end():
                    return ended.not_kept
                del self._waiting[0]
                log.info("run_end_stored", run_id=ended.run.run_id)
        return None

    async def close(self) -> None:
        """Try once more, and give up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.settle()
        for ended in self._waiting:
            log.error("run_end_lost", run_id=ended.run.run_id, reason=ended.not_kept)

    async def _go_on(self) -> None:
        while self._waiting:
            await asyncio.sleep(PAUSE_S)
            await self.settle()
