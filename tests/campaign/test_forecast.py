"""The forecast, against the emulator's arithmetic, whole emulated runs, and figures by hand.

The walk below knows `ChildRanges` of the emulator and no planner code; planner and emulator share
no arithmetic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.forecast import (
    Branch,
    Forecast,
    Own,
    PredictedNode,
    Ranges,
    Reading,
    forecast,
    tree,
)
from fastprovd.campaign.planner import Plan
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.emulator import firmware
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.provisioner_role import ChildRanges
from fastprovd.errors import LocalProtocolError
from fastprovd.records import AddressRange
from tests.support.scene import device_address, scene

Span = tuple[int, int] | None
PRIMARY = 0x0002
OURS = [AddressRange(0x0001, 0x0001, "", "us")]


def emulated_children(first: int, last: int) -> list[tuple[int, Span]]:
    """Return address and range of each child that a provisioner with `first`..`last` can have."""
    ranges = ChildRanges(first, last, firmware.MAX_NODE_NUM)
    addresses = []
    while (address := ranges.take_address()) is not None:
        addresses.append(address)
    return [(address, ranges.take_range()) for address in addresses]


def emulated_tree(first: int, last: int, boards: int) -> list[tuple[int, int | None, Span]]:
    """Return address, parent and range of the Primary and those below it, breadth-first."""
    nodes: list[tuple[int, int | None, Span]] = [(PRIMARY, None, (first, last))]
    waiting = deque([(PRIMARY, (first, last))])
    while waiting:
        parent, span = waiting.popleft()
        for address, child_span in emulated_children(*span):
            nodes.append((address, parent, child_span))
            if len(nodes) >= boards:
                return nodes[:boards]
            if child_span is not None:
                waiting.append((address, child_span))
    return nodes[:boards]


def span(share: Share | None) -> Span:
    return None if share is None else (share.first, share.last)


def predicted_tree(size: int, boards: int) -> list[tuple[int, int | None, Span]]:
    plan = Plan(PRIMARY, Share(PRIMARY + 1, PRIMARY + size), 1)
    return [(node.address, node.parent, span(node.share)) for node in tree(plan, boards)]


def test_every_range_gives_the_emulators_tree() -> None:
    """120 boards below a range of 1 to 4096 addresses: children, parents, ranges, lack of them."""
    for size in range(1, 4097):
        expected = emulated_tree(PRIMARY + 1, PRIMARY + size, 120)
        assert predicted_tree(size, 120) == expected, size


@given(st.integers(1, 4096), st.integers(1, 120))
def test_any_number_of_boards_gives_the_emulators_tree(size: int, boards: int) -> None:
    """Fewer boards fill the same tree less far."""
    assert predicted_tree(size, boards) == emulated_tree(PRIMARY + 1, PRIMARY + size, boards)


@pytest.mark.parametrize("size", [1, 5, 6, 7, 8, 13, 46, 256, 600, 4096])
def test_every_number_of_boards_gives_the_emulators_tree(size: int) -> None:
    """1 to 120 boards in ranges around which the arithmetic turns, and in the usual ones."""
    for boards in range(1, 121):
        assert predicted_tree(size, boards) == emulated_tree(PRIMARY + 1, PRIMARY + size, boards)


@given(st.integers(1, 4096))
def test_capacity_is_that_of_the_emulated_tree(size: int) -> None:
    """A share serves as many boards as the whole emulated tree has children."""
    nodes = emulated_tree(PRIMARY + 1, PRIMARY + size, boards=10_000)
    assert Share(PRIMARY + 1, PRIMARY + size).capacity == len(nodes) - 1


@given(st.integers(1, 120), st.integers(1, 4096))
def test_figures_are_those_of_the_emulated_tree(boards: int, size: int) -> None:
    """What a forecast counts of a single Primary is what is in the emulator's tree."""
    settings = RunSettings(
        links=1, unicast_min=PRIMARY, unicast_max=PRIMARY + size, expected=boards
    )
    try:
        predicted = forecast(settings, boards, OURS)
    except LocalProtocolError:
        serves = len(emulated_tree(PRIMARY + 1, PRIMARY + size, 10_000))
        assert serves < boards
        return
    (branch,) = predicted.branches
    share = branch.plan.share
    nodes = emulated_tree(share.first, share.last, boards)
    assert len(branch.nodes) == len(nodes) == boards
    assert branch.list_entries == boards - 1
    assert branch.plain_nodes == sum(child is None for _, _, child in nodes)
    assert branch.temporary_provisioners == boards - 1 - branch.plain_nodes
    parents = [parent for _, parent, _ in nodes]
    reporters = {parent for parent in parents if parent not in (None, PRIMARY)}
    assert branch.reports == sum(-(-parents.count(parent) // 4) for parent in reporters)
    assert branch.sources == 1 + len(reporters | {a for a, p, _ in nodes if p == PRIMARY})


@pytest.mark.parametrize(
    ("boards", "primaries"), [(2, 1), (3, 1), (7, 1), (12, 1), (50, 1), (7, 2), (20, 2), (30, 3)]
)
async def test_real_runs_grow_within_the_predicted_tree(boards: int, primaries: int) -> None:
    """Every board has a predicted address of its provisioner, and a predicted share.

    Children get their shares in the order of their AppKey Status, so shares of siblings may be
    swapped: of each family the shares that were given are the first predicted ones.
    """
    settings = RunSettings(expected=boards, primaries=primaries)
    predicted = forecast(settings, boards, OURS)
    async with scene(boards, 4, flaws=Flaws.none(), settings=settings) as s:
        await s.campaign.execute()
        truth = s.true_nodes()
        taken = s.store.reserved_addresses()
    assert len(truth) == boards
    check_reserved(predicted, taken)
    assert (predicted.spare is not None) == (primaries == 1 and boards > 2)
    if predicted.spare is not None:
        spare = truth.pop(predicted.spare)
        assert not spare.is_provisioner
        assert not spare.children
    primary_boards = [board for board in truth.values() if board.is_primary]
    assert {(b.unicast_address, true_span(b)) for b in primary_boards} == {
        (b.plan.primary, span(b.plan.share)) for b in predicted.branches
    }
    check_families(predicted, truth)


@pytest.mark.parametrize(("heard", "boards"), [(5, 12), (1, 6), (2, 3), (8, 20)])
async def test_boards_beyond_our_reach_grow_within_the_predicted_trees(
    heard: int, boards: int
) -> None:
    """We provision who is heard, at the predicted addresses; so many of them take the others.

    Which of them are the quietest is not known before, so any of our addresses may be theirs.
    """
    settings = RunSettings(expected=boards, method=Method.AUTO, scan_s=5.0)
    predicted = forecast(settings, heard, OURS)
    assert predicted.own is not None
    async with scene(boards, 4, flaws=Flaws.none(), settings=settings) as s:
        for number in range(heard + 1, boards + 1):
            s.air.set_reach(device_address(number), "hci0", None)
        run = await s.campaign.execute()
        truth = s.true_nodes()
        taken = s.store.reserved_addresses()
        ours = {
            node.address
            for node in s.listener.nodes.values()
            if node.provisioned_by == s.top.stack.address
        }
    assert run.heard == heard
    assert len(truth) == boards
    check_reserved(predicted, taken)
    assert ours == set(predicted.own.addresses)
    primaries = {address: board for address, board in truth.items() if board.is_primary}
    assert set(primaries) <= ours
    assert {true_span(board) for board in primaries.values()} == {
        span(branch.plan.share) for branch in predicted.branches
    }
    rest = {a: b for a, b in truth.items() if a in primaries or a not in ours}
    check_families(predicted, rest)


def check_reserved(predicted: Forecast, taken: Sequence[AddressRange]) -> None:
    """Hold all that a run took for good, in one or several blocks, against the forecast."""
    used = {a for block in taken for a in range(block.first, block.last + 1)} - {0x0001}
    assert used == set(range(predicted.reserved[0], predicted.reserved[1] + 1))


def check_families(predicted: Forecast, truth: Mapping[int, Board]) -> None:
    """Hold the children of each board, their addresses and shares, against the trees."""
    families = {share: kin for b in predicted.branches for share, kin in all_families(b)}
    by_device = {board.device_address: board for board in truth.values()}
    for board in truth.values():
        children = [by_device[child] for child in board.children]
        assert all(child.parent == board.device_address for child in children)
        family = families.get(true_span(board), [])
        assert {child.unicast_address for child in children} <= {a for a, _ in family}
        given_out = {true_span(child) for child in children}
        assert given_out == {share for _, share in family[: len(children)]}


def true_span(board: Board) -> Span:
    """Return the range that a board was given."""
    models = board._models
    parameters = None if models is None else models.vendor.role._parameters
    return None if parameters is None else (parameters.unicast_min, parameters.unicast_max)


def all_families(branch: Branch) -> list[tuple[Span, list[tuple[int | None, Span]]]]:
    """Return the predicted children of every share, whether boards are left for them or not."""
    whole = tree(branch.plan, boards=40_000)
    children: dict[int, list[PredictedNode]] = {}
    for node in whole[1:]:
        children.setdefault(node.parent or 0, []).append(node)
    return [
        (span(node.share), [(c.address, span(c.share)) for c in children.get(node.address, [])])
        for node in whole
        if node.share is not None
    ]


def test_a_small_range_by_hand() -> None:
    """Ten boards in 0x0010..0x0020, as the firmware was measured: the last ones get no share."""
    settings = RunSettings(unicast_min=0x000F, unicast_max=0x0020)
    predicted = forecast(settings, 11, [])
    (branch,) = predicted.branches
    assert predicted.own is None, "no address is left for a spare"
    assert predicted.ranges is Ranges.TIGHT
    assert branch.plan == Plan(0x000F, Share(0x0010, 0x0020), 1)
    assert branch.depth == 2
    assert [hex(node.address) for node in branch.nodes if node.share is None] == [
        "0x15",
        "0x16",
        "0x17",
        "0x18",
        "0x19",
    ]
    assert (branch.reports, branch.sources) == (2, 7)


def test_two_primaries_share_the_boards() -> None:
    """21 boards: 11 and 10 with disjoint shares, each list at most as long as all others."""
    predicted = forecast(RunSettings(), 21, OURS)
    assert predicted.method is Method.FAST
    assert predicted.ranges is Ranges.RESILIENT
    assert [len(branch.nodes) for branch in predicted.branches] == [11, 10]
    assert [branch.most_entries for branch in predicted.branches] == [19, 19]
    assert predicted.reserved == (0x0002, 0x0003 + 2 * 256)
    addresses = [node.address for branch in predicted.branches for node in branch.nodes]
    assert len(set(addresses)) == 21


@pytest.mark.parametrize(
    ("boards", "links", "reading"),
    [
        (41, 1, Reading.LIST),
        (42, 1, Reading.PROBING),
        (42, 2, Reading.LIST),
        (43, 2, Reading.LIST_IF_SHORT),
        (82, 2, Reading.LIST_IF_SHORT),
        (83, 2, Reading.PROBING),
    ],
)
def test_long_lists_are_not_read(boards: int, links: int, reading: Reading) -> None:
    """Up to 40 entries are read; with more Primaries it depends on who joins whom."""
    longest = forecast(RunSettings(links=links), boards, OURS).branches[0]
    assert longest.reading is reading


def test_a_share_that_is_small_bounds_the_list() -> None:
    """However many boards there are, a list has no more entries than its share serves."""
    predicted = forecast(RunSettings(unicast_max=0x004F), 70, OURS)
    assert {branch.most_entries for branch in predicted.branches} == {
        predicted.branches[0].plan.share.capacity
    }
    assert {branch.reading for branch in predicted.branches} == {Reading.LIST}


def test_direct_runs_have_no_tree() -> None:
    """Provisioned by ourselves the boards get addresses in a row, and nobody a share."""
    predicted = forecast(RunSettings(method=Method.DIRECT), 20, OURS)
    assert predicted.branches == ()
    assert predicted.ranges is None
    assert predicted.own == Own(20, 0x0002, 0x0002 + 20 - 1)
    assert predicted.reserved == (0x0002, 0x0002 + 20 - 1)
    assert predicted.expected == predicted.direct


def test_boards_that_are_not_heard() -> None:
    """Five of twelve are heard: ours first, then three of them take the seven others."""
    predicted = forecast(RunSettings(method=Method.AUTO, expected=12), 5, OURS)
    assert predicted.method is Method.DIRECT
    assert predicted.own == Own(5, 0x0002, 0x0002 + 5 - 1)
    assert [branch.plan.primary for branch in predicted.branches] == [0x0004, 0x0005, 0x0006]
    assert [len(branch.nodes) for branch in predicted.branches] == [4, 3, 3]
    assert predicted.branches[0].plan.share == Share(0x0007, 0x0106)
    assert predicted.reserved == (0x0002, 0x0306)
    assert (predicted.unheard, predicted.left_out) == (7, 0)
    assert predicted.expected.low_s > predicted.direct.low_s + 15.0


@pytest.mark.parametrize(
    "settings",
    [
        RunSettings(method=Method.DIRECT, expected=12),
        RunSettings(method=Method.AUTO, expected=12, unicast_max=0x0010),
    ],
)
def test_who_is_not_heard_may_be_left_out(settings: RunSettings) -> None:
    """Nobody reaches out when it is not wanted, or without addresses to hand out."""
    predicted = forecast(settings, 5, OURS)
    assert predicted.branches == ()
    assert predicted.left_out == 7


def test_used_addresses_are_left_alone() -> None:
    """A forecast takes what comes after the addresses of earlier runs; the spare's may be before.

    The run takes the lowest block that is large enough, for each purpose by itself.
    """
    taken = [*OURS, AddressRange(0x0020, 0x0102, "r", "run")]
    predicted = forecast(RunSettings(), 5, taken)
    assert predicted.branches[0].plan.primary == 0x0103
    assert predicted.spare == predicted.reserved[0] == 0x0002


@given(
    st.integers(1, 10_000),
    st.integers(0, 1_000),
    st.integers(1, 32),
    st.sampled_from(Method),
    st.integers(0x0010, 0x7FFF),
)
def test_every_forecast_adds_up(
    heard: int, unheard: int, links: int, method: Method, unicast_max: int
) -> None:
    """Every board has one address, of those that are reserved, or is counted as left out."""
    boards = heard + unheard
    settings = RunSettings(method=method, links=links, expected=boards, unicast_max=unicast_max)
    try:
        predicted = forecast(settings, heard, OURS)
    except LocalProtocolError:
        return
    first, last = predicted.reserved
    assert predicted.expected.low_s <= predicted.expected.high_s
    own = () if predicted.own is None else predicted.own.addresses
    below = [node.address for branch in predicted.branches for node in branch.nodes]
    assert len(set(below)) == len(below)
    assert len({*own, *below}) + predicted.left_out == boards
    assert all(first <= address <= last for address in (*own, *below))
    assert predicted.left_out in (0, unheard if predicted.method is Method.DIRECT else 0)
    if predicted.method is Method.DIRECT:
        assert len(own) == heard
        assert {branch.plan.primary for branch in predicted.branches} <= set(own)
