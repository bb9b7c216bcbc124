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
from fastprovd.store import runs
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
    """Runs are listed by start, newest first."""
    old = Run("r-b", RunState.DONE, NOON)
    new = Run("r-a", RunState.DONE, NOON + timedelta(seconds=1))
    store.save_run(old)
    store.save_run(new)
    assert store.runs() == [new, old]


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
