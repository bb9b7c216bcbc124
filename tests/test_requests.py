"""Requests to answers, over a gateway that records what it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from fastprovd.errors import (
    BluetoothUnavailable,
    ConfigError,
    CopiedStore,
    DeviceNotFound,
    FastprovdError,
    GroupsFull,
    LocalProtocolError,
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
from fastprovd.publish.exchange import ErrorCode, Request, Response
from fastprovd.publish.messages import node_to_json
from fastprovd.records import Membership, Node, Proof, Run, RunState, Switched
from fastprovd.requests import RequestHandler

RUN = Run("r-1", RunState.SCANNING, datetime(2026, 11, 22, tzinfo=UTC))
NODE = Node(6, "r-1", onoff=True)
GROUP = 0xC000
VALID: Mapping[str, Mapping[str, Any]] = {
    "node/set": {"addr": GROUP, "state": "ON"},
    "group/add": {"group": GROUP, "members": [6]},
}


class FakeGateway:
    """Does at once what it is asked, or fails with `error`."""

    def __init__(self, error: FastprovdError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Any, ...]] = []
        self.nodes = [NODE]
        self.memberships: list[Membership] = []
        self.controls = self

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

    async def set_onoff(self, address: int, onoff: bool, *, confirm: bool) -> Switched:
        self._take("set", address, onoff, confirm)
        return Switched(address, onoff, (6,), (7, 8) if address == GROUP else ())

    async def change_group(
        self, group: int, addresses: Sequence[int], *, add: bool
    ) -> list[Membership]:
        self._take("group", group, addresses, add)
        proofs = (Proof.ANSWER, None)
        return [
            Membership(group, address, add, proof)
            for address, proof in zip(addresses, proofs, strict=True)
        ]

    async def refresh_nodes(self) -> tuple[Run, list[Node], bool]:
        self._take("refresh")
        return RUN, self.nodes, True

    async def address_list(self) -> tuple[Run | None, list[Node]]:
        return (RUN if self.nodes else None), self.nodes

    async def groups(self) -> list[Membership]:
        return self.memberships


async def ask(gateway: FakeGateway, command: str, **data: Any) -> Response:
    handler = RequestHandler(cast(Gateway, gateway), gateway.start)
    return await handler.answer(Request(command, data))


async def test_run_start_passes_what_it_was_told() -> None:
    """All fields arrive in their own types, the answer names the run."""
    gateway = FakeGateway()
    answer = await ask(
        gateway,
        "run/start",
        method="direct",
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
        "method": "direct",
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


async def test_what_does_not_go_with_the_configuration_is_an_invalid_request() -> None:
    """Field by field, as what is wrong in itself."""
    gateway = FakeGateway(ConfigError(["expected: too many: 9", "allow[0]: denied"]))
    answer = await ask(gateway, "run/start", expected=9)
    assert answer.code is ErrorCode.INVALID_REQUEST
    assert answer.error == "expected: too many: 9; allow[0]: denied"
    assert answer.data == {
        "errors": [
            {"path": "expected", "message": "too many: 9"},
            {"path": "allow[0]", "message": "denied"},
        ]
    }


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
        ("nodes/get", {"offset": -1}, "offset"),
        ("nodes/get", {"limit": 0}, "limit"),
        ("groups/get", {"group": "0x0005"}, "group"),
        ("node/get", {}, "addr"),
        ("node/get", {"addr": "0xc000"}, "addr"),
        ("node/set", {"addr": "0x0006"}, "state"),
        ("node/set", {"addr": "0x0006", "state": "on"}, "state"),
        ("node/set", {"addr": "0x8000", "state": "ON"}, "addr"),
        ("node/set", {"addr": "0xff00", "state": "ON"}, "addr"),
        ("node/set", {"addr": "0x0006", "state": "ON", "confirm": "no"}, "confirm"),
        ("group/add", {"group": "0xc010"}, "members"),
        ("group/add", {"group": "0xc010", "members": []}, "members"),
        ("group/add", {"group": "0xc010", "members": ["0x0006", "0xc000"]}, "members[1]"),
        ("group/remove", {"group": "0xffff", "members": [6]}, "group"),
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
    """Who confirmed and who did not is named, and a node's shape is that of its topic."""
    gateway = FakeGateway()
    assert await ask(gateway, "node/get", addr="0x0006") == Response(node_to_json(NODE))
    assert (await ask(gateway, "node/set", addr="0x0006", state="ON")).data == {
        "addr": "0x0006",
        "state": "ON",
        "acknowledged": True,
        "confirmed": ["0x0006"],
        "unconfirmed": [],
    }
    assert (await ask(gateway, "node/set", addr=GROUP, state="OFF", confirm=False)).data == {
        "addr": "0xc000",
        "state": "OFF",
        "acknowledged": False,
        "confirmed": ["0x0006"],
        "unconfirmed": ["0x0007", "0x0008"],
    }
    await ask(gateway, "node/set", addr="0xffff", state="ON")
    expected = [("get", 6), ("set", 6, True, True), ("set", GROUP, False, False)]
    assert gateway.asked == [*expected, ("set", 0xFFFF, True, True)]


@pytest.mark.parametrize("command", ["group/add", "group/remove"])
async def test_group_requests(command: str) -> None:
    """The answer says who is to be a member, what proves it, and of whom nothing does."""
    gateway = FakeGateway()
    add = command == "group/add"
    answer = await ask(gateway, command, group="0xc010", members=["0x0006", 7])
    assert answer.data == {
        "group": "0xc010",
        "members": [
            {"addr": "0x0006", "member": add, "proof": "answer"},
            {"addr": "0x0007", "member": add, "proof": None},
        ],
        "unproven": ["0x0007"],
    }
    assert gateway.asked == [("group", 0xC010, (6, 7), add)]


