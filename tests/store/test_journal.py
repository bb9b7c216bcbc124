"""The journal comes back as it was written, and does not grow for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastprovd.mesh.keys import DevKey
from fastprovd.records import Run, RunState, Step, StepKind
from fastprovd.store.state import StateStore

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
UUID = b"\xdd" * 16
OFFER = Step(
    "r-1", StepKind.ADDRESS_OFFERED, NOON, 0x0003, UUID, "24:0A:C4:5E:00:01", detail="first"
)
PLAN = Step("r-1", StepKind.PLAN, NOON, 0x0002, first=3, last=258, node_addr_cnt=1)


def test_steps_survive_a_crash_in_order(store: StateStore, crash_image: Callable[[], Path]) -> None:
    """Each is durable when the call returns, the offer of an address together with its DevKey."""
    store.save_step(PLAN)
    store.save_dev_key(0x0003, UUID, DevKey(bytes(16)), OFFER)
    store.save_step(Step("r-2", StepKind.BEGUN, NOON))
    with StateStore(crash_image()) as restarted:
        assert restarted.steps("r-1") == [PLAN, OFFER]
        assert restarted.steps("r-3") == []


def test_journals_of_old_runs_go(store: StateStore) -> None:
    """The last five that ended stay, and whatever has no end."""
    open_run = Run("r-open", RunState.PROVISIONING, NOON - timedelta(days=1))
    store.save_run(open_run)
    store.save_step(Step("r-open", StepKind.BEGUN, NOON))
    names = [f"r-{number}" for number in range(8)]
    for number, name in enumerate(names):
        started = NOON + timedelta(minutes=number)
        store.save_step(Step(name, StepKind.BEGUN, started))
        store.save_step(Step(name, StepKind.ENDED, started))
        store.save_run(Run(name, RunState.DONE, started, finished=started))
    kept = [name for name in ["r-open", *names] if store.steps(name)]
    assert kept == ["r-open", *names[-6:]]  # the newest ended after the last look


def test_no_key_is_in_the_journal(store: StateStore, directory: Path) -> None:
    """The DevKey stays in its own table."""
    store.save_dev_key(0x0003, UUID, DevKey(b"\xa5" * 16), OFFER)
    assert "a5a5" not in repr(store.steps("r-1")[0])
