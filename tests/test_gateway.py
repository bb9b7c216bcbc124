"""The gateway over emulated boards, in virtual time."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import pytest
from structlog.testing import capture_logs

from fastprovd.audiences import SilentAudience
from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.connection import Connections
from fastprovd.bearers.load import AdapterLoad
from fastprovd.bearers.scanner import BleakScan
from fastprovd.campaign.run import Campaign
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import Method
from fastprovd.campaign.strangers import Strangers
from fastprovd.clock import Clock, SystemClock
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.errors import BluetoothUnavailable, NoRun, RunInProgress, StoreInUse
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.records import Run, RunState, Step, StepKind, Window
from fastprovd.returns import Returns
from fastprovd.run_settings import run_settings
from fastprovd.store.state import StateStore
from tests.conftest import RunVirtual
from tests.support.emulated import World, config, entropy, world


async def run_once(gateway: Gateway, expected: int, **more: Any) -> Run:
    settings = gateway.settings(expected=expected, **more)
    return await gateway.execute(gateway.prepare_run(settings))


def open_world(scene: World, tmp_path: Path) -> Any:
    return open_gateway(config(tmp_path), radio=scene.radio, entropy=entropy())


def test_settings_are_the_configured_ones(tmp_path: Path) -> None:
    """What is configured about a run comes through; only an override that says something wins."""
    configured = config(tmp_path, expected=7)
    run = replace(configured.run, method="auto", primaries=3)
    configured = replace(configured, run=run, bluetooth=replace(configured.bluetooth, max_links=4))
    settings = run_settings(configured, primaries=2, method=None)
    assert (settings.method, settings.links, settings.expected) == (Method.AUTO, 4, 7)
    assert settings.primaries == 2
    assert run_settings(configured, method="direct").method is Method.DIRECT


async def test_a_run_is_driven_and_kept(tmp_path: Path) -> None:
    """A run ends as done, its nodes and its end are in the store."""
    async with open_world(world(3), tmp_path) as gateway:
        run = await run_once(gateway, 3)
        assert run.state is RunState.DONE
        assert gateway.current_run is None
        last, nodes = await gateway.last_run()
        assert last == run
        assert len(nodes) == 3
        assert all(node.proven for node in nodes)
        assert re.fullmatch(r"r-\d{8}-\d{6}", run.run_id)


@pytest.mark.parametrize(
    ("expected", "state", "proven"), [(None, RunState.DONE, 1), (3, RunState.PARTIAL, 1)]
)
async def test_a_board_that_was_power_cycled_joins_in_the_next_run(
    tmp_path: Path, expected: int | None, state: RunState, proven: int
) -> None:
    """The others are left as they are; with the number of all boards those are missed."""
    scene = world(3)
    async with open_world(scene, tmp_path) as gateway:
        await run_once(gateway, 3)
        board = scene.board(0x0003)
        board.power_off()
        await asyncio.sleep(5)
        board.power_on()
        await asyncio.sleep(5)
        again = await gateway.execute(gateway.prepare_run(gateway.settings(expected=expected)))
        assert (again.state, again.proven) == (state, proven)
        switched = await gateway.controls.set_onoff(ALL_NODES, True)
        assert set(switched.confirmed) == {b.unicast_address for b in scene.air.boards}
        assert set(switched.unconfirmed) <= {0x0003}


async def test_a_clean_stop_gives_back_seq_and_keeps_the_replay_list(tmp_path: Path) -> None:
    """The next start goes on with the very next SEQ, and knows what it heard."""
    async with open_world(world(2), tmp_path) as gateway:
        await run_once(gateway, 2)
        sequence = gateway._top.stack.sequence
        next_seq = sequence.next
        heard = gateway._top.stack.replay.entries()
    with StateStore(tmp_path / "state") as store:
        assert store.reserve_seq_block(16).start == next_seq
        assert sorted(store.replay_list()) == sorted(heard)
        assert heard


async def test_one_run_at_a_time(tmp_path: Path) -> None:
    """While a run is prepared or going on, neither a run nor a request may begin."""
    async with open_world(world(1), tmp_path) as gateway:
        campaign = gateway.prepare_run(gateway.settings(expected=1))
        others: list[Coroutine[Any, Any, Any]] = [
            gateway.controls.get_onoff(2),
            gateway.controls.set_onoff(0xC000, True),
            gateway.controls.change_group(0xC010, [2], add=True),
            gateway.refresh_nodes(),
        ]
        with pytest.raises(RunInProgress):
            gateway.prepare_run(gateway.settings())
        for other in others:
            with pytest.raises(RunInProgress) as refused:
                await other
            assert refused.value.run_id == campaign.run.run_id
        assert (await gateway.execute(campaign)).state is RunState.DONE


async def test_run_ids_differ_within_a_second(tmp_path: Path) -> None:
    """Two runs that start in the same second have two names, also across a restart."""

    class StoppedClock(SystemClock):
        def utc_now(self) -> Any:
            return start

    start = SystemClock().utc_now()

    names = set()
    for _ in range(2):
        scene = world(1)
        scene.adapter.power(False)
        async with open_gateway(
            config(tmp_path), radio=scene.radio, clock=StoppedClock()
        ) as gateway:
            for _ in range(2):
                names.add((await run_once(gateway, 1)).run_id)
    assert len(names) == 4


async def test_without_an_adapter_the_run_fails_and_the_next_one_works(tmp_path: Path) -> None:
    """A missing adapter is the reason of a failed run; nothing else is lost."""
    scene = world(2)
    async with open_world(scene, tmp_path) as gateway:
        scene.adapter.power(False)
        run = await run_once(gateway, 2)
        assert run.state is RunState.FAILED
        assert run.reason is not None
        assert "switch it on" in run.reason
        last, nodes = await gateway.last_run()
        assert (last, nodes) == (run, [])
        scene.adapter.power(True)
        assert (await run_once(gateway, 2)).state is RunState.DONE


async def test_an_adapter_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    """A restart of bluetoothd at the start of a run does not fail it."""
    scene = world(1)
    async with open_world(scene, tmp_path) as gateway:
        scene.adapter.power(False)
        asyncio.get_running_loop().call_later(2.0, scene.adapter.power, True)
        assert (await run_once(gateway, 1)).state is RunState.DONE


async def test_a_stopped_run(tmp_path: Path) -> None:
    """`stop_run` ends the run as stopped; without a run it is refused."""
    async with open_world(world(2), tmp_path) as gateway:
        with pytest.raises(NoRun):
            gateway.stop_run()
        campaign = gateway.prepare_run(gateway.settings(expected=2))
        asyncio.get_running_loop().call_later(8.0, gateway.stop_run)
        assert (await gateway.execute(campaign)).state is RunState.STOPPED


async def test_an_earlier_process_left_a_run(tmp_path: Path) -> None:
    """A run without an end is interrupted at the next start, if it is not to be resumed."""
    async with open_world(world(1), tmp_path) as gateway:
        await run_once(gateway, 1)
    with StateStore(tmp_path / "state") as store:
        (run,) = store.runs()
        cut_off = replace(run, state=RunState.PROVISIONING, finished=None, window=None)
        store.save_run(cut_off)
    again = config(tmp_path, resume=False)
    async with open_gateway(again, radio=world(1).radio, entropy=entropy()) as gateway:
        assert gateway.prepare_resumption() is None
        last, _ = await gateway.last_run()
        assert last is not None
        assert (last.state, last.window) == (RunState.INTERRUPTED, Window.OPEN)


async def test_refreshing_the_nodes(tmp_path: Path) -> None:
    """The Primary's list brings in a late joiner; a list that may be long is not read."""
    scene = world(3)
    async with open_world(scene, tmp_path) as gateway:
        with pytest.raises(NoRun):
            await gateway.refresh_nodes()
        await run_once(gateway, 3, close="leave_open")
        late = scene.air.add_board("24:0A:C4:5E:01:00")
        await asyncio.sleep(30.0)
        assert late.unicast_address is not None
        scene.adapter.power(False)
        failed = await run_once(gateway, 1)
        scene.adapter.power(True)
        run, nodes, asked = await gateway.refresh_nodes()
        assert asked
        assert run.run_id != failed.run_id
        assert late.unicast_address in {node.address for node in nodes}
        await asyncio.to_thread(gateway._store.save_run, replace(run, heard=41))
        assert (await gateway.refresh_nodes())[2] is False


