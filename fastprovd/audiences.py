"""Audiences made of others, and one that does not care; both meet the port of the campaign."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from fastprovd.campaign.ports import Audience
from fastprovd.records import Membership, Node, Run

log = structlog.get_logger(__name__)


class SilentAudience:
    """Says nothing; override what you want to hear."""

    def run_changed(self, run: Run) -> None:
        """The run moved on."""

    def node_changed(self, node: Node) -> None:
        """A node became known, or more is known about it."""

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list, whole."""

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group, whole."""

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened."""


class Audiences:
    """Tells everybody in `members` what happens; who can not take it disturbs nobody else."""

    def __init__(self) -> None:
        self.members: list[Audience] = []

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        self._each(lambda member: member.run_changed(run))

    def node_changed(self, node: Node) -> None:
        """A node became known, or more is known about it."""
        self._each(lambda member: member.node_changed(node))

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list, whole."""
        self._each(lambda member: member.nodes_changed(nodes, run))

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group, whole."""
        self._each(lambda member: member.groups_changed(memberships))

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened."""
        self._each(lambda member: member.event(kind, data, run_id))

    def _each(self, tell: Callable[[Audience], None]) -> None:
        for member in tuple(self.members):
            try:
                tell(member)
            except Exception:  # at the edge: a run goes on, whoever listens
                log.exception("audience_failed", audience=type(member).__name__)
