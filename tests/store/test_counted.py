"""What the database lost without a word of SQLite is noticed at the next start, and made up for."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastprovd.errors import CopiedStore, CorruptStore, StoreError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import DevKey
from fastprovd.records import AddressRange, Node, Run, RunState, Step, StepKind
from fastprovd.store import counted, counters, high_water
from fastprovd.store.state import StateStore

Write = Callable[[StateStore], object]

UUID = bytes(range(16))
WRITES: dict[str, Write] = {
    "SEQ": lambda store: store.reserve_seq_block(256),
    "SEQ that were given back before": lambda store: store.reserve_seq_block(100),
    "addresses": lambda store: store.reserve_addresses(AddressRange(2, 9, "r", "x")),
    "a DevKey": lambda store: store.save_dev_key(2, UUID, DevKey(bytes(16))),
    "a node": lambda store: store.save_nodes([Node(2, "r")]),
    "a source heard": lambda store: store.save_replay_list([(2, 0, 5)]),
    "an IV Index": lambda store: store.set_iv_index(IvIndex(1)),
}


def killed(directory: Path, before: Sequence[Write], lost: Sequence[Write]) -> Path:
    """Return what a process that was killed leaves, without the journal's frames of `lost`."""
    with StateStore(directory) as store:
        store.network()
        for write in before:
            write(store)
        kept = (directory / "state.db-wal").stat().st_size
        for write in lost:
            write(store)
        files = {path.name: path.read_bytes() for path in directory.iterdir()}
    for path in directory.iterdir():
        if path.name.startswith("state.db"):
            with path.open("r+b") as file:  # the same inode, as after a crash
                file.truncate(0)
                file.write(files[path.name])
        else:
            path.write_bytes(files[path.name])
    wal = directory / "state.db-wal"
    wal.write_bytes(files[wal.name][:kept])
    (directory / "state.db-shm").unlink(missing_ok=True)
    return directory


@pytest.mark.parametrize("lost", WRITES.values(), ids=WRITES)
def test_a_journal_that_was_cut_off_is_noticed(directory: Path, lost: Write) -> None:
    """Whatever was committed last, and although the database is whole."""
    with StateStore(directory) as store:
        block = store.reserve_seq_block(256)
        store.release_seq(block.start + 10)
    left = killed(directory, [lambda store: store.reserve_seq_block(10)], [lost])
    for _ in range(2):
        with pytest.raises(CopiedStore, match=r"journal was cut off.*fastprovd state adopt"):
            StateStore(left)


def test_a_process_that_was_killed_is_nothing_to_notice(directory: Path) -> None:
    """Nothing is lost when the whole journal is there, nor after a second start."""
    left = killed(directory, list(WRITES.values())[:-1], [])
    for _ in range(2):
        with StateStore(left) as store:
            store.reserve_seq_block(10)


def test_a_lost_first_journal_leaves_the_keys(directory: Path) -> None:
    """They are in the database itself before they are used: adopted, the network goes on."""
    with StateStore(directory) as store:
        key = store.network().net_key.octets
        image = directory.with_name("image")
        shutil.copytree(directory, image)
    (image / "state.db-wal").unlink()
    with StateStore(image, adopt=True) as store:
        assert store.network().net_key.octets == key


def test_what_was_lost_is_not_used_again_once_adopted(directory: Path) -> None:
    """SEQ and addresses go on behind all that were taken, under a lost IV Index as well."""

    def work(store: StateStore) -> None:
        store.reserve_addresses(AddressRange(2, 9, "r-1", "x"))
        store.reserve_addresses(AddressRange(20, 29, "r-2", "x"))
        store.set_iv_index(IvIndex(1))
        store.reserve_seq_block(5000)

    keep = AddressRange(5, 6, "r-0", "x")
    left = killed(directory, [], [work])
    with sqlite3.connect(left / "state.db") as database:  # a part of a lost range is known
        database.execute(
            "insert into address_range (first, last, run_id, purpose) values (5, 6, 'r-0', 'x')"
        )
    database.close()
    with StateStore(left, adopt=True) as store:
        taken = store.reserved_addresses()
        assert [(r.first, r.last) for r in taken] == [
            (1, 1),
            (2, 4),
            (5, 6),
            (7, 9),
            (20, 29),
        ]
        assert keep in taken
        store.set_iv_index(IvIndex(1))
        assert store.reserve_seq_block(10).start == 5000 + counters.ADOPTION_GAP
    with StateStore(left) as store:
        store.network()


