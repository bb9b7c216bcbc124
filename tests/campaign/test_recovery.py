"""A way into a network whose Primary stays silent, rung by rung."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastprovd.campaign.settings import RunSettings
from fastprovd.emulator.hosts import Flaws
from fastprovd.records import RunState, Window
from tests.support.scene import device_address, scene

RunVirtual = Callable[[Coroutine[Any, Any, Any]], Any]
PERFECT = Flaws.none()


def test_a_board_that_is_left_becomes_the_way_in(run_virtual: RunVirtual) -> None:
    """The Primary is gone, no other proxy is there, a board is free: we make it our proxy."""

    async def main() -> None:
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

    run_virtual(main())


def test_every_rung_in_vain_ends_in_time(run_virtual: RunVirtual) -> None:
    """All boards lost their power: both rungs are tried, and the operator is told what to do."""

    async def main() -> None:
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

    run_virtual(main())
