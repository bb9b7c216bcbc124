"""A state directory, and an image of it as a crash would leave it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from fastprovd.store.database import schema_scripts
from fastprovd.store.state import StateStore
from tests.support.copies import pass_for_original


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory that does not exist yet."""
    return tmp_path / "state"


@pytest.fixture
def store(directory: Path) -> Iterator[StateStore]:
    """An open store whose keys are counted, not random."""
    with StateStore(directory, entropy=counted_entropy()) as store:
        yield store


@pytest.fixture
def crash_image(directory: Path, tmp_path: Path) -> Callable[[], Path]:
    """Return a function that copies what a process killed now would leave on the disk."""

    def copy() -> Path:
        image = tmp_path / f"image-{len(list(tmp_path.iterdir()))}"
        image.mkdir(mode=0o700)
        for name in ("state.db", "state.db-wal"):
            if (directory / name).exists():
                shutil.copy(directory / name, image / name)
        pass_for_original(image)
        return image

    return copy


@pytest.fixture(scope="session")
def memory_database() -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
    """Return a function that opens an empty database in memory: thousands a second."""

    @contextmanager
    def open_one() -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        with closing(connection):
            connection.row_factory = sqlite3.Row
            connection.executescript("\n".join(schema_scripts()))
            yield connection

    return open_one


def counted_entropy() -> Callable[[int], bytes]:
    """Return a source of octets 01 01 …, then 02 02 …, and so on."""
    count = 0

    def take(size: int) -> bytes:
        nonlocal count
        count += 1
        return bytes([count]) * size

    return take
