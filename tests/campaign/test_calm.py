"""Waiting until the nodes have nothing left to relay."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from fastprovd.campaign.calm import Calm, pause
from fastprovd.campaign.states import WAITS
from fastprovd.clock import SystemClock
from fastprovd.errors import ConnectionLost
from tests.conftest import RunVirtual
from tests.support.fake_mesh import talk

CLOCK = SystemClock()


def test_calm_comes_a_while_after_the_last_word(run_virtual: RunVirtual[Any]) -> None:
    """Wherever the clock stands, and however its seconds round, the wait ends in time."""

    async def main() -> None:
        draw = Random(1)
        async with talk() as scene:
            for _ in range(500):
                await asyncio.sleep(draw.random() * 10.0)
                calm = Calm(CLOCK)
                await asyncio.sleep(draw.random() * 0.5)
                calm.heard()
                begun = CLOCK.monotonic()
                await calm.wait(scene.session)
                waited = CLOCK.monotonic() - begun
                assert waited == pytest.approx(WAITS["calm"].seconds, abs=0.01)

    run_virtual(main())


def test_a_mesh_that_never_rests_is_not_waited_for(run_virtual: RunVirtual[Any]) -> None:
    """Others who go on talking hold us up for a bounded time."""

    async def main() -> None:
        async with talk() as scene:
            calm = Calm(CLOCK)

            async def chatter() -> None:
                while True:
                    await asyncio.sleep(0.3)
                    calm.heard()

            talking = asyncio.create_task(chatter())
            begun = CLOCK.monotonic()
            await calm.wait(scene.session)
            waited = CLOCK.monotonic() - begun
            talking.cancel()
            await asyncio.wait([talking])
            assert waited == pytest.approx(WAITS["calm_at_last"].seconds, abs=1.0)

    run_virtual(main())


def test_a_lost_link_ends_a_pause(run_virtual: RunVirtual[Any]) -> None:
    """Nobody sits out a pause on a dead link."""

    async def main() -> None:
        async with talk() as scene:
            begun = CLOCK.monotonic()
            asyncio.get_running_loop().call_later(0.5, scene.session.lost.set)
            with pytest.raises(ConnectionLost):
                await pause(scene.session, 10.0)
            assert CLOCK.monotonic() - begun < 1.0

    run_virtual(main())