@pytest.mark.parametrize("kept", ["opened.1", high_water.FILE_NAME])
def test_a_database_that_is_gone_is_not_begun_anew(directory: Path, kept: str) -> None:
    """Anything that it leaves beside it tells that there was one."""
    with StateStore(directory) as store:
        store.network()
    for path in directory.iterdir():
        if path.name != kept:
            path.unlink()
    with pytest.raises(CorruptStore, match=rf"missing beside {kept}.*from a backup, or move it"):
        StateStore(directory)
    assert not (directory / "state.db").exists()


def test_a_damaged_record_is_refused_with_a_remedy(directory: Path) -> None:
    """Adopted, it is written anew; without any it is made by the next reservation."""
    with StateStore(directory) as store:
        store.network()
    record = directory / high_water.FILE_NAME
    record.write_bytes(b"")
    with pytest.raises(CopiedStore, match=r"damaged.*fastprovd state adopt"):
        StateStore(directory)
    with StateStore(directory, adopt=True):
        assert high_water.load(directory) is not None
    record.unlink()
    with StateStore(directory) as store:
        store.reserve_seq_block(1)
        assert high_water.load(directory) is not None


def test_nothing_is_used_that_the_record_does_not_have(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not take it gives no SEQ, and the numbers are left out."""
    with StateStore(directory) as store:
        store.network()

        def fail(directory: Path, mark: high_water.HighWater) -> None:
            raise OSError(28, "No space left on device", str(directory / "high-water.new"))

        with monkeypatch.context() as patch:
            patch.setattr(counted.high_water, "save", fail)
            with pytest.raises(StoreError, match=r"high-water\.new: No space left"):
                store.reserve_seq_block(256)
        assert store.reserve_seq_block(256).start == 256


def end_of_run(store: StateStore) -> None:
    """End a run of which nothing was offered."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    run = Run("r", RunState.PARTIAL, at, finished=at)
    store.save_run(run)


def begin_run(store: StateStore) -> None:
    """Reserve addresses in vain."""
    store.save_step(Step("r", StepKind.BEGUN, datetime(2026, 1, 1, tzinfo=UTC)))
    store.reserve_addresses(AddressRange(2, 9, "r", "direct provisioning"))


def test_addresses_that_come_back_are_no_loss(directory: Path) -> None:
    """They are gone beside the database too, and can be handed out."""
    with StateStore(directory) as store:
        store.network()
        begin_run(store)
        end_of_run(store)
    with StateStore(directory) as store:
        assert [taken.first for taken in store.reserved_addresses()] == [1]
        store.reserve_addresses(AddressRange(2, 9, "r-2", "direct provisioning"))


def test_addresses_come_back_beside_the_database_first(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two leaves them taken, and is nothing to refuse."""

    def killed_here(connection: sqlite3.Connection) -> int:
        raise StoreError("killed")

    with StateStore(directory) as store:
        store.network()
        begin_run(store)
        with monkeypatch.context() as patch:
            patch.setattr(counted.home, "count_commit", killed_here)
            with pytest.raises(StoreError, match="killed"):
                end_of_run(store)
    kept = high_water.load(directory)
    assert kept is not None
    assert kept.addresses == ((1, 1),)
    with StateStore(directory) as store:
        assert [taken.first for taken in store.reserved_addresses()] == [1, 2]
