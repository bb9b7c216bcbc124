"""Whole runs with bleak's own BlueZ backend: BleakBearer as it is, D-Bus, the emulated boards."""

from __future__ import annotations

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.private_bus import PrivateBus
from tests.support.scene import over_dbus, scene


@pytest.mark.parametrize("boards", [5, 20])
@pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
@pytest.mark.parametrize("flaws", [Flaws.none(), Flaws()], ids=["flawless", "flaws"])
@pytest.mark.parametrize("method", [Method.FAST, Method.DIRECT])
async def test_run_over_dbus_tells_the_truth(
    private_bus: PrivateBus, boards: int, host: Host, flaws: Flaws, method: Method
) -> None:
    """Nodes, proof and verdict are true; neither link nor scan is left behind."""
    async with scene(
        boards,
        1,
        host=host,
        flaws=flaws,
        settings=RunSettings(method=method, expected=boards),
        door=over_dbus(private_bus.address),
    ) as s:
        run = await s.campaign.execute()
        s.check_against_truth(run)
        for address, node in s.listener.nodes.items():
            assert node.device_address in (None, s.true_nodes()[address].device_address)
        assert {node.address for node in s.listener.address_list} == set(s.true_nodes())
    assert s.adapter.connections == 0
    assert not s.adapter.discovering
