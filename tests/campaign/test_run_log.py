"""The run as it stands: committed, then told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.states import Trigger
from fastprovd.clock import SystemClock
from fastprovd.errors import LocalProtocolError, StoreError
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.records import Membership, Node, NodeRole, ParentSource, Run, RunState, StepKind
from tests.support.fake_mesh import TOP, FakeStore

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
PRIMARY, CHILD, GRANDCHILD = 0x0002, 0x0003, 0x0009
BOARD = HeardBoard(bytes(range(16)), "24:0A:C4:5E:00:03", -50, 0.0)


class Audience:
    """Meets the port `Audience` and writes into the store's journal."""

    def __init__(self, journal: list[Any]) -> None:
        self._journal = journal

    def run_changed(self, run: Run) -> None:
        self._journal.append(("run told", run))

    def node_changed(self, node: Node) -> None:
        self._journal.append(("node told", node))

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        self._journal.append(("list told", [node.address for node in nodes]))

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        self._journal.append(("groups told", list(memberships)))

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        self._journal.append(("event", kind, dict(data), run_id))


class Scene:
    """A run log, and all that it did in order."""

    def __init__(self, state: RunState = RunState.SCANNING) -> None:
        self.journal: list[Any] = []
        self.store = FakeStore(self.journal)
        run = Run("r-1", state, BEGUN, expected=3)
        self.replay = ReplayProtectionList()
        clock = SystemClock()
        self.log = RunLog(run, self.store, Audience(self.journal), clock, replay=self.replay)

    def kinds(self) -> list[str]:
        return [entry[0] for entry in self.journal]


async def test_a_proof_is_stored_with_what_it_was_heard_with() -> None:
    """After a kill a recorded answer is old; it is stored once, and not for other news."""
    scene = Scene()
    scene.replay.record(PRIMARY, 0, 9)
    await scene.log.node(PRIMARY, listed=True)
    assert "heard" not in scene.kinds()
    await scene.log.node(PRIMARY, proven=True)
    kinds = scene.kinds()
    assert ("heard", (PRIMARY, 0, 9)) in scene.journal
    assert kinds.index("heard") < kinds.index("node told", kinds.index("heard"))
    await scene.log.node(PRIMARY, onoff=True)
    assert scene.kinds().count("heard") == 1


async def test_a_change_is_stored_before_it_is_told() -> None:
    """Run and node alike: who is told can rely on it."""
    scene = Scene()
    await scene.log.change(heard=3)
    assert scene.kinds() == ["run", "run told"]
    assert scene.journal[0][1] == scene.journal[1][1] == scene.log.run
    assert scene.log.run.heard == 3
    scene.journal.clear()
    await scene.log.node(PRIMARY, listed=True)
    assert scene.kinds() == ["event", "node", "run", "node told", "run told"]


async def test_a_fact_is_one_commit_and_one_message_each() -> None:
    """Node, steps, the run's counts and clocks go together; then each is told once."""
    scene = Scene()
    scene.log.mark_info_set(0.0)
    await asyncio.sleep(2.0)
    steps = (StepKind.PROVISIONED, StepKind.APP_KEY_ADD)
    await scene.log.made(CHILD, BOARD, TOP, *steps)
    assert scene.store.commits == 1
    assert [step.kind for step in scene.store.steps] == list(steps)
    assert scene.kinds() == ["event", "node", "run", "node told", "run told"]
    assert (scene.log.run.known, scene.log.run.t_provisioned_s) == (1, 2.0)
    node = scene.log.nodes[CHILD]
    assert (node.device_uuid, node.provisioned_by) == (BOARD.uuid, TOP)
    await asyncio.sleep(1.0)
    await scene.log.node(CHILD, StepKind.CONFIGURED, proven=True, onoff=False)
    assert scene.store.commits == 2
    assert (scene.log.run.proven, scene.log.run.t_proven_s) == (1, 3.0)
    await asyncio.sleep(1.0)
    await scene.log.node(CHILD, proven=True, onoff=True)
    assert scene.log.run.t_proven_s == 3.0


