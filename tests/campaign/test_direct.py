"""Boards that we provision ourselves, some at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.tasks import background
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.mesh.beacons import NetworkIdentity
from fastprovd.records import AddressRange, RunState
from tests.support.scene import Scene, device_address, scene

HOSTS = pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)


def direct(boards: int, **more: Any) -> RunSettings:
    return RunSettings(method=Method.DIRECT, expected=boards, **more)


def check_nobody_is_left_behind(s: Scene) -> None:
    """No board takes others in, has a link, or lacks group and DevKey."""
    for address, board in s.true_nodes().items():
        assert not board.is_provisioner
        assert board.link_count == 0
        assert board.node is not None
        assert board.node.subscriptions == (0xC000,)
        key = s.store.dev_key(address)
        assert key is not None
        assert board.node.stack.dev_keys[address].octets == key.octets
    assert s.adapter.connections == 0
    assert not s.adapter.discovering


@HOSTS
@pytest.mark.parametrize("boards", [1, 2, 5, 20, 100])
async def test_a_run_without_provisioners(boards: int, host: Host) -> None:
    """With every flaw on: all boards are nodes, with group and DevKey, and proven at once."""
    async with scene(boards, 7, host=host, flaws=Flaws(), settings=direct(boards)) as s:
        run = await s.campaign.execute()
        s.check_against_truth(run)
        assert run.state is RunState.DONE
        assert (run.known, run.proven) == (boards, boards)
        assert run.primary is None
        assert run.t_known_s is not None
        assert run.t_proven_s is not None
        assert run.t_proven_s - run.t_known_s < 1.0
        # 3.1 s a board and link, of 5, and a little for hearing the boards again.
        assert run.t_known_s < 3.0 + 0.7 * boards
        # A board with the Bluedroid host dies after Node Identity; it must not come to that.
        await asyncio.sleep(70.0)
        check_nobody_is_left_behind(s)
        assert not any(board.is_silent for board in s.air.boards)


async def test_some_proxies_stay_on_the_air() -> None:
    """The first three, one of twelve, and the quietest of the first, while others are not heard."""
    async with scene(30, 3, flaws=Flaws(), settings=direct(30)) as s:
        await s.campaign.execute()
        # Until BlueZ has hung up a board shows its Network ID, also with its proxy off.
        await asyncio.sleep(3.0)
        on_air: set[str] = set()
        async with s.bearer.scan() as scan:
            try:
                async with asyncio.timeout(3.0):
                    async for heard in scan:
                        if isinstance(heard.data, NetworkIdentity):
                            on_air.add(heard.device_address)
            except TimeoutError:
                pass
        # The run begins with five boards: while the others are not heard, three of these may
        # have to reach them.
        assert len(on_air) == 5 + 2


@pytest.mark.parametrize("links", [1, 3])
async def test_there_are_never_more_links_than_allowed(links: int) -> None:
    """Counted at the adapter, with those that BlueZ is still hanging up."""
    async with scene(12, 5, settings=direct(12, links=links), links=links) as s:
        most = 0

        async def count() -> None:
            nonlocal most
            while True:
                most = max(most, s.adapter.connections)
                await asyncio.sleep(0.02)

        async with background(count(), "count"):
            run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert most == links


async def test_a_board_that_is_switched_off_is_missing_alone() -> None:
    """The others are done; it is named as one that nobody could provision."""
    async with scene(6, 4, settings=direct(6)) as s:
        running = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.CONNECTING)
        s.air.boards[2].power_off()
        run = await running
        assert run.state is RunState.PARTIAL
        assert run.proven == 5
        (missing,) = run.missing
        assert missing.device_uuid == s.air.boards[2].uuid
        assert missing.reason.startswith("it could not be provisioned: ")
        check_nobody_is_left_behind(s)


async def test_a_board_that_loses_power_between_is_told_apart() -> None:
    """One that comes back unprovisioned after it was made a node is provisioned anew."""
    async with scene(4, 4, settings=direct(4)) as s:
        lost = s.air.boards[1]

        async def cut() -> None:
            # At 3 s all are being provisioned: some are nodes already, without their keys.
            await s.listener.reached(RunState.PROVISIONING)
            await asyncio.sleep(1.0)
            lost.power_off()
            await asyncio.sleep(1.0)
            lost.power_on()

        async with background(cut(), "cut"):
            run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert run.missing == ()
        proven = {node.address for node in s.listener.address_list if node.proven}
        truth = {a for a, board in s.true_nodes().items() if board.has_app_key}
        assert proven == truth == set(s.true_nodes())
        (ghost,) = {node.address for node in s.listener.address_list} - proven
        assert s.listener.nodes[ghost].device_uuid == lost.uuid


@pytest.mark.parametrize("faults", range(1, 7))
async def test_failed_connections_cost_time_and_nothing_else(faults: int) -> None:
    """Some connects in a row fail; every board is done in the end."""
    async with scene(5, faults, settings=direct(5)) as s:
        refused = ConnectionRefusedError("no")
        s.adapter.fail_connects.extend([refused] * faults)
        run = await s.campaign.execute()
        s.check_against_truth(run)


async def test_without_addresses_it_does_not_begin() -> None:
    """The run fails with the advice, and no board is touched."""
    settings = direct(3, unicast_min=0x0010, unicast_max=0x0013)
    async with scene(3, 1, settings=settings) as s:
        s.store.reserve_addresses(AddressRange(0x0011, 0x0011, "r-before", "test"))
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert run.reason is not None
        assert "widen [mesh] unicast_min" in run.reason
        assert s.true_nodes() == {}


async def test_a_stopped_run_keeps_what_it_has() -> None:
    """Half-way the operator stops: no link stays, and the nodes made so far are known."""
    async with scene(20, 2, settings=direct(20)) as s:
        running = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.PROVISIONING)
        await asyncio.sleep(4.0)
        s.campaign.stop()
        run = await running
        assert run.state is RunState.STOPPED
        assert 0 < run.known < 20
        known = {node.address for node in s.listener.address_list}
        assert known <= set(s.true_nodes())
        # What was under way may have become a node; its DevKey is kept.
        assert all(s.store.dev_key(address) is not None for address in s.true_nodes())
        await asyncio.sleep(3.0)
        assert s.adapter.connections == 0


@pytest.mark.parametrize(
    ("boards", "expected", "links", "is_direct"),
    [(3, 3, 5, True), (3, None, 5, True), (3, 4, 5, False), (3, 3, 1, True)],
)
async def test_auto_takes_the_faster_way(
    boards: int, expected: int | None, links: int, is_direct: bool
) -> None:
    """Ourselves, unless there are boards that we do not hear."""
    settings = RunSettings(method=Method.AUTO, expected=expected, links=links, scan_s=5.0)
    async with scene(boards, 1, settings=settings, flaws=Flaws.none()) as s:
        run = await s.campaign.execute()
        assert run.known == boards
        assert any(board.is_provisioner for board in s.air.boards) is not is_direct
        assert (run.primary is None) is is_direct


async def test_the_states_it_passes() -> None:
    """From connecting straight to provisioning, then proving."""
    async with scene(2, 1, settings=direct(2)) as s:
        await s.campaign.execute()
        states = list(dict.fromkeys(run.state for run in s.listener.runs))
        assert states == [
            RunState.SCANNING,
            RunState.CONNECTING,
            RunState.PROVISIONING,
            RunState.PROVING,
            RunState.DONE,
        ]
        assert device_address(1) in {n.device_address for n in s.listener.nodes.values()}
