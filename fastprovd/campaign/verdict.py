"""How a run ends: who is missing, and why; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.planner import LIST_CAPACITY
from fastprovd.mesh.addresses import format_address
from fastprovd.records import MissingBoard, Node, NodeRole

SILENT: Final = (
    "provisioned, but it answers nothing: its provisioner left it without AppKey, or it restarted, "
    "or it is off or out of reach; power-cycle it and run again"
)
SURPLUS: Final = (
    "it answers nothing, though as many boards as were heard have other addresses: a board that "
    "restarted had it before, or it is of a board that nobody heard; if there is one more board, "
    "power-cycle it and run again"
)
FORMER: Final = (
    "it answers nothing, and every board is accounted for under another address: a board that "
    "restarted had it before"
)
UNASKED: Final = (
    "provisioned, but the run ended before it could be asked, or before it answered; power-cycle "
    "all boards and run again"
)
SILENT_PRIMARY: Final = (
    "the Primary Provisioner does not answer: it restarted, or is off or out of reach; "
    "power-cycle it and run again"
)
UNPROVISIONED: Final = "still unprovisioned: no provisioner took it; run again"
FELL_SILENT: Final = (
    "it answered, and does not any more: it restarted, died, or is off or out of reach; "
    "power-cycle it and run again"
)
LAST_HEARD_UNPROVISIONED: Final = (
    "unprovisioned when it was last heard: no provisioner took it, or nobody could tell its address"
    "; power-cycle it and run again"
)

NAMESAKE: Final = (
    "it has the Device UUID of another board, so nobody can tell them apart: give each board its "
    "own (a flash image that was cloned carries its UUID), power-cycle it and run again"
)
# Boards that are no nodes in one payload, since anybody can advertise any number; nodes are all
# named.
MOST_NAMED: Final = 50

_Named = TypeVar("_Named")


def target(expected: int | None, heard: int) -> int:
    """Return how many boards must be proven: all that were heard, or announced by the operator."""
    return max(expected or 0, heard)


def missing_boards(
    nodes: Iterable[Node],
    unprovisioned: Iterable[HeardBoard],
    expected: int | None,
    heard: int,
    *,
    strangers: int = 0,
    is_complete: bool = True,
    failed: Mapping[bytes, str] = MappingProxyType({}),
    fell_silent: Collection[int] = (),
    namesakes: Sequence[tuple[HeardBoard, str]] = (),
    made_by: int | None = None,
) -> tuple[MissingBoard, ...]:
    """Return who keeps the run from being done; empty when every board is proven.

    `unprovisioned` are our boards that still advertise 0x1827 once all is quiet. A run that is not
    `is_complete` has not asked everybody, and ended in an air that was not quiet: boards may have
    become nodes since, and BlueZ may repeat what they advertised before. `failed` has the UUIDs of
    those that we tried ourselves, with the reason; among the nodes are so many `strangers`. A board
    that forgot its address and answers under a new one is not missing. Those that `fell_silent`
    answered before. `namesakes` are on the air with the Device UUID of another board, whose device
    address comes with each. `made_by` is as `former_addresses` has it.
    """
    nodes = list(nodes)
    answering = {_board(node) for node in nodes if node.proven and node.device_uuid}
    total = target(expected, heard) + strangers
    proven = sum(node.proven for node in nodes)
    former = former_addresses(nodes, expected, total, made_by)
    all_placed = sum(_is_placed(node, made_by) for node in nodes) >= total

    def silence(node: Node) -> str:
        if node.address in fell_silent and node.role is not NodeRole.PRIMARY_PROVISIONER:
            return FELL_SILENT
        is_surplus = all_placed and not _is_placed(node, made_by)
        return SURPLUS if is_surplus else _unproven(node, is_complete)

    missing = [
        MissingBoard(
            silence(node),
            node.address,
            node.device_uuid,
            node.device_address,
        )
        for node in sorted(nodes, key=lambda node: node.address)
        if not node.proven and _board(node) not in answering and node.address not in former
    ]
    missing += [
        MissingBoard(f"{NAMESAKE}; the other one: {others}", None, board.uuid, board.device_address)
        for board, others in namesakes
    ]
    unaccounted = total - proven - len(missing)
    if unaccounted > 0:
        known = {_board(node) for node in nodes}
        left = [b for b in unprovisioned if (b.uuid, b.device_address) not in known]
        # Nodes that others provisioned have no UUID here, and may have been heard just before it.
        left = sorted(left, key=lambda board: -board.last_seen_s)[:unaccounted]
        missing += [
            MissingBoard(
                _left(failed.get(board.uuid), is_complete),
                None,
                board.uuid,
                board.device_address,
            )
            for board in left
        ]
        unaccounted -= len(left)
    if unaccounted > 0:
        missing += [MissingBoard(_unaccounted(expected, heard))] * unaccounted
    return tuple(missing)


def bounded(missing: Sequence[MissingBoard]) -> tuple[MissingBoard, ...]:
    """Return all nodes and so many others as can be told, and how many more there are."""
    nodes = [board for board in missing if board.address is not None]
    others = [board for board in missing if board.address is None]
    return (*nodes, *shortened(others, MissingBoard))


def shortened(boards: Sequence[_Named], rest: Callable[[str], _Named]) -> tuple[_Named, ...]:
    """Return them, or so many as can be told and then the `rest`: how many more there are."""
    more = len(boards) - MOST_NAMED
    if more <= 0:
        return tuple(boards)
    return (*boards[:MOST_NAMED], rest(f"and {more} more that are not named"))


def former_addresses(
    nodes: Collection[Node], expected: int | None, total: int, made_by: int | None = None
) -> tuple[int, ...]:
    """Return the addresses that boards had before they restarted, if all `total` have others.

    Nobody can tell which board had which: nothing on the air connects it with a Device UUID.
    Unless the operator said how many are `expected`, it might be that of a board we do not hear.
    A node that we made, at `made_by`, told its address before it could restart.
    """
    if expected is None or sum(_is_placed(node, made_by) for node in nodes) < total:
        return ()
    return tuple(sorted(node.address for node in nodes if not _is_placed(node, made_by)))


def _board(node: Node) -> tuple[bytes | None, str | None]:
    """Return what tells a board: boards with one Device UUID have different device addresses."""
    return node.device_uuid, node.device_address


def _is_placed(node: Node, made_by: int | None) -> bool:
    """Whether there is a board at this address: it answered, or its own proxy told the address."""
    is_ours = node.role is NodeRole.PRIMARY_PROVISIONER or (
        made_by is not None and node.provisioned_by == made_by
    )
    return node.proven or (node.device_address is not None and not is_ours)


def _unproven(node: Node, is_complete: bool) -> str:
    if node.role is NodeRole.PRIMARY_PROVISIONER:
        return SILENT_PRIMARY
    return SILENT if is_complete else UNASKED


def _left(failure: str | None, is_complete: bool) -> str:
    if failure is not None:
        return f"it could not be provisioned: {failure}; power-cycle it and run again"
    return UNPROVISIONED if is_complete else LAST_HEARD_UNPROVISIONED


def _unaccounted(expected: int | None, heard: int) -> str:
    if expected is not None and expected > heard:
        return (
            f"expected {expected} boards, heard {heard} and found no address for this one: it is "
            "off, out of reach, or was taken by another network"
        )
    return (
        f"heard {heard} boards and found no address for this one: it is off, its Temporary "
        f"Provisioner is off or out of the Primary's reach, or the list of {LIST_CAPACITY} is full"
    )


def done_though(former: Collection[int]) -> str:
    """Return what a run that is done says of former addresses; nothing if there are none."""
    if not former:
        return ""
    return f"every board answered; {', '.join(map(format_address, former))}: {FORMER}"


def summary(missing: Collection[MissingBoard], total: int) -> str:
    """Return one sentence for `reason` of a partial run."""
    named = [format_address(board.address) for board in missing if board.address is not None]
    sentence = f"{len(missing)} of {total} boards can not be proven"
    return f"{sentence}: {', '.join(named)}" if named else sentence
