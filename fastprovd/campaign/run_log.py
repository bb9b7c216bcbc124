"""The run as it stands: stored before it is told, one place for both.

What becomes known of a node, its step in the journal and the run's own counts are one commit and
then one message each. What becomes known while a commit is under way goes into the next one, all of
it together: a slow disk makes fewer commits, and holds nobody up for longer than two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import structlog

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.ladder import Rung, Symptom
from fastprovd.campaign.planner import Plan
from fastprovd.campaign.ports import Audience, Store
from fastprovd.campaign.states import Trigger, next_state
from fastprovd.clock import Clock
from fastprovd.errors import StoreError
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.records import (
    Node,
    NodeRole,
    ParentSource,
    Run,
    Step,
    StepKind,
    distinct_boards,
)

log = structlog.get_logger()


# What an earlier process measured is sure; how long nobody ran, only the wall clock tells. A day is
# the longest that a run may take: what leaps further, or back, is a clock that was set.
_LONGEST_OUTAGE_S: Final = 86400.0


@dataclass(slots=True, eq=False)
class _Batch:
    """What goes into one commit, beside the run; `writing` once that is under way."""

    nodes: dict[int, Node] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    writing: asyncio.Task[None] | None = None


class RunLog:
    """Keeps the Run and its Nodes; every change is committed, then published."""

    def __init__(
        self,
        run: Run,
        store: Store,
        audience: Audience,
        clock: Clock,
        nodes: Iterable[Node] = (),
        replay: ReplayProtectionList | None = None,
    ) -> None:
        """`nodes` are what an earlier process made in this run; `replay` is stored with proofs.

        `not_kept` says why the end of the run could not be stored yet.
        """
        self.run = run
        self.nodes = {node.address: node for node in nodes}
        self._fell_silent: set[int] = set()
        self._is_end_kept = True
        self.not_kept: str | None = None
        self._replay = replay or ReplayProtectionList()
        self._store = store
        self._audience = audience
        self._clock = clock
        self._batch = _Batch()
        self._writing: asyncio.Task[None] | None = None
        self._begun = clock.monotonic()
        self._t0: float | None = None
        self._log = log.bind(run_id=run.run_id)

    @property
    def since_info_set(self) -> float | None:
        """Seconds since INFO_SET was sent, `None` before."""
        return None if self._t0 is None else self._clock.monotonic() - self._t0

    def mark_info_set(self, sent_s: float) -> None:
        """Start the run's clocks at this loop time."""
        self._t0 = sent_s

    def since(self, when: float) -> float | None:
        """Return loop time `when` in seconds since INFO_SET."""
        return None if self._t0 is None else max(0.0, when - self._t0)

    async def resume(self, begun: datetime | None) -> None:
        """Go on with a run that an earlier process left; its clocks count from `begun`."""
        run, now_s = self.run, self._clock.monotonic()
        ago_s = (self._clock.utc_now() - run.started).total_seconds()
        is_told = run.elapsed_s <= ago_s <= run.elapsed_s + _LONGEST_OUTAGE_S
        self._begun = now_s - (ago_s if is_told else run.elapsed_s)
        if begun is not None:
            # Both moments are of the same process, between which the clock may have been set too.
            after_s = (begun - run.started).total_seconds()
            self.mark_info_set(min(self._begun + max(0.0, after_s), now_s))
        await self.step(StepKind.RESUMED, detail=run.state.value)
        self.event("run_resumed", state=run.state.value)

    async def move(self, trigger: Trigger, **changes: Any) -> None:
        """Follow the table of states on `trigger`."""
        state = next_state(self.run.state, trigger)
        if state.is_end:
            changes["finished"] = self._clock.utc_now()
        self._log.info(
            "run_moved", before=self.run.state, after=state, on=trigger.value, **_readable(changes)
        )
        if not state.is_end:
            await self.change(state=state, **changes)
            return
        self._set(state=state, **changes)
        self._is_end_kept = False
        await self.keep_end()
        # It is over, whether the disk takes that or not.
        self._audience.run_changed(self.run)

    async def keep_end(self) -> bool:
        """Store how the run ended, if that is not done yet; return whether it is."""
        if self._is_end_kept:
            return True
        ended = self._step(StepKind.ENDED, detail=self.run.state.value)
        try:
            await self._commit(self.nodes.values(), [ended])
        except StoreError as error:
            self.not_kept = str(error)
            return False
        self._is_end_kept, self.not_kept = True, None
        return True

    async def step(self, kind: StepKind, **facts: Any) -> None:
        """Journal what is about to be done, durably; see `Step` for the facts."""
        await self._commit(steps=[self._step(kind, **facts)])

    async def plan(self, plan: Plan) -> None:
        """Journal what is going to be asked of a Primary."""
        await self.step(
            StepKind.PLAN,
            address=plan.primary,
            first=plan.share.first,
            last=plan.share.last,
            node_addr_cnt=plan.node_addr_cnt,
        )

    def offer(self, address: int, board: HeardBoard) -> Step:
        """Return the step to be stored with the DevKey, before Provisioning Data leaves."""
        return self._step(
            StepKind.ADDRESS_OFFERED,
            address=address,
            device_uuid=board.uuid,
            device_address=board.device_address,
        )

    def _step(self, kind: StepKind, **facts: Any) -> Step:
        return Step(self.run.run_id, kind, self._clock.utc_now(), **facts)

    async def change(self, **changes: Any) -> None:
        """Update the Run, commit it, tell it."""
        self._set(**changes)
        await self._commit()
        self._audience.run_changed(self.run)

    async def _commit(self, nodes: Iterable[Node] = (), steps: Sequence[Step] = ()) -> None:
        """Store these and the run as it stands; raises StoreError."""
        batch = self._batch
        batch.nodes |= {node.address: node for node in nodes}
        batch.steps += steps
        while batch.writing is None:
            if self._writing is not None and not self._writing.done():
                await asyncio.wait([self._writing])
                continue
            self._batch = _Batch()
            batch.writing = self._writing = asyncio.create_task(self._write(batch))
        # Whoever is cancelled meanwhile ends no commit: others may wait for it.
        await asyncio.shield(batch.writing)

    async def _write(self, batch: _Batch) -> None:
        nodes = list(batch.nodes.values())
        is_proof = any(node.proven for node in nodes) or self.run.state.is_end
        heard = self._replay.unsaved() if is_proof else []
        await asyncio.to_thread(self._store.save_nodes, nodes, batch.steps, heard, self.run)
        self._replay.saved(heard)

    def _set(self, **changes: Any) -> None:
        nodes = self.nodes.values()
        self.run = replace(
            self.run,
            known=distinct_boards(nodes),
            proven=distinct_boards(node for node in nodes if node.proven),
            elapsed_s=round(self._clock.monotonic() - self._begun, 3),
            **changes,
        )

    async def made(self, address: int, board: HeardBoard, parent: int, *steps: StepKind) -> None:
        """Note that we, who are `parent`, made a board a node, which is the last one so far.

        `steps` are journalled with it.
        """
        now_s = self.since_info_set
        await self._node(
            address,
            steps,
            {"t_provisioned_s": now_s, "t_known_s": now_s},
            device_uuid=board.uuid,
            device_address=board.device_address,
            provisioned_by=parent,
            parent_source=ParentSource.OBSERVED,
        )

    async def made_primary(self, address: int, board: HeardBoard, parent: int) -> None:
        """Note that we made a board the node that is to be a Primary Provisioner."""
        await self._node(
            address,
            [StepKind.PROVISIONED],
            role=NodeRole.PRIMARY_PROVISIONER,
            device_uuid=board.uuid,
            device_address=board.device_address,
            provisioned_by=parent,
        )

    async def node(self, address: int, step: StepKind | None = None, **changes: Any) -> None:
        """Add or update a node; a call that changes nothing tells nothing.

        A `step` is journalled with it. The run's clock of proofs follows from `proven`.
        """
        await self._node(address, [] if step is None else [step], **changes)

    async def _node(
        self,
        address: int,
        steps: Iterable[StepKind],
        clocks: Mapping[str, float | None] = MappingProxyType({}),
        **changes: Any,
    ) -> None:
        now = self._clock.utc_now()
        before = self.nodes.get(address)
        if before is None:
            before = Node(address, self.run.run_id, first_seen=now)
            self.event("node_added", addr=format_address(address))
        elif all(getattr(before, name) == value for name, value in changes.items()):
            return
        node = self.nodes[address] = replace(before, last_seen=now, **changes)
        if node.proven and not before.proven:
            clocks = {**clocks, "t_proven_s": self.since_info_set}
        self._set(**clocks)
        await self._commit([node], [self._step(step, address=address) for step in steps])
        self._audience.node_changed(node)
        self._audience.run_changed(self.run)

    @property
    def fell_silent(self) -> frozenset[int]:
        """Nodes that answered once, and do not any more as far as we know."""
        nodes = (self.nodes.get(address) for address in self._fell_silent)
        return frozenset(node.address for node in nodes if node is not None and not node.proven)

    async def doubt(self, address: int) -> None:
        """Take back that a node is proven: it did not answer when it was asked again."""
        node = self.nodes.get(address)
        if node is None or not node.proven:
            return
        self._fell_silent.add(address)
        self.event("node_fell_silent", addr=format_address(address))
        await self.node(address, proven=False)

    async def forget(self, address: int) -> None:
        """Drop a node whose board is an unprovisioned device again."""
        node = replace(self.nodes.pop(address), forgotten=True)
        self._set()
        await self._commit([node])
        self._audience.node_changed(node)
        self._audience.run_changed(self.run)

    async def observed_parent(self, child: int, parent: int) -> None:
        """Note that `parent` was seen to configure `child`."""
        await self.node(
            child, provisioned_by=parent, parent_source=ParentSource.OBSERVED, listed=True
        )
        if parent in self.nodes and self.nodes[parent].role is NodeRole.NODE:
            await self.node(parent, role=NodeRole.TEMPORARY_PROVISIONER)

    def publish_nodes(self) -> None:
        """Tell the address list, whole; a run without nodes leaves the list of the one before."""
        if not self.nodes:
            return
        nodes = sorted(self.nodes.values(), key=lambda node: node.address)
        self._audience.nodes_changed(nodes, self.run)

    def event(self, kind: str, **data: Any) -> None:
        """Tell that something happened."""
        self._log.info(kind, **data)
        self._audience.event(kind, data, self.run.run_id)

    def recovery(self, symptom: Symptom, rung: Rung) -> None:
        """Tell that a rung of a ladder is tried."""
        self.event(
            "recovery", symptom=symptom.name.lower(), rung=rung.name.lower(), what=rung.value
        )

    def broken(self, error: BaseException) -> None:
        """Log an exception that nobody expected, with its traceback."""
        self._log.error("run_broken", exc_info=error)


def _readable(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name in ("reason", "expected")}
