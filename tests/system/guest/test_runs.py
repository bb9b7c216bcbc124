"""Whole runs of the `fastprovd` program through the real bluetoothd and kernel."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from fastprovd.emulator.board import Board
from fastprovd.mesh.addresses import format_address
from fastprovd.publish.broker import local_broker
from tests.support.door import run_on_door
from tests.system.guest_door import GuestDoor

# A run of 5 boards takes 60 s on a gateway.
RUN_TIMEOUT_S = 400.0
NO_BROKER = "enabled = false"
# Closing the join window takes half a minute; one test does it.
QUICK = 'close = "leave_open"'


async def no_disturbance(_: str) -> None:
    """Let the run go on."""


async def provision(
    directory: Path,
    expected: int,
    mqtt: str = NO_BROKER,
    run: str = QUICK,
    method: str = "fast",
    disturb: Callable[[str], Awaitable[None]] = no_disturbance,
) -> dict[str, Any]:
    """Run `fastprovd provision` as an operator would; return its last word.

    `disturb` is called with each state that the run enters.
    """
    config = directory / "fastprovd.toml"
    config.write_text(
        f'[gateway]\nid = "gw1"\n[mqtt]\n{mqtt}\n[run]\nmethod = "{method}"\n{run}\n'
        f'[state]\ndirectory = "{directory / "state"}"\n'
    )
    last: dict[str, Any] = {}
    async with asyncio.timeout(RUN_TIMEOUT_S), _program(config, expected) as lines:
        state = ""
        async for line in lines:
            last = json.loads(line)
            if last.get("event") == "run_changed" and last["state"] != state:
                state = last["state"]
                await disturb(state)
    return last


@asynccontextmanager
async def _program(config: Path, expected: int) -> AsyncIterator[asyncio.StreamReader]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fastprovd", "provision",
        "--config", str(config), "--expected", str(expected), "--json", "--debug",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        yield child.stdout
    except BaseException:
        child.kill()
        raise
    finally:
        await child.wait()


def true_addresses(boards: list[Board]) -> set[str]:
    """Return what a right address list says: the addresses of boards that are nodes."""
    return {
        format_address(board.unicast_address)
        for board in boards
        if board.unicast_address is not None
    }


@pytest.mark.slow
@run_on_door
async def test_one_board_is_provisioned(door: GuestDoor, tmp_path: Path) -> None:
    """One board becomes a node, through unmodified bleak, bluetoothd and kernel."""
    boards = door.place_boards(1)
    told = await provision(tmp_path, expected=1)
    assert told["state"] == "done", told
    assert boards[0].is_primary
    assert boards[0].has_app_key
    assert set(told["addresses"]) == true_addresses(boards)


@pytest.mark.slow
@run_on_door
async def test_five_boards_are_published(door: GuestDoor, tmp_path: Path) -> None:
    """A run of 5 boards ends in done, and the broker keeps their true addresses."""
    boards = door.place_boards(5)
    async with local_broker() as broker:
        mqtt = f'host = "{broker.host}"\nport = {broker.port}'
        told = await provision(tmp_path, 5, mqtt, run='close = "suspend"')
        async with aiomqtt.Client(broker.host, broker.port) as client:
            await client.subscribe("fastprovd/gw1/bridge/nodes")
            async with asyncio.timeout(10):
                message = await anext(aiter(client.messages))
    assert told["state"] == "done", told
    assert told["window"] == "closed", told
    assert isinstance(message.payload, bytes)
    published = {node["addr"] for node in json.loads(message.payload)["nodes"]}
    assert len(published) == 5
    assert published == true_addresses(boards)


@pytest.mark.quick
@run_on_door
async def test_the_gateway_provisions_boards_itself(door: GuestDoor, tmp_path: Path) -> None:
    """Links side by side, each kept for the proxy; all are proven, and none provisions others."""
    boards = door.place_boards(5)
    told = await provision(tmp_path, 5, method="direct")
    assert told["state"] == "done", told
    assert set(told["addresses"]) == true_addresses(boards)
    assert all(board.has_app_key and not board.is_provisioner for board in boards)
    assert await door.links() == set()


@pytest.mark.quick
@pytest.mark.parametrize(
    "moment", ["provisioning_primary", pytest.param("proving", marks=pytest.mark.slow)]
)
@run_on_door
async def test_bluetoothd_is_killed_in_mid_run(
    door: GuestDoor, tmp_path: Path, moment: str
) -> None:
    """The run ends in done, or says what is missing and tells no address that is not true."""
    boards = door.place_boards(3)

    async def disturb(state: str) -> None:
        nonlocal killed
        if state == moment and not killed:
            killed = True
            await door.end_bluetoothd(signal.SIGKILL)
            await door.start_bluetoothd()

    killed = False
    told = await provision(tmp_path, 3, disturb=disturb)
    assert killed
    told_addresses, addresses = set(told["addresses"]), true_addresses(boards)
    if told["state"] == "done":
        assert told_addresses == addresses
        assert len(addresses) == 3
    else:
        assert told["state"] in ("partial", "failed"), told
        assert told["reason"], told
        assert told_addresses <= addresses
