"""Runs come back as they were saved; unfinished ones are ended after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fastprovd.records import MissingBoard, Run, RunState, Stranger, Window
from fastprovd.store import rows, runs
from fastprovd.store.database import Database, schema_scripts
from fastprovd.store.state import StateStore

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ADDRESSES = st.none() | st.integers(1, 0xFFFF)
SECONDS = st.floats(0, 1e6)
RUNS = st.builds(
    Run,
    run_id=st.text(min_size=1, max_size=20),
    state=st.sampled_from(RunState),
    started=st.datetimes(timezones=st.just(UTC)),
    expected=st.none() | st.integers(0, 500),
    heard=st.integers(0, 500),
    known=st.integers(0, 500),
    proven=st.integers(0, 500),
    primary=ADDRESSES,
    unicast_min=ADDRESSES,
    unicast_max=ADDRESSES,
    group=ADDRESSES,
    match=st.binary(max_size=16),
    elapsed_s=SECONDS,
    t_provisioned_s=st.none() | SECONDS,
    t_known_s=st.none() | SECONDS,
    t_proven_s=st.none() | SECONDS,
    reason=st.none() | st.text(max_size=20),
    missing=st.lists(
        st.builds(
            MissingBoard,
            reason=st.text(max_size=20),
            address=ADDRESSES,
            device_uuid=st.none() | st.binary(min_size=16, max_size=16),
            device_address=st.none() | st.text(max_size=20),
        ),
        max_size=4,
    ).map(tuple),
    t_closed_s=st.none() | SECONDS,
    window=st.none() | st.sampled_from(Window),
    window_evidence=st.none() | st.text(max_size=20),
    strangers=st.lists(
        st.builds(
            Stranger,
            reason=st.text(max_size=20),
            device_uuid=st.none() | st.binary(min_size=16, max_size=16),
            device_address=st.none() | st.text(max_size=20),
        ),
        max_size=3,
    ).map(tuple),
    finished=st.none() | st.datetimes(timezones=st.just(UTC)),
)

_LISTS = ("missing", "strangers")


@given(RUNS, RUNS)
def test_round_trip(
    memory_database: Callable[[], AbstractContextManager[sqlite3.Connection]],
    first: Run,
    second: Run,
) -> None:
    """Every field comes back, missing boards in order; saving again replaces run and boards."""
    second = replace(second, run_id=first.run_id)
    with memory_database() as connection:
        for run in (first, second):
            runs.save(connection, run)
            assert runs.load(connection, run.run_id) == run
        assert runs.load_all(connection) == [second]


def test_unknown_run_is_none(store: StateStore) -> None:
    """A run that was never saved is `None`."""
    assert store.run("r-1") is None


def test_newest_run_is_first(store: StateStore) -> None:
    """The one that was begun last, whatever the clock said then, and however they change later."""
    old = Run("r-b", RunState.PROVISIONING, NOON)
    new = Run("r-a", RunState.DONE, NOON - timedelta(days=3650))
    store.save_run(old)
    store.save_run(new)
    ended = replace(old, state=RunState.DONE)
    store.save_run(ended)
    assert store.runs() == [new, ended]


def test_runs_of_an_earlier_version_keep_their_order(tmp_path: Path) -> None:
    """They were ordered by their times, and nothing else is known of them."""
    directory = tmp_path / "old"
    directory.mkdir(mode=0o700)
    scripts = schema_scripts()[:4]
    database = Database(directory, scripts)
    with database.transaction() as connection:
        for run_id, started in (("r-b", NOON), ("r-a", NOON + timedelta(seconds=1))):
            run = Run(run_id, RunState.DONE, started)
            names = [name for name in rows.column_names(Run) if name not in _LISTS]
            rows.write(connection, "run", {name: getattr(run, name) for name in names})
    database.close()
    with StateStore(directory) as store:
        store.save_run(Run("r-0", RunState.DONE, NOON - timedelta(days=1)))
        assert [run.run_id for run in store.runs()] == ["r-0", "r-a", "r-b"]


def test_unfinished_runs_are_interrupted_after_a_crash(
    store: StateStore, crash_image: Callable[[], Path]
) -> None:
    """Runs without an end become interrupted, with time and reason; finished ones stay."""
    unfinished = [state for state in RunState if not state.is_end]
    for state in RunState:
        store.save_run(Run(f"r-{state}", state, NOON, known=3))
    later = NOON + timedelta(minutes=5)
    with StateStore(crash_image()) as restarted:
        interrupted = restarted.interrupt_runs(later)
        assert {run.run_id for run in interrupted} == {f"r-{state}" for state in unfinished}
        for run in interrupted:
            assert (run.state, run.finished, run.known) == (RunState.INTERRUPTED, later, 3)
            assert run.reason
            assert restarted.run(run.run_id) == run
        assert restarted.run("r-done") == Run("r-done", RunState.DONE, NOON, known=3)
        assert restarted.interrupt_runs(later) == []