async def test_left_links_are_closed_before_the_radio_is_used(tmp_path: Path) -> None:
    """At the start, by a run and by a request; a linked board is not on the air for anybody."""
    closed: list[bool] = []

    class Radio(BleakBearer):
        async def close_left_links(self) -> None:
            closed.append(scene.adapter.discovering)

    scene: World

    scene = world(1)
    radio = Radio("", scanner_backend(scene.adapter), client_backend(scene.adapter))
    async with open_gateway(config(tmp_path), radio=radio, entropy=entropy()) as gateway:
        await gateway.close_left_links()
        await run_once(gateway, 1)
        await gateway.controls.get_onoff(0x0002)
        assert closed == [False] * 3


async def test_without_bluetooth_no_links_are_closed(tmp_path: Path) -> None:
    """The start goes on, and the next use of the radio does it."""

    class Radio(BleakBearer):
        async def close_left_links(self) -> None:
            raise BluetoothUnavailable("there is no Bluetooth adapter")

    adapter = world(1).adapter
    radio = Radio("", scanner_backend(adapter), client_backend(adapter))
    async with open_gateway(config(tmp_path), radio=radio, entropy=entropy()) as gateway:
        with capture_logs() as logs:
            await gateway.close_left_links()
    assert "left_links_not_closed" in [entry["event"] for entry in logs]


