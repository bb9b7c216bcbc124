"""One run against real boards: the least that must work."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench


@pytest.mark.nodes(2)
def test_one_run_provisions_every_board(
    bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    """`fastprovd provision` ends as done, with one address of its own for every board."""
    if bench.reset_command:
        subprocess.run(bench.reset_command, check=True, timeout=bench.run_timeout_s)
    run = subprocess.run(
        [
            *bench.command,
            *("provision", "--expected", str(bench.boards), "--json"),
            *("--config", str(bench.config)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=bench.run_timeout_s,
    )
    assert run.stdout.strip(), f"nothing printed, exit status {run.returncode}:\n{run.stderr}"
    finished = json.loads(run.stdout.splitlines()[-1])
    for name in ("t_provisioned_s", "t_known_s"):
        record_property(name, finished.get(name))
    assert finished["event"] == "run_finished"
    assert finished["state"] == "done", finished
    assert run.returncode == 0, run.stderr
    addresses = [int(address, 16) for address in finished["addresses"]]
    assert len(addresses) == len(set(addresses)) == bench.boards
    assert all(0x0001 <= address <= 0x7FFF for address in addresses)
