"""Every fault in every phase of a run with 20 stock boards, through bleak and D-Bus.

`make fault-matrix` runs the whole product, twice: once for each Bluetooth host. `make test` runs
the cells of a diagonal pattern, in which each fault and each phase occurs with both hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from fastprovd.campaign.verdict import FORMER, UNPROVISIONED
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.emulator.timeline import Happening
from fastprovd.records import MissingBoard, Run, RunState
from tests.support import paced
from tests.support.fault_table import outcome_of
from tests.support.faults import BOARDS, FAULTS, PHASES, Fault, Phase, World, world

HOSTS = (Host.BLUEDROID, Host.NIMBLE)
# Every so many cells one is run with each push.
STRIDE = 6
# A run listens for 3 s for boards that are left, and others may take one of them meanwhile.
MOMENT_S = 4.0
# The clock waits for the bus at any pace; at this one a run takes a second or two.
PACE = 120.0


def cells(*, whole: bool) -> Iterator[tuple[Fault, Phase, Host]]:
    """Yield what is to be run."""
    for row, fault in enumerate(FAULTS):
        for column, phase in enumerate(PHASES):
            if fault.needs_link and not phase.has_link:
                continue
            for number, host in enumerate(HOSTS):
                is_chosen = (column - row) % STRIDE == 0 and (column // STRIDE + row) % 2 == number
                if whole or is_chosen:
                    yield fault, phase, host


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = list(cells(whole=metafunc.config.getoption("--fault-matrix")))
    if "fault" in metafunc.fixturenames:
        metafunc.parametrize(
            ("fault", "phase", "host"),
            chosen,
            ids=[f"{fault.name}-{phase.name}-{host.name}" for fault, phase, host in chosen],
        )


def test_run_survives_or_says_why(
    private_bus: PrivateBus,
    record_property: pytest.RecordProperty,
    fault: Fault,
    phase: Phase,
    host: Host,
) -> None:
    """Done, or an end whose reason is true; keys, addresses and SEQ are kept, no link is left."""

    record_property("cell", ["faults", fault.name, phase.name, host.name])

    async def main() -> None:
        async with world(private_bus, host, phase, seed=1) as w:
            with capture_logs() as logs:
                async with asyncio.TaskGroup() as group:
                    executing = group.create_task(w.scene.campaign.execute())
                    assert await w.moment() is phase.state, "the fault must hit its phase"
                    await fault.happen(w)
            run = executing.result()
            w.logged = [entry["event"] for entry in logs]
            assert fault.took_effect(w), "nobody noticed the fault"
            record_property("outcome", outcome_of(run, w.scene.without_app_key()))
            check_end(w, run, fault)
            check_store(w, run)
        assert w.scene.adapter.connections == 0
        assert not w.scene.adapter.discovering

    paced.run(main(), private_bus.address, PACE)


def check_end(w: World, run: Run, fault: Fault) -> None:
    """Hold what the run says against what the boards are."""
    truth, known = w.scene.true_nodes(), w.scene.listener.nodes
    ever = {entry.address for entry in w.scene.air.timeline if entry.what is Happening.PROVISIONED}
    assert run.state in (RunState.DONE, RunState.PARTIAL, RunState.FAILED)
    assert sum(board.killed_count for board in w.scene.air.boards) == 0
    assert len(truth) == sum(b.unicast_address is not None for b in w.scene.air.boards)
    assert set(known) <= ever, "a node that never was"
    proven = {address for address, node in known.items() if node.proven}
    assert all(truth[address].has_app_key for address in proven if address in truth)
    if fault.spares_boards and "could not be reached" in (run.reason or ""):
        # A flaw of the firmware: it ends its Node Identity while nobody is connected.
        assert w.primary.is_silent
    elif fault.spares_boards:
        w.scene.check_against_truth(run)
    if run.state is RunState.DONE:
        assert run.reason is None or FORMER in run.reason
        assert len(proven) == BOARDS
        return
    assert run.reason
    assert "internal error" not in run.reason
    if run.state is RunState.FAILED:
        # Nothing was begun, so nobody else than the Primaries is a node.
        assert len(truth) <= 2
        return
    # A board that rebooted may have got another address since, and then is in both numbers.
    named = {board.address for board in run.missing if board.address is not None}
    # Once every board is accounted for, what nobody has any more are addresses from before.
    silent = set() if len(proven) == BOARDS else set(known) - proven
    assert silent & set(truth) <= named <= silent
    assert len(run.missing) == max(len(named), BOARDS - len(proven))
    for board in run.missing:
        if board.reason == UNPROVISIONED:
            assert was_free(w, board), "a node is called unprovisioned"
    if "restarted" in run.reason:
        assert w.victims == [w.primary]
    if "could not be reached" in run.reason:
        assert w.primary.is_silent or w.victims == [w.primary]


def was_free(w: World, board: MissingBoard) -> bool:
    """Tell whether the board was unprovisioned a moment ago."""
    (found,) = [b for b in w.scene.air.boards if b.uuid == board.device_uuid]
    if found.unicast_address is None:
        return True
    since = max(
        entry.time_s
        for entry in w.scene.air.timeline
        if entry.device_address == found.device_address and entry.what is Happening.PROVISIONED
    )
    return found.loop.time() - since < MOMENT_S


def check_store(w: World, run: Run) -> None:
    """Nothing that a run must keep is lost, and nothing is used twice."""
    store = w.scene.store
    assert store.run(run.run_id) == run
    reserved = store.reserved_addresses()
    nodes = {node.address: node for node in store.nodes()}
    assert nodes == w.scene.listener.nodes
    for address in nodes:
        assert any(r.first <= address <= r.last and r.run_id == run.run_id for r in reserved)
    by_us = [
        entry
        for entry in w.scene.air.timeline
        if entry.what is Happening.PROVISIONED and not entry.detail
    ]
    for entry in by_us:
        assert entry.address is not None
        dev_key = store.dev_key(entry.address)
        assert dev_key is not None, "its Provisioning Data left before its DevKey was kept"
        node = w.scene.air.board(entry.device_address).node
        if node is not None and node.address == entry.address:
            assert node.stack.dev_keys[entry.address].octets == dev_key.octets
    assert len(w.bearer.seqs) == len(set(w.bearer.seqs)), "a SEQ was used twice"
