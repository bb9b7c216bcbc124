"""Several Primaries, a spare proxy, and boards that only other boards hear."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from bleak.exc import BleakDBusError

from fastprovd.bearers.link_limit import START_LINKS
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator import firmware
from fastprovd.emulator.air import Reach
from fastprovd.emulator.bluez_adapter import FAILED
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.mesh.addresses import format_address
from fastprovd.records import NodeRole, RunState, Window
from tests.support.scene import Scene, device_address, scene

PERFECT = Flaws.none()
DEADLY = replace(PERFECT, silence_after_node_identity=True)


def primaries_of(s: Scene) -> list[int]:
    """Return the addresses of the boards that are Primary Provisioners."""
    return sorted(a for a, board in s.true_nodes().items() if board.is_primary)


@pytest.mark.parametrize("primaries", [2, 3])
async def test_several_primaries_share_the_work(primaries: int) -> None:
    """All are told, all end known and proven, every share was used by its own only."""
    settings = RunSettings(expected=20, primaries=primaries)
    async with scene(20, 4, host=Host.NIMBLE, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        s.check_against_truth(run)
        told = [
            n.address for n in s.listener.nodes.values() if n.role is NodeRole.PRIMARY_PROVISIONER
        ]
        assert sorted(told) == primaries_of(s) == list(range(0x0002, 0x0002 + primaries))
        # A third one may find that the first two and their children have taken all.
        assert sum(bool(s.true_nodes()[address].children) for address in told) >= 2
        assert run.window_evidence is not None
        assert f"Provisioners {' and '.join(map(format_address, told))} confirmed it" in (
            run.window_evidence
        )


async def test_no_more_primaries_than_links() -> None:
    """An adapter that bears one link gets one Primary, whatever was asked."""
    settings = RunSettings(expected=5, primaries=3, links=1)
    async with scene(5, 4, flaws=PERFECT, settings=settings, links=1) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert primaries_of(s) == [0x0002]


async def test_a_primary_that_can_not_be_made_is_done_without() -> None:
    """The first board can be reached, then nobody for a while: it is the one Primary."""
    async with scene(4, 4, flaws=PERFECT, settings=RunSettings(expected=4, primaries=2)) as s:
        refused = BleakDBusError(FAILED, ["le-connection-abort-by-local"])
        s.adapter.fail_connects.extend([None, *[refused] * 18])
        run = await s.campaign.execute()
        assert primaries_of(s) == [0x0002]
        assert run.proven == 4
        warned = [data["reason"] for kind, data in s.listener.events if kind == "warning"]
        assert any("no board could be made the Primary" in reason for reason in warned)


async def test_a_primary_outlasts_the_search_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """After almost a minute of vain attempts at other boards it is alive, and provisions them."""
    monkeypatch.setattr(firmware, "SILENCE_WITH_LINK", 1.0)
    # The attempts take 56 s here; with more Primaries to make they may take longer.
    monkeypatch.setattr(firmware, "NODE_IDENTITY_S", 50.0)

    settings = RunSettings(expected=8, primaries=2)
    async with scene(8, 4, host=Host.BLUEDROID, flaws=DEADLY, settings=settings) as s:
        running = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.CONFIGURING_PRIMARY)
        (primary,) = s.true_nodes().values()
        others = [board for board in s.air.boards if board is not primary]
        for board in others:
            board.stalls.silent_sessions = 100
        run = await running
        assert not primary.is_silent
        assert run.state is RunState.DONE, run.reason


async def test_with_one_primary_a_spare_is_a_plain_node() -> None:
    """It is provisioned before the start, proven, and its proxy stays on the air."""
    async with scene(6, 4, flaws=PERFECT, settings=RunSettings(expected=6)) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        spare = [n for n in s.listener.nodes.values() if n.provisioned_by == s.top.stack.address]
        assert sorted(n.role for n in spare) == [NodeRole.NODE, NodeRole.PRIMARY_PROVISIONER]


async def test_without_addresses_for_a_spare_the_run_goes_on() -> None:
    """The Primary's share is all that is left: no spare, a warning, and every board is proven."""
    settings = RunSettings(expected=6, unicast_max=0x0010)
    async with scene(6, 4, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.DONE, run.reason
        warned = [data["about"] for kind, data in s.listener.events if kind == "warning"]
        assert warned == ["unicast addresses"]


async def test_nobody_reaches_out_without_addresses() -> None:
    """Who is heard is proven, the others are missing, and no node of ours is called a Primary."""
    settings = RunSettings(expected=5, method=Method.AUTO, scan_s=5.0, unicast_max=0x0004)
    async with scene(5, 4, flaws=PERFECT, settings=settings) as s:
        for number in range(4, 6):
            s.air.set_reach(device_address(number), "hci0", None)
        run = await s.campaign.execute()
        assert (run.state, run.proven) == (RunState.PARTIAL, 3)
        assert {node.role for node in s.listener.nodes.values()} == {NodeRole.NODE}
        assert primaries_of(s) == []


@pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
async def test_nodes_of_ours_provision_who_we_do_not_hear(host: Host) -> None:
    """The boards beyond our reach are provisioned by those at its edge, known, proven, closed."""
    settings = RunSettings(expected=12, method=Method.AUTO, scan_s=5.0)
    async with scene(12, 4, host=host, flaws=PERFECT, settings=settings) as s:
        for number in range(6, 13):
            s.air.set_reach(device_address(number), "hci0", None)
        run = await s.campaign.execute()
        assert run.state is RunState.DONE, run.reason
        assert (run.heard, run.proven) == (5, 12)
        assert run.window is Window.CLOSED
        s.check_against_truth(run)
        taken = [r for r in s.store.reserved_addresses() if r.run_id == run.run_id]
        assert len(taken) == 1 + len(primaries_of(s))


async def test_cells_behind_cells() -> None:
    """Three cells in a row with 20 % loss, of which we hear one: all are known and proven."""
    settings = RunSettings(expected=30, method=Method.AUTO, scan_s=5.0)
    async with scene(30, 1, host=Host.NIMBLE, settings=settings) as s:
        s.air.set_default_reach(Reach(loss=0.2))
        for number in range(1, 31):
            if number > 10:
                s.air.set_reach(device_address(number), "hci0", None)
            for other in range(1, number):
                if (number - 1) // 10 - (other - 1) // 10 > 1:
                    s.air.set_reach(device_address(number), device_address(other), None)
        run = await s.campaign.execute()
        s.check_against_truth(run)
        assert (run.heard, run.proven) == (10, 30)
        assert run.t_provisioned_s is not None
        assert run.t_provisioned_s == pytest.approx(s.t_provisioned_s(), abs=1.0)


async def test_three_hundred_boards() -> None:
    """We provision all of them, with as many links as the adapter bears."""
    settings = RunSettings(expected=300, method=Method.AUTO, links=START_LINKS)
    async with scene(300, 4, flaws=Flaws(), settings=settings) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.DONE, run.reason
        assert run.proven == 300
        assert len(set(s.true_nodes())) == 300
