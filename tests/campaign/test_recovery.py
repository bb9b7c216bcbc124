"""A way into a network whose Primary stays silent, rung by rung."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator.hosts import Flaws
from fastprovd.mesh.beacons import Advertisement, NetworkIdentity, UnprovisionedDevice
from fastprovd.records import Run, RunState, Window
from tests.support.pretended import ELSEWHERE, haunted
from tests.support.scene import device_address, scene

PERFECT = Flaws.none()


async def test_a_board_that_is_left_becomes_the_way_in() -> None:
    """The Primary is gone, no other proxy is there, a board is free: we make it our proxy."""
    settings = RunSettings(expected=2, primary_return_s=30.0)
    async with scene(2, 2, flaws=PERFECT, settings=settings) as s:
        s.air.set_reach(device_address(1), device_address(2), None)
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.PROVISIONING)
        first = s.true_nodes()[s.campaign.run.primary or 0]
        first.power_off()
        end = await run
        assert s.rungs()[:3] == ["another_proxy", "spare_proxy", "wake_primary"]
        assert end.state is RunState.PARTIAL
        assert [board.address for board in end.missing] == [end.primary]
        assert end.proven == 1
        assert end.window is Window.CLOSED


async def test_every_rung_in_vain_ends_in_time() -> None:
    """All boards lost their power: both rungs are tried, and the operator is told what to do."""
    settings = RunSettings(expected=5, primary_return_s=30.0)
    async with scene(5, 2, flaws=PERFECT, settings=settings) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.PROVISIONING)
        await asyncio.sleep(1.0)
        for board in s.air.boards:
            board.power_off()
        end = await run
        assert end.state is RunState.PARTIAL
        assert s.rungs() == ["another_proxy", "spare_proxy", "ask_operator"]
        assert "power-cycle all boards" in (end.reason or "")
        assert end.elapsed_s < 120.0


async def test_a_spare_that_is_gone_is_not_proven() -> None:
    """It answered before its power was cut, too; in the end its proxy is not on the air."""
    settings = RunSettings(expected=3, method=Method.FAST, primary_return_s=30.0)
    async with scene(3, 2, flaws=PERFECT, settings=settings) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.PROVISIONING)
        assert s.campaign.run.proven == 1
        for board in s.air.boards:
            board.power_off()
        end = await run
        assert end.state is RunState.PARTIAL
        assert end.proven == 0
        assert "node_fell_silent" in [kind for kind, _ in s.listener.events]


@pytest.mark.parametrize("is_borrowed", [False, True])
@pytest.mark.parametrize("boards", [1, 5])
async def test_a_primary_does_not_restart_on_hearsay(is_borrowed: bool, boards: int) -> None:
    """Whoever advertises its Device UUID, from wherever: it is waited for, and found."""
    pretended: list[Advertisement] = []
    async with scene(boards, 2, flaws=PERFECT, door=haunted(lambda: pretended)) as s:

        def pretend(run: Run) -> None:
            if run.state is RunState.PROVISIONING:
                primary = s.true_nodes()[run.primary or 0]
                address = primary.device_address if is_borrowed else ELSEWHERE
                for data in (NetworkIdentity(bytes(8)), UnprovisionedDevice(primary.uuid)):
                    pretended.append(Advertisement(address, data, -20, 0.0))

        s.listener.watchers.append(pretend)
        run = await s.campaign.execute()
        assert pretended
        assert run.proven == boards
        assert len(s.true_nodes()) == boards
