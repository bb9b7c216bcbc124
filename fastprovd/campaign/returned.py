"""Boards that were nodes and are on the air as unprovisioned devices again; pure.

The stock firmware keeps nothing over a loss of power, so such a board has forgotten its address.
Of a board that another board provisioned we know the Device UUID, not the address; so all of a
run's nodes without a UUID count as forgotten together, once every board that could be one of them
has returned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fastprovd.records import Node


@dataclass(frozen=True, slots=True)
class Returned:
    """What the boards on the air tell: `uuids` returned, `nodes` are gone.

    `unplaced` boards returned whose address is not known, so some node that is kept is gone too.
    """

    uuids: frozenset[bytes]
    nodes: tuple[Node, ...]
    unplaced: int


def find_returned(
    unprovisioned: Mapping[bytes, Collection[str]],
    nodes: Iterable[Node],
    boards: Mapping[bytes, str],
    alive: Collection[int] = (),
) -> Returned:
    """Compare Device UUIDs on the air with the nodes, and with the run that took each board on.

    An advertisement is not authenticated: a UUID that comes from other device addresses (the values
    of `unprovisioned`) than that of the node is a namesake's, and nodes that are `alive`, since
    they answered by name, did not return.
    """
    by_run: dict[str, list[Node]] = {}
    for node in nodes:
        by_run.setdefault(node.run_id, []).append(node)
    uuids: set[bytes] = set()
    gone: list[Node] = []
    unplaced = 0
    for run_id, made in by_run.items():
        placed = {node.device_uuid for node in made if node.device_uuid is not None}
        lost = [
            node for node in made if node.address not in alive and _is_back(node, unprovisioned)
        ]
        gone += lost
        uuids.update(node.device_uuid for node in lost if node.device_uuid is not None)
        others = {uuid for uuid, taken_by in boards.items() if taken_by == run_id} - placed
        back = others.intersection(unprovisioned)
        nameless = [node for node in made if node.device_uuid is None]
        if not nameless or all(node.address in alive for node in nameless):
            continue
        uuids |= back
        if back and back == others and not any(node.address in alive for node in nameless):
            gone += nameless
        else:
            unplaced += len(back)
    return Returned(frozenset(uuids), tuple(gone), unplaced)


def superseded(nodes: Iterable[Node], order: Mapping[str, int]) -> list[Node]:
    """Return the nodes whose board is the node of a newer run; `order` numbers the runs."""
    newest: dict[tuple[bytes, str], Node] = {}
    old: list[Node] = []
    for node in sorted(nodes, key=lambda node: order.get(node.run_id, -1)):
        if node.device_uuid is None or node.device_address is None:
            continue
        board = node.device_uuid, node.device_address
        if board in newest and newest[board].run_id != node.run_id:
            old.append(newest[board])
        newest[board] = node
    return old


def _is_back(node: Node, unprovisioned: Mapping[bytes, Collection[str]]) -> bool:
    if node.device_uuid is None or node.device_uuid not in unprovisioned:
        return False
    return node.device_address is None or node.device_address in unprovisioned[node.device_uuid]
