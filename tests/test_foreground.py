"""What the command line does itself, over emulated boards."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastprovd.config import MeshConfig
from fastprovd.console import JsonLines
from fastprovd.errors import ConfigError, CopiedStore, NoRun, StoreError
from fastprovd.foreground import (
    adopt_state,
    change_group,
    list_groups,
    list_nodes,
    provision,
    scan,
    set_onoff,
    show_journal,
    show_plan,
)
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.records import AddressRange, Node, Run, RunState
from fastprovd.store.state import StateStore
from tests.conftest import RunVirtual
from tests.support.emulated import config, world


async def test_one_run_then_nodes_and_onoff(tmp_path: Path) -> None:
    """`provision` makes a network that `nodes` lists, `onoff` switches and `group` divides."""
    stream = io.StringIO()

    scene = world(2)
    run = await provision(config(tmp_path), 2, JsonLines(stream), scene.radio)
    assert run.state is RunState.DONE
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert (last["event"], last["proven"]) == ("run_finished", 2)
    told = io.StringIO()
    assert await set_onoff(config(tmp_path), 0x0003, True, told, scene.radio)
    assert await set_onoff(config(tmp_path), 0xC000, True, told, scene.radio)
    assert all(board.onoff for board in scene.air.boards)
    assert await change_group(config(tmp_path), 0xC010, [3], True, told, scene.radio)
    assert scene.board(3).groups == {0xC000, 0xC010}
    scene.board(3).power_off()
    assert not await set_onoff(config(tmp_path), ALL_NODES, False, told, scene.radio)
    assert told.getvalue().splitlines() == [
        "0x0003 on: 1 of 1 confirmed it",
        "0xc000 on: 2 of 2 confirmed it",
        "group    node     member   proof",
        "0xc010   0x0003   yes      answer",
        "0xffff off: 1 of 2 confirmed it",
        "not confirmed: 0x0003; they are off, out of reach, or forgot the network",
    ]

    listed = io.StringIO()
    list_nodes(config(tmp_path), listed, as_json=True)
    nodes = [json.loads(line) for line in listed.getvalue().splitlines()]
    assert [(node["addr"], node["state"]) for node in nodes] == [
        ("0x0002", "OFF"),
        ("0x0003", "ON"),
    ]
    table = io.StringIO()
    list_nodes(config(tmp_path), table, as_json=False)
    list_groups(config(tmp_path), table, as_json=False)
    assert len(table.getvalue().splitlines()) == 3 + 4
    grouped = io.StringIO()
    list_groups(config(tmp_path), grouped, as_json=True)
    groups = [json.loads(line) for line in grouped.getvalue().splitlines()]
    assert [(group["addr"], len(group["members"])) for group in groups] == [
        ("0xc000", 2),
        ("0xc010", 1),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupt_stops_the_run(tmp_path: Path, number: signal.Signals) -> None:
    """Also the end of the terminal ends the run as stopped, and what was won is told."""
    before = signal.getsignal(number)
    stream = io.StringIO()

    loop = asyncio.get_running_loop()
    loop.call_later(12.0, os.kill, os.getpid(), number)
    run = await provision(config(tmp_path), 2, JsonLines(stream), world(2).radio)
    assert run.state is RunState.STOPPED

    assert json.loads(stream.getvalue().splitlines()[-1])["state"] == "stopped"
    assert signal.getsignal(number) == before


def test_nothing_is_known_yet(tmp_path: Path) -> None:
    """Listing nodes or groups makes no state directory."""
    stream = io.StringIO()
    list_nodes(config(tmp_path), stream, as_json=False)
    list_groups(config(tmp_path), stream, as_json=False)
    state = tmp_path / "state"
    assert stream.getvalue() == f"No node is known in {state}.\nNo group is known in {state}.\n"
    assert list(tmp_path.iterdir()) == []


def test_boards_and_strangers(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """Boards that match are told apart from those that do not."""
    stream = io.StringIO()

    async def main() -> None:
        scene = world(2)
        ours = replace(config(tmp_path), mesh=MeshConfig(match=scene.air.boards[0].uuid))
        await scan(ours, 5.0, stream, scene.radio)

    run_virtual(main())
    ours, board, strangers, stranger, proxies = stream.getvalue().splitlines()
    assert ours.startswith("1 boards to provision (UUID dddd240ac45e0001")
    assert board.split()[-1] == "dddd240ac45e00010000000000000000"
    assert strangers == "1 other unprovisioned devices"
    assert stranger.split()[-1] == "dddd240ac45e00020000000000000000"
    assert proxies == "0 proxies of mesh networks"


async def test_proxies(tmp_path: Path) -> None:
    """A proxy is told with its Node Identity while it runs, else with its Network ID."""
    stream = io.StringIO()

    scene = world(1)
    await provision(config(tmp_path), 1, JsonLines(io.StringIO()), scene.radio)
    scene.air.boards[0].set_identity(True)
    await scan(config(tmp_path), 2.0, stream, scene.radio)
    scene.air.boards[0].set_identity(False)
    await scan(config(tmp_path), 2.0, stream, scene.radio)

    with StateStore(tmp_path / "state") as store:
        network_id = store.network().net_key.network_id.hex()
    told = [line for line in stream.getvalue().splitlines() if line[0] == " "]
    assert [line.split("dBm  ")[1] for line in told] == [
        "Node Identity",
        f"Network ID {network_id}",
    ]


def test_a_plan_leaves_used_addresses_and_the_disk_alone(tmp_path: Path) -> None:
    """Without a state directory none is made; with one its addresses are not planned again."""
    configured = config(tmp_path)

    def first_address() -> str:
        stream = io.StringIO()
        show_plan(configured, 3, stream, as_json=True)
        return str(json.loads(stream.getvalue())["unicast_min"])

    assert first_address() == "0x0002"
    assert not configured.state.directory.exists()
    configured.state.directory.mkdir(mode=0o700)
    with StateStore(configured.state.directory) as store:
        store.reserve_addresses(AddressRange(0x0002, 0x0040, "r", "fast provisioning"))
    assert first_address() == "0x0041"


def test_a_plan_without_addresses_is_a_sentence(tmp_path: Path) -> None:
    """Too small a range is a mistake of the configuration, and says what helps."""
    with pytest.raises(ConfigError, match="widen \\[mesh\\] unicast_min"):
        show_plan(config(tmp_path), 50, io.StringIO(), as_json=False, unicast_max=0x0010)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"unicast_min": 0x0001}, "mesh.provisioner_address: 0x0001 is ours"),
        ({"unicast_min": 9, "unicast_max": 5}, "mesh.unicast_max: 0x0005 is below unicast_min"),
        ({"primaries": 3, "links": 2}, "run.primaries: 3 need as many links"),
        ({"expected": 9, "unicast_max": 5}, "run.expected: 9 boards do not fit into the 4"),
    ],
)
def test_a_plan_of_what_no_configuration_may_say(
    tmp_path: Path, more: dict[str, Any], problem: str
) -> None:
    """It breaks the same rules, and is told so in the same words."""
    with pytest.raises(ConfigError, match=f"^{problem}"):
        show_plan(config(tmp_path), 3, io.StringIO(), as_json=False, **more)


def test_a_plan_takes_what_it_is_told(tmp_path: Path) -> None:
    """Method, Primaries, links and bounds of the command line win over the configuration."""
    stream = io.StringIO()
    more = {"expected": 12, "method": "auto", "primaries": 2, "links": 3, "unicast_min": 0x0100}
    show_plan(config(tmp_path), 10, stream, as_json=False, **more)
    shown = stream.getvalue()
    assert shown.startswith("12 boards, 10 heard, method direct, addresses 0x0100..")
    assert "with 3 links" in shown
    stream = io.StringIO()
    show_plan(config(tmp_path), 10, stream, as_json=False, **(more | {"method": "fast"}))
    assert "2 Primaries: as told; 1 would be chosen" in stream.getvalue()


async def test_the_journal_of_a_run(tmp_path: Path) -> None:
    """Each step is a line, for people or as JSON; the newest run unless one is named."""
    with pytest.raises(NoRun, match="no journal of any run"):
        show_journal(config(tmp_path), None, io.StringIO(), as_json=False)

    scene = world(1)
    await provision(config(tmp_path), 1, JsonLines(io.StringIO()), scene.radio)

    plain, as_json = io.StringIO(), io.StringIO()
    show_journal(config(tmp_path), None, plain, as_json=False)
    steps = plain.getvalue().splitlines()
    assert "begun" in steps[0]
    assert steps[-1].endswith("ended               detail done")
    offered = next(line for line in steps if "address_offered" in line)
    assert "addr 0x0002" in offered
    assert "device_address 24:0A:C4:5E:00:01" in offered
    run_id = json.loads(_journal(tmp_path, None)[0])["run_id"]
    show_journal(config(tmp_path), run_id, as_json, as_json=True)
    assert len(as_json.getvalue().splitlines()) == len(steps)
    with pytest.raises(NoRun, match="no journal of r-other"):
        show_journal(config(tmp_path), "r-other", io.StringIO(), as_json=False)


def _journal(tmp_path: Path, run_id: str | None) -> list[str]:
    stream = io.StringIO()
    show_journal(config(tmp_path), run_id, stream, as_json=True)
    return stream.getvalue().splitlines()


def test_adopting_a_copy(tmp_path: Path) -> None:
    """A copied state directory is refused until it is adopted; without one there is nothing to."""
    with pytest.raises(StoreError, match=r"no state\.db"):
        adopt_state(config(tmp_path), io.StringIO())
    with StateStore(tmp_path / "state") as store:
        store.network()
    shutil.copytree(tmp_path / "state", tmp_path / "copied" / "state")
    copy = config(tmp_path / "copied")
    with pytest.raises(CopiedStore):
        list_nodes(copy, io.StringIO(), as_json=False)
    said = io.StringIO()
    adopt_state(copy, said)
    assert "is adopted" in said.getvalue()
    list_nodes(copy, io.StringIO(), as_json=False)


async def test_provision_goes_on_with_a_run(tmp_path: Path) -> None:
    """One that was cut off is done in place of a new one, under its name."""
    scene = world(2)
    first = await provision(config(tmp_path), 2, JsonLines(io.StringIO()), scene.radio)
    with StateStore(tmp_path / "state") as store:
        store.save_run(replace(first, state=RunState.PROVISIONING, finished=None))
    again = await provision(config(tmp_path), 9, JsonLines(io.StringIO()), scene.radio)
    assert (again.run_id, again.state, again.proven) == (first.run_id, RunState.DONE, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_once_a_run_has_ended_a_signal_changes_nothing(
    run_virtual: RunVirtual[Any], tmp_path: Path, number: signal.Signals
) -> None:
    """The program is about to end, and its exit code is that of the run."""

    class Late(JsonLines):
        def finished(self, run: Run, nodes: Sequence[Node], **more: Any) -> None:
            super().finished(run, nodes, **more)
            os.kill(os.getpid(), number)

    async def main() -> None:
        reporter = Late(io.StringIO())
        run = await provision(config(tmp_path), 1, reporter, world(1).radio, "direct")
        assert run.state is RunState.DONE
        await asyncio.sleep(1.0)

    before = signal.getsignal(number)
    run_virtual(main())
    assert signal.getsignal(number) == before
