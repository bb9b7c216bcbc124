"""What a run will come to, before it begins: the firmware's tree, limits, times and reasons; pure.

The tree is filled breadth-first, in the order of the addresses. Real boards take others as they
hear them, and children get their shares in the order of their AppKey Status; so a real tree has
the predicted addresses and shares, but its siblings may be swapped and its branches may be uneven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fastprovd.campaign.planner import (
    SAFE_LIST_ENTRIES,
    Plan,
    choose_node_addr_cnt,
    edge_primaries,
    is_direct,
    plan_direct,
    plan_run,
    plan_share,
    primaries_of,
    share_size,
    wants_spare,
)
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.campaign.times import Expected, direct_time, fast_time, reach_out_time
from fastprovd.campaign.verdict import target
from fastprovd.errors import LocalProtocolError
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
class Own:
    """`boards` boards that we provision ourselves; `first`..`last` are taken for them."""

    boards: int
    first: int
    last: int

    @property
    def addresses(self) -> range:
        """What they get when no session fails."""
        return range(self.first, self.first + self.boards)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run over `boards` boards, of which `heard` were heard, will come to.

    `method` is how those that are heard are provisioned, and never AUTO. `own` are all of them, or
    a spare plain node, or nobody. With DIRECT the Primaries of `branches` are among `own`, and
    those below them are beyond our reach; `ranges` is `None` when there are no branches. `fast` and
    `direct` are the times that AUTO compares; `expected` is how long it takes.
    """

    boards: int
    heard: int
    settings: RunSettings
    method: Method
    own: Own | None
    branches: tuple[Branch, ...]
    ranges: Ranges | None
    fast: Expected
    direct: Expected
    expected: Expected

    @property
    def reserved(self) -> tuple[int, int]:
        """Lowest and highest address that are taken."""
        spans = [] if self.own is None else [(self.own.first, self.own.last)]
        spans += [(b.plan.share.first, b.plan.share.last) for b in self.branches]
        firsts = [first for first, _ in spans] + [b.plan.primary for b in self.branches]
        return min(firsts), max(last for _, last in spans)

    @property
    def spare(self) -> int | None:
        """The address of the plain node that we make beside a single Primary."""
        is_spare = self.method is Method.FAST and self.own is not None
        return self.own.first if is_spare and self.own is not None else None

    @property
    def unheard(self) -> int:
        """How many boards are expected beyond those that are heard."""
        return self.boards - self.heard

    @property
    def left_out(self) -> int:
        """How many boards nobody will provision."""
        addresses = {node.address for branch in self.branches for node in branch.nodes}
        addresses.update(() if self.own is None else self.own.addresses)
        return self.boards - len(addresses)


def forecast(settings: RunSettings, heard: int, taken: Iterable[AddressRange]) -> Forecast:
    """Return what a run comes to when `heard` boards are heard and `taken` addresses were used.

    Raises:
        LocalProtocolError: too few addresses are left in a row.
    """
    used = list(taken)
    if is_direct(settings, heard):
        return _direct(settings, heard, used)
    return _fast(settings, heard, used)


def _fast(settings: RunSettings, heard: int, taken: Sequence[AddressRange]) -> Forecast:
    boards = target(settings.expected, heard)
    low, high = settings.unicast_min, settings.unicast_max
    primaries = min(primaries_of(settings, boards), heard)
    run_plan = plan_run(boards, low, high, taken, primaries=primaries)
    own = None
    if heard > primaries and wants_spare(boards, primaries, settings.links):
        # Without addresses for it the run goes on without it.
        with suppress(LocalProtocolError):
            own = Own(1, *plan_direct(1, low, high, [*taken, _taken(run_plan.reserved)]))
    branches = _branches(run_plan.plans, boards - (own is not None))
    return Forecast(
        boards,
        heard,
        settings,
        Method.FAST,
        own,
        branches,
        _ranges(branches, -(-boards // primaries)),
        fast_time(heard, primaries_of(settings, heard)),
        direct_time(heard, settings.links),
        fast_time(boards, primaries),
    )


def _direct(settings: RunSettings, heard: int, taken: Sequence[AddressRange]) -> Forecast:
    boards = target(settings.expected, heard)
    own = Own(heard, *plan_direct(heard, settings.unicast_min, settings.unicast_max, taken))
    fast = fast_time(heard, primaries_of(settings, heard))
    direct = expected = direct_time(heard, settings.links)
    unheard, primaries = boards - heard, edge_primaries(settings, heard)
    branches: tuple[Branch, ...] = ()
    if settings.method is not Method.DIRECT and unheard:
        plans = _edge_plans(settings, own, unheard, primaries, taken)
        branches = _branches(plans, len(plans) + unheard)
    if branches:
        expected = reach_out_time(heard, unheard, primaries, settings.links)
    ranges = _ranges(branches, -(-unheard // primaries))
    return Forecast(
        boards, heard, settings, Method.DIRECT, own, branches, ranges, fast, direct, expected
    )


def _edge_plans(
    settings: RunSettings, own: Own, unheard: int, primaries: int, taken: Sequence[AddressRange]
) -> tuple[Plan, ...]:
    """Return what is asked of the nodes that were made last; nothing without addresses for all."""
    used = [*taken, _taken((own.first, own.last))]
    plans: list[Plan] = []
    for primary in own.addresses[-primaries:]:
        try:
            share = plan_share(
                -(-unheard // primaries),
                primary,
                settings.unicast_min,
                settings.unicast_max,
                used,
            )
        except LocalProtocolError:
            return ()
        used.append(_taken((share.first, share.last)))
        plans.append(Plan(primary, share, choose_node_addr_cnt()))
    return tuple(plans)


def _taken(span: tuple[int, int]) -> AddressRange:
    return AddressRange(*span, "", "planned")


def _branches(plans: Sequence[Plan], boards: int) -> tuple[Branch, ...]:
    """Return the trees of these Primaries with `boards` boards, themselves included."""
    if not plans:
        return ()
    more, rest = divmod(boards, len(plans))
    return tuple(
        Branch(
            plan,
            tree(plan, more + (number < rest)),
            min(boards - len(plans), plan.share.capacity),
        )
        for number, plan in enumerate(plans)
    )


def _ranges(branches: Sequence[Branch], part: int) -> Ranges | None:
    if not branches:
        return None
    is_resilient = all(branch.plan.share.size >= share_size(part) for branch in branches)
    return Ranges.RESILIENT if is_resilient else Ranges.TIGHT


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