async def test_a_run_that_is_interrupted_before_it_begins_is_kept(tmp_path: Path) -> None:
    """It was announced, so its end is told and stored, too."""

    class Radio(BleakBearer):
        async def close_left_links(self) -> None:
            await asyncio.Event().wait()

    adapter = world(1).adapter
    radio = Radio("", scanner_backend(adapter), client_backend(adapter))
    async with open_gateway(config(tmp_path), radio=radio, entropy=entropy()) as gateway:
        executing = asyncio.create_task(run_once(gateway, 1))
        await asyncio.sleep(1)
        executing.cancel()
        await asyncio.wait([executing])
        assert executing.cancelled()
        last, _ = await gateway.last_run()
        assert last is not None
        assert last.state is RunState.INTERRUPTED


async def test_a_run_that_was_resumed_too_often_is_interrupted(tmp_path: Path) -> None:
    """What ends the daemon each time does not do so for ever; who is missing is named."""
    scene = world(1)
    async with open_world(scene, tmp_path) as gateway:
        run = await run_once(gateway, 1)
    with StateStore(tmp_path / "state") as store:
        store.save_run(replace(run, state=RunState.SCANNING, finished=None, expected=3))
        for _ in range(3):
            store.save_step(Step(run.run_id, StepKind.RESUMED, run.started))
    async with open_world(scene, tmp_path) as gateway:
        assert gateway.prepare_resumption() is None
        last, _ = await gateway.last_run()
        assert last is not None
        assert last.state is RunState.INTERRUPTED
        assert len(last.missing) == 2


def cut_off(tmp_path: Path, run: Run) -> None:
    """Leave a run as a killed process does."""
    with StateStore(tmp_path / "state") as store:
        store.save_run(replace(run, state=RunState.PROVISIONING, finished=None))