async def test_what_comes_during_a_commit_is_one_commit() -> None:
    """However many wait for the disk; each is told when its own is stored, and none before."""
    scene = Scene()
    await asyncio.gather(*(scene.log.node(address, listed=True) for address in range(2, 10)))
    assert scene.store.commits == 2
    stored = [entry[1].address for entry in scene.journal if entry[0] == "node"]
    told = [entry[1].address for entry in scene.journal if entry[0] == "node told"]
    assert stored == told == list(range(2, 10))
    assert scene.kinds().index("node told") < scene.kinds().index("node", 10)
    assert scene.log.run.known == 8


async def test_who_is_cancelled_ends_no_commit() -> None:
    """The others that wait for it get it, and the order of commits stays."""
    scene = Scene()
    first, second, third = (
        asyncio.create_task(scene.log.node(address, listed=True)) for address in (2, 3, 4)
    )
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    second.cancel()
    await third
    assert first.cancelled()
    assert second.cancelled()
    stored = [entry[1].address for entry in scene.journal if entry[0] == "node"]
    assert stored == [2, 3, 4]


async def test_a_failed_commit_fails_all_that_went_with_it() -> None:
    """None of them is told, and the next one is tried anew."""
    scene = Scene()
    scene.store.fails.add("save_nodes")
    results = await asyncio.gather(
        *(scene.log.node(address, listed=True) for address in (2, 3, 4)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [StoreError] * 3
    assert "node told" not in scene.kinds()
    scene.store.fails.clear()
    await scene.log.node(5, listed=True)
    assert [entry[1].address for entry in scene.journal if entry[0] == "node told"] == [5]


async def test_what_can_not_be_stored_is_not_told() -> None:
    """The store's exception comes out."""
    scene = Scene()
    scene.store.fails.add("save_nodes")
    with pytest.raises(StoreError):
        await scene.log.move(Trigger.BOARDS_HEARD)
    assert scene.kinds() == []


async def test_moves_follow_the_table() -> None:
    """A trigger leads to the next state; one that is not in the table changes nothing."""
    scene = Scene()
    with capture_logs() as logs:
        await scene.log.move(Trigger.BOARDS_HEARD, heard=3, reason="as expected")
    assert scene.log.run.state is RunState.CONNECTING
    assert scene.log.run.finished is None
    (entry,) = logs
    assert entry["before"] is RunState.SCANNING
    assert (entry["run_id"], entry["on"]) == ("r-1", Trigger.BOARDS_HEARD.value)
    assert entry["reason"] == "as expected"
    assert "heard" not in entry
    before = scene.log.run
    with pytest.raises(LocalProtocolError):
        await scene.log.move(Trigger.SETTLED)
    assert scene.log.run is before


async def test_an_end_has_its_time() -> None:
    """`finished` is set with the last state, and only then."""
    scene = Scene(RunState.PROVING)
    await scene.log.move(Trigger.ALL_PROVEN)
    assert scene.log.run.state is RunState.DONE
    assert scene.log.run.finished is not None
    assert scene.log.run.finished.tzinfo is UTC


async def test_times_count_from_info_set() -> None:
    """Unknown before it, never negative after it; `elapsed_s` counts from the beginning."""
    scene = Scene()
    await asyncio.sleep(5.0)
    assert scene.log.since_info_set is None
    assert scene.log.since(1.0) is None
    scene.log.mark_info_set(SystemClock().monotonic())
    await asyncio.sleep(2.5)
    assert scene.log.since_info_set == 2.5
    assert scene.log.since(6.0) == 1.0
    assert scene.log.since(4.0) == 0.0
    await scene.log.change()
    assert scene.log.run.elapsed_s == 7.5


async def test_every_board_is_counted_whose_address_is_known() -> None:
    """However we know it; a board that forgot its address and got another one counts once."""
    scene = Scene()
    await scene.log.node(PRIMARY, proven=True)
    await scene.log.node(CHILD, listed=True)
    await scene.log.node(GRANDCHILD, device_uuid=b"\xdd" * 16)
    assert (scene.log.run.known, scene.log.run.proven) == (3, 1)
    await scene.log.node(GRANDCHILD + 1, device_uuid=b"\xdd" * 16, proven=True)
    assert (scene.log.run.known, scene.log.run.proven) == (3, 2)


async def test_a_node_is_added_once_and_told_when_it_changes() -> None:
    """The same facts again change nothing, not even when it was last seen."""
    scene = Scene()
    await scene.log.node(CHILD, listed=True)
    first = scene.log.nodes[CHILD]
    assert ("event", "node_added", {"addr": "0x0003"}, "r-1") in scene.journal
    assert first.first_seen == first.last_seen
    scene.journal.clear()
    await scene.log.node(CHILD, listed=True)
    assert scene.log.nodes[CHILD] is first
    assert scene.journal == []
    await scene.log.node(CHILD, onoff=True)
    changed = scene.log.nodes[CHILD]
    assert (changed.listed, changed.onoff, changed.run_id) == (True, True, "r-1")
    assert changed.first_seen == first.first_seen
    assert "event" not in scene.kinds()


async def test_a_parent_that_is_seen_is_a_provisioner() -> None:
    """The child is listed and knows it by observation; the Primary keeps its own role."""
    scene = Scene()
    await scene.log.node(PRIMARY, role=NodeRole.PRIMARY_PROVISIONER)
    await scene.log.node(CHILD, listed=True)
    await scene.log.observed_parent(CHILD, PRIMARY)
    await scene.log.observed_parent(GRANDCHILD, CHILD)
    await scene.log.observed_parent(0x0010, 0x0777)
    nodes = scene.log.nodes
    assert nodes[PRIMARY].role is NodeRole.PRIMARY_PROVISIONER
    assert nodes[CHILD].role is NodeRole.TEMPORARY_PROVISIONER
    assert nodes[CHILD].provisioned_by == PRIMARY
    assert nodes[GRANDCHILD].role is NodeRole.NODE
    assert nodes[GRANDCHILD].listed
    assert nodes[GRANDCHILD].parent_source is ParentSource.OBSERVED
    assert 0x0777 not in nodes


async def test_the_address_list_is_told_in_order() -> None:
    """Whole and sorted; a run without nodes does not empty the list of the one before."""
    scene = Scene()
    scene.log.publish_nodes()
    assert scene.journal == []
    for address in (GRANDCHILD, PRIMARY, CHILD):
        await scene.log.node(address, listed=True)
    scene.log.publish_nodes()
    assert scene.journal[-1] == ("list told", [PRIMARY, CHILD, GRANDCHILD])


async def test_events_and_bugs_are_logged_under_the_run() -> None:
    """An event is told and logged; an unexpected exception is logged with its traceback."""
    scene = Scene()
    error = ValueError("nobody expected this")
    with capture_logs() as logs:
        scene.log.event("warning", about="24:0A:C4:5E:00:01")
        scene.log.broken(error)
    assert scene.journal == [("event", "warning", {"about": "24:0A:C4:5E:00:01"}, "r-1")]
    assert [(entry["event"], entry["run_id"]) for entry in logs] == [
        ("warning", "r-1"),
        ("run_broken", "r-1"),
    ]
    assert logs[1]["exc_info"] is error


@pytest.mark.parametrize(
    ("ago_s", "elapsed_s"),
    [(-1e8, 60.0), (0.0, 60.0), (59.0, 60.0), (600.0, 600.0), (86000.0, 86000.0), (1e8, 60.0)],
)
@pytest.mark.parametrize(
    ("after_s", "believed_s"), [(20.0, 20.0), (-1e8, 0.0), (1e8, 86400.0)], ids=str
)
async def test_a_clock_that_leapt_changes_no_duration(
    ago_s: float, elapsed_s: float, after_s: float, believed_s: float
) -> None:
    """Between two lives it is believed up to a day; between begin and INFO_SET up to all of it."""
    scene = Scene(RunState.PROVISIONING)
    clock = SystemClock()
    started = clock.utc_now() - timedelta(seconds=ago_s)
    run = Run("r-1", RunState.PROVISIONING, started, elapsed_s=60.0)
    log = RunLog(run, scene.store, Audience(scene.journal), clock)
    await log.resume(started + timedelta(seconds=after_s))
    await log.change()
    assert log.run.elapsed_s == pytest.approx(elapsed_s, abs=1.0)
    told_s = max(0.0, elapsed_s - believed_s)
    assert log.since_info_set == pytest.approx(told_s, abs=1.0)
