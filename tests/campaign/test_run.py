"""Whole runs over emulated boards, and every way they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastprovd.campaign.settings import Close, Method, RunSettings
from fastprovd.campaign.verdict import SILENT, UNPROVISIONED
from fastprovd.emulator.air import Reach
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.errors import StoreError
from fastprovd.records import AddressRange, NodeRole, ParentSource, Run, RunState, Window
from tests.support.scene import Scene, device_address, scene

RunVirtual = Callable[[Coroutine[Any, Any, Any]], Any]
PERFECT = Flaws.none()


def _states(scene: Scene) -> list[RunState]:
    states: list[RunState] = []
    for run in scene.listener.runs:
        if not states or states[-1] is not run.state:
            states.append(run.state)
    return states


@pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
async def test_run_ends_done_and_tells_the_truth(host: Host) -> None:
    """Seven perfect boards: the states of the table, the true addresses, stored and told alike."""
    async with scene(7, 3, host=host, flaws=PERFECT) as s:
        run = await s.campaign.execute()
        assert _states(s) == [
            RunState.SCANNING,
            RunState.CONNECTING,
            RunState.PROVISIONING_PRIMARY,
            RunState.CONFIGURING_PRIMARY,
            RunState.PROVISIONING,
            RunState.COLLECTING,
            RunState.PROVING,
            RunState.CLOSING,
            RunState.DONE,
        ]
        truth = s.true_nodes()
        assert {node.address for node in s.listener.address_list} == set(truth)
        assert all(node.proven for node in s.listener.address_list)
        assert (run.expected, run.heard, run.known, run.proven) == (7, 7, 7, 7)
        assert run.missing == ()
        assert run.reason is None
        assert run.t_known_s is not None
        assert run.t_proven_s is not None
        assert run.t_closed_s is not None
        assert run.t_known_s < run.t_proven_s < run.t_closed_s < run.elapsed_s
        assert s.store.run(run.run_id) == run
        assert sorted(s.store.nodes(), key=lambda n: n.address) == s.listener.address_list


async def test_primary_is_the_loudest_board_and_fully_known() -> None:
    """The Primary Provisioner has role, UUID, device address, elements and DevKey."""
    async with scene(3, 1, flaws=PERFECT) as s:
        run = await s.campaign.execute()
        assert run.primary is not None
        node = s.listener.nodes[run.primary]
        board = s.true_nodes()[run.primary]
        assert node.role is NodeRole.PRIMARY_PROVISIONER
        assert (node.device_uuid, node.device_address) == (board.uuid, board.device_address)
        assert node.elements == 1
        assert s.store.dev_key(run.primary) is not None
        found = {
            data["address"]: data["rssi_dbm"]
            for kind, data in s.listener.events
            if kind == "device_found"
        }
        assert found[board.device_address] == max(found.values())


async def test_parents_that_are_told_are_true() -> None:
    """Whoever is named as provisioner of a node, observed or inferred, provisioned it."""
    async with scene(20, 2, host=Host.NIMBLE, flaws=PERFECT) as s:
        await s.campaign.execute()
        truth = s.true_nodes()
        addresses = {board.device_address: address for address, board in truth.items()}
        told = 0
        for node in s.listener.address_list:
            if node.role is NodeRole.PRIMARY_PROVISIONER or node.provisioned_by is None:
                continue
            parent = truth[node.provisioned_by]
            children = {addresses[child] for child in parent.children}
            assert node.address in children, (node, parent.device_address)
            told += 1
        assert told >= 6
        sources = {node.parent_source for node in s.listener.address_list}
        assert ParentSource.INFERRED in sources


async def test_unannounced_number_is_what_is_heard() -> None:
    """Without `expected` the run waits for the boards to appear and proves all it heard."""
    async with scene(4, 5, flaws=PERFECT, settings=RunSettings()) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert (run.expected, run.heard, run.proven) == (None, 4, 4)


async def test_board_switched_on_during_the_run_belongs_to_it() -> None:
    """A late board is provisioned by the others, heard, listed and proven."""
    async with scene(4, 6, flaws=PERFECT, settings=RunSettings(expected=5)) as s:
        late = s.air.add_board(device_address(99), flaws=PERFECT, power_on=False)
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.COLLECTING)
        late.power_on()
        assert (await run).state is RunState.DONE
        assert late.unicast_address in s.listener.nodes


async def test_silent_board_is_named_by_address_and_device() -> None:
    """A board without AppKey is listed, silent, and identified through its own proxy."""
    async with scene(20, 2, flaws=Flaws()) as s:
        run = await s.campaign.execute()
        silent = s.without_app_key()
        assert silent, "this seed leaves boards without AppKey"
        assert run.state is RunState.PARTIAL
        assert {board.address for board in run.missing} == silent
        for board in run.missing:
            assert board.reason == SILENT
            assert board.address is not None
            true = s.true_nodes()[board.address]
            assert (board.device_address, board.device_uuid) == (true.device_address, true.uuid)


@pytest.mark.parametrize("close", ["suspend", "leave_open"])
async def test_board_out_of_the_provisioners_reach(close: Close) -> None:
    """We provision it, once the others have stopped; if they may go on, it is missing by UUID."""
    settings = RunSettings(expected=5, close=close)
    async with scene(5, 1, flaws=PERFECT, settings=settings) as s:
        lonely = max(s.air.boards, key=lambda b: -s.air.adapter().rssi_dbm(b.device_address))
        for board in s.air.boards:
            if board is not lonely:
                s.air.set_reach(board.device_address, lonely.device_address, None)
        run = await s.campaign.execute()
        if close == "suspend":
            assert run.state is RunState.DONE
            assert s.listener.nodes[lonely.unicast_address or 0].proven
            assert "provision_directly" in s.rungs()
            return
        assert lonely.unicast_address is None
        assert run.state is RunState.PARTIAL
        assert [(b.device_uuid, b.reason) for b in run.missing] == [(lonely.uuid, UNPROVISIONED)]


async def test_board_that_was_never_heard_is_missed() -> None:
    """More boards announced than there are: partial, after all others are proven."""
    settings = RunSettings(expected=4, scan_s=10.0)
    async with scene(3, 1, flaws=PERFECT, settings=settings) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.PARTIAL
        assert run.proven == 3
        assert "expected 4 boards, heard 3" in run.missing[0].reason


async def test_nothing_on_the_air_fails_with_advice() -> None:
    """No board with the prefix: failed, with what was heard instead."""
    settings = RunSettings(match=b"\xaa\xbb", scan_s=8.0)
    async with scene(3, 1, settings=settings) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert run.reason is not None
        assert "no board with UUID prefix aabb in 8 s; 3 others seen" in run.reason


async def test_no_adapter_fails_and_raises_nothing() -> None:
    """A powered-off adapter ends the run as failed when the scan time is over."""
    async with scene(2, 1, settings=RunSettings(scan_s=8.0)) as s:
        s.adapter.power(on=False)
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert run.reason is not None
        assert run.reason.startswith("scanning fails:")
        assert s.listener.address_list == []


async def test_second_loudest_board_is_tried_when_the_first_can_not_be_reached() -> None:
    """A board that refuses every connection is passed over, and the run goes on without it."""
    async with scene(4, 1, flaws=PERFECT) as s:
        s.adapter.fail_connects.extend([TimeoutError()] * 6)
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        warnings = [data for kind, data in s.listener.events if kind == "warning"]
        assert len(warnings) == 2
        primary = s.listener.nodes[run.primary or 0]
        assert warnings[0]["about"] != primary.device_address


async def test_no_reachable_board_fails() -> None:
    """When no board can be connected, the reason of the last attempt is the run's."""
    async with scene(2, 1) as s:
        s.adapter.fail_connects.extend([TimeoutError()] * 40)
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert run.reason is not None
        assert "could not connect" in run.reason
        s.adapter.fail_connects.clear()


