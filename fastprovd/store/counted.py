"""The database with its commits counted, so that a loss that SQLite can not see is noticed."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastprovd.errors import CorruptStore, StoreError
from fastprovd.store import counters, high_water, home, ranges
from fastprovd.store.database import DATABASE_NAME, Database
from fastprovd.store.high_water import DamagedRecord, HighWater


class CountedDatabase(Database):
    """A Database that keeps its `high_water` beside it; raises as `Database`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._counting = threading.Lock()
        _check_traces(directory)
        super().__init__(directory)

    @contextmanager
    def transaction(
        self, *, reserves: bool = False, releases: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """Commit as `Database.transaction` does, and count a commit that changed something.

        What `reserves` is kept in both places, durably, when it returns. What `releases` addresses
        is kept beside the database first: what is missing there was offered to nobody, and what
        were missing in the database would be taken for a loss.
        """
        with self._counting:
            mark = None
            with super().transaction() as connection:
                before = connection.total_changes
                yield connection
                if connection.total_changes != before:
                    if releases:
                        self._save(_mark(connection, home.commits(connection)))
                    commits = home.count_commit(connection)
                    mark = _mark(connection, commits) if reserves else HighWater(commits)
            if mark is not None and reserves:
                self._save(mark)
            elif mark is not None:
                with self._translated_file_errors():
                    high_water.count_commit(self._directory, mark.commits)

    def _save(self, mark: HighWater) -> None:
        with self._translated_file_errors():
            high_water.save(self._directory, mark)

    @contextmanager
    def _translated_file_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self._directory / high_water.FILE_NAME
            raise StoreError(f"{where}: {error.strerror}") from error

    def went_back(self, connection: sqlite3.Connection) -> str | None:
        """Return what shows that the database has lost something; `None` when nothing does."""
        try:
            kept = high_water.load(self._directory)
        except DamagedRecord:
            return (
                f"{high_water.FILE_NAME} beside it is damaged, so that nobody can tell whether the "
                "database has lost something"
            )
        if kept is None:
            return None
        now = _mark(connection, home.commits(connection))
        reserved = counters.reserved_seq(connection, kept.iv_index)
        if kept.reserved > reserved:
            lost = f"{kept.reserved} SEQ were reserved under IV Index {kept.iv_index}, and of "
            lost += f"{reserved} the database knows"
        elif not _covers(now.addresses, kept.addresses):
            lost = "unicast addresses were handed out of which the database does not know"
        elif kept.commits > now.commits:
            lost = f"it was written {kept.commits} times, and has {now.commits} of them"
        else:
            return None
        return f"{lost}: its journal was cut off, or an older file was put back"

    def take_over(self, connection: sqlite3.Connection) -> None:
        """Take note of all that `high_water` knows and the database does not."""
        try:
            kept = high_water.load(self._directory) or HighWater()
        except DamagedRecord:
            high_water.forget(self._directory)
            return
        counters.raise_seq(connection, kept.iv_index, kept.reserved)
        ranges.burn(connection, kept.addresses)
        home.raise_commits(connection, kept.commits)


def _check_traces(directory: Path) -> None:
    """See that no database is begun where one was used before."""
    traces = (directory / high_water.FILE_NAME, *home.markers(directory))
    left = [path.name for path in traces if os.path.exists(path)]  # what is forbidden, comes later
    if left and not os.path.exists(directory / DATABASE_NAME):
        raise CorruptStore(
            f"{directory / DATABASE_NAME} is missing beside {left[0]}; it holds the keys of the "
            f"network, so no empty one is started in its place: restore {directory} from a backup, "
            "or move it away to begin a new network and reset every board"
        )


def _mark(connection: sqlite3.Connection, commits: int) -> HighWater:
    iv_index, reserved = counters.newest_seq(connection)
    taken = [(taken.first, taken.last) for taken in ranges.load(connection)]
    return HighWater(commits, iv_index, reserved, high_water.merged(taken))


def _covers(ranges: tuple[tuple[int, int], ...], parts: tuple[tuple[int, int], ...]) -> bool:
    return all(any(low <= first and last <= high for low, high in ranges) for first, last in parts)