class Warnings(SilentAudience):
    """Keeps what is said of Bluetooth."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        if kind == "warning" and data["about"] == "Bluetooth":
            self.said.append(data["reason"])


@pytest.mark.parametrize(("late_s", "warnings"), [(5, 0), (12, 1), (75, 1), (4000, 1)])
async def test_a_resumed_run_waits_for_the_adapter(
    tmp_path: Path, late_s: int, warnings: int
) -> None:
    """However late it comes; why it waits is said once, and a few lines are logged."""
    scene = world(1)
    async with open_world(scene, tmp_path) as gateway:
        run = await run_once(gateway, 1)
    cut_off(tmp_path, run)
    scene.adapter.power(False)
    asyncio.get_running_loop().call_later(late_s, scene.adapter.power, True)
    listener = Warnings()
    with capture_logs() as logs:
        async with open_world(scene, tmp_path) as gateway:
            gateway.audiences.members.append(listener)
            campaign = gateway.prepare_resumption()
            assert campaign is not None
            ended = await gateway.execute(campaign)
    assert (ended.run_id, ended.state, ended.proven) == (run.run_id, RunState.DONE, 1)
    assert len(listener.said) == warnings
    assert all("waiting for Bluetooth: " in said for said in listener.said)
    assert all("switch it on" in said for said in listener.said)
    assert len([entry for entry in logs if "bluetooth" in entry["event"]]) == 2 * warnings
    assert len([entry for entry in logs if entry["event"] == "adapter_not_usable"]) <= 4


@pytest.mark.parametrize("is_stopped", [True, False])
async def test_a_resumed_run_that_waits_for_the_adapter_ends(
    tmp_path: Path, is_stopped: bool
) -> None:
    """At once where it is stopped; where the daemon ends, the next one may resume it."""
    scene = world(1)
    async with open_world(scene, tmp_path) as gateway:
        run = await run_once(gateway, 1)
    cut_off(tmp_path, run)
    scene.adapter.power(False)
    async with open_world(scene, tmp_path) as gateway:
        campaign = gateway.prepare_resumption()
        assert campaign is not None
        executing = asyncio.create_task(gateway.execute(campaign))
        await asyncio.sleep(33.0)
        with pytest.raises(RunInProgress):
            gateway.prepare_run(gateway.settings(expected=1))
        if is_stopped:
            gateway.stop_run()
            async with asyncio.timeout(3):
                assert (await executing).state is RunState.STOPPED
        else:
            executing.cancel()
            await asyncio.wait({executing})
            assert executing.cancelled()
    scene.adapter.power(True)
    async with open_world(scene, tmp_path) as gateway:
        assert (gateway.prepare_resumption() is None) is is_stopped


async def test_a_new_run_that_waits_for_the_adapter_is_stopped(tmp_path: Path) -> None:
    """At once, and as stopped."""
    scene = world(1)
    scene.adapter.power(False)
    async with open_world(scene, tmp_path) as gateway:
        asyncio.get_running_loop().call_later(2.5, gateway.stop_run)
        begun = asyncio.get_running_loop().time()
        assert (await run_once(gateway, 1)).state is RunState.STOPPED
        assert asyncio.get_running_loop().time() - begun < 4


async def test_other_commands_leave_an_unfinished_run_alone(tmp_path: Path) -> None:
    """Who only switches a light does not take the run's chance to be resumed."""
    scene = world(1)
    async with open_world(scene, tmp_path) as gateway:
        run = await run_once(gateway, 1)
    with StateStore(tmp_path / "state") as store:
        store.save_run(replace(run, state=RunState.PROVISIONING, finished=None))
    async with open_world(scene, tmp_path) as gateway:
        await gateway.controls.set_onoff(0x0002, True)
    async with open_world(scene, tmp_path) as gateway:
        assert gateway.prepare_resumption() is not None


async def test_a_state_in_use_is_waited_for(tmp_path: Path) -> None:
    """A command called by hand may be at it; whoever holds it for longer is named."""
    holder = StateStore(tmp_path / "state")
    loop = asyncio.get_running_loop()
    loop.call_later(3.0, holder.close)
    radio = world(1).radio
    async with open_gateway(config(tmp_path), radio=radio, wait_s=15.0) as gateway:
        assert loop.time() >= 3.0
        begun = loop.time()
        with pytest.raises(StoreInUse, match="in use by another fastprovd"):
            async with open_gateway(config(tmp_path), radio=radio, wait_s=15.0):
                pass
        assert loop.time() - begun == pytest.approx(15.0, abs=1.0)
        assert gateway.current_run is None


class FullDisk(StateStore):
    """A disk that takes nothing while it `is_full`."""

    is_full = False

    def __init__(self, directory: Path, entropy: Any) -> None:
        super().__init__(directory, entropy)
        self._database._connection = _Refusing(self, self._database._connection)  # type: ignore[assignment]


