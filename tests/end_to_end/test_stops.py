"""A program that is told to end, at any instant, whatever it is at.

`make stop-matrix` does so with 500 real programs; `make test` with some in virtual time.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fastprovd.daemon import run_daemon
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.gateway import open_gateway
from tests.conftest import RunVirtual
from tests.support.emulated import World, config, world
from tests.support.stop_matrix import MOMENTS, PROMISED_S, Stop, chain, stored

INSTANTS = 500
LEFT_OUT = pytest.mark.skip(reason="real programs take their time: make stop-matrix")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    whole = metafunc.config.getoption("--stop-matrix")
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--stop-seed")
        every = range(first, first + INSTANTS // len(MOMENTS))
        metafunc.parametrize("seed", every if whole else [pytest.param(first, marks=LEFT_OUT)])


def test_every_program_ends_in_time(
    record_property: pytest.RecordProperty, private_bus: PrivateBus, tmp_path: Path, seed: int
) -> None:
    """With the right exit code, all stored and told, no link left, and no SEQ used twice."""
    with chain(tmp_path, private_bus, seed) as programs:
        moments = programs.random.sample(MOMENTS, len(MOMENTS))
        for number, moment in enumerate(moments):
            programs.stop(number, moment)
        left = programs.finish()
    record_property("stops", [stop.json for stop in programs.stops])
    assert [wrong(stop) for stop in programs.stops if stop.violations] == []
    assert left == []


def wrong(stop: Stop) -> str:
    told = f"{stop.seed} {stop.moment.name} at {stop.told_s:.3f} s, {stop.took_s:.2f} s"
    return f"{told}: {stop.violations}"


@pytest.mark.parametrize("number", range(8))
def test_a_service_ends_in_time_at_any_instant(
    run_virtual: RunVirtual[Any], tmp_path: Path, number: int
) -> None:
    """Be it at its start, healing, in a run, or stopping; the next one goes on from there."""
    random = Random(f"stop {number}")
    settings = config(tmp_path, method=random.choice(("direct", "fast")), heal="on_start", port=1)

    async def stopped(scene: World, after_s: float, again: int) -> float:
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(run_daemon(settings, radio=scene.radio))
        await asyncio.sleep(0)
        loop.call_later(after_s, os.kill, os.getpid(), signal.SIGTERM)
        for _ in range(again):
            loop.call_later(after_s + random.uniform(0, 2), _tell_again, serving, random)
        begun = loop.time()
        await asyncio.wait([serving], timeout=after_s + 60.0)
        serving.result()
        return loop.time() - begun - after_s

    async def main() -> None:
        scene = world(3, number)
        async with open_gateway(settings, radio=scene.radio) as gateway:
            await gateway.execute(gateway.prepare_run(gateway.settings(expected=3)))
        for _ in range(2):
            for board in scene.air.boards:
                board.power_off()
                board.power_on()
            took_s = await stopped(scene, random.uniform(0.1, 40.0), random.randrange(3))
            assert took_s <= PROMISED_S
            assert not scene.adapter.linked
            assert not scene.adapter.discovering
            runs, next_clean = stored(settings.state.directory)
            assert all(run.state.is_end for run in runs)
            assert next_clean is not None

    run_virtual(main())


def _tell_again(serving: asyncio.Task[None], random: Random) -> None:
    if not serving.done():  # else it would be the end of the tests
        os.kill(os.getpid(), random.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)))
