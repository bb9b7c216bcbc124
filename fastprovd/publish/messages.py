"""What goes over MQTT: topics, and payloads out of records; pure.

Payloads are built field by field out of records that hold no key, so none can get in. Unknown is
`null`; consumers ignore fields they do not know.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fastprovd.mesh.addresses import format_address
from fastprovd.publish.exchange import COMMANDS as COMMANDS
from fastprovd.publish.exchange import ErrorCode as ErrorCode
from fastprovd.publish.exchange import Request as Request
from fastprovd.publish.exchange import Response as Response
from fastprovd.publish.exchange import parse_request as parse_request
from fastprovd.publish.exchange import response_payload as response_payload
from fastprovd.publish.json_objects import encode
from fastprovd.records import (
    AdapterLinks,
    Membership,
    MissingBoard,
    Node,
    Run,
    RunState,
    Stranger,
    Switched,
    distinct_boards,
)

SCHEMA: Final = 1
"""Number of the payload contract; a breaking change raises it."""

MAX_COMMAND_LENGTH: Final = 64  # a longer one could not be repeated in the response topic for sure


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT publication, always QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Topics:
    """The topic tree below `<base_topic>/<gateway_id>`."""

    base: str

    @property
    def state(self) -> str:
        """Availability; retained, last will."""
        return f"{self.base}/bridge/state"

    @property
    def info(self) -> str:
        """What this gateway is; retained."""
        return f"{self.base}/bridge/info"

    @property
    def nodes(self) -> str:
        """The address list, whole; retained."""
        return f"{self.base}/bridge/nodes"

    @property
    def groups(self) -> str:
        """Who is in which group, whole; retained."""
        return f"{self.base}/bridge/groups"

    @property
    def run(self) -> str:
        """The current or last run; retained."""
        return f"{self.base}/bridge/run"

    @property
    def event(self) -> str:
        """Everything that happened."""
        return f"{self.base}/bridge/event"

    @property
    def requests(self) -> str:
        """The filter that matches every request."""
        return f"{self.base}/bridge/request/#"

    def request(self, command: str) -> str:
        """Where `command` is asked for."""
        return f"{self.base}/bridge/request/{command}"

    @property
    def nodes_prefix(self) -> str:
        """What the topic of every single node begins with."""
        return f"{self.base}/node/"

    @property
    def every_node(self) -> str:
        """The filter that matches the topic of every single node."""
        return f"{self.nodes_prefix}+"

    def node(self, address: int) -> str:
        """One node; retained."""
        return f"{self.nodes_prefix}{format_address(address)}"

    def node_address(self, topic: str) -> int | None:
        """Return the address of the node that a topic is about, or None."""
        level = topic.removeprefix(self.nodes_prefix)
        if not topic.startswith(self.nodes_prefix) or not re.fullmatch("0x[0-9a-f]{4}", level):
            return None
        return int(level, 16)

    def response(self, command: str) -> str:
        """Where the answer to `command` goes."""
        return f"{self.base}/bridge/response/{command}"

    def command(self, topic: str) -> str | None:
        """Return the command that a request topic names, or None when it is no request to us."""
        prefix = f"{self.base}/bridge/request/"
        command = topic.removeprefix(prefix)
        if not topic.startswith(prefix) or not 0 < len(command) <= MAX_COMMAND_LENGTH:
            return None
        return command


@dataclass(frozen=True, slots=True)
class GatewayInfo:
    """What `bridge/info` tells; public facts only. `network_id` has 8 octets."""

    version: str
    gateway_id: str
    started: datetime
    adapter: str | None = None
    adapter_address: str | None = None
    mesh_uuid: uuid.UUID | None = None
    network_id: bytes | None = None
    net_key_index: int | None = None
    app_key_index: int | None = None
    iv_index: int | None = None
    provisioner_address: int | None = None
    unicast_min: int | None = None
    unicast_max: int | None = None
    links: AdapterLinks | None = None


def timestamp(moment: datetime) -> str:
    """Return an aware time as RFC 3339 in UTC with milliseconds."""
    utc = moment.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03d}Z"


def node_to_json(node: Node) -> dict[str, Any]:
    """Return the JSON shape of a node, as in `bridge/nodes`, `node/<addr>` and `--json`."""
    return {
        "addr": format_address(node.address),
        "run_id": node.run_id,
        "role": node.role.value,
        "uuid": _uuid(node.device_uuid),
        "device_address": node.device_address,
        "elements": node.elements,
        "provisioned_by": _address(node.provisioned_by),
        "parent_source": None if node.parent_source is None else node.parent_source.value,
        "knowledge": node.knowledge.value,
        "listed": node.listed,
        "proven": node.proven,
        "forgotten": node.forgotten,
        "state": None if node.onoff is None else ("ON" if node.onoff else "OFF"),
        "first_seen": _moment(node.first_seen),
        "last_seen": _moment(node.last_seen),
    }


def membership_to_json(membership: Membership) -> dict[str, Any]:
    """Return the JSON shape of a node's place in a group; `member` is what was asked for."""
    return {
        "addr": format_address(membership.address),
        "member": membership.is_member,
        "proof": None if membership.proof is None else membership.proof.value,
    }


