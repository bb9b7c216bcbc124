"""Waiting until the nodes have nothing left to relay."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from fastprovd.campaign.calm import Calm, pause
from fastprovd.campaign.states import WAITS
from fastprovd.campaign.tasks import background
from fastprovd.clock import SystemClock
from fastprovd.errors import ConnectionLost
from fastprovd.mesh.events import PduOverheard
from fastprovd.mesh.lower_transport import SegmentAcknowledgment
from tests.support.fake_mesh import talk

CLOCK = SystemClock()
TALK = PduOverheard(0x0010, 0x0005, device_key=False)


async def test_calm_comes_a_while_after_the_last_word() -> None:
    """Wherever the clock stands, and however its seconds round, the wait ends in time."""
    draw = Random(1)
    async with talk() as scene:
        for _ in range(500):
            await asyncio.sleep(draw.random() * 10.0)
            calm = Calm(CLOCK)
            await asyncio.sleep(draw.random() * 0.5)
            calm.heard(TALK)
            begun = CLOCK.monotonic()
            await calm.wait(scene.session)
            waited = CLOCK.monotonic() - begun
            assert waited == pytest.approx(WAITS["calm"].seconds, abs=0.01)


async def test_a_mesh_that_never_rests_is_not_waited_for() -> None:
    """Others who go on talking hold us up for a bounded time."""
    async with talk() as scene:
        calm = Calm(CLOCK)

        async def chatter() -> None:
            while True:
                await asyncio.sleep(0.3)
                calm.heard(TALK)

        talking = asyncio.create_task(chatter())
        begun = CLOCK.monotonic()
        await calm.wait(scene.session)
        waited = CLOCK.monotonic() - begun
        talking.cancel()
        await asyncio.wait([talking])
        assert waited == pytest.approx(WAITS["calm_at_last"].seconds, abs=1.0)


async def test_a_repeated_acknowledgment_disturbs_nobody() -> None:
    """A node that waits for the rest of a message repeats itself; what is new counts as talk."""

    def partial(block_ack: int) -> PduOverheard:
        return PduOverheard(0x0010, 0x0011, False, SegmentAcknowledgment(7, block_ack))

    async with talk() as scene:
        calm = Calm(CLOCK)

        async def repeat() -> None:
            for _ in range(25):
                calm.heard(partial(0b01))
                await asyncio.sleep(0.4)

        async with background(repeat(), "repeat"):
            begun = CLOCK.monotonic()
            await calm.wait(scene.session)
            assert CLOCK.monotonic() - begun == pytest.approx(1.0, abs=0.01)
        calm.heard(partial(0b11))
        begun = CLOCK.monotonic()
        await calm.wait(scene.session)
        assert CLOCK.monotonic() - begun == pytest.approx(1.0, abs=0.01)


async def test_a_lost_link_ends_a_pause() -> None:
    """Nobody sits out a pause on a dead link."""
    async with talk() as scene:
        begun = CLOCK.monotonic()
        asyncio.get_running_loop().call_later(0.5, scene.session.lost.set)
        with pytest.raises(ConnectionLost):
            await pause(scene.session, 10.0)
        assert CLOCK.monotonic() - begun < 1.0