class _Refusing:
    def __init__(self, disk: FullDisk, connection: Any) -> None:
        self._disk = disk
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "begin immediate":
            self._before = self.total_changes
        if self._disk.is_full and statement == "commit" and self.total_changes != self._before:
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *values)


@pytest.mark.parametrize("method", ["direct", "fast"])
def test_the_end_of_a_run_is_told_and_stored_when_the_disk_takes_it(
    run_virtual: RunVirtual[Any], tmp_path: Path, method: str
) -> None:
    """A full disk ends the run with that reason; nobody is left to believe that it goes on."""

    class Ears(SilentAudience):
        told: list[Run] = []  # noqa: RUF012

        def run_changed(self, run: Run) -> None:
            self.told.append(run)
            gateway._store.is_full |= run.known > 0

    async def main() -> None:
        nonlocal gateway
        scene = world(3)
        async with open_gateway(
            config(tmp_path), radio=scene.radio, entropy=entropy(), open_store=FullDisk
        ) as gateway:
            ears = Ears()
            gateway.audiences.members.append(ears)
            run = await run_once(gateway, 3, method=method)
            assert run.state is (RunState.PARTIAL if method == "direct" else RunState.FAILED)
            assert run.reason is not None
            assert "disk is full; check free space" in run.reason
            assert ears.told[-1] == run
            assert gateway.current_run is None
            await asyncio.sleep(60.0)
            gateway._store.is_full = False
            (stored,) = gateway._store.runs()
            assert not stored.state.is_end
            await asyncio.sleep(10.0)
            assert gateway._store.runs() == [run]

    gateway: Any = None
    run_virtual(main())


async def test_a_run_that_is_asked_for_while_the_disk_is_full_is_told_and_in_order(
    tmp_path: Path,
) -> None:
    """It ends at once with that reason; once there is room all ends are stored in their order."""
    scene = world(1)
    async with open_gateway(
        config(tmp_path), radio=scene.radio, entropy=entropy(), open_store=FullDisk
    ) as gateway:
        disk: Any = gateway._store
        disk.is_full = True
        runs = []
        for _ in range(2):
            runs.append(await run_once(gateway, 1))
            assert "disk is full; check free space" in str(runs[-1].reason)
            assert gateway.current_run is None
        assert gateway._store.runs() == []
        disk.is_full = False
        runs.append(await run_once(gateway, 1, method="direct"))
        assert runs[-1].state is RunState.DONE
        assert gateway._store.runs() == runs[::-1]


async def test_an_adapter_that_is_missing_is_told_though_the_disk_is_full(tmp_path: Path) -> None:
    """The run ends before it began; its end is stored when there is room."""

    class Radio(BleakBearer):
        async def __aenter__(self) -> Self:
            raise BluetoothUnavailable("there is no Bluetooth adapter")

    adapter = world(1).adapter
    radio = Radio("", scanner_backend(adapter), client_backend(adapter))
    async with open_gateway(
        config(tmp_path), radio=radio, entropy=entropy(), open_store=FullDisk
    ) as gateway:
        disk: Any = gateway._store
        disk.is_full = True
        run = await run_once(gateway, 1)
        assert run.state is RunState.FAILED
        disk.is_full = False
        await asyncio.sleep(10.0)
        assert gateway._store.runs() == [run]


