"""The file: modes, the lock, migrations, damage."""

from __future__ import annotations

import os
import sqlite3
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastprovd.errors import CorruptStore, SchemaTooNew, StoreError, StoreInUse
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.records import Node, Run, RunState
from fastprovd.store.database import NEWEST, Database, schema_scripts
from fastprovd.store.state import StateStore

V1 = "create table note (text text not null) strict;"
V2 = "alter table note add column author text;"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_files_are_private_whatever_the_umask(directory: Path, umask: int) -> None:
    """A new directory is 0700 and each file in it 0600 under any umask."""
    old = os.umask(umask)
    try:
        database = Database(directory)
        with database.transaction() as connection:
            connection.execute("insert into replay values (1, 0, 0)")
    finally:
        os.umask(old)
    modes = {path.name: mode(path) for path in directory.iterdir()}
    database.close()
    assert mode(directory) == 0o700
    assert modes == dict.fromkeys(("lock", "state.db", "state.db-wal", "state.db-shm"), 0o600)


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o710])
def test_open_directory_is_refused(directory: Path, bits: int) -> None:
    """A directory that others may enter or list is refused with the command that closes it."""
    directory.mkdir()
    directory.chmod(bits)
    with pytest.raises(StoreError, match=f"chmod 700 {directory}"):
        Database(directory)
    assert list(directory.iterdir()) == []


def test_a_wide_database_file_is_narrowed(directory: Path) -> None:
    """A database restored with a wide mode is 0600 again once opened."""
    Database(directory).close()
    (directory / "state.db").chmod(0o644)
    Database(directory).close()
    assert mode(directory / "state.db") == 0o600


def test_one_instance_per_directory(directory: Path) -> None:
    """A second instance is refused by process number; after a close the directory is free."""
    first = Database(directory)
    with pytest.raises(StoreInUse, match=rf"process {os.getpid()}\)"):
        Database(directory)
    first.close()
    first.close()
    Database(directory).close()


def test_a_refused_open_leaves_the_directory_free(directory: Path) -> None:
    """The lock goes with the failure, so that the repaired directory opens at once."""
    directory.mkdir(mode=0o700)
    (directory / "state.db").write_bytes(b"")
    with pytest.raises(CorruptStore):
        Database(directory)
    (directory / "state.db").unlink()
    Database(directory).close()


def test_every_commit_is_durable_by_setting(directory: Path) -> None:
    """The connection runs in WAL mode with synchronous=FULL and foreign keys."""
    database = Database(directory)
    with database.transaction() as connection:
        settings = [
            connection.execute(f"pragma {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    database.close()
    assert settings == ["wal", 2, 1]


def test_all_tables_are_strict(directory: Path) -> None:
    """SQLite itself refuses a value of the wrong type in each of our tables."""
    database = Database(directory)
    with database.transaction() as connection:
        strict = {
            row["name"]: row["strict"]
            for row in connection.execute("pragma table_list")
            if not row["name"].startswith("sqlite_")
        }
    database.close()
    assert strict
    assert all(strict.values())


def test_schema_directory_matches_newest() -> None:
    """There is one script for each version up to the newest."""
    assert len(schema_scripts()) == NEWEST


def test_migration_keeps_rows(directory: Path) -> None:
    """An older file is brought forward with its content."""
    old = Database(directory, [V1])
    with old.transaction() as connection:
        connection.execute("insert into note values ('kept')")
    old.close()
    new = Database(directory, [V1, V2])
    with new.transaction() as connection:
        rows = [tuple(row) for row in connection.execute("select * from note")]
        version = connection.execute("pragma user_version").fetchone()[0]
    new.close()
    assert (rows, version) == ([("kept", None)], 2)


def test_failed_migration_changes_nothing(directory: Path) -> None:
    """All steps of a migration are one transaction: a fault in the last undoes the first."""
    Database(directory, [V1]).close()
    with pytest.raises(StoreError, match="no such table"):
        Database(directory, [V1, V2, "insert into nowhere values (1);"])
    again = Database(directory, [V1])
    with again.transaction() as connection:
        columns = [row["name"] for row in connection.execute("pragma table_info(note)")]
    again.close()
    assert columns == ["text"]


def test_newer_file_is_refused_untouched(directory: Path) -> None:
    """A file of a newer fastprovd is refused with both versions and stays as it is."""
    Database(directory, [V1, V2]).close()
    before = (directory / "state.db").read_bytes()
    with pytest.raises(SchemaTooNew, match="version 2, this fastprovd knows up to 1"):
        Database(directory, [V1])
    assert (directory / "state.db").read_bytes() == before


def damage_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 100 + path.read_bytes()[100:])


def damage_pages(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def leave_only_the_journal(path: Path) -> None:
    path.rename(path.with_name("state.db-wal"))


def put_a_foreign_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("create table other (x)")
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        damage_header,
        damage_pages,
        truncate,
        empty,
        leave_only_the_journal,
        put_a_foreign_database,
    ],
)
def test_damage_is_named_and_nothing_is_started_over_it(directory: Path, damage: object) -> None:
    """Any damage is CorruptStore with advice; the bytes stay for the rescue, and no file open."""
    Database(directory).close()
    path = directory / "state.db"
    assert callable(damage)
    damage(path)
    before = {p.name: p.read_bytes() for p in directory.glob("state.db*")}
    with pytest.raises(CorruptStore, match=r"restore .* from a backup"):
        Database(directory)
    assert [name for name in open_files() if name.startswith(str(directory))] == []
    assert {name: (directory / name).read_bytes() for name in before} == before


