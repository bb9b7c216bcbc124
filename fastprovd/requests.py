"""Requests that come over MQTT, executed; every refusal has a code of the closed list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from fastprovd.checking import Problem, check_mapping, setting
from fastprovd.errors import (
    BearerError,
    BluetoothUnavailable,
    ConfigError,
    CopiedStore,
    FastprovdError,
    GroupsFull,
    NoRun,
    ResponseTimeout,
    RunInProgress,
    RunsRefused,
    SeqSpaceExhausted,
    StoreError,
    UnknownGroup,
    UnknownNode,
)
from fastprovd.gateway import Gateway
from fastprovd.mesh import addresses
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.device_uuids import BOARD_PATTERN
from fastprovd.publish.exchange import ErrorCode, Request, Response
from fastprovd.publish.messages import (
    group_change_to_json,
    groups_to_json,
    node_to_json,
    switched_to_json,
)
from fastprovd.records import Run

T = TypeVar("T")

_MAX_PROBLEMS: Final = 20  # named in a refusal; more of them say no more
_MAX_PATH_CHARACTERS: Final = 64  # longer than every path that there is

_BOARD = "a Bluetooth address, or 2 to 16 octets of a Device UUID in hex"

StartRun = Callable[[Mapping[str, Any]], Run]
"""Start a run with these overrides of its settings; raises RunInProgress, RunsRefused, and
ConfigError where they and the configuration do not go together."""

# The first class that fits names the code.
_CODES: tuple[tuple[type[FastprovdError], ErrorCode], ...] = (
    (RunInProgress, ErrorCode.BUSY),
    (RunsRefused, ErrorCode.BUSY),
    (NoRun, ErrorCode.NO_RUN),
    (UnknownNode, ErrorCode.UNKNOWN_NODE),
    (UnknownGroup, ErrorCode.UNKNOWN_GROUP),
    (GroupsFull, ErrorCode.GROUPS_FULL),
    (BluetoothUnavailable, ErrorCode.ADAPTER_UNAVAILABLE),
    (BearerError, ErrorCode.CONNECT_FAILED),
    (ResponseTimeout, ErrorCode.NODE_UNREACHABLE),
    (SeqSpaceExhausted, ErrorCode.SEQ_EXHAUSTED),
    (CopiedStore, ErrorCode.STATE_REFUSED),
    (StoreError, ErrorCode.STATE_FAILED),
)


@dataclass(frozen=True, slots=True)
class RunStartData:
    """`run/start`; what is absent or `null` is taken from the configuration."""

    method: Literal["fast", "direct", "auto"] | None = setting(None)
    expected: int | None = setting(None, low=1, high=addresses.UNICAST_MAX)
    match: bytes | None = setting(None, low=2, high=16)
    allow: tuple[str, ...] | None = setting(None, pattern=BOARD_PATTERN, expected=_BOARD)
    deny: tuple[str, ...] | None = setting(None, pattern=BOARD_PATTERN, expected=_BOARD)
    allow_strangers: bool | None = setting(None)
    close: Literal["suspend", "onoff", "leave_open"] | None = setting(None)
    group: int | None = setting(
        None, low=addresses.GROUP_MIN, high=addresses.GROUP_MAX_DYNAMIC, hexadecimal=True
    )
    timeout_s: float | None = setting(None, low=30, high=86400)


@dataclass(frozen=True, slots=True)
class NoData:
    """`run/stop`: there is nothing to say."""


@dataclass(frozen=True, slots=True)
class PageData:
    """`nodes/get`: which part of the list, from `offset` on, at most `limit`; else all."""

    offset: int = setting(0, low=0, high=addresses.UNICAST_MAX)
    limit: int | None = setting(None, low=1, high=addresses.UNICAST_MAX)


@dataclass(frozen=True, slots=True)
class GroupsGetData:
    """`groups/get`: the groups, or the members of one; a part of them as with `nodes/get`."""

    group: int | None = setting(
        None, low=addresses.GROUP_MIN, high=addresses.GROUP_MAX_DYNAMIC, hexadecimal=True
    )
    offset: int = setting(0, low=0, high=addresses.UNICAST_MAX)
    limit: int | None = setting(None, low=1, high=addresses.UNICAST_MAX)


@dataclass(frozen=True, slots=True)
class NodeGetData:
    """`node/get`: a node's unicast address."""

    addr: int = setting(low=addresses.UNICAST_MIN, high=addresses.UNICAST_MAX, hexadecimal=True)


@dataclass(frozen=True, slots=True)
class NodeSetData:
    """`node/set`: a node, a group or 0xffff for all, and what they shall do."""

    addr: int = setting(low=addresses.UNICAST_MIN, high=addresses.ALL_NODES, hexadecimal=True)
    state: Literal["ON", "OFF"] = setting()
    confirm: bool = setting(True)


@dataclass(frozen=True, slots=True)
class GroupData:
    """`group/add` and `group/remove`: a group, and the unicast addresses it is about."""

    group: int = setting(
        low=addresses.GROUP_MIN, high=addresses.GROUP_MAX_DYNAMIC, hexadecimal=True
    )
    members: tuple[int, ...] = setting(
        low=addresses.UNICAST_MIN, high=addresses.UNICAST_MAX, hexadecimal=True
    )


class _InvalidRequest(Exception):
    def __init__(self, problems: list[Problem]) -> None:
        super().__init__()
        self.problems = problems


