"""What a run looks like to people and to programs: audiences that write lines, and its summary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol, TextIO

from fastprovd.audiences import SilentAudience
from fastprovd.campaign.ports import Audience
from fastprovd.campaign.verdict import target
from fastprovd.mesh.addresses import format_address
from fastprovd.publish.messages import run_to_json, timestamp
from fastprovd.records import (
    Membership,
    Node,
    NodeRole,
    ParentSource,
    Run,
    RunState,
    Step,
    Switched,
    Window,
)

PHASES: Final[Mapping[RunState, str]] = MappingProxyType(
    {
        RunState.SCANNING: "listening for boards",
        RunState.CONNECTING: "connecting",
        RunState.PROVISIONING_PRIMARY: "making it the first node",
        RunState.CONFIGURING_PRIMARY: "making it the Primary Provisioner",
        RunState.PROVISIONING: "boards provision each other",
        RunState.COLLECTING: "collecting addresses",
        RunState.PROVING: "asking every board",
        RunState.CLOSING: "telling the boards to take no more boards",
        RunState.DONE: "done: every board answered",
        RunState.PARTIAL: "partial: some boards are missing",
        RunState.FAILED: "failed",
        RunState.STOPPED: "stopped",
        RunState.INTERRUPTED: "interrupted",
    }
)
ROLES: Final[Mapping[NodeRole, str]] = MappingProxyType(
    {
        NodeRole.PRIMARY_PROVISIONER: "Primary Provisioner",
        NodeRole.TEMPORARY_PROVISIONER: "Temporary Provisioner",
        NodeRole.NODE: "node",
    }
)
_WINDOWS: Final[Mapping[Window, str]] = MappingProxyType(
    {
        Window.OPEN: "open",
        Window.CLOSED: "closed",
        Window.UNKNOWN: "perhaps open",
    }
)
_TOLD_AT_THE_END: Final = (
    "proven",
    "elapsed_s",
    "t_provisioned_s",
    "t_known_s",
    "t_proven_s",
    "t_closed_s",
    "missing",
    "reason",
    "window",
    "strangers",
)
# Between two lines that only count on; a change of phase is told at once.
_COUNTING_S: Final = 3.0


def write_line(stream: TextIO, text: str = "") -> None:
    """Write one line and let it out."""
    stream.write(f"{text}\n")
    stream.flush()


class Reporter(Audience, Protocol):
    """An audience that also tells the end."""

    def tick(self) -> None:
        """Look again at what nobody reports; call it now and then."""
        ...

    def finished(self, run: Run, nodes: Sequence[Node], **more: Any) -> None:
        """The run ended with these nodes; `more` is what only the caller knows, JSON-ready."""
        ...


class JsonLines(SilentAudience):
    """One JSON object per line, the last one `run_finished`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: tuple[RunState, int, int] | None = None

    def run_changed(self, run: Run) -> None:
        """Tell a change of state or of a count."""
        news = (run.state, run.known, run.proven)
        if news != self._told:
            self._told = news
            self.write("run_changed", run_to_json(run))

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Tell an event as it is; the end is told by `finished`."""
        if kind != "run_finished":
            self.write(kind, {"run_id": run_id, **data})

    def tick(self) -> None:
        """Nothing: a line is written once."""

    def finished(self, run: Run, nodes: Sequence[Node], **more: Any) -> None:
        """Tell the end; `expected` is how many boards the run had to prove."""
        told = run_to_json(run)
        self.write(
            "run_finished",
            {
                "run_id": run.run_id,
                "state": run.state.value,
                "expected": target(run.expected, run.heard),
                "addresses": [format_address(node.address) for node in nodes],
                **{name: told[name] for name in _TOLD_AT_THE_END},
                **more,
            },
        )

    def write(self, event: str, data: Mapping[str, Any]) -> None:
        """Write one object."""
        write_line(self._stream, json.dumps({"event": event, **data}, allow_nan=False))


class PlainLines(SilentAudience):
    """A line for each phase, and now and then the counts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: Run | None = None

    def run_changed(self, run: Run) -> None:
        """Tell a change of state at once, of a count after a while."""
        before = self._told
        if before is not None and before.state is run.state:
            counted = (before.known, before.proven) != (run.known, run.proven)
            if not counted or run.elapsed_s - before.elapsed_s < _COUNTING_S:
                return
        self._told = run
        write_line(self._stream, f"{run.elapsed_s:6.1f} s  {progress_text(run)}")

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Tell warnings only."""
        if kind == "warning":
            write_line(self._stream, f"          warning: {data.get('reason')}")

    def tick(self) -> None:
        """Nothing: a line is written once."""

    def finished(self, run: Run, nodes: Sequence[Node], **more: Any) -> None:
        """Tell how it ended."""
        for line in summary_lines(run, nodes):
            write_line(self._stream, line)


def progress_text(run: Run) -> str:
    """Return the phase in words, with the counts that matter in it."""
    words = PHASES[run.state]
    if run.state is RunState.PROVISIONING and run.primary is None:
        words = "provisioning the boards"
    total = target(run.expected, run.heard)
    if run.known and not run.state.is_end:
        words += f": {run.known} of {total} addresses known, {run.proven} proven"
    return words


def summary_lines(run: Run, nodes: Sequence[Node]) -> Iterator[str]:
    """Yield the end in words: the reason, the clocks, tree and table of nodes, who is missing."""
    total = target(run.expected, run.heard)
    yield ""
    if run.reason is not None:
        yield f"{run.state}: {run.reason}"
    if nodes:
        yield f"{run.proven} of {total} boards answered under the AppKey, {run.known} addresses."
        start = "first connection" if run.primary is None else "INFO_SET"
        yield f"  last board provisioned  {_clock(run.t_provisioned_s)} after the start ({start})"
        yield f"  last address known      {_clock(run.t_known_s)}"
        yield f"  last board proven       {_clock(run.t_proven_s)}"
        if run.t_closed_s is not None:
            yield f"  join window closed      {_clock(run.t_closed_s)}"
    if run.window is not None:
        yield f"The join window is {_WINDOWS[run.window]}: {run.window_evidence}."
    if nodes:
        yield ""
        yield "Who provisioned whom (- seen on the air, ~ inferred from the address):"
        yield from tree_lines(nodes)
        yield ""
        yield from node_lines(nodes)
    if run.strangers:
        yield ""
        yield "Not ours:"
    for stranger in run.strangers:
        yield f"  {stranger.device_address or 'a board'}: {stranger.reason}"
    if run.missing:
        yield ""
        yield "Missing:"
    for board in run.missing:
        known = [] if board.address is None else [format_address(board.address)]
        known += [] if board.device_address is None else [board.device_address]
        yield f"  {' '.join(known) or 'a board'}: {board.reason}"


def node_lines(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield a table of nodes, with its head."""
    yield f"{'address':<9}{'role':<23}{'provisioned by':<16}{'known as':<9}{'light':<7}device"
    for node in sorted(nodes, key=lambda node: node.address):
        parent = "?" if node.provisioned_by is None else format_address(node.provisioned_by)
        light = "?" if node.onoff is None else ("on" if node.onoff else "off")
        yield (
            f"{format_address(node.address):<9}{ROLES[node.role]:<23}{parent:<16}"
            f"{node.knowledge:<9}{light:<7}{node.device_address or '?'}"
        )


