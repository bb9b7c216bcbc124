"""Requests to answers, over a gateway that records what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from fastprovd.errors import (
    BluetoothUnavailable,
    DeviceNotFound,
    FastprovdError,
    LocalProtocolError,
    NoRun,
    ResponseTimeout,
    RunInProgress,
    RunsRefused,
    SeqSpaceExhausted,
    UnknownNode,
)
from fastprovd.gateway import Gateway
from fastprovd.publish.messages import ErrorCode, Request, Response, node_to_json
from fastprovd.records import Node, Run, RunState
from fastprovd.requests import RequestHandler

RUN = Run("r-1", RunState.SCANNING, datetime(2026, 11, 22, tzinfo=UTC))
NODE = Node(6, "r-1", onoff=True)


class FakeGateway:
    """Does at once what it is asked, or fails with `error`."""

    def __init__(self, error: FastprovdError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Any, ...]] = []

    def _take(self, *asked: Any) -> None:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error

    def start(self, overrides: Mapping[str, Any]) -> Run:
        self._take("start", dict(overrides))
        return RUN

    def stop_run(self) -> Run:
        self._take("stop")
        return RUN

    async def get_onoff(self, address: int) -> Node:
        self._take("get", address)
        return NODE

    async def set_onoff(self, address: int, onoff: bool) -> Node | None:
        self._take("set", address, onoff)
        return NODE if address == NODE.address else None

    async def refresh_nodes(self) -> tuple[Run, list[Node], bool]:
        self._take("refresh")
        return RUN, [NODE], True


async def ask(gateway: FakeGateway, command: str, **data: Any) -> Response:
    handler = RequestHandler(cast(Gateway, gateway), gateway.start)
    return await handler.answer(Request(command, data))


async def test_run_start_passes_what_it_was_told() -> None:
    """All fields arrive in their own types, the answer names the run."""
    gateway = FakeGateway()
    answer = await ask(
        gateway,
        "run/start",
        expected=20,
        match="dddd24",
        allow=["24:0A:C4:5E:00:01", "dddd240ac45e0002"],
        deny=[],
        allow_strangers=False,
        close="onoff",
        group="0xc001",
        timeout_s=120,
    )
    assert answer == Response({"run_id": "r-1", "state": "scanning"})
    overrides = {
        "expected": 20,
        "match": b"\xdd\xdd\x24",
        "allow": ("24:0A:C4:5E:00:01", "dddd240ac45e0002"),
        "deny": (),
        "allow_strangers": False,
        "close": "onoff",
        "group": 0xC001,
        "run_s": 120.0,
    }
    assert gateway.asked == [("start", overrides)]


async def test_run_start_without_data_overrides_nothing() -> None:
    """An empty request starts a run as configured."""
    gateway = FakeGateway()
    await ask(gateway, "run/start")
    ((_, overrides),) = gateway.asked
    assert set(overrides.values()) == {None}


@pytest.mark.parametrize(
    ("command", "data", "path"),
    [
        ("run/start", {"expected": 0}, "expected"),
        ("run/start", {"match": "dd"}, "match"),
        ("run/start", {"allow": "24:0A:C4:5E:00:01"}, "allow"),
        ("run/start", {"deny": ["dddd", "24:0A"]}, "deny[1]"),
        ("run/start", {"close": "never"}, "close"),
        ("run/start", {"group": "0x0005"}, "group"),
        ("run/start", {"timeout_s": 1}, "timeout_s"),
        ("run/start", {"expectd": 3}, "expectd"),
        ("run/stop", {"now": True}, "now"),
        ("nodes/get", {"addr": 5}, "addr"),
        ("node/get", {}, "addr"),
        ("node/get", {"addr": "0xc000"}, "addr"),
        ("node/set", {"addr": "0x0006"}, "state"),
        ("node/set", {"addr": "0x0006", "state": "on"}, "state"),
        ("node/set", {"addr": "0x8000", "state": "ON"}, "addr"),
    ],
)
async def test_what_is_not_understood_is_refused(
    command: str, data: dict[str, Any], path: str
) -> None:
    """A wrong field is named, and nothing is done."""
    gateway = FakeGateway()
    answer = await ask(gateway, command, **data)
    assert answer.code is ErrorCode.INVALID_REQUEST
    assert [error["path"] for error in answer.data["errors"]] == [path]
    assert gateway.asked == []


async def test_node_requests() -> None:
    """A node confirms its state, a group does not, and a node's shape is that of its topic."""
    gateway = FakeGateway()
    assert await ask(gateway, "node/get", addr="0x0006") == Response(node_to_json(NODE))
    assert (await ask(gateway, "node/set", addr="0x0006", state="ON")).data == {
        "addr": "0x0006",
        "state": "ON",
        "acknowledged": True,
    }
    assert (await ask(gateway, "node/set", addr=0xC000, state="OFF")).data == {
        "addr": "0xc000",
        "state": "OFF",
        "acknowledged": False,
    }
    assert gateway.asked == [("get", 6), ("set", 6, True), ("set", 0xC000, False)]


async def test_nodes_get_and_run_stop() -> None:
    """The list tells where it comes from; a stop names the run."""
    answer = await ask(FakeGateway(), "nodes/get")
    assert answer.data["addresses"] == ["0x0006"]
    assert answer.data["source"] == "primary_provisioner"
    assert (await ask(FakeGateway(), "run/stop")).data["run_id"] == "r-1"


@pytest.mark.parametrize(
    ("command", "error", "code"),
    [
        ("run/start", RunInProgress("r-1"), ErrorCode.RUN_IN_PROGRESS),
        ("run/start", RunsRefused("no"), ErrorCode.BUSY),
        ("nodes/get", RunInProgress("r-1"), ErrorCode.BUSY),
        ("run/stop", NoRun("none"), ErrorCode.NO_RUN),
        ("nodes/get", UnknownNode(6), ErrorCode.UNKNOWN_NODE),
        ("nodes/get", BluetoothUnavailable("gone"), ErrorCode.ADAPTER_UNAVAILABLE),
        ("nodes/get", DeviceNotFound("silent"), ErrorCode.CONNECT_FAILED),
        ("nodes/get", ResponseTimeout("silent"), ErrorCode.NODE_UNREACHABLE),
        ("nodes/get", SeqSpaceExhausted("used"), ErrorCode.SEQ_EXHAUSTED),
    ],
)
async def test_every_refusal_has_its_code(
    command: str, error: FastprovdError, code: ErrorCode
) -> None:
    """An error of ours becomes a code and its sentence; a run that is in the way is named."""
    answer = await ask(FakeGateway(error), command)
    assert (answer.code, answer.error) == (code, str(error))
    assert answer.data == ({"run_id": "r-1"} if isinstance(error, RunInProgress) else {})


async def test_a_bug_comes_out() -> None:
    """What nobody expected is not dressed up as a refusal."""
    with pytest.raises(LocalProtocolError):
        await ask(FakeGateway(LocalProtocolError("bug")), "nodes/get")
