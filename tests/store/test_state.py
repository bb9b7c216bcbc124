"""The facade fits its port and may be called from any thread."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from fastprovd.errors import StoreInUse
from fastprovd.store.state import StateStore

FITS_THE_PORT = """
from fastprovd.campaign.ports import Store
from fastprovd.store.state import StateStore

def join(store: StateStore) -> Store:
    return store
"""


def test_the_facade_satisfies_the_port(tmp_path: Path) -> None:
    """mypy accepts a StateStore where a run asks for a Store."""
    (tmp_path / "join.py").write_text(FITS_THE_PORT)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "join.py")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.asyncio
async def test_calls_from_many_threads_are_one_after_the_other(store: StateStore) -> None:
    """Blocks reserved at once through `asyncio.to_thread` are all different."""
    blocks = await asyncio.gather(
        *(asyncio.to_thread(store.reserve_seq_block, 10) for _ in range(40))
    )
    assert sorted(block.start for block in blocks) == list(range(0, 400, 10))


def test_context_manager_frees_the_directory(directory: Path) -> None:
    """Leaving the context closes the store, and only then a second one may open."""
    with StateStore(directory), pytest.raises(StoreInUse):
        StateStore(directory)
    with StateStore(directory) as store:
        assert store.runs() == []


def test_a_killed_process_frees_the_directory(directory: Path) -> None:
    """The lock ends with its process, however that ended."""
    code = (
        "import os, sys; from pathlib import Path; from fastprovd.store.state import StateStore;"
        "StateStore(Path(sys.argv[1])).network(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(directory)], check=False).returncode == 9
    with StateStore(directory) as store:
        assert store.network().address == 1
