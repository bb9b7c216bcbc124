"""Ends of runs that the disk did not take."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fastprovd.clock import SystemClock
from fastprovd.ends import PAUSE_S, Broken, Ends
from fastprovd.errors import StoreError
from fastprovd.records import Run, RunState, StepKind
from fastprovd.store.state import StateStore


class Disk:
    """Takes ends while it has room, and keeps their order."""

    def __init__(self) -> None:
        self.is_full = True
        self.stored: list[str] = []


class Over:
    """A run that is over."""

    def __init__(self, disk: Disk, run_id: str) -> None:
        self._disk = disk
        self.run = Run(run_id, RunState.FAILED, datetime(2026, 1, 1, tzinfo=UTC))
        self.not_kept: str | None = None

    async def keep_end(self) -> bool:
        self.not_kept = "disk is full" if self._disk.is_full else None
        if self.not_kept is None:
            self._disk.stored.append(self.run.run_id)
        return self.not_kept is None


async def test_ends_are_stored_in_order_and_once() -> None:
    """The later one waits for the one before, whatever the disk would take by then."""
    disk, ends = Disk(), Ends()
    assert not await ends.keep(Over(disk, "r-1"))
    assert await ends.settle() == "disk is full"
    disk.is_full = False
    assert not await ends.keep(Over(disk, "r-2"))
    assert disk.stored == []
    await asyncio.sleep(2 * PAUSE_S)
    assert disk.stored == ["r-1", "r-2"]
    assert await ends.settle() is None
    assert await ends.keep(Over(disk, "r-3"))
    await ends.close()
    assert disk.stored == ["r-1", "r-2", "r-3"]


async def test_what_is_lost_in_the_end_is_said() -> None:
    """It is tried once more at the stop, and nothing goes on after it."""
    disk, ends = Disk(), Ends()
    await ends.keep(Over(disk, "r-1"))
    with capture_logs() as logs:
        await ends.close()
    assert [(entry["event"], entry["run_id"]) for entry in logs] == [("run_end_lost", "r-1")]
    assert len(asyncio.all_tasks()) == 1


async def test_ever_more_runs_do_not_fill_the_memory() -> None:
    """Beyond some they were told, and that is all."""
    disk, ends = Disk(), Ends()
    for number in range(1000):
        await ends.keep(Over(disk, f"r-{number}"))
    disk.is_full = False
    await ends.close()
    assert disk.stored == [f"r-{number}" for number in range(16)]


async def test_a_fault_of_ours_is_no_reason_to_give_up() -> None:
    """An end whose storing fails with any exception is tried again, in its turn."""

    class Faulty(Over):
        faults = 2

        async def keep_end(self) -> bool:
            if self.faults:
                self.faults -= 1
                raise KeyError("chaos")
            return await super().keep_end()

    disk, ends = Disk(), Ends()
    disk.is_full = False
    with capture_logs():
        assert not await ends.keep(Faulty(disk, "r-1"))
        assert await ends.settle() == "internal error: KeyError('chaos')"
    await asyncio.sleep(2 * PAUSE_S)
    assert disk.stored == ["r-1"]
    await ends.close()


@pytest.mark.parametrize("is_full", [True, False])
async def test_a_run_whose_end_is_broken_has_failed(tmp_path: Path, is_full: bool) -> None:
    """What is sure is stored: that it ended, when, and why."""

    def refuse(_: Run) -> None:
        raise StoreError("disk is full")

    now = datetime(2026, 1, 1, tzinfo=UTC)
    with StateStore(tmp_path / "state") as store:
        store.network()
        store.save_run(Run("r-1", RunState.PROVISIONING, now, expected=3, known=2))
        broken = Broken(store.runs()[0], KeyError("chaos"), store, SystemClock())
        with pytest.MonkeyPatch.context() as disk:
            if is_full:
                disk.setattr(store, "save_run", refuse)
            assert await broken.keep_end() is not is_full
            assert broken.not_kept == ("disk is full" if is_full else None)
        assert await broken.keep_end()
        stored = store.runs()[0]
        assert stored == broken.run
        assert (stored.state, stored.known) == (RunState.FAILED, 2)
        assert stored.reason == "internal error: KeyError; see log"
        assert store.steps("r-1")[-1].kind is StepKind.ENDED
