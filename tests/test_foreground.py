"""What the command line does itself, over emulated boards."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastprovd.config import MeshConfig
from fastprovd.console import JsonLines
from fastprovd.foreground import list_nodes, provision, scan, set_onoff
from fastprovd.records import RunState
from fastprovd.store.state import StateStore
from tests.conftest import RunVirtual
from tests.support.emulated import config, world


def test_one_run_then_nodes_and_onoff(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """`provision` makes a network that `nodes` lists and `onoff` switches."""
    stream = io.StringIO()

    async def main() -> None:
        scene = world(2)
        run = await provision(config(tmp_path), 2, JsonLines(stream), scene.radio)
        assert run.state is RunState.DONE
        last = json.loads(stream.getvalue().splitlines()[-1])
        assert (last["event"], last["proven"]) == ("run_finished", 2)
        told = io.StringIO()
        await set_onoff(config(tmp_path), 0x0003, True, told, scene.radio)
        await set_onoff(config(tmp_path), 0xC000, True, told, scene.radio)
        assert told.getvalue().splitlines() == [
            "0x0003 confirmed: it is on",
            "0xc000 sent; a group confirms nothing",
        ]
        assert all(board.onoff for board in scene.air.boards)

    run_virtual(main())
    listed = io.StringIO()
    list_nodes(config(tmp_path), listed, as_json=True)
    nodes = [json.loads(line) for line in listed.getvalue().splitlines()]
    assert [(node["addr"], node["state"]) for node in nodes] == [
        ("0x0002", "OFF"),
        ("0x0003", "ON"),
    ]
    table = io.StringIO()
    list_nodes(config(tmp_path), table, as_json=False)
    assert len(table.getvalue().splitlines()) == 3


def test_an_interrupt_stops_the_run(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """SIGINT ends the run as stopped, and what was won is told."""
    stream = io.StringIO()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(12.0, os.kill, os.getpid(), signal.SIGINT)
        run = await provision(config(tmp_path), 2, JsonLines(stream), world(2).radio)
        assert run.state is RunState.STOPPED

    run_virtual(main())
    assert json.loads(stream.getvalue().splitlines()[-1])["state"] == "stopped"


def test_nothing_is_known_yet(tmp_path: Path) -> None:
    """Listing nodes makes no state directory."""
    stream = io.StringIO()
    list_nodes(config(tmp_path), stream, as_json=False)
    assert stream.getvalue() == f"No node is known in {tmp_path / 'state'}.\n"
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


def test_proxies(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """A proxy is told with its Node Identity, and later with its Network ID."""
    stream = io.StringIO()

    async def main() -> None:
        scene = world(1)
        await provision(config(tmp_path), 1, JsonLines(io.StringIO()), scene.radio)
        await scan(config(tmp_path), 2.0, stream, scene.radio)
        await asyncio.sleep(60.0)
        await scan(config(tmp_path), 2.0, stream, scene.radio)

    run_virtual(main())
    with StateStore(tmp_path / "state") as store:
        network_id = store.network().net_key.network_id.hex()
    told = [line for line in stream.getvalue().splitlines() if line[0] == " "]
    assert [line.split("dBm  ")[1] for line in told] == [
        "Node Identity",
        f"Network ID {network_id}",
    ]
