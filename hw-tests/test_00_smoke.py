"""The least that a bench must have: an adapter, boards that speak, the right firmware."""

from __future__ import annotations

import os
import subprocess

import pytest

from hwbench import flashing
from hwbench.bench import Bench

SCAN_S = 10
# A board's first minute has an advertisement every 20 ms, later twice a second.
SCAN_LIMIT_S = SCAN_S + 30.0


@pytest.mark.power
def test_every_board_answers_on_its_console(bench: Bench) -> None:
    """After a power cycle each board boots once, and says that it is ready."""
    boards = bench.config.boards
    before = {board.id: bench.consoles.views[board.id].boots for board in boards}
    bench.fresh_boards(len(boards))
    views = bench.views(boards)
    assert {board: view.boots - before[board] for board, view in views.items()} == {
        board.id: 1 for board in boards
    }


@pytest.mark.power
def test_the_firmware_is_that_of_the_manifest(bench: Bench) -> None:
    """The hash on each board's console is that of the application which was flashed."""
    if bench.config.manifest is None:
        bench.give_up(f"bench '{bench.config.name}' has no [firmware] manifest")
    manifest = flashing.load_manifest(bench.config.manifest)
    boards = [board for board in bench.config.boards if board.firmware is not None]
    bench.fresh_boards(len(bench.config.boards))
    for board in boards:
        try:
            expected = flashing.application_sha256(flashing.images_for(board, manifest))
        except flashing.FirmwareMissing as error:
            bench.give_up(str(error))
        printed = bench.consoles.views[board.id].elf_sha256
        assert printed is not None, f"{board.id} printed no hash of its firmware"
        assert expected is not None, f"no image for {board.id} is an application"
        assert expected.startswith(printed), f"{board.id} runs {printed}, expected {expected}"


def test_the_adapter_hears_every_board(bench: Bench) -> None:
    """`fastprovd scan` finds the adapter, and each unprovisioned board by its address."""
    boards = bench.fresh_boards(len(bench.config.boards))
    result = subprocess.run(
        [*bench.config.gateway.command, "scan", "--seconds", str(SCAN_S)],
        env={**os.environ, **bench.daemon_environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=SCAN_LIMIT_S,
    )
    assert result.returncode == 0, result.stderr
    unheard = [board.id for board in boards if board.mac not in result.stdout]
    assert not unheard, f"not heard: {', '.join(unheard)}\n{result.stdout}"
