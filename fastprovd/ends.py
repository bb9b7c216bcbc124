"""Ends of runs that the disk did not take: they were told, and are stored as soon as it does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final, Protocol

import structlog

from fastprovd.clock import Clock
from fastprovd.errors import StoreError
from fastprovd.records import Run, RunState, Step, StepKind
from fastprovd.store.state import StateStore

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


class Broken:
    """The end of a run that could not be ended as runs are: it failed, and what is sure is kept."""

    def __init__(self, run: Run, error: Exception, store: StateStore, clock: Clock) -> None:
        now = clock.utc_now()
        self.not_kept: str | None = None
        self._store = store
        self._step = Step(run.run_id, StepKind.ENDED, now, detail=RunState.FAILED.value)
        self.run = replace(
            run,
            state=RunState.FAILED,
            finished=now,
            reason=f"internal error: {type(error).__name__}; see log",
        )

    async def keep_end(self) -> bool:
        """Store it; return whether that worked."""
        try:
            await asyncio.to_thread(self._store.save_step, self._step)
            await asyncio.to_thread(self._store.save_run, self.run)
        except StoreError as error:
            self.not_kept = str(error)
        else:
            self.not_kept = None
        return self.not_kept is None


class Ends:
    """Stores them in the order of the runs, and tries until it has done so or is closed."""

    def __init__(self) -> None:
        self._waiting: list[Ended] = []
        self._settling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def keep(self, ended: Ended) -> bool:
        """Return whether the end of a run is stored; if it is not, that is done later."""
        not_kept = None if self._waiting else await _attempt(ended)
        if not self._waiting and not_kept is None:
            return True
        if len(self._waiting) < _MOST:
            self._waiting.append(ended)
        log.error(
            "run_end_not_stored",
            run_id=ended.run.run_id,
            reason=not_kept or self._waiting[0].not_kept,
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
                if (not_kept := await _attempt(ended)) is not None:
                    return not_kept
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


async def _attempt(ended: Ended) -> str | None:
    """Store an end; return what hinders that, be it a fault of ours, or `None` once it is done."""
    try:
        is_kept = await ended.keep_end()
    except Exception as error:
        log.debug("run_end_broken", run_id=ended.run.run_id, exc_info=error)
        return f"internal error: {error!r}"
    return None if is_kept else ended.not_kept or "unknown"
