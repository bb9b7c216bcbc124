"""Work beside a body: it ends with it, and neither hides the other's exception."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.campaign.tasks import background, keep_busy, result_of, undisturbed
from fastprovd.errors import ConnectionLost, StoreError


class Work:
    """Waits until it is ended, and needs `cleanup_s` for that."""

    def __init__(self, cleanup_s: float = 0.0) -> None:
        self._cleanup_s = cleanup_s
        self.name = ""
        self.ended = False

    async def run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.name = task.get_name()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self._cleanup_s)
            self.ended = True


async def _fail(after_s: float = 0.0) -> None:
    await asyncio.sleep(after_s)
    raise StoreError("the disk is full")


LOST = ConnectionLost("the link is gone")


async def _beside(
    work: Coroutine[Any, Any, None], seconds: float, error: Exception | None = None
) -> None:
    """Run a body of so many seconds beside `work`; it ends with `error`."""
    async with background(work, "watch"):
        await asyncio.sleep(seconds)
        if error is not None:
            raise error


async def test_work_runs_beside_the_body_and_ends_with_it() -> None:
    """It has its name, and its cleaning up is waited for."""
    work = Work(cleanup_s=3.0)
    async with background(work.run(), "watch"):
        await asyncio.sleep(1.0)
        assert work.name == "watch"
        assert not work.ended
    assert work.ended


async def test_the_bodys_exception_comes_out_as_it_is() -> None:
    """No group is put around it, and the work has ended by then."""
    work = Work(cleanup_s=3.0)
    with pytest.raises(ConnectionLost) as caught:
        await _beside(work.run(), 1.0, LOST)
    assert caught.value is LOST
    assert work.ended


async def test_the_works_exception_comes_out_with_the_end_of_the_body() -> None:
    """The body is not disturbed before."""
    begun = asyncio.get_running_loop().time()
    with pytest.raises(StoreError):
        await _beside(_fail(), 5.0)
    assert asyncio.get_running_loop().time() - begun == 5.0


async def test_an_exception_while_the_work_is_ended_comes_out() -> None:
    """What goes wrong in its cleaning up is not lost."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await _fail()

    with pytest.raises(StoreError):
        await _beside(work(), 1.0)


async def test_of_two_exceptions_the_works_is_logged() -> None:
    """The body's comes out; the cause of it may be the work's, so it is told with its traceback."""
    with capture_logs() as logs, pytest.raises(ConnectionLost):
        await _beside(_fail(), 1.0, LOST)
    (entry,) = logs
    assert (entry["event"], entry["task"]) == ("background_failed", "watch")
    assert isinstance(entry["exc_info"], StoreError)


async def test_work_that_is_done_early_disturbs_nothing() -> None:
    """A session whose link is gone has ended before its body."""
    await _beside(asyncio.sleep(1.0), 2.0)
    with capture_logs() as logs, pytest.raises(ConnectionLost):
        await _beside(asyncio.sleep(1.0), 2.0, LOST)
    assert logs == []


async def test_a_cancelled_body_ends_the_work_and_stays_cancelled() -> None:
    """Cancellation goes on after the work has cleaned up."""
    work = Work(cleanup_s=3.0)

    async def body() -> None:
        async with background(work.run(), "watch"):
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert work.ended


async def test_jobs_are_begun_as_width_allows() -> None:
    """No more at once than the width of the moment; a change is looked at, at once."""
    loop = asyncio.get_running_loop()
    begun: list[float] = []
    width = 2
    changed = asyncio.Event()

    async def job() -> None:
        begun.append(loop.time())
        await asyncio.sleep(10.0)

    def widen() -> None:
        nonlocal width
        width = 4
        changed.set()

    loop.call_later(3.0, widen)
    jobs = [job() for _ in range(7)]
    await keep_busy(lambda: jobs.pop() if jobs else None, lambda: width, changed)
    assert begun == [0.0, 0.0, 3.0, 3.0, 10.0, 10.0, 13.0]


async def test_the_first_exception_of_a_job_ends_all() -> None:
    """It comes out as it is, and nobody works on."""
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(100.0)
        finally:
            ended.append("long")

    async def wrong() -> None:
        await asyncio.sleep(1.0)
        raise LookupError("wrong")

    jobs = [wrong(), long()]
    with pytest.raises(LookupError):
        await keep_busy(lambda: jobs.pop() if jobs else None, lambda: 5, asyncio.Event())
    assert ended == ["long"]


async def test_a_task_that_fails_while_it_is_cancelled_hides_nothing() -> None:
    """Whoever waits for it is cancelled all the same, and what failed is told."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await _fail(1.0)

    waiting = asyncio.create_task(result_of(asyncio.create_task(work(), name="run")))
    await asyncio.sleep(1.0)
    with capture_logs() as logs:
        waiting.cancel()
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert [(entry["event"], entry["task"]) for entry in logs] == [("background_failed", "run")]


async def test_a_result_comes_out_as_it_is() -> None:
    """Be it a value, an exception or a cancellation of the task's own."""

    async def value() -> int:
        return 7

    assert await result_of(asyncio.create_task(value())) == 7
    with pytest.raises(StoreError):
        await result_of(asyncio.create_task(_fail()))
    task = asyncio.create_task(asyncio.sleep(5.0))
    asyncio.get_running_loop().call_later(1.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await result_of(task)


@pytest.mark.parametrize("error", [None, StoreError("the disk is full")])
async def test_what_must_not_be_half_done_is_done_when_its_owner_is_cancelled(
    error: StoreError | None,
) -> None:
    """Its result is used before the cancellation goes on, and what failed disturbs nobody."""
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(2.0)
        if error is not None:
            raise error
        done.append(1)

    owner = asyncio.create_task(undisturbed(work()))
    await asyncio.sleep(1.0)
    owner.cancel()
    await asyncio.wait([owner])
    assert owner.cancelled()
    assert bool(done) is (error is None)


async def test_all_jobs_that_fail_are_heard() -> None:
    """The first comes out; asyncio would complain of the others when nobody takes them."""
    complaints: list[Any] = []

    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    jobs = iter([_fail(1.0), _fail(1.0), _fail(1.0)])
    with pytest.raises(StoreError):
        await keep_busy(lambda: next(jobs, None), lambda: 3, asyncio.Event())
    gc.collect()
    await asyncio.sleep(1.0)

    assert complaints == []


async def test_a_work_that_lost_its_cancellation_is_cancelled_again() -> None:
    """With its owner, who never leaves it behind."""

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    for owner in (result_of(asyncio.create_task(work())), _beside(work(), 100.0)):
        task = asyncio.create_task(owner)
        for _ in range(2):
            await asyncio.sleep(1.0)
            task.cancel()
        await asyncio.wait([task], timeout=5.0)
        assert task.cancelled()
        assert len(asyncio.all_tasks()) == 1
