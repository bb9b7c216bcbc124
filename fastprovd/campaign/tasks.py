"""Tasks with an owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run `work` beside the body and end it with the body.

    Unlike a TaskGroup it lets the body's exception out as it is. An exception of `work` comes
    out when the body ends without one of its own, else it is logged.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield
    except BaseException:
        await _end(task, suppressed=True)
        raise
    await _end(task, suppressed=False)


async def _end(task: asyncio.Task[Any], *, suppressed: bool) -> None:
    task.cancel()
    again: asyncio.CancelledError | None = None
    is_ended = False
    while not is_ended:
        try:
            # Unlike `await task`, this raises CancelledError only when we ourselves are cancelled.
            await asyncio.wait([task])
            is_ended = True
        except asyncio.CancelledError as error:
            again = error
            task.cancel()  # the first time may have been lost in a clean-up that failed
    suppressed = suppressed or again is not None
    if not task.cancelled() and not suppressed:
        task.result()
    elif not task.cancelled() and (failure := task.exception()) is not None:
        log.error("background_failed", task=task.get_name(), exc_info=failure)
    if again is not None:
        raise again


async def result_of(task: asyncio.Task[T]) -> T:
    """Return what comes of a task that ends with whoever waits for it.

    Unlike `await task`, a task that fails while it is cancelled with us does not hide from us that
    we are.
    """
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        if task.done():  # in this very turn
            note_end(task)
        else:
            await _end(task, suppressed=True)
        raise
    return task.result()


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Return what comes of `work`, which goes on to its end when we are cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(note_end)
        await asyncio.wait([task])
        raise


def note_end(task: asyncio.Future[Any]) -> None:
    """Take how a task ended that nobody waits for any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("ended_with_its_owner", reason=repr(error))


async def keep_busy(
    next_job: Callable[[], Coroutine[Any, Any, None] | None],
    width: Callable[[], int],
    changed: asyncio.Event,
) -> None:
    """Run jobs, as many at once as `width` says, until none is left and all have ended.

    After `changed` was set both are asked again. The first exception ends all and comes out as it
    is.
    """
    running: set[asyncio.Future[Any]] = set()
    try:
        while True:
            while len(running) < width() and (job := next_job()) is not None:
                running.add(asyncio.ensure_future(job))
            if not running:
                return
            changed.clear()
            change = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({*running, change}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
                await asyncio.wait([change])
            for ended in [task for task in running if task.done()]:
                running.remove(ended)
                ended.result()
    finally:
        for task in running:
            task.add_done_callback(note_end)
            task.cancel()
        if running:
            await asyncio.wait(running)


async def together(worker: Callable[[], Awaitable[None]], count: int) -> None:
    """Run `count` workers; the first exception ends all and comes out as it is."""
    tasks = [asyncio.ensure_future(worker()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