def step_line(step: Step) -> str:
    """Return a step of a run's journal as a line."""
    facts = [f"{name} {value}" for name, value in _step_facts(step).items() if value is not None]
    return f"{timestamp(step.at)}  {step.kind.value:<20}{'  '.join(facts)}".rstrip()


def step_to_json(step: Step) -> dict[str, Any]:
    """Return a step of a run's journal, ready for JSON."""
    return {
        "ts": timestamp(step.at),
        "run_id": step.run_id,
        "step": step.kind.value,
        **_step_facts(step),
    }


def _step_facts(step: Step) -> dict[str, Any]:
    return {
        "addr": None if step.address is None else format_address(step.address),
        "uuid": None if step.device_uuid is None else step.device_uuid.hex(),
        "device_address": step.device_address,
        "first": None if step.first is None else format_address(step.first),
        "last": None if step.last is None else format_address(step.last),
        "node_addr_cnt": step.node_addr_cnt,
        "detail": step.detail,
    }


def switched_lines(switched: Switched) -> Iterator[str]:
    """Yield what came of switching, and who did not confirm it."""
    told = f"{format_address(switched.address)} {'on' if switched.onoff else 'off'}"
    of = len(switched.confirmed) + len(switched.unconfirmed)
    yield f"{told}: {len(switched.confirmed)} of {of} confirmed it"
    if switched.unconfirmed:
        silent = ", ".join(map(format_address, switched.unconfirmed))
        yield f"not confirmed: {silent}; they are off, out of reach, or forgot the network"


def membership_lines(memberships: Iterable[Membership]) -> Iterator[str]:
    """Yield a table of who is in which group, with its head."""
    yield f"{'group':<9}{'node':<9}{'member':<9}proof"
    for membership in memberships:
        proof = "none" if membership.proof is None else membership.proof.value
        yield (
            f"{format_address(membership.group):<9}{format_address(membership.address):<9}"
            f"{'yes' if membership.is_member else 'no':<9}{proof}"
        )


def tree_lines(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield who provisioned whom, as far as it is known, as an indented tree."""
    known = {node.address for node in nodes}
    children: dict[int | None, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.address):
        children.setdefault(node.provisioned_by, []).append(node)
    for parent, below in children.items():
        if parent is None:
            yield "(provisioner not known)"
        elif parent not in known:
            yield f"{format_address(parent)} fastprovd"
        else:
            continue
        for node in below:
            yield from _branch(node, children, 1)


def _branch(node: Node, children: Mapping[int | None, Sequence[Node]], depth: int) -> Iterator[str]:
    mark = "~" if node.parent_source is ParentSource.INFERRED else "-"
    silent = "" if node.proven else ", answers nothing"
    yield f"{'   ' * depth}{mark} {format_address(node.address)} {ROLES[node.role]}{silent}"
    for child in children.get(node.address, ()):
        yield from _branch(child, children, depth + 1)


def _clock(seconds: float | None) -> str:
    return "     ?" if seconds is None else f"{seconds:6.1f} s"
