"""Runs that an earlier process left without an end: one may be resumed, the others end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from fastprovd.campaign.closing import NOT_TOLD
from fastprovd.campaign.resumption import Resumption
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.verdict import bounded, missing_boards
from fastprovd.clock import Clock
from fastprovd.errors import CorruptStore
from fastprovd.mesh.addresses import format_address
from fastprovd.records import Run, StepKind, Window
from fastprovd.store.state import StateStore

log = structlog.get_logger(__name__)


def load(store: StateStore) -> Resumption | None:
    """Return what the newest run has left, if it has no end.

    An older one without an end was given up when the newest began.

    Raises:
        CorruptStore: its journal is none that was ever written.
        StoreError: the state can not be read.
    """
    run = next(iter(store.runs()), None)
    if run is None or run.state.is_end:
        return None
    nodes = tuple(node for node in store.nodes() if node.run_id == run.run_id)
    left = Resumption(run, nodes, tuple(store.steps(run.run_id)))
    try:
        left.settings(RunSettings())
    except ValueError as error:
        raise _corrupt(run, f"its settings: {error}") from error
    for address in left.offers:
        if store.dev_key(address) is None:
            raise _corrupt(run, f"{format_address(address)} was offered without a device key")
    return left


def _corrupt(run: Run, what: str) -> CorruptStore:
    return CorruptStore(
        f"the journal of run {run.run_id} is damaged, {what}; restore the state directory from a "
        "backup, or move it away to begin a new network and reset every board"
    )


async def interrupt(store: StateStore, clock: Clock, *, resume: bool) -> None:
    """End all of them but the one that can be resumed, if one shall be; raises StoreError."""
    left = await asyncio.to_thread(load, store)
    may_go_on = left is not None and resume and not left.is_too_often
    spared = left.run.run_id if left is not None and may_go_on else None
    nodes = await asyncio.to_thread(store.nodes)
    for run in await asyncio.to_thread(store.interrupt_runs, clock.utc_now(), spared):
        made = [node for node in nodes if node.run_id == run.run_id]
        missing = missing_boards(made, (), run.expected, run.heard, is_complete=False)
        ended = replace(run, missing=bounded(missing))
        steps = await asyncio.to_thread(store.steps, run.run_id)
        if run.window is None and any(step.kind is StepKind.INFO_SET for step in steps):
            ended = replace(ended, window=Window.OPEN, window_evidence=NOT_TOLD)
        await asyncio.to_thread(store.save_run, ended)
        log.warning("run_interrupted", run_id=run.run_id, missing=len(missing))
