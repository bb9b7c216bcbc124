"""Whole runs of the `fastprovd` program through the real bluetoothd and kernel."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.system.guest.conftest import PlaceBoards

# A run of 5 boards takes 60 s without the guest's slowness.
RUN_TIMEOUT_S = 400.0


async def provision(directory: Path, expected: int) -> list[dict[str, Any]]:
    """Run `fastprovd provision` as an operator would and return what it printed."""
    config = directory / "fastprovd.toml"
    config.write_text(f'[mqtt]\nenabled = false\n[state]\ndirectory = "{directory / "state"}"\n')
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fastprovd", "provision",
        "--config", str(config), "--expected", str(expected), "--json", "--debug",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(RUN_TIMEOUT_S):
        stdout, _ = await child.communicate()
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert child.returncode == 0, lines[-3:]
    return lines


async def test_one_board_is_provisioned(place_boards: PlaceBoards, tmp_path: Path) -> None:
    """One board becomes a node, through unmodified bleak, bluetoothd and kernel."""
    (board,) = place_boards(1)
    lines = await provision(tmp_path, expected=1)
    assert lines[-1]["state"] == "done", lines
    assert board.is_primary
    assert board.has_app_key
