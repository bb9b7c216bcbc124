"""Reaching the mesh outside of a run, over emulated boards in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bleak.exc import BleakDBusError

from fastprovd.campaign.control import (
    CONTROL_WAITS,
    get_node_list,
    get_onoff,
    network_session,
    set_onoff,
)
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.clock import SystemClock
from fastprovd.emulator.bluez_adapter import FAILED
from fastprovd.emulator.hosts import Flaws
from fastprovd.errors import (
    BluetoothUnavailable,
    ConnectionLost,
    DeviceNotFound,
    LocalProtocolError,
    ResponseTimeout,
)
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.records import Node
from tests.support.emulated import World, config, entropy, world

CLOCK = SystemClock()


@asynccontextmanager
async def network(boards: int, tmp_path: Path) -> AsyncIterator[tuple[World, Gateway]]:
    """Provision all boards, then open the radio for the body."""
    scene = world(boards)
    async with open_gateway(config(tmp_path), radio=scene.radio, entropy=entropy()) as gateway:
        await gateway.execute(gateway.prepare_run(gateway.settings(expected=boards)))
        async with scene.radio:
            yield scene, gateway


def session(
    scene: World, gateway: Gateway, nodes: Iterable[int] = (), **more: Any
) -> AbstractAsyncContextManager[ProxySession]:
    known = [Node(address, "r-1") for address in nodes]
    return network_session(scene.radio, gateway._top, CLOCK, nodes=known, **more)


def primary_of(scene: World) -> Any:
    (found,) = [board for board in scene.air.boards if board.is_primary]
    return found


async def test_nodes_are_asked_and_set(tmp_path: Path) -> None:
    """A node tells and confirms its state."""
    async with network(3, tmp_path) as (scene, gateway):
        key = gateway.network.app_key
        addresses = [board.unicast_address for board in scene.air.boards]
        async with session(scene, gateway, nodes=addresses) as proxy:
            for address in addresses:
                assert await get_onoff(proxy, key, address) is False
                assert await set_onoff(proxy, key, address, True, tid=address & 0xFF) is True
                assert scene.board(address).onoff


async def test_the_network_id_is_enough(tmp_path: Path) -> None:
    """A proxy without Node Identity is known by our Network ID, whoever it is."""
    async with network(2, tmp_path) as (scene, gateway), session(scene, gateway) as proxy:
        assert await get_onoff(proxy, gateway.network.app_key, 0x0002) is False


async def test_the_list_comes_from_the_primary(tmp_path: Path) -> None:
    """A session with the Primary itself reads its list."""
    async with network(4, tmp_path) as (scene, gateway):
        primary = primary_of(scene)
        async with session(
            scene,
            gateway,
            nodes=[primary.unicast_address],
            device_address=primary.device_address,
        ) as proxy:
            listed = await get_node_list(proxy, gateway.network.app_key, primary.unicast_address)
        assert listed == primary.listed_addresses
        assert len(listed) == 2


async def test_nobody_there(tmp_path: Path) -> None:
    """Boards that are off, or a stranger in the Primary's place, end in a sentence, in time."""
    async with network(2, tmp_path) as (scene, gateway):
        with pytest.raises(DeviceNotFound, match="24:0A:C4:5E:00:77"):
            async with session(scene, gateway, nodes=[2], device_address="24:0A:C4:5E:00:77"):
                raise AssertionError("there is no such board")
        for board in scene.air.boards:
            board.power_off()
        begun = CLOCK.monotonic()
        with pytest.raises(DeviceNotFound, match="no proxy of our network"):
            async with session(scene, gateway, nodes=[2, 3]):
                raise AssertionError("all boards are off")
        assert CLOCK.monotonic() - begun < CONTROL_WAITS["proxy"].seconds + 1.0


async def test_a_silent_node(tmp_path: Path) -> None:
    """A node that does not answer is a ResponseTimeout; the session goes on."""
    async with network(2, tmp_path) as (scene, gateway):
        key = gateway.network.app_key
        async with session(scene, gateway, nodes=[2]) as proxy:
            for ask in (get_onoff(proxy, key, 0x0700), set_onoff(proxy, key, 0x0700, True, 1)):
                with pytest.raises(ResponseTimeout):
                    await ask
            assert await get_onoff(proxy, key, 2) is False


async def test_a_failed_connection_is_tried_again(tmp_path: Path) -> None:
    """A link that can not be opened costs an attempt; when all fail the reason comes out."""
    async with network(1, tmp_path) as (scene, gateway):
        where: Any = {"nodes": [2], "device_address": scene.board(2).device_address}
        refused = BleakDBusError(FAILED, ["le-connection-abort-by-local"])
        scene.adapter.fail_connects.extend([refused] * 4)
        async with session(scene, gateway, **where) as proxy:
            assert await get_onoff(proxy, gateway.network.app_key, 2) is False
        scene.adapter.power(False)
        with pytest.raises(BluetoothUnavailable):
            async with session(scene, gateway, **where):
                raise AssertionError("the adapter is off")


async def test_a_group_is_no_proxy(tmp_path: Path) -> None:
    """Node Identity belongs to unicast addresses only."""
    async with network(1, tmp_path) as (scene, gateway):
        with pytest.raises(LocalProtocolError):
            async with session(scene, gateway, nodes=[0xC000]):
                raise AssertionError("0xc000 is no node")


async def test_connections_that_always_fail(tmp_path: Path) -> None:
    """The last reason comes out, whether one board is wanted or any."""
    async with network(1, tmp_path) as (scene, gateway):
        refused = BleakDBusError(FAILED, ["le-connection-abort-by-local"])
        scene.adapter.fail_connects.extend([refused] * 100)
        for where in ({}, {"device_address": scene.board(2).device_address}):
            with pytest.raises(ConnectionLost, match="abort-by-local"):
                async with session(scene, gateway, nodes=[2], **where):
                    raise AssertionError("no link can be opened")


async def test_a_board_that_is_no_node_yet(tmp_path: Path) -> None:
    """An unprovisioned board at the wanted place is not taken for a proxy."""
    async with network(1, tmp_path) as (scene, gateway):
        late = scene.air.add_board("24:0A:C4:5E:01:00", flaws=Flaws.none())
        with pytest.raises(DeviceNotFound, match=late.device_address):
            async with session(scene, gateway, device_address=late.device_address):
                raise AssertionError("it is no node yet")