async def test_used_up_addresses_fail_before_anything_is_sent() -> None:
    """Without free addresses no board is touched."""
    async with scene(2, 1) as s:
        s.store.reserve_addresses(AddressRange(0x0002, 0x7FFF, "earlier", "everything"))
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert run.reason is not None
        assert "free addresses" in run.reason
        assert s.true_nodes() == {}


async def test_primary_that_restarts_is_replaced() -> None:
    """A power cut at the Primary: the spare's proxy is the way in, and we provision it anew."""
    async with scene(5, 2, flaws=PERFECT) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.PROVISIONING)
        await asyncio.sleep(2.0)
        first = s.campaign.run.primary or 0
        primary = s.true_nodes()[first]
        primary.power_off()
        # Nobody may take it, so that it stays unprovisioned.
        for board in s.air.boards:
            if board is not primary:
                s.air.set_reach(primary.device_address, board.device_address, None)
        await asyncio.sleep(1.0)
        primary.power_on()
        end = await run
        assert end.state is RunState.DONE, end.reason
        assert s.rungs()[0] == "another_proxy"
        assert primary.unicast_address != first
        assert s.listener.nodes[primary.unicast_address or 0].proven
        assert not s.listener.nodes[first].proven
        assert end.window is Window.CLOSED


async def run_without_primary(boards: int, after_s: float) -> Run:
    """Cut the Primary's power so long after the start, for good; return the end."""
    settings = RunSettings(expected=boards, primary_return_s=40.0)
    async with scene(boards, 2, flaws=PERFECT, settings=settings) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.PROVISIONING)
        await asyncio.sleep(after_s)
        s.true_nodes()[s.campaign.run.primary or 0].power_off()
        return await run


