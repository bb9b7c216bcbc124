"""Two gateways with one state, and a state that was rolled back: only the radio tells them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.errors import CopiedStore, MessagesDropped
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.mesh.models.generic_onoff import OnOffGet
from fastprovd.records import Node, RunState
from tests.support.copies import image_of
from tests.support.emulated import World, config, entropy, world
from tests.support.placed import PRIMARY, placed
from tests.support.scene import Listener


def another_gateway(here: World, directory: Path) -> Any:
    """A gateway with an adapter of its own, and its state in `directory`."""
    adapter = EmulatedAdapter(here.air.adapter("hci1"), name="hci1", seed=2)
    radio = BleakBearer("hci1", scanner_backend(adapter), client_backend(adapter))
    return open_gateway(config(directory), radio=radio, entropy=entropy())


def twin_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "twin"
    directory.mkdir()
    image_of(tmp_path / "state", directory / "state")
    return directory


async def hear_another(twin: Gateway, gateway: Gateway) -> None:
    """Listen through a proxy while the other gateway sends."""
    async with twin._way_in() as open_session, open_session() as session:
        await session.server_address
        for _ in range(3):
            await gateway.controls.set_onoff(ALL_NODES, True)
        session.check()


async def test_a_second_gateway_with_our_state_is_noticed(tmp_path: Path) -> None:
    """Whoever is behind hears SEQ that it never used, and is refused from then on."""
    async with placed(3, tmp_path) as (here, gateway):
        directory = twin_directory(tmp_path)
        async with another_gateway(here, directory) as twin:
            with pytest.raises(CopiedStore, match="another gateway uses a copy"):
                await hear_another(twin, gateway)
            for command in (twin.controls.get_onoff(PRIMARY), twin.refresh_nodes()):
                with pytest.raises(CopiedStore):
                    await command
            with pytest.raises(CopiedStore):
                twin.prepare_run(twin.settings(expected=1))
        with pytest.raises(CopiedStore, match="fastprovd state adopt"):
            async with another_gateway(here, directory):
                pass
        assert (await gateway.controls.get_onoff(PRIMARY)).onoff


async def test_a_run_beside_a_second_gateway_ends_with_the_reason(tmp_path: Path) -> None:
    """It does not go on with an address that is not its own; what was won stays."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        directory = twin_directory(tmp_path)
        gateway._store.reserve_seq_block(1 << 12)
        gateway._store.save_nodes([Node(PRIMARY, "r-twin")])
        async with another_gateway(here, directory) as twin:
            listener = Listener()
            twin.audiences.members.append(listener)
            executing = asyncio.create_task(
                twin.execute(twin.prepare_run(twin.settings(expected=3)))
            )
            await listener.reached(RunState.CLOSING)
            async with gateway._way_in() as open_session, open_session() as session:
                for _ in range(3):
                    await session.send(OnOffGet(), dst=ALL_NODES, key=gateway.network.app_key)
                    await asyncio.sleep(1.0)
            run = await executing
        assert run.state is RunState.PARTIAL
        assert "our own address 0x0001" in (run.reason or "")
        assert run.proven == 3


async def test_a_state_that_was_rolled_back_is_named(tmp_path: Path) -> None:
    """The proxy drops what we send as replays; the command says so, not only who is silent."""
    async with placed(2, tmp_path) as (here, gateway):
        directory = twin_directory(tmp_path)
        for _ in range(200):
            await gateway.controls.get_onoff(PRIMARY)
        await gateway.controls.set_onoff(ALL_NODES, True)
        async with another_gateway(here, directory) as old:
            for command in (
                old.controls.get_onoff(PRIMARY),
                old.controls.set_onoff(PRIMARY, True),
                old.controls.set_onoff(ALL_NODES, True),
            ):
                with pytest.raises(MessagesDropped, match="restored from an old backup"):
                    await command


async def test_nodes_that_are_silent_are_no_rolled_back_state(tmp_path: Path) -> None:
    """The proxy takes what we send, so the node is what does not answer."""
    async with placed(2, tmp_path, without_app_key=[PRIMARY + 1]) as (_, gateway):
        switched = await gateway.controls.set_onoff(ALL_NODES, True)
        assert switched.unconfirmed == (PRIMARY + 1,)
