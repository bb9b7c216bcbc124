"""Audiences made of others, and one that does not care; both meet the port of the campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastprovd.campaign.ports import Audience
from fastprovd.records import Membership, Node, Run


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
    """Tells everybody in `members` what happens."""

    def __init__(self) -> None:
        self.members: list[Audience] = []

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        for member in self.members:
            member.run_changed(run)

    def node_changed(self, node: Node) -> None:
        """A node became known, or more is known about it."""
        for member in self.members:
            member.node_changed(node)

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list, whole."""
        for member in self.members:
            member.nodes_changed(nodes, run)

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group, whole."""
        for member in self.members:
            member.groups_changed(memberships)

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened."""
        for member in self.members:
            member.event(kind, data, run_id)
