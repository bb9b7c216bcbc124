"""An asyncio event loop whose clock is emulated: as fast as the machine, or paced.

Everything that waits through the loop (`asyncio.sleep`, `asyncio.timeout`, `call_later`) waits in
emulated seconds, starting at 0.0. Nothing else is patched: code under test is the code that runs.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

# While sockets are open the clock never runs faster than this, so that a peer on this machine
# has milliseconds to answer within a timeout of seconds.
IO_SPEED: Final = 200.0
# How much real time a paced clock may catch up at once. Larger than the millisecond that epoll
# rounds up to, small enough that a stall of the machine is not followed by a burst.
CATCH_UP_S: Final = 0.05
# As in asyncio: how far ahead a timer counts as due, how long one wait may be, and how many
# cancelled timers are left where they are.
_RESOLUTION_S: Final = time.get_clock_info("monotonic").resolution
_LONGEST_WAIT_S: Final = 86_400.0
_MANY_TIMERS: Final = 100


class _VirtualSelector(selectors.BaseSelector):
    """The real selector, where waiting for a timer moves the emulated clock instead."""

    def __init__(self, speed: float | None, next_timer: Callable[[], float | None]) -> None:
        self.now = 0.0
        self.held = 0
        self._speed = speed
        self._next_timer = next_timer
        self._real = selectors.DefaultSelector()
        self._files = 0
        self._paced_at: float | None = None
        self._anchor_real = 0.0
        self._anchor_now = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._real.register(fileobj, events, data)
        self._files += 1
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._real.unregister(fileobj)
        self._files -= 1
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as asyncio asks, which knows no timer: 0 with callbacks ready, else `None`."""
        # One file descriptor is the loop's own, by which other threads wake it.
        has_peers = self._files > 1
        if timeout is not None:
            # Nothing waits for who is woken already.
            return self._real.select(timeout) if has_peers else []
        if self.held:
            # The end of the job that holds the clock wakes the loop.
            return self._real.select(None)
        timer = self._next_timer()
        wait = None if timer is None else min(timer - self.now, _LONGEST_WAIT_S)
        if wait is not None and wait <= 0.0:
            return self._real.select(0)
        speed = self._speed
        if has_peers and (speed is None or speed > IO_SPEED):
            speed = IO_SPEED
        if speed is not None:
            return self._select_paced(wait, speed)
        self._paced_at = None
        if wait is None:
            return self._real.select(None)
        events = self._real.select(0)
        if not events:
            self.now += wait
        return events

    def _select_paced(
        self, timeout: float | None, speed: float
    ) -> list[tuple[selectors.SelectorKey, int]]:
        real = time.monotonic()
        allowed = self._anchor_now + (real - self._anchor_real) * speed
        if speed != self._paced_at:
            self._paced_at = speed
            self._anchor_real, self._anchor_now = real, self.now
            allowed = self.now
        elif allowed - self.now > CATCH_UP_S * speed:
            allowed = self.now + CATCH_UP_S * speed
            self._anchor_real, self._anchor_now = real, allowed
        target = None if timeout is None else self.now + timeout
        wait = None if target is None else max(0.0, (target - allowed) / speed)
        events = self._real.select(wait)
        allowed = self._anchor_now + (time.monotonic() - self._anchor_real) * speed
        self.now = max(self.now, allowed if target is None else min(target, allowed))
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on an emulated clock; real sockets, signals and threads work as usual.

    `speed` None: when nothing is ready the clock jumps to the next timer. A number: the same, but
    never faster than `speed` emulated seconds per real second; a machine that is too slow makes
    the clock lag, it distorts nothing. The clock stands while `run_in_executor` jobs are at work.
    Timers for the same moment fire in the order in which they were set, which asyncio does not
    promise and which matters here, where moments are exact. A program without sockets and threads
    runs the same way every time.

    Raises:
        ValueError: `speed` is not positive.
    """

    def __init__(self, speed: float | None = None) -> None:
        self._virtual = _VirtualSelector(speed, self._next_timer)
        # Not asyncio's own heap: tuples are compared without a call, and of equal times the one
        # that was asked for first comes first.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._timers_cancelled = 0
        super().__init__(self._virtual)
        if speed is not None and speed <= 0:
            self.close()
            raise ValueError(f"speed must be positive, got {speed}")

    def time(self) -> float:
        """Return the emulated time in seconds, 0.0 when the loop was made."""
        return self._virtual.now

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let the clock stand: a peer outside the loop is to be waited for, whatever it takes."""
        self._virtual.held += 1
        try:
            yield
        finally:
            self._virtual.held -= 1

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call `callback` at `when`, emulated seconds."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        heappush(self._timers, (when, self._timers_set, timer))
        self._timers_set += 1
        return timer

    def close(self) -> None:
        """Forget the timers too."""
        super().close()
        self._timers.clear()

    def _next_timer(self) -> float | None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            self._take_timer()
        return timers[0][0] if timers else None

    def _take_timer(self) -> asyncio.TimerHandle:
        timer = heappop(self._timers)[2]
        timer._scheduled = False  # type: ignore[attr-defined]
        if timer.cancelled():
            self._timers_cancelled -= 1
        return timer

    # What asyncio calls in each iteration, and when a timer is cancelled

    def _process_events(self, event_list: list[tuple[selectors.SelectorKey, int]]) -> None:
        if event_list:
            super()._process_events(event_list)  # type: ignore[misc]
        timers, due = self._timers, self._virtual.now + _RESOLUTION_S
        while timers and timers[0][0] < due:
            self._add_callback(self._take_timer())  # type: ignore[attr-defined]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not handle._scheduled:  # type: ignore[attr-defined]
            return  # it has fired
        self._timers_cancelled += 1
        if self._timers_cancelled > _MANY_TIMERS and self._timers_cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapify(self._timers)
            self._timers_cancelled = 0

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Run `func` in a thread; the clock stands until it returned."""
        future = super().run_in_executor(executor, func, *args)
        self._virtual.held += 1
        future.add_done_callback(self._release)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Join the executor's threads; the clock stands meanwhile."""
        with self.hold():
            await super().shutdown_default_executor(*args)

    def _release(self, _: asyncio.Future[Any]) -> None:
        self._virtual.held -= 1


def run(coroutine: Coroutine[Any, Any, _T], speed: float | None = None) -> _T:
    """Run `coroutine` on a fresh VirtualTimeLoop, as `asyncio.run` would."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(speed)) as runner:
        return runner.run(coroutine)
