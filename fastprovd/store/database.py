"""Open, check and migrate the database; one transaction at a time, durable when it returns."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final

from fastprovd.errors import CorruptStore, SchemaTooNew, StoreError, StoreInUse
from fastprovd.store.rows import DamagedValue

DATABASE_NAME: Final = "state.db"
LOCK_NAME: Final = "lock"
NEWEST: Final = 5  # number of the last file in schema/

# What the sqlite3 module says of text that is not UTF-8; it has no code of its own.
_NO_TEXT: Final = "Could not decode to UTF-8"
_DAMAGE: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})


def schema_scripts() -> list[str]:
    """Return the migration scripts, v1 first."""
    directory = resources.files("fastprovd.store") / "schema"
    return [(directory / f"v{n}.sql").read_text("utf-8") for n in range(1, NEWEST + 1)]


class Database:
    """The one connection to `state.db` in a state directory that nobody else uses.

    Raises:
        StoreError: the directory or the file can not be used as it is.
        StoreInUse: another process holds the directory.
        SchemaTooNew: a newer fastprovd wrote the file.
        CorruptStore: the file is damaged; an empty one is never put in its place.
    """

    def __init__(self, directory: Path, scripts: Sequence[str] | None = None) -> None:
        self.path = directory / DATABASE_NAME
        scripts = schema_scripts() if scripts is None else scripts
        self._lock = threading.Lock()
        with self._translated_errors():
            _check_directory(directory)
            self._lock_file = _lock_directory(directory)
            try:
                self._connection = self._open(scripts)
                self._inode = os.stat(self.path).st_ino
            except BaseException:
                os.close(self._lock_file)
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block did before returning, or roll all of it back.

        Safe from any thread; not to be nested.
        """
        with self._lock, self._translated_errors():
            self._check_place()
            self._connection.execute("begin immediate")
            try:
                yield self._connection
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def _check_place(self) -> None:
        """See that what is written can be found again: of a deletion nobody tells us."""
        try:
            is_there = os.stat(self.path).st_ino == self._inode
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise StoreError(
                f"{self.path} was deleted or replaced while it was in use, and nothing is kept any "
                "more: put it back if you can, and restart fastprovd"
            )

    def checkpoint(self) -> None:
        """Move all that is in the journal into the database itself, durably."""
        with self._lock, self._translated_errors():
            self._connection.execute("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        """Close the file and let the next instance in; a second call does nothing."""
        with self._lock:
            if self._lock_file >= 0:
                self._connection.close()
                os.close(self._lock_file)
                self._lock_file = -1

    def _open(self, scripts: Sequence[str]) -> sqlite3.Connection:
        if not self.path.exists():
            self._create(scripts)
        os.chmod(self.path, 0o600)  # SQLite gives -wal and -shm the mode of the database
        connection = _connect(self.path)
        try:
            self._check(connection)
            connection.execute("pragma journal_mode = wal")
            self._migrate(connection, scripts)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, scripts: Sequence[str]) -> None:
        """Make a complete file aside and rename it: `state.db` is never there half made."""
        journal = self.path.with_name(DATABASE_NAME + "-wal")
        if journal.exists():
            raise self._corrupt(f"{self.path} is missing beside its journal {journal.name}")
        new = self.path.with_name(DATABASE_NAME + ".new")
        for leftover in (new, new.with_name(new.name + "-journal")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.chmod(new, 0o600)
        connection = _connect(new)
        try:
            self._migrate(connection, scripts)
        finally:
            connection.close()
        new.rename(self.path)
        _sync_directory(self.path.parent)

    def _check(self, connection: sqlite3.Connection) -> None:
        if self.path.stat().st_size == 0:
            raise self._corrupt(f"{self.path} is empty")
        report = connection.execute("pragma integrity_check(1)").fetchone()[0]
        if report != "ok":
            raise self._corrupt(f"{self.path} is damaged: {report}")
        if connection.execute("pragma user_version").fetchone()[0] == 0:
            raise self._corrupt(f"{self.path} is not a database of fastprovd")

    def _migrate(self, connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
        version = connection.execute("pragma user_version").fetchone()[0]
        if version > len(scripts):
            raise SchemaTooNew(
                f"{self.path} has schema version {version}, this fastprovd knows up to "
                f"{len(scripts)}: install the newer fastprovd again"
            )
        if version == len(scripts):
            return
        steps = "\n".join(scripts[version:])
        try:
            connection.executescript(
                f"begin immediate;\n{steps}\npragma user_version = {len(scripts)};\ncommit;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except DamagedValue as error:
            raise self._corrupt(f"{self.path} is damaged: {error}") from error
        except sqlite3.ProgrammingError:
            raise  # a bug of ours, such as a closed database
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            is_text = str(error).startswith(_NO_TEXT)
            if is_text or any(name.startswith(damage) for damage in _DAMAGE):
                raise self._corrupt(f"{self.path} is damaged: {error}") from error
            raise StoreError(
                f"{self.path}: {error}; check free space and permissions of {self.path.parent}"
                if isinstance(error, sqlite3.OperationalError)
                else f"{self.path}: {error}"
            ) from error
        except OSError as error:
            raise StoreError(f"{error.filename or self.path}: {error.strerror}") from error

    def _corrupt(self, what: str) -> CorruptStore:
        return CorruptStore(
            f"{what}; it holds the keys of the network, so no empty one is started in its place: "
            f"restore {self.path.parent} from a backup, or move it away to begin a new network "
            "and reset every board"
        )


def _check_directory(directory: Path) -> None:
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
        directory.chmod(0o700)  # whatever the umask took away
    mode = directory.stat().st_mode & 0o777
    if mode & 0o077:
        raise StoreError(
            f"{directory} holds keys and is open to group or others (mode {mode:04o}): "
            f"run 'chmod 700 {directory}'"
        )


def _lock_directory(directory: Path) -> int:
    path = directory / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 16).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreInUse(
            f"{directory} is in use by another fastprovd (process {holder or 'unknown'}): "
            "stop it first, or set another [state] directory"
        ) from error
    except BaseException:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        connection.execute("pragma secure_delete = on")  # a forgotten DevKey is overwritten
    except BaseException:
        connection.close()
        raise
    return connection


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
