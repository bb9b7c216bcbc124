"""The frozen records that campaign, store and publish share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, NetKey


class RunState(StrEnum):
    """Where a run is; the last five are its possible ends."""

    SCANNING = "scanning"
    CONNECTING = "connecting"
    PROVISIONING_PRIMARY = "provisioning_primary"
    CONFIGURING_PRIMARY = "configuring_primary"
    PROVISIONING = "provisioning"
    COLLECTING = "collecting"
    PROVING = "proving"
    CLOSING = "closing"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows."""
        return self in _ENDS


_ENDS = frozenset(
    {
        RunState.DONE,
        RunState.PARTIAL,
        RunState.FAILED,
        RunState.STOPPED,
        RunState.INTERRUPTED,
    }
)


class NodeRole(StrEnum):
    """What a node is for the run, in Espressif's words."""

    PRIMARY_PROVISIONER = "primary_provisioner"
    TEMPORARY_PROVISIONER = "temporary_provisioner"
    NODE = "node"


class ParentSource(StrEnum):
    """How we know who provisioned a node."""

    OBSERVED = "observed"
    INFERRED = "inferred"


class Knowledge(StrEnum):
    """How we know of a node, the strongest that holds."""

    PROVEN = "proven"
    """It answered a message under the AppKey."""
    LISTED = "listed"
    """The Primary reported it, or it was overheard being configured; it is silent."""
    HEARD = "heard"
    """It told its address itself, over its own proxy or when we provisioned it; nobody listed it,
    and under the AppKey it is silent."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the network; unknown is `None`.

    `address` is the unicast address of its primary element. `listed`: some NODE_ADDR_STATUS named
    it, or it was overheard answering its provisioner. `proven`: it answered a message under the
    AppKey. `device_uuid` has 16 octets, `device_address` is the BD_ADDR as the adapter spells it.
    `forgotten`: its board was on the air as an unprovisioned device since, so nobody has this
    address any more. `gatt_proxy`: whether we told it to keep its GATT Proxy on, or to switch it
    off; without one a node answers over GATT for itself at most.
    """

    address: int
    run_id: str
    role: NodeRole = NodeRole.NODE
    listed: bool = False
    proven: bool = False
    device_uuid: bytes | None = None
    device_address: str | None = None
    elements: int | None = None
    provisioned_by: int | None = None
    parent_source: ParentSource | None = None
    onoff: bool | None = None
    forgotten: bool = False
    gatt_proxy: bool | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None

    @property
    def knowledge(self) -> Knowledge:
        """How we know of it."""
        if self.proven:
            return Knowledge.PROVEN
        return Knowledge.LISTED if self.listed else Knowledge.HEARD


def distinct_boards(nodes: Iterable[Node]) -> int:
    """Return how many boards these addresses belong to, as far as that can be told.

    A board that restarted has the same Device UUID and device address at another unicast address.
    """
    return len(
        {
            node.address if node.device_uuid is None else (node.device_uuid, node.device_address)
            for node in nodes
        }
    )


class Proof(StrEnum):
    """What shows that a node took a change of its groups, the strongest first."""

    STATUS = "status"
    """Its Configuration Server said so."""
    ANSWER = "answer"
    """It answered a message that was sent to the group."""
    ACKNOWLEDGMENT = "acknowledgment"
    """Its transport layer acknowledged the whole command."""


@dataclass(frozen=True, slots=True)
class Membership:
    """That the node `address` is to be in `group`, or not; without `proof` it may not know yet."""

    group: int
    address: int
    is_member: bool
    proof: Proof | None = None

    @property
    def is_over(self) -> bool:
        """Whether the node has proven that it left."""
        return not self.is_member and self.proof is not None


@dataclass(frozen=True, slots=True)
class Switched:
    """What came of switching nodes: who told that it has the state, and who did not."""

    address: int
    onoff: bool
    confirmed: tuple[int, ...]
    unconfirmed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MissingBoard:
    """A board that the run can not call done, and why, in one sentence."""

    reason: str
    address: int | None = None
    device_uuid: bytes | None = None
    device_address: str | None = None


