"""OnOff to many nodes, over emulated boards in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.errors import BearerError
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.records import Switched
from tests.conftest import RunVirtual
from tests.support.emulated import World
from tests.support.placed import GROUP, PRIMARY, in_a_row, placed

HOSTS = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda host: host.name)
# Emulated seconds from the command, the search for a proxy and its link included.
GOAL_S = 3.0
SEEDS = 20
_LOOK_S = 0.02


@asynccontextmanager
async def switched_on(world: World) -> AsyncIterator[dict[str, float]]:
    """Yield when each board was first seen to be on, in seconds from now."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    when: dict[str, float] = {}

    async def look() -> None:
        while True:
            for board in world.air.boards:
                if board.onoff:
                    when.setdefault(board.device_address, loop.time() - begun)
            await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield when
    finally:
        looking.cancel()
        await asyncio.wait([looking])


def addresses(boards: list[Board] | tuple[Board, ...]) -> tuple[int, ...]:
    return tuple(sorted(board.unicast_address or 0 for board in boards))


def killed(world: World) -> int:
    return sum(board.killed_count for board in world.air.boards)


@HOSTS
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("boards", [1, 5, 20])
async def test_all_are_switched_and_confirm_it(
    tmp_path: Path, boards: int, loss: float, host: Host
) -> None:
    """Whatever the loss: all have it within 3 s, all confirm it, nobody is killed."""
    async with placed(boards, tmp_path, host=host, loss=loss) as (world, gateway):
        async with switched_on(world) as when:
            result = await gateway.controls.set_onoff(ALL_NODES, True)
        everybody = addresses(world.air.boards)
        assert result == Switched(ALL_NODES, True, everybody, ())
        assert len(when) == boards
        assert max(when.values()) < GOAL_S
        assert killed(world) == 0


@HOSTS
async def test_far_nodes_confirm(tmp_path: Path, host: Host) -> None:
    """Over four hops and at 30 % loss everybody is asked, and has answered before the deadline."""
    async with placed(20, tmp_path, host=host) as (world, gateway):
        in_a_row(world, cells=5, loss=0.3)
        result = await gateway.controls.set_onoff(ALL_NODES, True)
        assert result.unconfirmed == ()
        assert killed(world) == 0


@HOSTS
async def test_100_nodes_confirm(tmp_path: Path, host: Host) -> None:
    """A hundred by group, then by name; a dozen answers at once, which kill, never meet."""
    async with placed(100, tmp_path, host=host) as (world, gateway):
        result = await gateway.controls.set_onoff(GROUP, True)
        assert result.confirmed == addresses(world.air.boards)
        assert result.unconfirmed == ()
        assert killed(world) == 0


@pytest.mark.parametrize(("loss", "cells"), [(0.1, 1), (0.1, 5), (0.3, 5)])
def test_100_nodes_converge_within_3_seconds(
    run_virtual: RunVirtual[Any], tmp_path: Path, loss: float, cells: int
) -> None:
    """In one cell or over four hops, counted from the command: every board is on in time."""

    async def main(seed: int) -> float:
        host = (Host.NIMBLE, Host.BLUEDROID)[seed % 2]
        place = tmp_path / str(seed)
        place.mkdir()
        async with placed(100, place, seed=seed, host=host, loss=loss) as (world, gateway):
            in_a_row(world, cells, loss)
            async with switched_on(world) as when:
                result = await gateway.controls.set_onoff(ALL_NODES, True, confirm=False)
                await asyncio.sleep(GOAL_S)
            assert result.unconfirmed == addresses(world.air.boards)
            assert len(when) == 100
            assert killed(world) == 0
            return max(when.values())

    last = sorted(run_virtual(main(seed)) for seed in range(SEEDS))
    assert last[-1] <= GOAL_S, f"seconds until the last board was on: {last}"


async def test_who_does_not_hear_the_group_is_repaired(tmp_path: Path) -> None:
    """Nodes that lost the group get the state by name, and all of them by 0xFFFF."""
    async with placed(8, tmp_path, loss=0.1) as (world, gateway):
        deaf = (4, 6, 9)
        for address in deaf:
            node = world.board(address).node
            assert node is not None
            node.unsubscribe(GROUP)
        quick = await gateway.controls.set_onoff(GROUP, True, confirm=False)
        assert quick.confirmed == ()
        assert addresses([b for b in world.air.boards if not b.onoff]) == deaf
        result = await gateway.controls.set_onoff(GROUP, True)
        assert result.unconfirmed == ()
        assert all(board.onoff for board in world.air.boards)
        await gateway.controls.set_onoff(ALL_NODES, False, confirm=False)
        assert not any(board.onoff for board in world.air.boards)


@HOSTS
async def test_who_is_silent_is_named(tmp_path: Path, host: Host) -> None:
    """Boards without power or AppKey, and only they, are not confirmed; the others are kept."""
    async with placed(20, tmp_path, host=host, loss=0.1, without_app_key=(5, 7)) as (
        world,
        gateway,
    ):
        world.board(9).power_off()
        result = await gateway.controls.set_onoff(ALL_NODES, True)
        assert result.unconfirmed == (5, 7, 9)
        assert len(result.confirmed) == 17
        nodes = await asyncio.to_thread(gateway._store.nodes)
        assert [node.address for node in nodes if node.onoff] == list(result.confirmed)
        assert killed(world) == 0


async def test_the_deadline_names_the_rest(tmp_path: Path) -> None:
    """When nearly everybody is off, asking ends in bounded time, and those who answer count."""
    async with placed(40, tmp_path) as (world, gateway):
        for board in world.air.boards[2:]:
            board.power_off()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        result = await gateway.controls.set_onoff(ALL_NODES, True)
        assert result.confirmed == (2, 3)
        assert result.unconfirmed == tuple(range(4, 42))
        assert loop.time() - begun < 60.0


async def test_a_link_that_is_lost_is_opened_again(tmp_path: Path) -> None:
    """The question goes on with those who wait, over another link."""
    async with placed(20, tmp_path) as (world, gateway):
        primary = world.board(PRIMARY)
        loop = asyncio.get_running_loop()
        loop.call_later(4.0, lambda: primary._links[0].hang_up(0.0))
        result = await gateway.controls.set_onoff(ALL_NODES, True)
        assert result.unconfirmed == ()
        connected = [e for e in world.air.timeline if e.what.name == "CONNECTED"]
        assert len(connected) == 2


async def test_without_a_way_back_the_rest_is_named(tmp_path: Path) -> None:
    """When the only proxy goes, who had confirmed is told apart; if nobody had, the error comes."""
    async with placed(20, tmp_path) as (world, gateway):
        loop = asyncio.get_running_loop()
        loop.call_later(4.0, world.board(PRIMARY).power_off)
        result = await gateway.controls.set_onoff(ALL_NODES, True)
        assert result.confirmed
        assert result.unconfirmed
        assert set(result.confirmed) | set(result.unconfirmed) == set(range(2, 22))
        with pytest.raises(BearerError):
            await gateway.controls.set_onoff(ALL_NODES, False)
