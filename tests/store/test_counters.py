"""SEQ, IV Index and replay list only go forward, whatever happens in between."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastprovd.errors import LocalProtocolError, SeqSpaceExhausted, StoreError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.store import counters
from fastprovd.store.state import StateStore

CrashImage = Callable[[], Path]


MemoryDatabase = Callable[[], AbstractContextManager[sqlite3.Connection]]


def test_blocks_follow_each_other(store: StateStore) -> None:
    """Blocks begin at 0 and never overlap."""
    assert store.reserve_seq_block(256) == range(256)
    assert store.reserve_seq_block(10) == range(256, 266)


def test_a_block_is_durable_before_it_is_returned(
    store: StateStore, crash_image: CrashImage
) -> None:
    """A process killed right after a reservation never hands its numbers out again."""
    store.reserve_seq_block(256)
    with StateStore(crash_image()) as restarted:
        assert restarted.reserve_seq_block(256) == range(256, 512)


def test_clean_stop_wastes_no_number(store: StateStore, directory: Path) -> None:
    """After a clean stop the next start goes on with the exact next number."""
    store.reserve_seq_block(256)
    store.release_seq(17)
    store.close()
    with StateStore(directory) as restarted:
        assert restarted.reserve_seq_block(256) == range(17, 273)


def test_clean_mark_is_used_once(
    store: StateStore, directory: Path, crash_image: CrashImage
) -> None:
    """A crash in the life after a clean stop falls back to what was reserved, not to the mark."""
    store.reserve_seq_block(256)
    store.release_seq(17)
    store.close()
    with StateStore(directory) as restarted:
        restarted.reserve_seq_block(8)
        image = crash_image()
    with StateStore(image) as after_crash:
        assert after_crash.reserve_seq_block(8).start >= 256


def test_crash_between_clean_stop_and_first_block_keeps_the_mark(
    store: StateStore, crash_image: CrashImage
) -> None:
    """A process killed after the clean mark was written sent nothing more: the mark still holds."""
    store.reserve_seq_block(256)
    store.release_seq(256)
    with StateStore(crash_image()) as restarted:
        assert restarted.reserve_seq_block(1) == range(256, 257)


@pytest.mark.parametrize("next_seq", [-1, 255, 513])
def test_release_outside_of_own_blocks_is_a_bug(
    store: StateStore, crash_image: CrashImage, next_seq: int
) -> None:
    """A clean mark below what an earlier process sent, or above the reserve, is refused."""
    store.reserve_seq_block(256)
    with StateStore(crash_image()) as restarted:
        restarted.reserve_seq_block(256)
        with pytest.raises(LocalProtocolError, match=f"SEQ {next_seq}"):
            restarted.release_seq(next_seq)


def test_release_without_a_block_is_a_bug(store: StateStore) -> None:
    """Who reserved nothing has nothing to release."""
    with pytest.raises(LocalProtocolError):
        store.release_seq(0)


@pytest.mark.parametrize("size", [0, -1, 2**24 + 1])
def test_block_size_is_checked(store: StateStore, size: int) -> None:
    """An empty or impossible block is a bug of the caller."""
    with pytest.raises(LocalProtocolError):
        store.reserve_seq_block(size)


def test_the_last_number_is_given_and_then_no_more(store: StateStore) -> None:
    """2**24 numbers are handed out under one IV Index; asking for more says what to do."""
    assert store.reserve_seq_block(2**24 - 1)[-1] == 2**24 - 2
    with pytest.raises(SeqSpaceExhausted, match=r"only 1 of 16777216 .* finished an IV Update"):
        store.reserve_seq_block(2)
    assert store.reserve_seq_block(1) == range(2**24 - 1, 2**24)
    store.set_iv_index(IvIndex(1))
    assert store.reserve_seq_block(1) == range(0, 1)


def test_seq_goes_on_while_an_iv_update_is_in_progress(store: StateStore) -> None:
    """During an IV Update we transmit with the old IV Index, so its SEQ must not start again."""
    assert store.reserve_seq_block(100) == range(100)
    store.set_iv_index(IvIndex(1, update_in_progress=True))
    assert store.reserve_seq_block(100) == range(100, 200)
    store.set_iv_index(IvIndex(1))
    assert store.reserve_seq_block(100) == range(100)


def test_a_block_of_the_old_iv_index_can_not_be_released_under_the_new(store: StateStore) -> None:
    """After the IV Index moved on, an old SEQ is no clean mark."""
    store.reserve_seq_block(100)
    store.set_iv_index(IvIndex(1))
    with pytest.raises(LocalProtocolError):
        store.release_seq(10)


@pytest.mark.parametrize(
    "backward",
    [IvIndex(6), IvIndex(6, update_in_progress=True), IvIndex(7, update_in_progress=True)],
)
def test_iv_index_never_goes_back(store: StateStore, backward: IvIndex) -> None:
    """A smaller IV Index, or an IV Update that would begin again at the same one, is refused."""
    store.set_iv_index(IvIndex(7))
    with pytest.raises(StoreError, match="IV Index would go backwards"):
        store.set_iv_index(backward)
    store.set_iv_index(IvIndex(7))
    assert store.network().iv_index == IvIndex(7)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update seq set reserved = 255", "SEQ would go backwards"),
        ("update seq set iv_index = 4", "SEQ would go backwards"),
        ("delete from seq", "SEQ would be forgotten"),
        ("update iv_index set value = 2", "the IV Index would go backwards"),
        ("update iv_index set update_in_progress = 1", "the IV Index would go backwards"),
    ],
)
def test_the_database_itself_guards_the_counters(
    memory_database: MemoryDatabase, statement: str, message: str
) -> None:
    """Whoever lowers a counter, by hand or by a wrong restore, is stopped by a trigger."""
    with memory_database() as connection:
        counters.save_iv_index(connection, IvIndex(3), None, recovers=False)
        counters.reserve_seq(connection, 256)
        with pytest.raises(sqlite3.IntegrityError, match=message):
            connection.execute(statement)


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("reserve"), st.integers(1, 300)),
            st.tuples(st.just("clean stop"), st.integers(0, 300)),
            st.tuples(st.just("crash"), st.just(0)),
            st.tuples(st.just("iv"), st.booleans()),
        ),
        max_size=30,
    )
)
def test_no_number_is_used_twice_under_one_iv_index(
    memory_database: MemoryDatabase, steps: list[tuple[str, int]]
) -> None:
    """Whatever order of blocks, clean stops, crashes and IV Updates: each (IV, SEQ) is used once.

    The user takes numbers from its blocks in order; after a stop or crash it starts with none.
    """
    used: set[tuple[int, int]] = set()
    with memory_database() as connection:
        block = range(0)
        for step, amount in steps:
            iv_index = counters.load_iv_index(connection)
            if step == "reserve":
                block = counters.reserve_seq(connection, amount)
                taken = {(iv_index.transmit, seq) for seq in block[: amount // 2]}
                assert not taken & used
                used |= taken
                block = block[amount // 2 :]
            elif step == "clean stop" and block:
                counters.release_seq(connection, block.start, iv_index.transmit)
                block = range(0)
            elif step == "crash":
                block = range(0)
            elif step == "iv":
                moved = _next_iv_index(iv_index, update=bool(amount))
                counters.save_iv_index(connection, moved, None, recovers=False)
                block = range(0)


def _next_iv_index(iv_index: IvIndex, *, update: bool) -> IvIndex:
    if iv_index.update_in_progress:
        return IvIndex(iv_index.value)
    return IvIndex(iv_index.value + 1, update_in_progress=update)


CHILD = """
import sys
from pathlib import Path
from fastprovd.store.state import StateStore
store = StateStore(Path(sys.argv[1]))
while True:
    block = store.reserve_seq_block(16)
    print(block.start, block.stop, flush=True)
