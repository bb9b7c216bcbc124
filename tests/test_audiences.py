"""Audiences made of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from structlog.testing import capture_logs

from fastprovd.audiences import Audiences, SilentAudience
from fastprovd.records import Membership, Node, Run, RunState

RUN = Run("r-1", RunState.SCANNING, datetime(2026, 11, 22, tzinfo=UTC))
NODE = Node(6, "r-1")
MEMBERSHIP = Membership(0xC010, 6, is_member=True)


class Ears(SilentAudience):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def run_changed(self, run: Run) -> None:
        self.heard.append(run)

    def node_changed(self, node: Node) -> None:
        self.heard.append(node)

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        self.heard.append((nodes, run))

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        self.heard.append(memberships)

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        self.heard.append((kind, data, run_id))


def test_everybody_hears_everything() -> None:
    """Each member is told each thing once, in order; a silent one does not mind."""
    audiences, ears = Audiences(), (Ears(), Ears())
    audiences.members += [ears[0], SilentAudience(), ears[1]]
    audiences.run_changed(RUN)
    audiences.node_changed(NODE)
    audiences.nodes_changed([NODE], RUN)
    audiences.groups_changed([MEMBERSHIP])
    audiences.event("warning", {"reason": "x"}, "r-1")
    expected = [RUN, NODE, ([NODE], RUN), [MEMBERSHIP], ("warning", {"reason": "x"}, "r-1")]
    assert [one.heard for one in ears] == [expected, expected]


def test_who_fails_disturbs_nobody_else() -> None:
    """It is logged with its name, and the others hear all the same."""

    class Broken(SilentAudience):
        def run_changed(self, run: Run) -> None:
            raise RuntimeError("the broker is on fire")

    audiences, ears = Audiences(), Ears()
    audiences.members += [Broken(), ears]
    with capture_logs() as logs:
        audiences.run_changed(RUN)
    assert ears.heard == [RUN]
    assert [(entry["event"], entry["audience"]) for entry in logs] == [
        ("audience_failed", "Broken")
    ]