def open_files() -> list[str]:
    """Return the paths of what this process has open."""
    links = Path("/proc/self/fd").iterdir()
    return [os.readlink(link) for link in links if os.path.lexists(link)]


def test_crash_while_the_first_file_is_made(directory: Path) -> None:
    """A half-made file of a first start that was killed is made anew."""
    directory.mkdir(mode=0o700)
    (directory / "state.db.new").write_bytes(b"half")
    (directory / "state.db.new-journal").write_bytes(b"half")
    Database(directory).close()
    assert sorted(path.name for path in directory.iterdir()) == ["lock", "state.db"]


def test_failed_block_is_rolled_back(directory: Path) -> None:
    """An exception inside a transaction undoes it and leaves the database usable."""
    database = Database(directory, [V1])

    def write_and_fail() -> None:
        with database.transaction() as connection:
            connection.execute("insert into note values ('lost')")
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        write_and_fail()
    with database.transaction() as connection:
        assert connection.execute("select count(*) from note").fetchone()[0] == 0
    database.close()


def test_sqlite_errors_become_store_errors(directory: Path) -> None:
    """A constraint that fails is a StoreError that names the file."""
    database = Database(directory, [V1])
    with (
        pytest.raises(StoreError, match=r"state\.db: NOT NULL constraint failed"),
        database.transaction() as connection,
    ):
        connection.execute("insert into note values (null)")
    database.close()


def test_a_directory_that_can_not_be_made_is_a_sentence(tmp_path: Path) -> None:
    """A path below a file is refused as StoreError, not with a bare OSError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        Database(tmp_path / "file" / "state")


@pytest.mark.parametrize(
    "damage",
    [
        "update node set role = cast(x'ff' as text)",
        "update node set role = 'nodf'",
        "update node set device_address = cast(x'8081' as text)",
        "update node set last_seen = '2026-01-01'",
        "update run set started = '2026-13-01T00:00:00Z'",
        "update run set state = 'dona'",
        "update iv_index set changed = 'yesterday'",
    ],
)
def test_values_that_were_never_written_are_damage(directory: Path, damage: str) -> None:
    """SQLite's check does not look into them; whoever reads them is told what to do."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with StateStore(directory) as store:
        store.set_iv_index(IvIndex(1), moment)
        store.save_run(Run("r-1", RunState.DONE, moment))
        store.save_nodes([Node(5, "r-1", device_address="AA", last_seen=moment)])
        with store._database.transaction() as connection:
            connection.execute(damage)
        with pytest.raises(CorruptStore, match="restore"):
            _ = store.nodes(), store.runs(), store.iv_index_times()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_is_deleted_under_us_is_noticed(directory: Path, replaced: bool) -> None:
    """What is written to a file that nobody finds again is not kept."""
    with StateStore(directory) as store:
        content = (directory / "state.db").read_bytes()
        (directory / "state.db").rename(directory / "gone")
        if replaced:
            (directory / "state.db").write_bytes(content)
        with pytest.raises(StoreError, match="deleted or replaced"):
            store.runs()
        (directory / "gone").rename(directory / "state.db")
        assert store.runs() == []