class RequestHandler:
    """Answers well-formed requests; it neither repeats nor remembers any."""

    def __init__(self, gateway: Gateway, start_run: StartRun) -> None:
        self._gateway = gateway
        self._start_run = start_run
        self._commands: dict[str, Callable[[Mapping[str, Any]], Awaitable[Response]]] = {
            "run/start": self._run_start,
            "run/stop": self._run_stop,
            "nodes/get": self._nodes_get,
            "node/get": self._node_get,
            "node/set": self._node_set,
            "groups/get": self._groups_get,
            "group/add": lambda data: self._change_group(data, add=True),
            "group/remove": lambda data: self._change_group(data, add=False),
        }

    async def answer(self, request: Request) -> Response:
        """Execute a request; raises only what nobody expected."""
        try:
            return await self._commands[request.command](request.data)
        except _InvalidRequest as error:
            return _invalid(error.problems)
        except ConfigError as error:  # the request and the configuration do not go together
            return _invalid([Problem(*problem.split(": ", 1)) for problem in error.problems])
        except FastprovdError as error:
            code = next((code for cls, code in _CODES if isinstance(error, cls)), None)
            if code is None:
                raise
            if not isinstance(error, RunInProgress):
                return Response({}, code, str(error))
            if request.command == "run/start":
                code = ErrorCode.RUN_IN_PROGRESS
            return Response({"run_id": error.run_id}, code, str(error))

    async def _run_start(self, data: Mapping[str, Any]) -> Response:
        wanted = _checked(RunStartData, data)
        run = self._start_run(
            {
                "method": wanted.method,
                "expected": wanted.expected,
                "match": wanted.match,
                "allow": wanted.allow,
                "deny": wanted.deny,
                "allow_strangers": wanted.allow_strangers,
                "close": wanted.close,
                "group": wanted.group,
                "run_s": wanted.timeout_s,
            }
        )
        return Response({"run_id": run.run_id, "state": run.state.value})

    async def _run_stop(self, data: Mapping[str, Any]) -> Response:
        _checked(NoData, data)
        run = self._gateway.stop_run()
        return Response({"run_id": run.run_id, "state": run.state.value})

    async def _nodes_get(self, data: Mapping[str, Any]) -> Response:
        wanted = _checked(PageData, data)
        if wanted.offset:  # who reads on has had the list refreshed with its beginning
            (run, nodes), asked = await self._gateway.address_list(), False
            if run is None:
                raise NoRun("no run has made a node yet")
        else:
            run, nodes, asked = await self._gateway.refresh_nodes()
        return _page(
            {
                "run_id": run.run_id,
                "source": "primary_provisioner" if asked else "stored",
            },
            wanted,
            addresses=[format_address(node.address) for node in nodes],
            nodes=[node_to_json(node) for node in nodes],
        )

    async def _groups_get(self, data: Mapping[str, Any]) -> Response:
        wanted = _checked(GroupsGetData, data)
        groups = groups_to_json(await self._gateway.controls.groups())
        if wanted.group is None:
            counts = [{"addr": each["addr"], "count": len(each["members"])} for each in groups]
            return _page({}, wanted, groups=counts)
        members = {each["addr"]: each["members"] for each in groups}
        addr = format_address(wanted.group)
        if addr not in members:
            raise UnknownGroup(wanted.group)
        return _page({"group": addr}, wanted, members=members[addr])

    async def _node_get(self, data: Mapping[str, Any]) -> Response:
        node = await self._gateway.controls.get_onoff(_checked(NodeGetData, data).addr)
        return Response(node_to_json(node))

    async def _node_set(self, data: Mapping[str, Any]) -> Response:
        wanted = _checked(NodeSetData, data)
        if not addresses.is_switchable(wanted.addr):
            raise _InvalidRequest(
                [Problem("addr", "expected the address of a node or a group, or 0xffff for all")]
            )
        switched = await self._gateway.controls.set_onoff(
            wanted.addr, wanted.state == "ON", confirm=wanted.confirm
        )
        return Response(switched_to_json(switched))

    async def _change_group(self, data: Mapping[str, Any], *, add: bool) -> Response:
        wanted = _checked(GroupData, data)
        if not wanted.members:
            raise _InvalidRequest([Problem("members", "expected a list with something in it")])
        changed = await self._gateway.controls.change_group(wanted.group, wanted.members, add=add)
        return Response(group_change_to_json(wanted.group, changed))


def _page(
    about: Mapping[str, Any], wanted: PageData | GroupsGetData, **lists: Sequence[Any]
) -> Response:
    """Return the wanted part of `lists`, which run beside each other."""
    count = max(map(len, lists.values()))
    end = count if wanted.limit is None else min(count, wanted.offset + wanted.limit)
    data = {
        **about,
        "count": count,
        "offset": wanted.offset,
        "next_offset": end if end < count else None,
        **{name: items[wanted.offset : end] for name, items in lists.items()},
    }
    return Response(data, paged=tuple(lists))


def _invalid(problems: list[Problem]) -> Response:
    """Return the refusal that names the first of the problems, and counts the others."""
    named = [Problem(p.path[:_MAX_PATH_CHARACTERS], p.message) for p in problems[:_MAX_PROBLEMS]]
    if len(problems) > len(named):
        named.append(Problem("", f"and {len(problems) - len(named)} more"))
    return Response(
        {"errors": [{"path": p.path, "message": p.message} for p in named]},
        ErrorCode.INVALID_REQUEST,
        "; ".join(f"{p.path or 'data'}: {p.message}" for p in named),
    )


def _checked(cls: type[T], data: Mapping[str, Any]) -> T:
    value, problems = check_mapping(cls, data)
    if value is None:
        raise _InvalidRequest(problems)
    return value