class Window(StrEnum):
    """Whether boards still provision whatever matches; unknown: told to stop, not shown to have."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Stranger:
    """A board that is not ours and that the boards would provision, and what became of it."""

    reason: str
    device_uuid: bytes | None = None
    device_address: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One fast-provisioning run; times `*_s` are seconds since INFO_SET was sent.

    `expected` counts all boards, the Primary Provisioner too: what the operator said, or else
    what was heard. `known` counts the boards whose address we know, however we know it, `proven`
    those of them that answered under the AppKey. `match` is what was sent to the boards, once it
    was. `t_provisioned_s` is when the last board became a node, `None` if that is not known to a
    second, `t_known_s` when the last address became known, `t_closed_s` when the join window was
    shown to be closed; `window` is `None` before anything can join, `window_evidence` says how we
    know.
    """

    run_id: str
    state: RunState
    started: datetime
    expected: int | None = None
    heard: int = 0
    known: int = 0
    proven: int = 0
    primary: int | None = None
    unicast_min: int | None = None
    unicast_max: int | None = None
    group: int | None = None
    match: bytes = b""
    elapsed_s: float = 0.0
    t_provisioned_s: float | None = None
    t_known_s: float | None = None
    t_proven_s: float | None = None
    t_closed_s: float | None = None
    window: Window | None = None
    window_evidence: str | None = None
    reason: str | None = None
    missing: tuple[MissingBoard, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    finished: datetime | None = None


class StepKind(StrEnum):
    """What a run journals before it acts, or once it has seen it done."""

    BEGUN = "begun"
    PLAN = "plan"
    """`address` is to be a Primary Provisioner with the share `first`..`last`, or without an
    `address` these are to be provisioned directly."""
    ADDRESS_OFFERED = "address_offered"
    """Provisioning Data is about to leave; the board may have the address from now on."""
    PROVISIONED = "provisioned"
    APP_KEY_ADD = "app_key_add"
    INFO_SET = "info_set"
    """INFO_SET is about to be sent: the board may provision others from now on."""
    INFO_SET_CONFIRMED = "info_set_confirmed"
    PROXY_LINK = "proxy_link"
    LIST_READ = "list_read"
    PROVING = "proving"
    STOP_SENT = "stop_sent"
    """The message to provision no more boards is about to be sent."""
    CONFIGURED = "configured"
    """A node that we provisioned directly has AppKey and group, and answered."""
    RESUMED = "resumed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Step:
    """One entry in the journal of a run; which fields there are depends on `kind`.

    `at` is wall clock time, `detail` a word or a sentence for people. No keys.
    """

    run_id: str
    kind: StepKind
    at: datetime
    address: int | None = None
    device_uuid: bytes | None = None
    device_address: str | None = None
    first: int | None = None
    last: int | None = None
    node_addr_cnt: int | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Unicast addresses `first`..`last` inclusive, and the run and purpose they were taken for."""

    first: int
    last: int
    run_id: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Network:
    """The network that we are the Top Provisioner of; `address` is our own unicast address."""

    mesh_uuid: UUID
    net_key: NetKey
    app_key: AppKey
    iv_index: IvIndex
    address: int


@dataclass(frozen=True, slots=True)
class AdapterLinks:
    """How many GATT links may be open at once, those included that BlueZ is still hanging up.

    `now` is the number to plan with, `most` what it may become while the work goes on; `found` says
    in words how it is known: `configured`, `learning`, `learnt: link 11 was refused (no answer)`.
    """

    now: int
    most: int
    found: str


def newest_list(runs: Iterable[Run], nodes: Iterable[Node]) -> tuple[Run | None, list[Node]]:
    """Return the first of `runs` that has nodes, and its nodes; a run without any has no list."""
    nodes = list(nodes)
    for run in runs:
        made = [node for node in nodes if node.run_id == run.run_id]
        if made:
            return run, made
    return None, []
