"""What a forecast looks like to people and to programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from fastprovd.campaign.forecast import Branch, Forecast, Own, PredictedNode
from fastprovd.campaign.reasons import reasons
from fastprovd.campaign.shares import Share
from fastprovd.campaign.times import Expected, shown
from fastprovd.mesh.addresses import format_address

_COLUMNS: Final = (
    "primary",
    "share",
    "serves",
    "boards",
    "provisioners",
    "plain",
    "depth",
    "list",
    "at most",
    "known by",
    "reports",
    "sources",
    "time",
)
# Of a subtree: whether its root has a share, and the shapes below it.
_Shape = tuple[bool, tuple[Any, ...]]


def plan_lines(forecast: Forecast) -> Iterator[str]:
    """Yield the plan: a table of Primaries, their trees, and the reasons."""
    first, last = forecast.reserved
    heard = f", {forecast.heard} heard" if forecast.unheard else ""
    yield (
        f"{_number(forecast.boards, 'board')}{heard}, method {forecast.method}, addresses "
        f"{_span(first, last)}, expected to take {shown(forecast.expected)}"
    )
    yield from _own_lines(forecast)
    if forecast.branches:
        yield ""
        yield from _table([_COLUMNS, *(_row(forecast, branch) for branch in forecast.branches)])
        yield ""
        yield "Who provisions whom, filled in the order of the addresses:"
        yield from _trees(forecast.branches)
    yield ""
    yield "Why:"
    for reason in reasons(forecast):
        yield f"- {reason}"


def _own_lines(forecast: Forecast) -> Iterator[str]:
    """Yield which boards we provision ourselves, and who becomes a Primary afterwards."""
    own = forecast.own
    if own is None:
        return
    span = _span(own.addresses[0], own.addresses[-1])
    yield ""
    if forecast.spare is not None:
        yield f"First the gateway provisions a spare plain node: {span}"
        return
    yield f"The gateway itself provisions {_number(own.boards, 'board')}: {span}"
    if forecast.branches:
        primaries = _span(forecast.branches[0].plan.primary, forecast.branches[-1].plan.primary)
        count = len(forecast.branches)
        are = "is then made a Primary" if count == 1 else "are then made Primaries"
        yield (
            f"{count} of them, such as {primaries}, {are} for the "
            f"{_number(forecast.unheard, 'board')} that only they may hear:"
        )


def plan_to_json(forecast: Forecast) -> dict[str, Any]:
    """Return the same as data, ready for JSON."""
    first, last = forecast.reserved
    return {
        "boards": forecast.boards,
        "heard": forecast.heard,
        "method": forecast.method.value,
        "unicast_min": format_address(first),
        "unicast_max": format_address(last),
        "own": None if forecast.own is None else _own_to_json(forecast.own),
        "spare": None if forecast.spare is None else format_address(forecast.spare),
        "left_out": forecast.left_out,
        "ranges": None if forecast.ranges is None else forecast.ranges.value,
        "expected": _time_to_json(forecast.expected),
        "fast": _time_to_json(forecast.fast),
        "direct": _time_to_json(forecast.direct),
        "primaries": [_branch_to_json(branch) for branch in forecast.branches],
        "reasons": list(reasons(forecast)),
    }


def _own_to_json(own: Own) -> dict[str, Any]:
    return {
        "unicast_min": format_address(own.first),
        "unicast_max": format_address(own.last),
        "addresses": [format_address(address) for address in own.addresses],
    }


def _time_to_json(expected: Expected) -> dict[str, Any]:
    return {"low_s": expected.low_s, "high_s": expected.high_s, "source": expected.source}


def _branch_to_json(branch: Branch) -> dict[str, Any]:
    plan = branch.plan
    return {
        "primary": format_address(plan.primary),
        "share": _share_to_json(plan.share),
        "serves": plan.share.capacity,
        "node_addr_cnt": plan.node_addr_cnt,
        "boards": len(branch.nodes),
        "temporary_provisioners": branch.temporary_provisioners,
        "plain_nodes": branch.plain_nodes,
        "depth": branch.depth,
        "list_entries": branch.list_entries,
        "list_entries_at_most": branch.most_entries,
        "known_by": branch.reading.value,
        "reports": branch.reports,
        "sources": branch.sources,
        "nodes": [
            {
                "addr": format_address(node.address),
                "provisioned_by": None if node.parent is None else format_address(node.parent),
                "share": None if node.share is None else _share_to_json(node.share),
                "depth": node.depth,
            }
            for node in branch.nodes
        ],
    }


def _share_to_json(share: Share) -> list[str]:
    return [format_address(share.first), format_address(share.last)]


# The table


def _row(forecast: Forecast, branch: Branch) -> tuple[str, ...]:
    share = branch.plan.share
    return (
        format_address(branch.plan.primary),
        _span(share.first, share.last),
        str(share.capacity),
        str(len(branch.nodes)),
        str(branch.temporary_provisioners),
        str(branch.plain_nodes),
        str(branch.depth),
        str(branch.list_entries),
        str(branch.most_entries),
        branch.reading.value,
        str(branch.reports),
        str(branch.sources),
        shown(forecast.expected),
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


# The tree


def _trees(branches: Sequence[Branch]) -> Iterator[str]:
    """Yield the trees of all Primaries; neighbours with trees of the same shape share one."""
    children: dict[int, list[PredictedNode]] = defaultdict(list)
    shapes: dict[int, _Shape] = {}
    for branch in branches:
        for node in branch.nodes[1:]:
            if node.parent is not None:
                children[node.parent].append(node)
        for node in reversed(branch.nodes):  # children before their parents
            below = tuple(shapes[child.address] for child in children[node.address])
            shapes[node.address] = (node.share is not None, below)

    def lines(siblings: Iterable[PredictedNode], indent: str) -> Iterator[str]:
        for _, alike in groupby(siblings, lambda node: shapes[node.address]):
            group = list(alike)
            first, others = group[0], group[1:]
            below = children[first.address]
            if not below:
                yield f"{indent}{_line(group, _role(group))}"
                continue
            yield f"{indent}{_line([first], _role([first]))}"
            yield from lines(below, f"{indent}   ")
            if others:
                yield f"{indent}{_line(others, f'like {format_address(first.address)}')}"

    yield from lines((branch.nodes[0] for branch in branches), "")


def _role(nodes: Sequence[PredictedNode]) -> str:
    if nodes[0].parent is None:
        role = "Primary Provisioner"
    else:
        role = "plain node" if nodes[0].share is None else "Temporary Provisioner"
    return role if len(nodes) == 1 else f"{role}s"


def _line(nodes: Sequence[PredictedNode], what: str) -> str:
    first, last = nodes[0], nodes[-1]
    count = "" if len(nodes) == 1 else f"{len(nodes)} "
    shares = ""
    if first.share is not None and last.share is not None:
        word = "share" if len(nodes) == 1 else "shares"
        shares = f", {word} {_span(first.share.first, last.share.last)}"
    return f"{_span(first.address, last.address)} {count}{what}{shares}"


def _span(first: int, last: int) -> str:
    if first == last:
        return format_address(first)
    return f"{format_address(first)}..{format_address(last)}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