"""


def test_kill_at_any_moment_never_repeats_a_number(directory: Path) -> None:
    """Processes killed in mid-reservation: the ranges they printed never overlap and only grow."""
    printed: list[tuple[int, int]] = []
    for lines in (1, 7, 40):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(directory)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        with child:
            out = [child.stdout.readline() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            out += [line for line in child.stdout if line.endswith("\n")]
        assert child.returncode == -signal.SIGKILL
        printed += [(int(line.split()[0]), int(line.split()[1])) for line in out]
    assert len(printed) >= 48
    assert all(before[1] <= after[0] for before, after in pairwise(printed))


def test_replay_list_survives_a_restart(store: StateStore, directory: Path) -> None:
    """What was heard is known again after a restart."""
    store.save_replay_list([(5, 0, 10), (6, 1, 3)])
    store.close()
    with StateStore(directory) as restarted:
        assert restarted.replay_list() == [(5, 0, 10), (6, 1, 3)]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=20
    )
)
def test_replay_list_keeps_the_newest_of_each_source(
    memory_database: MemoryDatabase, entries: list[tuple[int, int, int]]
) -> None:
    """In whatever order entries come, the largest (IV Index, SEQ) of each source stays."""
    with memory_database() as connection:
        for entry in entries:
            counters.save_replay(connection, [entry])
        newest: dict[int, tuple[int, int]] = {}
        for src, iv_index, seq in entries:
            newest[src] = max(newest.get(src, (0, 0)), (iv_index, seq))
        assert counters.load_replay(connection) == [(src, *newest[src]) for src in sorted(newest)]


def test_the_times_of_the_iv_index_are_kept(store: StateStore, crash_image: CrashImage) -> None:
    """When it moved last, and when it was recovered last; nothing in a new network."""
    moved, recovered = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    assert store.iv_index_times() == (None, None)
    store.set_iv_index(IvIndex(5), recovered, recovers=True)
    store.set_iv_index(IvIndex(6, update_in_progress=True), moved)
    with StateStore(crash_image()) as restarted:
        assert restarted.iv_index_times() == (moved, recovered)
    store.set_iv_index(IvIndex(9), moved, recovers=True)
    assert store.iv_index_times() == (None, moved)
