"""A run is only as good as its network a minute later: whoever was proven answers then, too."""

from __future__ import annotations

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator.hosts import Flaws, Host
from tests.support.alive import LATER_S, silent_later, silent_nodes
from tests.support.scene import scene

SEEDS = (1, 2, 3)
HOSTS = (Host.BLUEDROID, Host.NIMBLE)


@pytest.mark.parametrize("boards", [1, 3, 7, 12])
@pytest.mark.parametrize("method", list(Method), ids=lambda method: method.value)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
@pytest.mark.parametrize("seed", SEEDS)
async def test_who_was_proven_answers_later(
    boards: int, method: Method, host: Host, seed: int
) -> None:
    """Two minutes and an hour after the end of a run, with all flaws on, nobody fell silent."""
    settings = RunSettings(expected=boards, method=method)
    async with scene(boards, seed, host=host, flaws=Flaws(), settings=settings) as s:
        run = await s.campaign.execute()
        assert run.proven > 0, run.reason
        assert await silent_later(s) == {after_s: set() for after_s in LATER_S}


async def test_who_lost_its_power_is_missed() -> None:
    """The question can be answered with no: by one node, and by all when no proxy is left."""
    settings = RunSettings(expected=3, method=Method.DIRECT)
    async with scene(3, 1, host=Host.NIMBLE, flaws=Flaws(), settings=settings) as s:
        await s.campaign.execute()
        nodes = s.listener.nodes.values()
        assert await silent_nodes(s, nodes) == set()
        address, board = min(s.true_nodes().items())
        board.power_off()
        assert await silent_nodes(s, nodes) == {address}
        for board in s.air.boards:
            board.power_off()
        assert await silent_nodes(s, nodes) == {node.address for node in nodes}
