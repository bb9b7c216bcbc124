"""Whether what was published over MQTT is what the boards printed; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwbench.consoles import BoardView

DONE: Final = "done"
PARTIAL: Final = "partial"
ENDED: Final = (DONE, PARTIAL, "failed", "stopped", "interrupted")


def is_final(nodes: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Tell whether a `bridge/nodes` is the one that goes with the end of this run."""
    if nodes.get("run_id") != run["run_id"]:
        return False
    if run["state"] not in (DONE, PARTIAL):
        return True
    # A board that restarted may be there with two addresses.
    known = {node["uuid"] or node["addr"] for node in nodes["nodes"]}
    proven = {node["uuid"] or node["addr"] for node in nodes["nodes"] if node["proven"]}
    return (len(known), len(proven)) == (run["provisioned"], run["proven"])


def problems(
    run: Mapping[str, Any],
    nodes: Mapping[str, Any],
    views: Mapping[str, BoardView],
    macs: Mapping[str, str],
) -> list[str]:
    """Hold `bridge/run` and `bridge/nodes` of an ended run against the consoles.

    `views` are those of the boards that were meant to take part, those without power too.
    """
    found = _list_problems(run, nodes)
    published = {int(node["addr"], 16): node for node in nodes["nodes"]}
    printed = {view.address: board for board, view in views.items() if view.address is not None}
    ever = {address for view in views.values() for address in view.ever_had}
    if len(printed) < sum(view.address is not None for view in views.values()):
        found.append("two boards printed the same address")
    for address in sorted(set(published) - ever):
        found.append(f"0x{address:04x} was published, but no board printed it")
    # Without its Primary, or cut short, a run may not know every node.
    is_whole = run["state"] in (DONE, PARTIAL) and int(run["primary"], 16) in printed
    for address, board in sorted(printed.items()):
        node = published.get(address)
        if node is None:
            if is_whole:
                found.append(f"{board} printed 0x{address:04x}, but it was not published")
        elif is_whole and node["proven"] != views[board].has_app_key:
            claim = "proven" if node["proven"] else "not proven"
            has = "has" if views[board].has_app_key else "never got"
            found.append(f"0x{address:04x} is {claim}, but {board} {has} an AppKey")
        elif node["device_address"] not in (None, macs[board]):
            found.append(f"0x{address:04x} is {node['device_address']}, but {board} printed it")
    for address in sorted(set(published) & ever - set(printed)):
        # Its board lost the network; only a proof from before that can be in the list.
        if run["state"] == DONE:
            found.append(f"0x{address:04x} counts in a run that is done, but its board forgot it")
    return found + _parent_problems(nodes, views, printed) + _verdict_problems(run, views)


def _list_problems(run: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[str]:
    found = []
    if nodes["run_id"] != run["run_id"]:
        found.append(f"the address list is that of {nodes['run_id']}, not of {run['run_id']}")
    addresses = [int(address, 16) for address in nodes["addresses"]]
    if len(set(addresses)) != len(addresses):
        found.append(f"an address is published twice: {', '.join(nodes['addresses'])}")
    if nodes["count"] != len(addresses):
        found.append(f"count is {nodes['count']} with {len(addresses)} addresses")
    if [int(node["addr"], 16) for node in nodes["nodes"]] != addresses:
        found.append("addresses and nodes differ")
    if run["unicast_min"] is None:
        return [*found, "there are addresses, but no range was given"] if addresses else found
    # The Primary has the address before the range that it hands out.
    low, high = int(run["unicast_min"], 16) - 1, int(run["unicast_max"], 16)
    found += [
        f"0x{address:04x} is not in 0x{low:04x}..0x{high:04x}"
        for address in addresses
        if not low <= address <= high
    ]
    return found


def _parent_problems(
    nodes: Mapping[str, Any], views: Mapping[str, BoardView], printed: Mapping[int, str]
) -> list[str]:
    found = []
    for node in nodes["nodes"]:
        parent = printed.get(int(node["provisioned_by"] or "0", 16))
        if parent is not None and int(node["addr"], 16) not in views[parent].children:
            found.append(
                f"{node['addr']} is said to be of {node['provisioned_by']}, "
                f"but {parent} printed no such child"
            )
    return found


def _verdict_problems(run: Mapping[str, Any], views: Mapping[str, BoardView]) -> list[str]:
    without = sorted(board for board, view in views.items() if not view.has_app_key)
    if run["state"] == DONE:
        return [f"the run is done, but {board} has no AppKey" for board in without]
    if run["state"] == PARTIAL and not without:
        return [f"the run is partial, but every board has an AppKey: {run['reason']}"]
    if not run["reason"]:
        return [f"the run is {run['state']} without a reason"]
    return []