async def test_primary_that_is_gone_is_missing_alone() -> None:
    """A Primary that never comes back is given up after its deadline; the others are proven."""
    end = await run_without_primary(5, 1.0)
    assert end.state is RunState.PARTIAL
    assert [board.address for board in end.missing] == [end.primary]
    assert end.proven == 4
    assert end.window is Window.CLOSED


async def test_without_any_proxy_the_run_ends_in_time() -> None:
    """The only Primary is gone and there is no other way in: partial, with what to do."""
    end = await run_without_primary(2, 8.0)
    assert end.state is RunState.PARTIAL
    assert end.reason is not None
    assert "could not be reached for 40 s" in end.reason
    assert end.elapsed_s < 120.0


async def test_lost_link_while_collecting_is_opened_again() -> None:
    """When the adapter loses the link, the Primary is found again and the run ends done."""
    async with scene(5, 4, flaws=PERFECT) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.COLLECTING)
        s.adapter.power(on=False)
        await asyncio.sleep(3.0)
        s.adapter.power(on=True)
        assert (await run).state is RunState.DONE
        assert _states(s).count(RunState.PROVISIONING) == 2


@pytest.mark.parametrize(
    "state",
    [
        RunState.SCANNING,
        RunState.CONNECTING,
        RunState.PROVISIONING_PRIMARY,
        RunState.CONFIGURING_PRIMARY,
        RunState.PROVISIONING,
        RunState.COLLECTING,
        RunState.PROVING,
        RunState.CLOSING,
    ],
)
async def test_stop_ends_a_run_from_every_state(state: RunState) -> None:
    """A stopped run keeps what it won and leaves no link open."""
    async with scene(5, 3, flaws=PERFECT) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(state)
        s.campaign.stop()
        end = await run
        assert end.state is RunState.STOPPED
        assert end.reason == "stopped on request"
        stored = s.store.run(end.run_id)
        assert stored is not None
        assert stored.state is RunState.STOPPED
        await asyncio.sleep(5.0)
        assert not s.adapter.connections