async def test_nodes_get_and_run_stop() -> None:
    """The list tells where it comes from; a stop names the run."""
    answer = await ask(FakeGateway(), "nodes/get")
    assert answer.data["addresses"] == ["0x0006"]
    assert answer.data["source"] == "primary_provisioner"
    assert (await ask(FakeGateway(), "run/stop")).data["run_id"] == "r-1"


async def pages(gateway: FakeGateway, command: str, name: str, **data: Any) -> list[Any]:
    """Read a list in pages until there is no next one."""
    items: list[Any] = []
    offset: int | None = 0
    while offset is not None:
        answer = await ask(gateway, command, offset=offset, **data)
        assert answer.code is None
        assert answer.data["offset"] == len(items) == offset
        items += answer.data[name]
        offset = answer.data["next_offset"]
    return items


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 32_767])
async def test_nodes_are_read_in_pages(limit: int) -> None:
    """Every node comes once, in order, with its address beside it; the board is asked once."""
    gateway = FakeGateway()
    gateway.nodes = [replace(NODE, address=address) for address in (2, 6, 7)]
    assert await pages(gateway, "nodes/get", "addresses", limit=limit) == [
        "0x0002",
        "0x0006",
        "0x0007",
    ]
    assert gateway.asked == [("refresh",)]
    answer = await ask(gateway, "nodes/get", offset=1, limit=1)
    assert answer.data["nodes"] == [node_to_json(gateway.nodes[1])]
    assert (answer.data["count"], answer.data["source"]) == (3, "stored")
    assert answer.paged == ("addresses", "nodes")


async def test_a_page_beyond_the_end_is_empty() -> None:
    """The list may have become shorter since."""
    answer = await ask(FakeGateway(), "nodes/get", offset=5)
    assert (answer.data["nodes"], answer.data["next_offset"]) == ([], None)


async def test_a_page_of_no_network() -> None:
    """Before any run there is no list to read on in."""
    gateway = FakeGateway()
    gateway.nodes = []
    assert (await ask(gateway, "nodes/get", offset=1)).code is ErrorCode.NO_RUN


async def test_groups_are_read_in_pages() -> None:
    """All groups with their size, and the members of one, those left out that have proven to be."""
    gateway = FakeGateway()
    gateway.memberships = [
        Membership(GROUP, 6, is_member=True),
        Membership(GROUP, 7, is_member=True, proof=Proof.STATUS),
        Membership(GROUP, 8, is_member=False, proof=Proof.STATUS),
        Membership(0xC010, 6, is_member=True),
    ]
    groups = await pages(gateway, "groups/get", "groups", limit=1)
    assert groups == [{"addr": "0xc000", "count": 2}, {"addr": "0xc010", "count": 1}]
    members = await pages(gateway, "groups/get", "members", group="0xc000", limit=1)
    assert [member["addr"] for member in members] == ["0x0006", "0x0007"]
    assert (await ask(gateway, "groups/get", group="0xc0ff")).code is ErrorCode.UNKNOWN_GROUP


async def test_a_thousand_mistakes_are_a_short_answer() -> None:
    """The first are named, the others counted: an answer is no longer than what asked for it."""
    members = ["x"] * 2_000
    answer = await ask(FakeGateway(), "group/add", group="0xc010", members=members)
    assert len(answer.data["errors"]) == 21
    assert answer.data["errors"][-1] == {"path": "", "message": "and 1980 more"}
    assert len(answer.error or "") < 2_000
    answer = await ask(FakeGateway(), "run/start", **{"x" * 10_000: 1})
    assert len(answer.data["errors"][0]["path"]) == 64


@pytest.mark.parametrize(
    ("command", "error", "code"),
    [
        ("run/start", RunInProgress("r-1"), ErrorCode.RUN_IN_PROGRESS),
        ("run/start", RunsRefused("no"), ErrorCode.BUSY),
        ("nodes/get", RunInProgress("r-1"), ErrorCode.BUSY),
        ("run/stop", NoRun("none"), ErrorCode.NO_RUN),
        ("nodes/get", UnknownNode(6), ErrorCode.UNKNOWN_NODE),
        ("node/set", UnknownGroup(GROUP), ErrorCode.UNKNOWN_GROUP),
        ("group/add", GroupsFull("no room"), ErrorCode.GROUPS_FULL),
        ("nodes/get", BluetoothUnavailable("gone"), ErrorCode.ADAPTER_UNAVAILABLE),
        ("nodes/get", DeviceNotFound("silent"), ErrorCode.CONNECT_FAILED),
        ("nodes/get", ResponseTimeout("silent"), ErrorCode.NODE_UNREACHABLE),
        ("nodes/get", SeqSpaceExhausted("used"), ErrorCode.SEQ_EXHAUSTED),
        ("node/set", CopiedStore("a copy"), ErrorCode.STATE_REFUSED),
        ("node/set", StoreError("the disk is full"), ErrorCode.STATE_FAILED),
        ("run/start", StoreError("the disk is full"), ErrorCode.STATE_FAILED),
    ],
)
async def test_every_refusal_has_its_code(
    command: str, error: FastprovdError, code: ErrorCode
) -> None:
    """An error of ours becomes a code and its sentence; a run that is in the way is named."""
    answer = await ask(FakeGateway(error), command, **VALID.get(command, {}))
    assert (answer.code, answer.error) == (code, str(error))
    assert answer.data == ({"run_id": "r-1"} if isinstance(error, RunInProgress) else {})


async def test_a_bug_comes_out() -> None:
    """What nobody expected is not dressed up as a refusal."""
    with pytest.raises(LocalProtocolError):
        await ask(FakeGateway(LocalProtocolError("bug")), "nodes/get")
