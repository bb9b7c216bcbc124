"""Asking nodes by name, and when silence counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastprovd.campaign.census import Asked, Census
from fastprovd.clock import SystemClock
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.mesh.beacons import Advertisement, NetworkIdentity
from fastprovd.mesh.keys import AppKey
from fastprovd.records import Node, RunState
from tests.conftest import RunVirtual
from tests.support.emulated import World, config, entropy, world
from tests.support.pretended import PretendedRadio


async def provisioned(gateway: Gateway, boards: int) -> list[Node]:
    settings = gateway.settings(expected=boards, method="direct")
    run = await gateway.execute(gateway.prepare_run(settings))
    assert run.state is RunState.DONE
    return (await gateway.last_run())[1]


def census(gateway: Gateway, nodes: list[Node], app_key: AppKey, **kwargs: Any) -> Census:
    return Census(gateway._radio, gateway._top, SystemClock(), app_key, nodes, **kwargs)


async def test_a_node_is_asked_under_its_own_key(tmp_path: Path) -> None:
    """So one that has no AppKey answers; without a DevKey there is only the AppKey to ask under."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        nodes = await provisioned(gateway, 3)
        addresses = {node.address for node in nodes}
        unknown = AppKey(bytes(16), gateway.network.app_key.index)
        dev_keys = {a: key for a in addresses if (key := gateway._store.dev_key(a))}
        async with gateway._radio:
            asked = await census(gateway, nodes, unknown, dev_keys=dev_keys).ask(addresses)
            assert asked == Asked(frozenset(addresses))
            asked = await census(gateway, nodes, unknown).ask(addresses)
            assert not asked.answering


async def test_a_node_that_is_off_is_silent(tmp_path: Path) -> None:
    """A proxy of ours carried the question, and others answered."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        nodes = await provisioned(gateway, 3)
        addresses = {node.address for node in nodes}
        off = nodes[-1].address
        here.board(off).power_off()
        async with gateway._radio:
            asked = await census(gateway, nodes, gateway.network.app_key).ask(addresses)
        assert asked == Asked(frozenset(addresses - {off}), frozenset({off}))


def test_without_a_proxy_that_has_our_key_nobody_is_silent(
    run_virtual: RunVirtual[Any], tmp_path: Path
) -> None:
    """None on the air, or only what advertises our Network ID: nothing is known of the nodes."""

    async def other_network(here: World) -> None:
        directory = tmp_path / "other"
        directory.mkdir()
        async with open_gateway(config(directory), radio=here.radio, entropy=entropy(9)) as gateway:
            await provisioned(gateway, 1)

    async def main() -> None:
        here = world(2)
        async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
            nodes = await provisioned(gateway, 2)
            addresses = {node.address for node in nodes}
            for board in here.air.boards:
                board.power_off()
            async with gateway._radio:
                asked = await census(gateway, nodes, gateway.network.app_key).ask(addresses)
            assert asked == Asked(frozenset())
        pretender = here.air.add_board("24:0A:C4:5E:00:77")
        await other_network(here)
        network = NetworkIdentity(gateway.network.net_key.network_id)
        ad = Advertisement(pretender.device_address, network, -30, 0.0)
        radio = PretendedRadio(here.radio, lambda: [ad])
        async with open_gateway(config(tmp_path), radio=radio, entropy=entropy(2)) as gateway:
            async with gateway._radio:
                asked = await census(gateway, nodes, gateway.network.app_key).ask(addresses)
            assert asked == Asked(frozenset())

    run_virtual(main())
