"""Sizes x hosts x seeds with every flaw on: no hang, no board killed, and the result is true.

Done where every board can be proven; else partial, naming exactly the boards that the firmware
left without AppKey.
"""

from __future__ import annotations

import pytest

from fastprovd.emulator.hosts import Flaws, Host
from tests.support.scene import scene

SIZES = (1, 2, 5, 7, 20, 50, 100)
SEEDS = (1, 2, 3, 4, 5)
HOSTS = (Host.BLUEDROID, Host.NIMBLE)


@pytest.mark.parametrize("boards", SIZES)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
@pytest.mark.parametrize("seed", SEEDS)
async def test_run_tells_the_truth(boards: int, host: Host, seed: int) -> None:
    """Known are the true nodes, proven are those with AppKey, missing are the others."""
    async with scene(boards, seed, host=host, flaws=Flaws()) as s:
        run = await s.campaign.execute()
        s.check_against_truth(run)
