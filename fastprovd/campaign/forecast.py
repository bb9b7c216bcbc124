"""What a run will come to, before it begins: the firmware's tree, limits, times and reasons; pure.

The tree is filled breadth-first, in the order of the addresses. Real boards take others as they
hear them, and children get their shares in the order of their AppKey Status; so a real tree has
the predicted addresses and shares, but its siblings may be swapped and its branches may be uneven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fastprovd.campaign.planner import (
    SAFE_LIST_ENTRIES,
    Plan,
    is_direct,
    plan_direct,
    plan_run,
    primaries_of,
    share_size,
)
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.campaign.times import Expected, direct_time, fast_time
from fastprovd.campaign.verdict import target
from fastprovd.mesh.models.fast_provisioning import REPORT_MAX_ADDRESSES
from fastprovd.records import AddressRange

# CONFIG_BLE_MESH_CRPL of the demo: sources that a node listens to.
REPLAY_LIST_ENTRIES: Final = 60


class Reading(StrEnum):
    """How the addresses below a Primary become known."""

    LIST = "list"
    """Its NODE_ADDR_STATUS is read."""
    LIST_IF_SHORT = "list if short"
    """The same, unless so many boards join this Primary that its list may be too long."""
    PROBING = "probing"
    """The predicted addresses are asked one by one: reading so long a list may kill the Primary."""


class Ranges(StrEnum):
    """How many addresses there are for the boards."""

    RESILIENT = "resilient"
    """So many that a share that is lost with its provisioner is not missed."""
    TIGHT = "tight"
    """What was left of the address range: every board has one as long as none is lost."""


@dataclass(frozen=True, slots=True)
class PredictedNode:
    """A node of the tree; without `share` it provisions nobody, and its GATT proxy stays on."""

    address: int
    parent: int | None
    share: Share | None
    depth: int


@dataclass(frozen=True, slots=True)
class Branch:
    """One Primary and all boards below it, `nodes`, breadth-first.

    `most_entries` would be in its NODE_ADDR_STATUS if all boards came to it that its share serves.
    """

    plan: Plan
    nodes: tuple[PredictedNode, ...]
    most_entries: int

    @property
    def depth(self) -> int:
        """Levels below the Primary."""
        return self.nodes[-1].depth

    @property
    def list_entries(self) -> int:
        """Addresses in its NODE_ADDR_STATUS: all but its own."""
        return len(self.nodes) - 1

    @property
    def reading(self) -> Reading:
        """Whether its list can be read."""
        if self.most_entries <= SAFE_LIST_ENTRIES:
            return Reading.LIST
        even = self.list_entries <= SAFE_LIST_ENTRIES
        return Reading.LIST_IF_SHORT if even else Reading.PROBING

    @property
    def temporary_provisioners(self) -> int:
        """Boards that get a share."""
        return sum(node.share is not None for node in self.nodes[1:])

    @property
    def plain_nodes(self) -> int:
        """Boards that get none, for lack of addresses."""
        return sum(node.share is None for node in self.nodes)

    @property
    def sources(self) -> int:
        """Entries of its replay list: us, its own children, and all that report further boards."""
        own = {node.address for node in self.nodes if node.depth == 1}
        return 1 + len(own | set(self._children()))

    @property
    def reports(self) -> int:
        """NODE_ADDR messages to it, when each provisioner has all its children before the first."""
        children = self._children().values()
        return sum(-(-count // REPORT_MAX_ADDRESSES) for count in children)

    def _children(self) -> Counter[int]:
        """Return how many children each Temporary Provisioner has that has some."""
        return Counter(
            node.parent for node in self.nodes if node.parent is not None and node.depth > 1
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run over `boards` boards, of which `heard` were heard, will come to.

    `method` is never AUTO. `reserved` are first and last address that are taken for good;
    `branches` and `ranges` are empty when we provision all boards ourselves.
    """

    boards: int
    heard: int
    settings: RunSettings
    method: Method
    reserved: tuple[int, int]
    branches: tuple[Branch, ...]
    ranges: Ranges | None
    fast: Expected
    direct: Expected

    @property
    def expected(self) -> Expected:
        """How long it takes."""
        return self.direct if self.method is Method.DIRECT else self.fast


def forecast(settings: RunSettings, heard: int, taken: Iterable[AddressRange]) -> Forecast:
    """Return what a run comes to when `heard` boards are heard and `taken` addresses were used.

    Raises:
        LocalProtocolError: too few addresses are left in a row.
    """
    boards = target(settings.expected, heard)
    low, high = settings.unicast_min, settings.unicast_max
    primaries = primaries_of(settings, boards)
    fast, direct = fast_time(boards, primaries), direct_time(boards, settings.links)
    if is_direct(settings, heard):
        reserved = plan_direct(boards, low, high, taken)
        return Forecast(boards, heard, settings, Method.DIRECT, reserved, (), None, fast, direct)
    run_plan = plan_run(boards, low, high, taken, primaries=primaries)
    more, rest = boards // primaries, boards % primaries
    branches = tuple(
        Branch(
            plan,
            tree(plan, more + (number < rest)),
            min(boards - primaries, plan.share.capacity),
        )
        for number, plan in enumerate(run_plan.plans)
    )
    wanted = share_size(-(-boards // primaries))
    ranges = Ranges.RESILIENT if branches[0].plan.share.size >= wanted else Ranges.TIGHT
    return Forecast(
        boards, heard, settings, Method.FAST, run_plan.reserved, branches, ranges, fast, direct
    )


def tree(plan: Plan, boards: int) -> tuple[PredictedNode, ...]:
    """Return a Primary and those below it, `boards` in all or as many as its share serves."""
    nodes = [PredictedNode(plan.primary, None, plan.share, 0)]
    # The list grows while it is walked: that is what breadth-first means.
    for node in nodes:
        if node.share is None:
            continue
        shares = node.share.sub_shares()
        for number, address in enumerate(node.share.children):
            if len(nodes) >= boards:
                return tuple(nodes)
            share = shares[number] if number < len(shares) else None
            nodes.append(PredictedNode(address, node.address, share, node.depth + 1))
    return tuple(nodes)
