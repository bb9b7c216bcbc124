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
    unprovisioned: Collection[bytes], nodes: Iterable[Node], boards: Mapping[bytes, str]
) -> Returned:
    """Compare Device UUIDs on the air with the nodes, and with the run that took each board on."""
    by_run: dict[str, list[Node]] = {}
    for node in nodes:
        by_run.setdefault(node.run_id, []).append(node)
    uuids: set[bytes] = set()
    gone: list[Node] = []
    unplaced = 0
    for run_id, made in by_run.items():
        placed = {node.device_uuid for node in made if node.device_uuid is not None}
        gone += [node for node in made if node.device_uuid in unprovisioned]
        uuids |= placed.intersection(unprovisioned)
        others = {uuid for uuid, taken_by in boards.items() if taken_by == run_id} - placed
        back = others.intersection(unprovisioned)
        nameless = [node for node in made if node.device_uuid is None]
        if not nameless:
            continue
        uuids |= back
        if back and back == others:
            gone += nameless
        else:
            unplaced += len(back)
    return Returned(frozenset(uuids), tuple(gone), unplaced)
