"""The clock is emulated, everything else is asyncio as it is."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from fastprovd.emulator.virtual_time import VirtualTimeLoop, run


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_jumping_clock_takes_no_real_time() -> None:
    """An hour of sleep passes in the emulated clock only."""

    async def main() -> float:
        await asyncio.sleep(3600)
        return now()

    started = time.monotonic()
    assert run(main()) == pytest.approx(3600)
    assert time.monotonic() - started < 5


def test_longer_waits_than_the_selector_takes_are_whole() -> None:
    """A sleep of days is not cut to the day that asyncio waits at most."""

    async def main() -> float:
        await asyncio.sleep(5 * 86_400)
        return now()

    assert run(main()) == pytest.approx(5 * 86_400)


def test_timers_fire_in_order_of_their_time() -> None:
    """Timers of different length interleave as they would in real time."""

    async def main() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []

        async def tick(name: str, interval: float, count: int) -> None:
            for _ in range(count):
                await asyncio.sleep(interval)
                log.append((name, round(now(), 6)))

        await asyncio.gather(tick("a", 0.3, 3), tick("b", 0.5, 2))
        return log

    assert run(main()) == [("a", 0.3), ("b", 0.5), ("a", 0.6), ("a", 0.9), ("b", 1.0)]


def test_timeouts_are_emulated_too() -> None:
    """`asyncio.timeout` ends a wait at its emulated second."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(12.5):
                await asyncio.Event().wait()
        return now()

    assert run(main()) == pytest.approx(12.5)


def test_timers_for_the_same_moment_fire_in_order() -> None:
    """First set, first fired: a plain heap of times would shuffle them."""

    async def main() -> list[int]:
        log: list[int] = []
        loop = asyncio.get_running_loop()
        for index in range(200):
            loop.call_at(float((index * 7) % 5), log.append, index)
        await asyncio.sleep(10)
        return log

    expected = sorted(range(200), key=lambda index: ((index * 7) % 5, index))
    assert run(main()) == expected


@pytest.mark.parametrize("speed", [None, 50.0])
def test_the_clock_stands_while_a_thread_works(speed: float | None) -> None:
    """A job in a thread takes no emulated time, timers wait for its end."""

    async def main() -> tuple[list[str], float]:
        log: list[str] = []
        asyncio.get_running_loop().call_later(0.001, log.append, "timer")
        go = threading.Event()

        def job() -> None:
            go.wait(0.05)
            log.append("job")

        await asyncio.to_thread(job)
        return log, now()

    log, seconds = run(main(), speed)
    assert log == ["job"]
    assert seconds < 0.001


@pytest.mark.parametrize("speed", [None, 5.0, 10_000.0])
def test_sockets_work(speed: float | None) -> None:
    """An echo over TCP within a timeout of emulated seconds arrives at every speed."""

    async def main() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, asyncio.timeout(60):
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            answer = await reader.readexactly(5)
            writer.close()
            await writer.wait_closed()
            return answer

    assert run(main(), speed) == b"hello"


def test_a_paced_clock_is_never_faster_than_its_speed() -> None:
    """At speed 20 two emulated seconds take a tenth of a real second, in steps of any size."""

    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0.002)
        return now()

    started = time.monotonic()
    assert run(main(), 20.0) == pytest.approx(2.0)
    # The first 50 ms of the budget may be spent at once.
    assert 0.045 < time.monotonic() - started < 2


def test_a_paced_clock_lags_behind_a_busy_machine() -> None:
    """A callback that blocks for longer than the next timer does not make the clock leap."""

    async def main() -> float:
        time.sleep(0.3)  # noqa: ASYNC251 - the busy machine
        before = now()
        await asyncio.sleep(0.01)
        return now() - before

    assert run(main(), 10.0) == pytest.approx(0.01)


def test_another_thread_wakes_the_loop() -> None:
    """`call_soon_threadsafe` from a foreign thread ends a wait without timers."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(future.set_result, "woken")
        )
        thread.start()
        result: str = await future
        thread.join()
        return result

    assert run(main()) == "woken"


def test_a_speed_must_be_positive() -> None:
    """Speed 0 is refused."""
    with pytest.raises(ValueError, match="positive"):
        VirtualTimeLoop(0)


def test_run_virtual_names_what_is_left_behind(run_virtual) -> None:  # type: ignore[no-untyped-def]
    """The fixture fails a test that leaves a task, and one that waits for ever."""

    async def leaves() -> None:
        global left
        left = asyncio.create_task(asyncio.sleep(10), name="orphan")

    with pytest.raises(AssertionError, match="orphan"):
        run_virtual(leaves())

    async def hangs() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run_virtual(hangs())


def test_a_held_clock_stands() -> None:
    """While it is held no time passes and no timer fires; what comes from outside does."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        fired: list[float] = []
        loop.call_later(1, lambda: fired.append(now()))
        answered = asyncio.Event()
        peer = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(answered.set))
        with loop.hold():
            peer.start()
            await answered.wait()
        assert (now(), fired) == (0, [])
        peer.join()
        await asyncio.sleep(2)
        assert fired == [1]

    run(main())
