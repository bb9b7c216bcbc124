"""The durable queue between what happens and the broker: SQLite, a file of its own.

It is only a queue: a damaged file is set aside and a fresh one is started. While the disk takes
nothing, what comes waits in memory, so that the broker is told all the same.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from fastprovd.errors import CorruptStore, StoreError
from fastprovd.publish.messages import Message
from fastprovd.publish.spare import Spare

log = structlog.get_logger(__name__)

MAX_ROWS: Final = 10_000  # some hours without a broker during runs
MAX_OCTETS: Final = 16 * 2**20  # of topics and payloads; small beside the smallest SD card

_VERSION: Final = 1
_SCHEMA: Final = """
create table outbox(
  id integer primary key autoincrement,
  topic text not null,
  payload blob not null,
  retain integer not null check(retain in (0, 1))) strict;
create unique index newest_retained on outbox(topic) where retain = 1;
create table counters(name text primary key, value integer not null) strict;
"""
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# What SQLite says of a statement of ours, whatever the disk does.
_OUR_BUGS: Final = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
_FILES: Final = ("", "-wal", "-shm")  # the database and what SQLite keeps beside it


@dataclass(frozen=True, slots=True)
class Entry:
    """One message that waits, and the number under which it is deleted."""

    entry_id: int
    message: Message


class Outbox:
    """Messages in order until their acknowledgement; synchronous, safe to call from any thread.

    A retained topic keeps only its newest value, which waits at the end of the queue. Past
    `max_rows` or `max_octets` the oldest messages go, those not retained first; they are counted.
    Every writing method returns after the commit; if the disk refuses that, the change is held in
    memory, said once, and written with the next one that the disk takes.
    """

    def __init__(
        self, path: Path, *, max_rows: int = MAX_ROWS, max_octets: int = MAX_OCTETS
    ) -> None:
        """Open or create the file, mode 0600; set a damaged one aside.

        Raises:
            StoreError: the file can not be opened at all.
        """
        self._dropped = 0
        self._spare = Spare()
        self._is_failing = False
        self._max_rows = max_rows
        self._max_octets = max_octets
        self._lock = threading.RLock()
        try:
            self._database = _open(path)
        except CorruptStore as error:
            aside = _set_aside(path)
            log.error("outbox_damaged", reason=str(error), set_aside=str(aside))
            self._database = _open(path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def put(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Queue one message."""
        self.put_all([Message(topic, payload, retain)])

    def put_all(
        self, messages: Iterable[Message], counters: Mapping[str, int] | None = None
    ) -> None:
        """Queue messages and raise counters, all or nothing; a counter never goes back."""
        messages, counters = list(messages), counters or {}
        with self._lock:
            if not self._write(messages, counters):
                self._dropped += self._spare.hold(messages)
                held = self._spare.counters
                held.update({n: max(value, held.get(n, 0)) for n, value in counters.items()})

    def counter(self, name: str) -> int:
        """Return a counter kept across restarts; 0 when it was never set."""
        with self._transaction() as database:
            row = database.execute("select value from counters where name = ?", (name,)).fetchone()
        return max(0 if row is None else int(row[0]), self._spare.counters.get(name, 0))

    def peek(self, limit: int) -> list[Entry]:
        """Return the oldest messages, at most `limit`; they stay until deleted."""
        with self._lock:
            gone, held = self._spare.gone, self._spare.messages
            rows = self._read(
                "select id, topic, payload, retain from outbox order by id limit ?",
                limit + len(gone),
            )
            found = [
                Entry(entry_id, Message(topic, payload, bool(retain)))
                for entry_id, topic, payload, retain in rows
                if entry_id not in gone
            ]
            found += [Entry(entry_id, message) for entry_id, message in held.items()]
            return found[:limit]

    def delete(self, entry_ids: Sequence[int]) -> None:
        """Forget messages that were acknowledged; one that was replaced meanwhile is not hit."""
        with self._lock:
            self._spare.gone.update(self._spare.delete(entry_ids))
            self._write([], {})

    def _write(self, messages: Sequence[Message], counters: Mapping[str, int]) -> bool:
        """Write what is held and what is new; return whether the disk took it."""
        spare = self._spare
        try:
            with self._transaction() as database:
                database.executemany("delete from outbox where id = ?", [(i,) for i in spare.gone])
                database.executemany(
                    "insert or replace into outbox(topic, payload, retain) values (?, ?, ?)",
                    [(m.topic, m.payload, m.retain) for m in (*spare.messages.values(), *messages)],
                )
                database.executemany(
                    "insert into counters(name, value) values (?, ?) "
                    "on conflict(name) do update set value = max(value, excluded.value)",
                    [*spare.counters.items(), *counters.items()],
                )
                dropped = self._drop_excess(database)
        except StoreError as error:
            if isinstance(error.__cause__, _OUR_BUGS):
                raise
            self._say_once(error)
            return False
        if self._is_failing:
            log.info("outbox_works_again", messages=len(spare.messages))
        self._is_failing = False
        self._dropped += dropped
        spare.clear()
        return True

    def _read(self, query: str, *values: int) -> list[Any]:
        """Return rows; none when the disk does not even give them back, which is said once."""
        try:
            with self._transaction() as database:
                return database.execute(query, values).fetchall()
        except StoreError as error:
            self._say_once(error)
            return []

    def _say_once(self, error: StoreError) -> None:
        if not self._is_failing:
            advice = "make room on the disk, or repair it; what is told waits in memory"
            log.error("outbox_failing", reason=str(error), advice=advice)
        self._is_failing = True

    def take_dropped(self) -> int:
        """Return how many messages were dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def last_id(self) -> int:
        """Return the number of the newest message ever queued; 0 when there was none."""
        with self._lock:
            rows = self._read("select seq from sqlite_sequence where name = 'outbox'")
            return self._spare.last_id() or (int(rows[0][0]) if rows else 0)

    def discard_retained(self, topics: Iterable[str], up_to: int) -> None:
        """Forget retained values up to number `up_to`: newer ones of the topics are published."""
        topics = set(topics)
        with self._lock:
            self._spare.discard_retained(topics, up_to)
            older = self._read("select id, topic from outbox where retain = 1 and id <= ?", up_to)
            self.delete([entry_id for entry_id, topic in older if topic in topics])

    def __len__(self) -> int:
        """Return how many messages wait."""
        with self._lock, self._transaction() as database:
            stored = int(database.execute("select count(*) from outbox").fetchone()[0])
            return stored - len(self._spare.gone) + len(self._spare.messages)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("begin immediate")
                try:
                    yield self._database
                except BaseException:
                    self._database.execute("rollback")
                    raise
                self._database.execute("commit")
            except sqlite3.Error as error:
                raise StoreError(f"the outbox can not be used: {error}") from error

    def _drop_excess(self, database: sqlite3.Connection) -> int:
        size = "length(cast(topic as blob)) + length(payload)"
        rows, octets = database.execute(
            f"select count(*), coalesce(sum({size}), 0) from outbox"  # noqa: S608 - a constant
        ).fetchone()
        victims: list[tuple[int]] = []
        by_age = database.execute(
            f"select id, {size} from outbox order by retain, id"  # noqa: S608 - a constant
        )
        while rows > self._max_rows or octets > self._max_octets:
            entry_id, entry_octets = by_age.fetchone()
            victims.append((entry_id,))
            rows -= 1
            octets -= entry_octets
        by_age.close()
        database.executemany("delete from outbox where id = ?", victims)
        return len(victims)


def _open(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)  # SQLite gives its -wal and -shm files the mode of the database
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the outbox {path} can not be opened: {error}") from error
    try:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        _check_or_create(database)
    except sqlite3.Error as error:
        database.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            raise CorruptStore(f"the outbox {path} is damaged: {error}") from error
        raise StoreError(f"the outbox {path} can not be used: {error}") from error
    except CorruptStore:
        database.close()
        raise
    return database


def _check_or_create(database: sqlite3.Connection) -> None:
    version = database.execute("pragma user_version").fetchone()[0]
    if version == 0:
        database.executescript(f"begin; {_SCHEMA} pragma user_version = {_VERSION}; commit;")
    elif version != _VERSION:
        raise CorruptStore(f"its version is {version}, expected {_VERSION}")
    verdict = database.execute("pragma quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise CorruptStore(verdict)
    try:
        topics = [topic for (topic,) in database.execute("select topic from outbox")]
    except sqlite3.OperationalError as error:  # no UTF-8: SQLite itself does not look into text
        raise CorruptStore(str(error)) from error
    if any(not topic or set(topic) & set("+#\0") for topic in topics):
        raise CorruptStore("a topic in it is none")


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in _FILES:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
    return aside
