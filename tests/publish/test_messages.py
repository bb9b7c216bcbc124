"""Topics and payloads are as the README prints them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from fastprovd.publish.messages import (
    MAX_COMMAND_LENGTH,
    GatewayInfo,
    Message,
    Topics,
    event_message,
    groups_message,
    info_message,
    node_message,
    node_to_json,
    nodes_message,
    run_message,
    run_to_json,
    state_message,
    timestamp,
)
from fastprovd.records import (
    AdapterLinks,
    Membership,
    MissingBoard,
    Node,
    NodeRole,
    ParentSource,
    Proof,
    Run,
    RunState,
    Stranger,
    Window,
)

NOW = datetime(2026, 11, 22, 7, 20, 5, 500_999, tzinfo=UTC)
TOPICS = Topics("fastprovd/gw1")
RUN_ID = "r-20261122-071940"

PRIMARY = Node(
    address=0x0005,
    run_id=RUN_ID,
    role=NodeRole.PRIMARY_PROVISIONER,
    listed=True,
    proven=True,
    device_uuid=bytes.fromhex("dddd30aea4b1c2d30000000000000000"),
    device_address="30:AE:A4:B1:C2:D3",
    elements=1,
    provisioned_by=0x0001,
    parent_source=ParentSource.OBSERVED,
    onoff=True,
    first_seen=datetime(2026, 11, 22, 7, 19, 44, 120_000, tzinfo=UTC),
    last_seen=NOW,
)
UNKNOWN = Node(address=0x0019, run_id=RUN_ID)
RUN = Run(
    run_id=RUN_ID,
    state=RunState.PROVISIONING,
    started=datetime(2026, 11, 22, 7, 19, 40, tzinfo=UTC),
    expected=21,
    heard=3,
    known=12,
    primary=0x0005,
    unicast_min=0x0005,
    unicast_max=0x00C8,
    group=0xC000,
    match=b"\xdd\xdd",
    elapsed_s=14.2004,
)


def decoded(message: Message) -> Any:
    """Return the payload of a message as JSON."""
    return json.loads(message.payload)


def test_the_birth_message() -> None:
    """Online is retained, with the time in UTC and milliseconds, cut and not rounded."""
    message = state_message(TOPICS, NOW)
    assert message == Message(
        "fastprovd/gw1/bridge/state",
        b'{"state":"online","ts":"2026-11-22T07:20:05.500Z"}',
        retain=True,
    )


def test_the_will() -> None:
    """Offline is retained and knows no time."""
    assert state_message(TOPICS, None) == Message(
        "fastprovd/gw1/bridge/state", b'{"state":"offline"}', retain=True
    )


def test_the_info_message() -> None:
    """bridge/info has the public facts; of the network only what is public."""
    info = GatewayInfo(
        version="1.0.0",
        gateway_id="gw1",
        started=NOW,
        adapter="hci0",
        adapter_address="AA:BB:CC:DD:EE:00",
        mesh_uuid=UUID("2f4c0e62-7a0b-4d52-9e0c-5e1b6c2c8a01"),
        network_id=bytes.fromhex("3ecaff672f673370"),
        net_key_index=0,
        app_key_index=0,
        iv_index=0,
        provisioner_address=0x0001,
        unicast_min=0x0005,
        unicast_max=0x01FF,
        links=AdapterLinks(10, 10, "learnt: link 11 was refused (no answer)"),
    )
    broker = {"host": "localhost", "port": 1883, "version": 5, "password": "never"}
    message = info_message(TOPICS, info, broker)
    assert (message.topic, message.retain) == ("fastprovd/gw1/bridge/info", True)
    assert decoded(message) == {
        "schema": 1,
        "version": "1.0.0",
        "gateway_id": "gw1",
        "started": "2026-11-22T07:20:05.500Z",
        "adapter": {"name": "hci0", "address": "AA:BB:CC:DD:EE:00"},
        "network": {
            "mesh_uuid": "2f4c0e62-7a0b-4d52-9e0c-5e1b6c2c8a01",
            "network_id": "3ecaff672f673370",
            "net_key_index": 0,
            "app_key_index": 0,
            "iv_index": 0,
            "provisioner_address": "0x0001",
        },
        "limits": {
            "unicast_min": "0x0005",
            "unicast_max": "0x01ff",
            "links": 10,
            "links_found": "learnt: link 11 was refused (no answer)",
        },
        "mqtt": {"host": "localhost", "port": 1883, "version": 5},
    }


def test_an_info_of_which_nothing_is_known() -> None:
    """Unknown is null."""
    info = GatewayInfo("1.0.0", "gw1", NOW)
    payload = decoded(info_message(TOPICS, info, {"host": "h", "port": 1, "version": 4}))
    assert payload["adapter"] == {"name": None, "address": None}
    assert set(payload["network"].values()) == {None}


def test_a_node_fully_known() -> None:
    """node/<addr> has a lower-case address and UUID and ON or OFF."""
    message = node_message(TOPICS, PRIMARY)
    assert (message.topic, message.retain) == ("fastprovd/gw1/node/0x0005", True)
    assert decoded(message) == {
        "addr": "0x0005",
        "run_id": RUN_ID,
        "role": "primary_provisioner",
        "uuid": "dddd30ae-a4b1-c2d3-0000-000000000000",
        "device_address": "30:AE:A4:B1:C2:D3",
        "elements": 1,
        "provisioned_by": "0x0001",
        "parent_source": "observed",
        "knowledge": "proven",
        "listed": True,
        "proven": True,
        "forgotten": False,
        "state": "ON",
        "first_seen": "2026-11-22T07:19:44.120Z",
        "last_seen": "2026-11-22T07:20:05.500Z",
    }
    assert node_to_json(replace(PRIMARY, onoff=False))["state"] == "OFF"


def test_a_node_hardly_known() -> None:
    """What the Top Provisioner never learns of a node is null."""
    assert node_to_json(UNKNOWN) == {
        "addr": "0x0019",
        "run_id": RUN_ID,
        "role": "node",
        "uuid": None,
        "device_address": None,
        "elements": None,
        "provisioned_by": None,
        "parent_source": None,
        "knowledge": "heard",
        "listed": False,
        "proven": False,
        "forgotten": False,
        "state": None,
        "first_seen": None,
        "last_seen": None,
    }


def test_the_address_list() -> None:
    """bridge/nodes is ordered by address and complete only when the run is done."""
    message = nodes_message(TOPICS, [UNKNOWN, PRIMARY], RUN, 42, NOW)
    assert (message.topic, message.retain) == ("fastprovd/gw1/bridge/nodes", True)
    assert decoded(message) == {
        "revision": 42,
        "run_id": RUN_ID,
        "complete": False,
        "count": 2,
        "addresses": ["0x0005", "0x0019"],
        "nodes": [node_to_json(PRIMARY), node_to_json(UNKNOWN)],
        "ts": "2026-11-22T07:20:05.500Z",
    }
    for state in RunState:
        payload = decoded(nodes_message(TOPICS, [], replace(RUN, state=state), 1, NOW))
        assert payload["complete"] is (state is RunState.DONE)


def test_an_address_list_without_any_run() -> None:
    """Before the first run there is an empty list."""
    payload = decoded(nodes_message(TOPICS, [], None, 0, NOW))
    assert (payload["run_id"], payload["complete"], payload["count"]) == (None, False, 0)


def test_a_list_is_not_complete_without_a_node_that_was_forgotten() -> None:
    """Its run was done, and one of its boards is unprovisioned again."""
    run = replace(RUN, state=RunState.DONE, proven=2)
    nodes = [Node(2, RUN.run_id, proven=True), Node(3, RUN.run_id, proven=True)]
    for left, complete in ((nodes, True), (nodes[:1], False), ([], False)):
        assert decoded(nodes_message(TOPICS, left, run, 1, NOW))["complete"] is complete


def test_the_groups() -> None:
    """bridge/groups has everybody who may be in a group; who has proven to be out is not in it."""
    message = groups_message(
        TOPICS,
        [
            Membership(0xC000, 2, is_member=True),
            Membership(0xC000, 3, is_member=False, proof=Proof.STATUS),
            Membership(0xC010, 3, is_member=True, proof=Proof.ANSWER),
            Membership(0xC011, 3, is_member=False),
        ],
        NOW,
    )
    assert (message.topic, message.retain) == ("fastprovd/gw1/bridge/groups", True)
    assert decoded(message) == {
        "groups": [
            {"addr": "0xc000", "members": [{"addr": "0x0002", "member": True, "proof": None}]},
            {"addr": "0xc010", "members": [{"addr": "0x0003", "member": True, "proof": "answer"}]},
            {"addr": "0xc011", "members": [{"addr": "0x0003", "member": False, "proof": None}]},
        ],
        "ts": "2026-11-22T07:20:05.500Z",
    }


def test_the_run() -> None:
    """bridge/run has progress, range, group and match."""
    message = run_message(TOPICS, RUN, NOW)
    assert (message.topic, message.retain) == ("fastprovd/gw1/bridge/run", True)
    assert decoded(message) == {
        "run_id": RUN_ID,
        "state": "provisioning",
        "expected": 21,
        "heard": 3,
        "provisioned": 12,
        "proven": 0,
        "percent": 57.1,
        "elapsed_s": 14.2,
        "t_provisioned_s": None,
        "t_known_s": None,
        "t_proven_s": None,
        "t_closed_s": None,
        "primary": "0x0005",
        "match": "dddd",
        "group": "0xc000",
        "unicast_min": "0x0005",
        "unicast_max": "0x00c8",
        "reason": None,
        "missing": [],
        "window": None,
        "window_evidence": None,
        "strangers": [],
        "started": "2026-11-22T07:19:40.000Z",
        "finished": None,
        "ts": "2026-11-22T07:20:05.500Z",
    }


def test_a_run_tells_its_window_and_its_strangers() -> None:
    """How we know that nobody joins any more, and what became of boards that are not ours."""
    stranger = Stranger("left the air", bytes(16), "24:0A:C4:5E:00:09")
    run = replace(
        RUN, window=Window.CLOSED, window_evidence="told twice", t_closed_s=31.4159,
        strangers=(stranger,),
    )  # fmt: skip
    payload = run_to_json(run)
    assert (payload["window"], payload["window_evidence"]) == ("closed", "told twice")
    assert payload["t_closed_s"] == 31.416
    assert payload["strangers"] == [
        {
            "uuid": "00000000-0000-0000-0000-000000000000",
            "device_address": "24:0A:C4:5E:00:09",
            "reason": "left the air",
        }
    ]


def test_a_partial_run_names_what_is_missing() -> None:
    """Each missing board has its reason and what is known of it."""
    missing = MissingBoard("left without AppKey", address=0x0007, device_uuid=bytes(16))
    run = replace(
        RUN,
        state=RunState.PARTIAL,
        reason="1 of 21 boards is missing",
        missing=(missing,),
        t_provisioned_s=31.4159,
        finished=NOW,
    )
    payload = run_to_json(run)
    assert payload["missing"] == [
        {
            "addr": "0x0007",
            "uuid": "00000000-0000-0000-0000-000000000000",
            "device_address": None,
            "reason": "left without AppKey",
        }
    ]
    assert payload["t_provisioned_s"] == 31.416
    assert payload["finished"] == "2026-11-22T07:20:05.500Z"


@pytest.mark.parametrize("expected", [None, 0])
def test_progress_without_expectation_is_unknown(expected: int | None) -> None:
    """Without a number of expected boards the percentage is null."""
    assert run_to_json(replace(RUN, expected=expected))["percent"] is None


def test_no_run_yet_is_idle() -> None:
    """bridge/run without any run says idle."""
    assert decoded(run_message(TOPICS, None, NOW)) == {
        "run_id": None,
        "state": "idle",
        "ts": "2026-11-22T07:20:05.500Z",
    }


def test_an_event() -> None:
    """bridge/event has its number, type, run, time and data, and is not retained."""
    data = {"addr": "0x0006", "provisioned_by": "0x0005", "parent_source": "inferred"}
    message = event_message(TOPICS, 1187, "node_added", data, RUN_ID, NOW)
    assert (message.topic, message.retain) == ("fastprovd/gw1/bridge/event", False)
    assert decoded(message) == {
        "seq": 1187,
        "type": "node_added",
        "run_id": RUN_ID,
        "ts": "2026-11-22T07:20:05.500Z",
        "data": data,
    }


@pytest.mark.parametrize("value", [b"0123456789abcdef", object(), float("nan"), {b"k": 1}])
def test_an_event_takes_json_only_and_tells_no_value(value: object) -> None:
    """Octets, such as a key, raise a sentence in which they do not occur."""
    with pytest.raises((TypeError, ValueError)) as caught:
        event_message(TOPICS, 1, "warning", {"value": value}, None, NOW)
    assert "0123" not in str(caught.value)


def test_every_field_of_a_node_and_a_run_is_published() -> None:
    """A new field of a record is either published or left out on purpose, here."""
    renamed = {"address": "addr", "device_uuid": "uuid", "onoff": "state", "known": "provisioned"}
    # Only who connects to a board needs to know whether it forwards.
    kept_to_ourselves = {"gatt_proxy"}
    for record, shape in ((PRIMARY, node_to_json(PRIMARY)), (RUN, run_to_json(RUN))):
        names = {renamed.get(each.name, each.name) for each in fields(record)}
        assert names - kept_to_ourselves <= set(shape)


def test_times_are_converted_to_utc() -> None:
    """Another time zone is converted, years of four digits stay."""
    berlin = timezone(timedelta(hours=1))
    assert timestamp(datetime(2026, 1, 1, 0, 30, tzinfo=berlin)) == "2025-12-31T23:30:00.000Z"


def test_topics_of_nodes() -> None:
    """A node's address is read from its topic as it was written there, and from no other."""
    assert TOPICS.node_address(TOPICS.node(0x010C)) == 0x010C
    for topic in (
        "fastprovd/gw1/node/0x10c",
        "fastprovd/gw1/node/0x010C",
        "fastprovd/gw1/node/0x010c/x",
        "fastprovd/gw1/node/0x010c\n",
        "fastprovd/gw2/node/0x010c",
    ):
        assert TOPICS.node_address(topic) is None


def test_topics_of_requests() -> None:
    """Only what lies below bridge/request of this gateway is a command."""
    assert TOPICS.command("fastprovd/gw1/bridge/request/run/start") == "run/start"
    assert TOPICS.response("run/start") == "fastprovd/gw1/bridge/response/run/start"
    for topic in (
        "fastprovd/gw2/bridge/request/run/start",
        "fastprovd/gw1/bridge/response/run/start",
        "fastprovd/gw1/bridge/request",
        "fastprovd/gw1/bridge/request/",
        "fastprovd/gw1/bridge/request/" + "x" * (MAX_COMMAND_LENGTH + 1),
    ):
        assert TOPICS.command(topic) is None