class Leaping(SystemClock):
    """A wall clock that is another year each time it is asked, forwards and back."""

    def __init__(self) -> None:
        self._years = cycle([2026, 1970, 2039, 2017, 9999])

    def utc_now(self) -> datetime:
        return datetime(next(self._years), 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("method", ["direct", "fast"])
async def test_a_wall_clock_that_leaps_changes_nothing(tmp_path: Path, method: str) -> None:
    """A run is as it would be, and the newest one is that which was begun last."""

    async def runs_with(clock: Clock | None, directory: Path) -> list[Run]:
        begun = []
        for seed in (1, 2):
            scene = world(3, seed)
            async with open_gateway(
                config(directory), radio=scene.radio, entropy=entropy(seed), clock=clock
            ) as gateway:
                begun.append(await run_once(gateway, 3, method=method))
        async with open_gateway(
            config(directory), radio=world(1).radio, entropy=entropy(), clock=clock
        ) as gateway:
            newest, nodes = await gateway.last_run()
            assert newest is not None
            assert newest.run_id == begun[-1].run_id
            assert len(nodes) == 3
            assert [run.run_id for run in gateway._store.runs()] == [
                run.run_id for run in begun[::-1]
            ]
            assert all(gateway._store.steps(run.run_id) for run in begun)
        return begun

    steady = await runs_with(None, tmp_path / "steady")
    leaping = await runs_with(Leaping(), tmp_path / "leaping")
    for one, other in zip(steady, leaping, strict=True):
        assert other.state is RunState.DONE
        for name in ("elapsed_s", "t_provisioned_s", "t_known_s", "t_proven_s", "t_closed_s"):
            expected = pytest.approx(getattr(one, name), abs=0.5)
            assert getattr(other, name) == expected, name


async def test_a_superseded_run_is_not_resumed(tmp_path: Path) -> None:
    """Its end was never stored, and another one was begun since: it is interrupted."""
    scene = world(1)
    async with open_world(scene, tmp_path) as gateway:
        moment = SystemClock().utc_now()
        gateway._store.save_run(Run("r-old", RunState.PROVISIONING, moment))
        gateway._store.save_run(Run("r-new", RunState.DONE, moment))
    async with open_world(scene, tmp_path) as gateway:
        assert gateway.prepare_resumption() is None
        states = {run.run_id: run.state for run in gateway._store.runs()}
        assert states == {"r-old": RunState.INTERRUPTED, "r-new": RunState.DONE}


# What a run goes through before, at and after its end.
AROUND = (
    (BleakScan, "start"),
    (AdapterLoad, "meet"),
    (Connections, "hung_up"),
    (Strangers, "named"),
    (RunLog, "_set"),
    (RunLog, "move"),
    (RunLog, "keep_end"),
    (RunLog, "publish_nodes"),
    (Campaign, "_finish"),
    (Returns, "run_ended"),
    (StateStore, "memberships"),
)


@pytest.mark.parametrize(("owner", "name"), AROUND, ids=[name for _, name in AROUND])
@pytest.mark.parametrize("error", [KeyError("chaos"), BrokenPipeError("chaos")], ids=repr)
async def test_whatever_fails_the_run_ends_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str, error: Exception
) -> None:
    """An exception of any kind ends neither the gateway nor what is told of the run."""
    scene = world(2)
    ends: list[Run] = []

    class Listener(SilentAudience):
        def run_changed(self, run: Run) -> None:
            if run.state.is_end:
                ends.append(run)

    async with open_world(scene, tmp_path) as gateway:
        gateway.audiences.members.append(Listener())
        with monkeypatch.context() as broken, capture_logs():

            def fail(*_: Any, **__: Any) -> Any:
                raise error

            broken.setattr(owner, name, fail)
            run = await run_once(gateway, 2, method="direct")
        assert run.state.is_end
        assert ends[-1] == run
        assert gateway.current_run is None
        assert not scene.radio._connections
        assert await gateway._ends.settle() is None
        assert gateway._store.run(run.run_id) == run
        for board in scene.air.boards:
            board.power_off()
            board.power_on()
        assert (await run_once(gateway, 2, method="direct")).state is RunState.DONE


@pytest.mark.parametrize("name", ["move", "publish_nodes", "keep_end"])
async def test_an_end_that_fails_hides_no_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever ends the daemon waits for no run that goes on for a fault of ours."""
    async with open_world(world(2), tmp_path) as gateway:
        running = asyncio.create_task(run_once(gateway, 5))
        await asyncio.sleep(10.0)

        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("chaos")

        monkeypatch.setattr(RunLog, name, fail)
        running.cancel()
        with capture_logs():
            await asyncio.wait([running], timeout=10.0)
        assert running.cancelled()
        assert gateway.current_run is None
        monkeypatch.undo()