async def test_stop_before_the_start_is_kept() -> None:
    """A run that is stopped before it begins ends at once."""
    async with scene(2, 1) as s:
        s.campaign.stop()
        assert (await s.campaign.execute()).state is RunState.STOPPED
        assert s.true_nodes() == {}


async def test_cancelled_run_is_noted_as_interrupted() -> None:
    """The end of the daemon is written down before the cancellation goes on."""
    async with scene(5, 3, flaws=PERFECT) as s:
        run = asyncio.create_task(s.campaign.execute())
        await s.listener.reached(RunState.PROVISIONING)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        stored = s.store.run("r-test")
        assert stored is not None
        assert stored.state is RunState.INTERRUPTED


@pytest.mark.parametrize(("limit_s", "state"), [(5.0, RunState.FAILED), (15.0, RunState.PARTIAL)])
def test_run_that_takes_too_long_is_ended(
    run_virtual: RunVirtual, limit_s: float, state: RunState
) -> None:
    """The deadline of the whole run ends it by name."""

    async def main() -> Run:
        settings = RunSettings(expected=12, run_s=limit_s)
        async with scene(12, 1, flaws=PERFECT, settings=settings) as s:
            return await s.campaign.execute()

    run = run_virtual(main())
    assert run.state is state
    assert run.reason is not None
    assert run.reason.startswith(f"the run took over {limit_s:g} s in all")


async def test_broken_store_ends_the_run_and_not_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address range that can not be stored is never offered; the run fails with a reference."""
    async with scene(2, 1) as s:

        def refuse(addresses: AddressRange) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(s.store, "reserve_addresses", refuse)
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert run.reason == "the disk is full"
        assert s.true_nodes() == {}


_WRITES = ("reserve_seq_block", "reserve_addresses", "save_dev_key", "save_nodes")


@pytest.mark.parametrize("is_for_good", [True, False], ids=["for good", "once"])
@pytest.mark.parametrize(
    ("method", "skipped"),
    [
        *((Method.FAST, skipped) for skipped in range(0, 42, 3)),
        *((Method.DIRECT, skipped) for skipped in range(0, 22, 2)),
    ],
)
async def test_a_write_that_fails_ends_a_run_with_that_reason(
    monkeypatch: pytest.MonkeyPatch, method: Method, skipped: int, is_for_good: bool
) -> None:
    """Soon, whichever write it is, and also when the next one would be taken again."""
    settings = RunSettings(expected=4, method=method)
    async with scene(4, 1, settings=settings, flaws=PERFECT) as s:
        loop, failed_s, left = asyncio.get_running_loop(), 0.0, skipped

        def failing(write: Callable[..., Any]) -> Callable[..., Any]:
            def call(*values: Any, **more: Any) -> Any:
                nonlocal failed_s, left
                left -= 1
                if left < 0 and (is_for_good or not failed_s):
                    failed_s = failed_s or loop.time()
                    raise StoreError("the disk is full")
                return write(*values, **more)

            return call

        for name in _WRITES:
            monkeypatch.setattr(s.store, name, failing(getattr(s.store, name)))
        run = await s.campaign.execute()
        assert run.state.is_end
        assert run.reason is not None
        assert run.reason.startswith("the disk is full")
        assert failed_s <= loop.time() <= failed_s + 5.0


async def test_dev_key_is_stored_before_provisioning_data_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the DevKey can not be stored, the board stays unprovisioned."""
    async with scene(1, 1) as s:

        def refuse(*_: object) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(s.store, "save_dev_key", refuse)
        run = await s.campaign.execute()
        assert run.state is RunState.FAILED
        assert s.true_nodes() == {}


async def test_lossy_air_costs_time_and_not_truth() -> None:
    """With 20 % of all advertising events lost, seven boards are known and proven."""
    async with scene(7, 2, host=Host.NIMBLE, flaws=PERFECT) as s:
        s.air.set_default_reach(Reach(loss=0.2))
        run = await s.campaign.execute()
        assert run.state is RunState.DONE
        assert set(s.listener.nodes) == set(s.true_nodes())