def group_change_to_json(group: int, changed: Sequence[Membership]) -> dict[str, Any]:
    """Return the JSON shape of what came of a change of a group; `unproven` may not have it."""
    return {
        "group": format_address(group),
        "members": [membership_to_json(membership) for membership in changed],
        "unproven": [format_address(m.address) for m in changed if m.proof is None],
    }


def switched_to_json(switched: Switched) -> dict[str, Any]:
    """Return the JSON shape of what came of switching; acknowledged: by all of them."""
    return {
        "addr": format_address(switched.address),
        "state": "ON" if switched.onoff else "OFF",
        "acknowledged": not switched.unconfirmed,
        "confirmed": [format_address(address) for address in switched.confirmed],
        "unconfirmed": [format_address(address) for address in switched.unconfirmed],
    }


def groups_to_json(memberships: Sequence[Membership]) -> list[dict[str, Any]]:
    """Return the JSON shape of all groups; who has proven to be out of one is not in it."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for membership in memberships:
        if not membership.is_over:
            groups.setdefault(membership.group, []).append(membership_to_json(membership))
    return [
        {"addr": format_address(group), "members": members} for group, members in groups.items()
    ]


def missing_to_json(board: MissingBoard) -> dict[str, Any]:
    """Return the JSON shape of a board that keeps its run from being done."""
    return {
        "addr": _address(board.address),
        "uuid": _uuid(board.device_uuid),
        "device_address": board.device_address,
        "reason": board.reason,
    }


def stranger_to_json(board: Stranger) -> dict[str, Any]:
    """Return the JSON shape of a board that is not ours."""
    return {
        "uuid": _uuid(board.device_uuid),
        "device_address": board.device_address,
        "reason": board.reason,
    }


def run_to_json(run: Run) -> dict[str, Any]:
    """Return the JSON shape of a run, as in `bridge/run` and `--json`.

    `provisioned` counts the boards whose address is known, `percent` is its share of `expected`.
    """
    return {
        "run_id": run.run_id,
        "state": run.state.value,
        "expected": run.expected,
        "heard": run.heard,
        "provisioned": run.known,
        "proven": run.proven,
        "percent": round(100.0 * run.known / run.expected, 1) if run.expected else None,
        "elapsed_s": round(run.elapsed_s, 3),
        "t_provisioned_s": _seconds(run.t_provisioned_s),
        "t_known_s": _seconds(run.t_known_s),
        "t_proven_s": _seconds(run.t_proven_s),
        "t_closed_s": _seconds(run.t_closed_s),
        "primary": _address(run.primary),
        "match": run.match.hex(),
        "group": _address(run.group),
        "unicast_min": _address(run.unicast_min),
        "unicast_max": _address(run.unicast_max),
        "reason": run.reason,
        "missing": [missing_to_json(board) for board in run.missing],
        "window": None if run.window is None else run.window.value,
        "window_evidence": run.window_evidence,
        "strangers": [stranger_to_json(board) for board in run.strangers],
        "started": timestamp(run.started),
        "finished": _moment(run.finished),
    }


def state_message(topics: Topics, online_since: datetime | None) -> Message:
    """Return the birth message, or the offline one, which as a will knows no time."""
    if online_since is None:
        return Message(topics.state, encode({"state": "offline"}), retain=True)
    payload = {"state": "online", "ts": timestamp(online_since)}
    return Message(topics.state, encode(payload), retain=True)


_MQTT_FACTS: Final = ("host", "port", "version", "set_aside")  # the password never


def info_message(topics: Topics, info: GatewayInfo, mqtt: Mapping[str, Any]) -> Message:
    """Return `bridge/info`.

    `mqtt` has host, port, version (protocol level: 5, or 4 for 3.1.1) and set_aside, the number
    of messages that the broker did not take.
    """
    payload = {
        "schema": SCHEMA,
        "version": info.version,
        "gateway_id": info.gateway_id,
        "started": timestamp(info.started),
        "adapter": {"name": info.adapter, "address": info.adapter_address},
        "network": {
            "mesh_uuid": None if info.mesh_uuid is None else str(info.mesh_uuid),
            "network_id": None if info.network_id is None else info.network_id.hex(),
            "net_key_index": info.net_key_index,
            "app_key_index": info.app_key_index,
            "iv_index": info.iv_index,
            "provisioner_address": _address(info.provisioner_address),
        },
        "limits": {
            "unicast_min": _address(info.unicast_min),
            "unicast_max": _address(info.unicast_max),
            "links": None if info.links is None else info.links.now,
            "links_found": None if info.links is None else info.links.found,
        },
        "mqtt": {name: mqtt[name] for name in _MQTT_FACTS if name in mqtt},
    }
    return Message(topics.info, encode(payload), retain=True)


def list_to_json(nodes: Sequence[Node], run: Run | None) -> dict[str, Any]:
    """Return what an address list says, in order of address.

    Complete when the run ended as done and none of its nodes was forgotten since.
    """
    is_complete = (
        run is not None
        and run.state is RunState.DONE
        and distinct_boards(node for node in nodes if node.proven) >= run.proven
    )
    ordered = sorted(nodes, key=lambda node: node.address)
    return {
        "run_id": None if run is None else run.run_id,
        "complete": is_complete,
        "count": len(ordered),
        "addresses": [format_address(node.address) for node in ordered],
        "nodes": [node_to_json(node) for node in ordered],
    }


def nodes_message(
    topics: Topics, nodes: Sequence[Node], run: Run | None, revision: int, now: datetime
) -> Message:
    """Return `bridge/nodes`."""
    payload = {"revision": revision, **list_to_json(nodes, run), "ts": timestamp(now)}
    return Message(topics.nodes, encode(payload), retain=True)


def groups_message(topics: Topics, memberships: Sequence[Membership], now: datetime) -> Message:
    """Return `bridge/groups`."""
    payload = {"groups": groups_to_json(memberships), "ts": timestamp(now)}
    return Message(topics.groups, encode(payload), retain=True)


def node_message(topics: Topics, node: Node) -> Message:
    """Return `node/<addr>`."""
    return Message(topics.node(node.address), encode(node_to_json(node)), retain=True)


def run_message(topics: Topics, run: Run | None, now: datetime) -> Message:
    """Return `bridge/run`; without any run so far, its state is `idle`."""
    shape = {"run_id": None, "state": "idle"} if run is None else run_to_json(run)
    return Message(topics.run, encode(shape | {"ts": timestamp(now)}), retain=True)


def event_message(
    topics: Topics, seq: int, kind: str, data: Mapping[str, Any], run_id: str | None, now: datetime
) -> Message:
    """Return `bridge/event`; `seq` goes on across restarts, a gap in it is a lost event.

    Raises:
        TypeError, ValueError: `data` is not JSON-ready.
    """
    payload = {
        "seq": seq,
        "type": kind,
        "run_id": run_id,
        "ts": timestamp(now),
        "data": dict(data),
    }
    return Message(topics.event, encode(payload))


def _address(address: int | None) -> str | None:
    return None if address is None else format_address(address)


def _uuid(octets: bytes | None) -> str | None:
    return None if octets is None else str(uuid.UUID(bytes=octets))


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
