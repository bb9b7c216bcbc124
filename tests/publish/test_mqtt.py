"""The publisher against real brokers: nothing lost, nothing twice, no request without answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from structlog.testing import capture_logs

from fastprovd.clock import SystemClock
from fastprovd.publish import courier, intake, leftovers, mqtt
from fastprovd.publish.broker import LocalBroker
from fastprovd.publish.client import BrokerSettings
from fastprovd.publish.delivery import SAFE_PACKET_OCTETS
from fastprovd.publish.exchange import Request, Response
from fastprovd.publish.limits import Limits
from fastprovd.publish.messages import node_to_json
from fastprovd.publish.mqtt import BACK_OFF_CAP_S, MqttPublisher
from fastprovd.publish.outbox import Outbox
from fastprovd.records import Membership, RunState
from tests.conftest import RunVirtual
from tests.publish.conftest import MosquittoMaker
from tests.support.fake_broker import FakeBroker
from tests.support.mqtt import (
    INFO,
    LOOPBACK,
    Gate,
    Mosquitto,
    a_node,
    a_run,
    eventually,
    reader,
)

pytestmark = pytest.mark.asyncio  # real sockets


def settings(port: int, protocol: str = "5", **more: Any) -> BrokerSettings:
    """Return settings for a broker on this machine."""
    more = {"timeout_s": 2.0} | more
    return BrokerSettings(LOOPBACK, port, "gw1", protocol=protocol, **more)


async def echo(request: Request) -> Response:
    """Answer a request with itself."""
    return Response({"command": request.command, **request.data})


@pytest.fixture
def outbox(tmp_path: Path) -> Any:
    """An empty outbox."""
    box = Outbox(tmp_path / "outbox.db")
    yield box
    box.close()


def a_publisher(
    outbox: Outbox,
    broker: BrokerSettings,
    handler: Callable[[Request], Awaitable[Response]] = echo,
    random_share: Callable[[], float] = lambda: 0.02,
) -> MqttPublisher:
    """Return a publisher whose pauses are short."""
    return MqttPublisher(broker, outbox, handler, INFO, SystemClock(), random_share=random_share)


@contextlib.asynccontextmanager
async def running(publisher: MqttPublisher, *, wait: bool = True) -> AsyncIterator[MqttPublisher]:
    """Run a publisher as the daemon does, and stop it by cancelling."""
    task = asyncio.create_task(publisher.run())
    try:
        if wait:
            await eventually(lambda: publisher.is_connected)
        yield publisher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_birth_comes_in_order_before_what_waited(
    broker: tuple[str, int, str], outbox: Outbox
) -> None:
    """state, info, nodes, run, then the nodes and the events that waited; offline at the end."""
    _, port, protocol = broker
    publisher = a_publisher(outbox, settings(port, protocol))
    publisher.run_changed(a_run(known=1))
    publisher.nodes_changed([a_node(6)], a_run())
    publisher.event("node_added", {"addr": "0x0006"}, "r-1")
    async with reader(port) as found:
        async with running(publisher):
            await found.until(lambda: found.seqs() == [1])
        await found.until(lambda: found.last("bridge/state") == {"state": "offline"})
    assert found.topics()[:6] == [
        "bridge/state",
        "bridge/info",
        "bridge/nodes",
        "bridge/groups",
        "bridge/run",
        "node/0x0006",
    ]
    assert found.all("bridge/state")[0]["state"] == "online"
    assert found.last("bridge/info")["mqtt"]["version"] == (5 if protocol == "5" else 4)
    assert found.last("bridge/run")["provisioned"] == 1
    assert found.last("bridge/nodes")["addresses"] == ["0x0006"]
    assert len(outbox) == 0


async def test_a_late_subscriber_finds_the_last_values(
    broker: tuple[str, int, str], outbox: Outbox
) -> None:
    """Retained topics hold their newest value; events are not retained."""
    _, port, protocol = broker
    async with reader(port) as found, running(a_publisher(outbox, settings(port, protocol))) as p:
        p.event("run_started", {}, "r-1")
        for known in range(1, 6):
            p.run_changed(a_run(known=known))
            p.node_changed(a_node(known, onoff=known % 2 == 0))
        p.nodes_changed([a_node(n) for n in range(1, 6)], a_run(RunState.DONE, known=5))
        p.groups_changed([Membership(0xC010, 1, is_member=True)])
        p.event("run_finished", {}, "r-1")
        await found.until(lambda: found.seqs() == [1, 2])
        async with reader(port) as late:
            await late.until(lambda: len(late.topics()) == 10)
    assert [group["addr"] for group in late.last("bridge/groups")["groups"]] == ["0xc010"]
    assert late.last("bridge/run")["provisioned"] == 5
    assert late.last("bridge/nodes")["complete"] is True
    assert late.last("node/0x0004")["state"] is None
    assert "bridge/event" not in late.topics()
    assert all(message.retain for message in late.messages[:9])


async def test_a_request_is_answered(broker: tuple[str, int, str], outbox: Outbox) -> None:
    """The response has the handler's data and the transaction, on the topic of the command."""
    _, port, protocol = broker
    async with reader(port) as found, running(a_publisher(outbox, settings(port, protocol))):
        await found.request("node/get", b'{"addr": "0x0005", "transaction": "a1"}')
        await found.until(lambda: found.all("bridge/response/node/get"))
    assert found.all("bridge/response/node/get") == [
        {
            "status": "ok",
            "data": {"command": "node/get", "addr": "0x0005"},
            "transaction": "a1",
        }
    ]


async def test_a_retained_command_is_refused(broker: tuple[str, int, str], outbox: Outbox) -> None:
    """A run/start that lies at the broker does not start a run when the gateway comes up."""
    _, port, protocol = broker
    requests: list[Request] = []

    async def handler(request: Request) -> Response:
        requests.append(request)
        return Response()

    async with reader(port) as found:
        await found.request("run/start", b'{"transaction": 7}', retain=True)
        async with running(a_publisher(outbox, settings(port, protocol), handler)):
            await found.until(lambda: found.all("bridge/response/run/start"))
        await found.request("run/start", retain=True)
    answers = found.all("bridge/response/run/start")  # amqtt delivers it more than once
    assert {(each["code"], each["transaction"]) for each in answers} == {("retained_command", 7)}
    assert requests == []


async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(
    amqtt: LocalBroker, outbox: Outbox
) -> None:
    """After "Unsupported protocol version" the next connection is 3.1.1, with a warning."""
    with capture_logs() as logs:
        async with running(a_publisher(outbox, settings(amqtt.port, "5", timeout_s=0.5))):
            pass
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["event"] == "mqtt_protocol_fallback"
    assert warning["protocol"] == "3.1.1"


async def test_a_live_command_with_retain_flag_is_refused_too(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """With MQTT 5 the flag is seen although the gateway is connected already."""
    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port))),
    ):
        await found.request("run/start", b"{}", retain=True)
        await found.until(lambda: found.all("bridge/response/run/start"))
    assert found.last("bridge/response/run/start")["code"] == "retained_command"


async def test_a_broker_killed_in_the_middle_costs_nothing(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """Events before, during and after the outage arrive once and in order; retained topics, of
    which the new broker knows nothing, hold their last values."""
    async with Gate(mosquitto.port) as gate:
        publisher = a_publisher(outbox, settings(gate.port))
        async with reader(mosquitto.port) as before, running(publisher):
            publisher.node_changed(a_node(5))
            for _ in range(200):
                publisher.event("warning", {}, None)
            await before.until(lambda: len(before.seqs()) == 200)
            await eventually(lambda: len(outbox) == 0)
            mosquitto.kill()
            await gate.shut()
            for known in range(200):
                publisher.event("warning", {}, None)
                publisher.run_changed(a_run(known=known))
                publisher.node_changed(a_node(6, onoff=known % 2 == 0))
                await asyncio.sleep(0)
            await eventually(lambda: not publisher.is_connected)
            mosquitto.start()
            async with reader(mosquitto.port) as after:
                await gate.open()
                await eventually(lambda: publisher.is_connected)
                for _ in range(200):
                    publisher.event("warning", {}, None)
                await after.until(lambda: len(after.seqs()) == 400)
                await eventually(lambda: len(outbox) == 0)
            async with reader(mosquitto.port) as late:
                await late.until(lambda: len(late.topics()) == 7)
    assert before.seqs() + after.seqs() == list(range(1, 601))
    assert late.last("bridge/run")["provisioned"] == 199
    assert late.last("node/0x0005")["addr"] == "0x0005"
    assert late.last("node/0x0006")["state"] == "OFF"


async def test_what_was_not_acknowledged_is_sent_again(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """When a connection breaks before the PUBACKs, those messages come again, and only those."""
    async with Gate(mosquitto.port) as gate, reader(mosquitto.port) as found:
        publisher = a_publisher(outbox, settings(gate.port))
        async with running(publisher):
            for _ in range(50):
                publisher.event("warning", {}, None)
            await found.until(lambda: len(found.seqs()) == 50)
            await eventually(lambda: len(outbox) == 0)
            gate.withhold_answers = True
            for _ in range(3):
                publisher.event("warning", {}, None)
            await found.until(lambda: len(found.seqs()) == 53)
            await gate.shut()
            await eventually(lambda: not publisher.is_connected)
            await gate.open()
            await found.until(lambda: len(found.seqs()) == 56)
    assert found.seqs() == [*range(1, 54), 51, 52, 53]


async def test_event_numbers_go_on_after_a_restart(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A second daemon on the same state directory counts on, and its revision grows."""
    async with reader(mosquitto.port) as found:
        for seq in (1, 2):
            outbox = Outbox(tmp_path / "kept.db")
            async with running(a_publisher(outbox, settings(mosquitto.port))) as publisher:
                publisher.event("run_started", {}, None)
                await found.until(lambda seq=seq: found.seqs() == list(range(1, seq + 1)))
            outbox.close()
    revisions = [nodes["revision"] for nodes in found.all("bridge/nodes")]
    assert revisions == sorted(revisions)
    assert revisions[0] < revisions[-1]


async def test_what_is_told_just_before_the_stop_is_published(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """A stop sends what waits before it says offline."""
    async with reader(mosquitto.port) as found:
        async with running(a_publisher(outbox, settings(mosquitto.port))) as publisher:
            publisher.run_changed(a_run(RunState.STOPPED))
            publisher.event("run_finished", {}, None)
        await found.until(lambda: found.last("bridge/state") == {"state": "offline"})
    assert found.topics()[-1] == "bridge/state"
    assert found.last("bridge/run")["state"] == "stopped"
    assert found.seqs() == [1]


async def test_a_stop_without_broker_keeps_everything(outbox: Outbox) -> None:
    """What was told while nobody listens is in the outbox after the stop."""
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        publisher = a_publisher(outbox, settings(nobody.getsockname()[1]))
        async with running(publisher, wait=False):
            await asyncio.sleep(0)
            publisher.event("warning", {}, None)
    topics = [entry.message.topic for entry in outbox.peek(10)]
    assert "fastprovd/gw1/bridge/event" in topics


async def test_a_stop_with_a_silent_broker_ends_in_time(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that acknowledges nothing delays the stop by the limits only; nothing is lost."""
    monkeypatch.setattr(mqtt, "IN_FLIGHT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(mqtt, "DRAIN_TIMEOUT_S", 0.2)
    monkeypatch.setattr(mqtt, "OFFLINE_TIMEOUT_S", 0.1)
    async with Gate(mosquitto.port) as gate:
        publisher = a_publisher(outbox, settings(gate.port, timeout_s=60.0))
        async with running(publisher):
            await eventually(lambda: len(outbox) == 0)
            gate.withhold_answers = True
            publisher.event("warning", {}, None)
            await eventually(lambda: len(outbox) == 1)
            before = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - before < 3.0
    assert len(outbox) == 1


_DAEMON = """
import asyncio, sys
from pathlib import Path
from fastprovd.clock import SystemClock
from fastprovd.publish.client import BrokerSettings
from fastprovd.publish.exchange import Response
from fastprovd.publish.mqtt import MqttPublisher
from fastprovd.publish.outbox import Outbox
from tests.support.mqtt import INFO
async def handler(request):
    return Response()
asyncio.run(MqttPublisher(
    BrokerSettings("127.0.0.1", int(sys.argv[1]), "gw1"), Outbox(Path(sys.argv[2])), handler,
    INFO, SystemClock(),
).run())
"""


async def test_the_will_says_offline_when_the_daemon_is_killed(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """A subscriber sees offline, retained, without anybody having published it."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", _DAEMON, str(mosquitto.port), str(tmp_path / "outbox.db")]
    async with reader(mosquitto.port) as found:
        daemon = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=subprocess.DEVNULL)
        try:
            await found.until(lambda: "bridge/run" in found.topics())
        finally:
            daemon.kill()
            await daemon.wait()
        await found.until(lambda: found.last("bridge/state") == {"state": "offline"})
    async with reader(mosquitto.port, "fastprovd/gw1/bridge/state") as late:
        await late.until(lambda: late.messages)
    assert late.last("bridge/state") == {"state": "offline"}


async def test_a_repeated_transaction_is_executed_once(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """Both requests are answered, the handler ran once."""
    runs: list[str] = []

    async def handler(request: Request) -> Response:
        runs.append(request.command)
        return Response({"run_id": f"r-{len(runs)}"})

    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port), handler)),
    ):
        for _ in range(2):
            await found.request("run/start", b'{"transaction": "a1"}')
        await found.until(lambda: len(found.all("bridge/response/run/start")) == 2)
    first, second = found.all("bridge/response/run/start")
    assert first == second
    assert runs == ["run/start"]


async def test_a_failing_handler_ends_nothing(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """After an exception in the handler the next request is answered."""

    async def handler(request: Request) -> Response:
        if request.command == "run/stop":
            raise ZeroDivisionError
        return Response()

    with capture_logs() as logs:
        async with (
            reader(mosquitto.port) as found,
            running(a_publisher(outbox, settings(mosquitto.port), handler)),
        ):
            await found.request("run/stop")
            await found.until(lambda: found.all("bridge/response/run/stop"))
            await found.request("nodes/get")
            await found.until(lambda: found.all("bridge/response/nodes/get"))
    assert found.last("bridge/response/run/stop")["code"] == "internal"
    assert found.last("bridge/response/nodes/get")["status"] == "ok"
    assert "request_failed" in [entry["event"] for entry in logs]


async def test_a_slow_request_does_not_hold_up_others(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """run/stop is answered while node/get still waits for its board."""
    release = asyncio.Event()

    async def handler(request: Request) -> Response:
        if request.command == "node/get":
            await release.wait()
        return Response()

    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port), handler)),
    ):
        await found.request("node/get")
        await found.request("run/stop")
        await found.until(lambda: found.all("bridge/response/run/stop"))
        assert not found.all("bridge/response/node/get")
        release.set()
        await found.until(lambda: found.all("bridge/response/node/get"))


async def test_response_topic_and_correlation_data_are_honoured(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """An MQTT 5 request is answered on its Response Topic too, with its Correlation Data."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "me/answers"
    properties.CorrelationData = b"\x01\x02"
    v5 = aiomqtt.ProtocolVersion.V5
    async with (
        reader(mosquitto.port, "#", protocol=v5) as found,
        running(a_publisher(outbox, settings(mosquitto.port))),
    ):
        await found.request("nodes/get", b"{}", properties=properties)
        await found.until(lambda: "me/answers" in found.topics())
    reply = found.messages[found.topics().index("me/answers")]
    assert reply.properties is not None
    assert reply.properties.CorrelationData == b"\x01\x02"
    assert json.loads(reply.payload) == found.last("bridge/response/nodes/get")


@pytest.mark.parametrize(
    "topic",
    [
        "fastprovd/gw1/bridge/request/run/start",
        "fastprovd/gw1/bridge/state",
        "fastprovd/gw2/bridge/request/run/start",
        "homeassistant/light/hall/config",
        "",
        "wild/#",
        "$SYS/broker/x",
        "x" * 65_535,
        "/" * 300,
    ],
)
async def test_a_bad_response_topic_is_not_used(
    mosquitto: Mosquitto, outbox: Outbox, topic: str
) -> None:
    """A reply never passes for somebody else's word, and no topic ends the connection."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = topic
    v5 = aiomqtt.ProtocolVersion.V5
    with capture_logs() as logs:
        async with (
            reader(mosquitto.port, "#", protocol=v5) as found,
            aiomqtt.Client(LOOPBACK, mosquitto.port, protocol=v5) as other,
            running(a_publisher(outbox, settings(mosquitto.port))),
        ):
            await found.until(lambda: "bridge/run" in found.topics())
            request = "fastprovd/gw1/bridge/request"
            with contextlib.suppress(aiomqtt.MqttError):  # a broker may refuse it first
                await other.publish(f"{request}/nodes/get", b"{}", qos=1, properties=properties)
            await found.request("node/get", b"{}")
            await found.until(lambda: found.all("bridge/response/node/get"))
            seen = found.messages[found.topics().index("bridge/run") + 1 :]
    assert {message.topic.value.removeprefix("fastprovd/gw1/bridge/") for message in seen} <= {
        "request/nodes/get",
        "request/node/get",
        "response/nodes/get",
        "response/node/get",
    }
    assert [entry for entry in logs if entry["event"] == "mqtt_disconnected"] == []


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_thousand_requests_at_once_are_answered(
    make_mosquitto: MosquittoMaker, outbox: Outbox, protocol: str
) -> None:
    """Each has its answer, most of them that there are too many, and no line in the log."""
    broker = make_mosquitto(
        "allow_anonymous true", "max_inflight_messages 0", "max_queued_messages 0"
    )

    async def handler(request: Request) -> Response:
        await asyncio.sleep(0.02)
        return Response()

    with capture_logs() as logs:
        async with (
            reader(broker.port, "fastprovd/gw1/bridge/response/#") as found,
            running(a_publisher(outbox, settings(broker.port, protocol), handler)),
        ):
            publish = found.client._client.publish  # without waiting for each
            for number in range(1_000):
                topic = "fastprovd/gw1/bridge/request/node/set"
                publish(topic, json.dumps({"transaction": number}), qos=0)
            await found.until(lambda: len(found.messages) == 1_000)
    answers = found.all("bridge/response/node/set")
    assert {answer["transaction"] for answer in answers} == set(range(1_000))
    assert {answer.get("code") for answer in answers} == {None, "busy"}
    assert len(logs) < 10


async def test_what_is_beyond_all_bounds_is_told(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood that can not even be refused is one line and one event with the count."""
    monkeypatch.setattr(mqtt, "DROPS_TOLD_EVERY_S", 0.05)
    monkeypatch.setattr(intake, "MAX_HELD_OCTETS", 4_000)
    with capture_logs() as logs:
        async with (
            reader(mosquitto.port) as found,
            running(a_publisher(outbox, settings(mosquitto.port))),
        ):
            for _ in range(500):
                topic = "fastprovd/gw1/bridge/request/run/stop"
                found.client._client.publish(topic, b"nonsense", qos=0)
            await found.until(lambda: found.all("bridge/event"))
    told = found.all("bridge/event")[0]
    assert told["type"] == "requests_dropped"
    assert told["data"]["count"] > 0
    assert 0 < len([entry for entry in logs if entry["event"] == "requests_dropped"]) < 10


@pytest.mark.parametrize(
    ("command", "payload", "retain"),
    [
        ("run/stop", b"nonsense", False),
        ("run/stop", b"{}", True),
        ("x", b'{"transaction": "x"}', False),
        ("run/stop", b"x" * 20_000, False),
        ("run/stop", b'{"transaction": 1}', False),
        ("node/set", b"{}", False),
    ],
)
async def test_a_flood_is_quiet_and_ends_in_time(
    mosquitto: Mosquitto, outbox: Outbox, command: str, payload: bytes, retain: bool
) -> None:
    """Whatever a client sends without end, the log stays short and a stop is one."""

    async def handler(request: Request) -> Response:
        if request.command == "node/set":
            raise ZeroDivisionError
        return Response()

    with capture_logs() as logs:
        async with reader(mosquitto.port, "fastprovd/gw1/bridge/state") as found:
            publisher = a_publisher(outbox, settings(mosquitto.port), handler)

            async def flood() -> None:
                topic = f"fastprovd/gw1/bridge/request/{command}"
                while True:
                    for _ in range(50):
                        found.client._client.publish(topic, payload, qos=0, retain=retain)
                    await asyncio.sleep(0.005)

            async with running(publisher):
                flooding = asyncio.create_task(flood())
                await asyncio.sleep(0.5)
                before = asyncio.get_running_loop().time()
            took_s = asyncio.get_running_loop().time() - before
            flooding.cancel()
            await asyncio.wait([flooding])
    assert took_s < 5.0
    assert len(logs) < 30


async def test_topics_of_an_earlier_network_are_cleared(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that another process or another state directory made are gone; ours stay, and what
    others keep below their own topics."""
    monkeypatch.setattr(leftovers, "QUIET_S", 0.2)
    others = ("fastprovd/gw2/node/0x0009", "fastprovd/gw1/node/lamp", "fastprovd/gw1/mine")
    async with reader(mosquitto.port, "fastprovd/#") as found:
        for topic in ("fastprovd/gw1/node/0x0009", "fastprovd/gw1/node/0x0006", *others):
            await found.client.publish(topic, b'{"proven": true}', qos=1, retain=True)
        publisher = a_publisher(outbox, settings(mosquitto.port))
        publisher.nodes_changed([a_node(5), a_node(6)], a_run())
        async with running(publisher):
            await found.until(lambda: found.all("node/0x0009")[-1:] == [None])
    async with reader(mosquitto.port, "fastprovd/#") as late:
        await late.until(lambda: len(late.messages) == 10)
    kept = {message.topic.value for message in late.messages}
    assert {topic for topic in kept if "/node/" in topic} == {
        "fastprovd/gw1/node/0x0005",
        "fastprovd/gw1/node/0x0006",
        *others[:2],
    }
    assert others[2] in kept
    assert late.last("node/0x0006")["addr"] == "0x0006"


async def test_a_topic_that_waited_in_the_outbox_is_cleared_too(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier process could not publish any more may be of a node that is gone by now."""
    monkeypatch.setattr(leftovers, "QUIET_S", 0.2)
    for number in range(100):
        outbox.put("fastprovd/gw1/bridge/event", json.dumps({"seq": -number}).encode())
    outbox.put("fastprovd/gw1/node/0x0009", b'{"proven": true}', retain=True)
    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port))),
    ):
        await found.until(lambda: found.all("node/0x0009")[-1:] == [None])
    assert found.all("node/0x0009")[0] == {"proven": True}


async def test_a_node_that_is_nobody_any_more_is_cleared(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """A node of an earlier run that is forgotten leaves no topic; one in the list says so."""
    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port))) as publisher,
    ):
        publisher.nodes_changed([a_node(5)], a_run())
        publisher.node_changed(a_node(9))
        await found.until(lambda: found.all("node/0x0009"))
        for address in (5, 9):
            publisher.node_changed(replace(a_node(address), forgotten=True))
        await found.until(lambda: found.all("node/0x0009")[-1:] == [None])
        await found.until(lambda: found.last("node/0x0005")["forgotten"])


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_list_longer_than_a_packet_is_read_in_pieces(
    make_mosquitto: MosquittoMaker, outbox: Outbox, protocol: str
) -> None:
    """300 nodes through a broker that takes 20 kB: the list says so, each node has its topic, and
    an answer is as long as fits. With MQTT 3.1.1 that is found out by two links that end."""
    broker = make_mosquitto("allow_anonymous true", "max_packet_size 20000")
    nodes = [a_node(address) for address in range(2, 302)]

    async def handler(request: Request) -> Response:
        first = request.data.get("offset", 0)
        shown = nodes[first:]
        data = {"offset": first, "next_offset": None, "nodes": [node_to_json(n) for n in shown]}
        return Response(data, paged=("nodes",))

    publisher = a_publisher(outbox, settings(broker.port, protocol), handler)
    publisher.nodes_changed(nodes, a_run(RunState.DONE))
    with capture_logs() as logs:
        async with reader(broker.port) as found, running(publisher):
            await found.until(lambda: {"bridge/nodes", "node/0x012d"} <= set(found.topics()))
            addresses: list[str] = []
            offset: int | None = 0
            while offset is not None:
                asked = len(found.all("bridge/response/nodes/get"))
                await found.request("nodes/get", json.dumps({"offset": offset}))
                await found.until(
                    lambda asked=asked: len(found.all("bridge/response/nodes/get")) > asked
                )
                page = found.last("bridge/response/nodes/get")["data"]
                addresses += [node["addr"] for node in page["nodes"]]
                offset = page["next_offset"]
    short = found.last("bridge/nodes")
    assert (short["count"], short["nodes"], short["shortened"]) == (300, None, True)
    assert short["addresses"] == addresses == [f"0x{node.address:04x}" for node in nodes]
    assert len({topic for topic in found.topics() if topic.startswith("node/")}) == 300
    ended = [entry for entry in logs if entry["event"] == "mqtt_disconnected"]
    assert len(ended) == (0 if protocol == "5" else 2)
    (said,) = [entry for entry in logs if entry["event"] == "mqtt_payload_shortened"]
    assert said["topic"] == "fastprovd/gw1/bridge/nodes"
    assert said["max_packet_size"] == (20_000 if protocol == "5" else SAFE_PACKET_OCTETS)


async def test_wrong_credentials_are_said_once_and_tried_on(
    make_mosquitto: MosquittoMaker, tmp_path: Path, outbox: Outbox
) -> None:
    """One error with advice, further attempts at the cap; the password is in no log line."""
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    broker = make_mosquitto("allow_anonymous false", f"password_file {passwords}")
    attempts: list[float] = []

    def random_share() -> float:
        attempts.append(asyncio.get_running_loop().time())
        return 0.002

    login = settings(broker.port, username="gateway", password="hunter2")  # noqa: S106 - invented
    with capture_logs() as logs:
        publisher = a_publisher(outbox, login, random_share=random_share)
        async with running(publisher, wait=False):
            await eventually(lambda: len(attempts) >= 3)
    assert attempts[1] - attempts[0] >= 0.002 * BACK_OFF_CAP_S
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert error["event"] == "mqtt_disconnected"
    assert "Not authorized" in error["reason"]
    assert "hunter2" not in repr(logs) + repr(login)


async def test_a_denied_topic_is_said_once_and_blocks_nothing(
    make_mosquitto: MosquittoMaker, tmp_path: Path, outbox: Outbox
) -> None:
    """What the broker's ACL refuses is given up with one error; everything else goes through."""
    acl = tmp_path / "acl"
    retained = ("bridge/state", "bridge/info", "bridge/nodes", "bridge/groups", "bridge/run")
    allowed = (*retained, "bridge/response/#")
    lines = [f"topic write fastprovd/gw1/{topic}" for topic in allowed]
    acl.write_text("\n".join([*lines, "topic read #", ""]))
    acl.chmod(0o644)
    broker = make_mosquitto("allow_anonymous true", f"acl_file {acl}")
    with capture_logs() as logs:
        async with (
            reader(broker.port) as found,
            running(a_publisher(outbox, settings(broker.port))) as publisher,
        ):
            for _ in range(3):
                publisher.event("warning", {}, None)
            publisher.run_changed(a_run(known=3))
            await found.until(lambda: (found.last("bridge/run") or {}).get("provisioned") == 3)
            await eventually(lambda: len(outbox) == 0)
            assert publisher.is_connected
    denied = [entry for entry in logs if entry["event"] == "mqtt_publish_denied"]
    assert [(entry["topic"], entry["log_level"]) for entry in denied] == [
        ("fastprovd/gw1/bridge/event", "error")
    ]
    assert "Not authorized" in denied[0]["reason"]
    assert found.seqs() == []


async def test_a_second_gateway_with_our_name_is_an_error(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """When the broker says that another client took our client id, that is said with advice."""
    with capture_logs() as logs:
        async with (
            Gate(mosquitto.port) as gate,
            running(a_publisher(outbox, settings(gate.port))) as publisher,
        ):
            gate.say_and_hang_up(b"\xe0\x01\x8e")  # DISCONNECT, Session taken over
            await eventually(lambda: not publisher.is_connected)
            await eventually(lambda: any(entry["log_level"] == "error" for entry in logs))
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert "Session taken over" in error["reason"]
    assert "gateway_id" in error["advice"]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_message_that_is_too_long_blocks_no_other(
    make_mosquitto: MosquittoMaker, outbox: Outbox, protocol: str
) -> None:
    """It is set aside, said once and counted; the others arrive, and the link stays."""
    broker = make_mosquitto("allow_anonymous true", "max_packet_size 20000")
    publisher = a_publisher(outbox, settings(broker.port, protocol))
    publisher.event("warning", {}, None)
    publisher.event("warning", {"reason": "long" * 10_000}, None)
    publisher.event("warning", {}, None)
    with capture_logs() as logs:
        async with reader(broker.port) as found, running(publisher, wait=False):
            await found.until(lambda: set(found.seqs()) == {1, 3})
            publisher.info_changed(INFO)
            await found.until(lambda: found.last("bridge/info")["mqtt"]["set_aside"])
    assert len([entry for entry in logs if entry["event"] == "mqtt_connected"]) <= 3
    (denied,) = [entry for entry in logs if entry["event"] == "mqtt_publish_denied"]
    assert denied["topic"] == "fastprovd/gw1/bridge/event"
    assert "max_packet_size" in denied["advice"]


async def test_a_birth_fills_the_link_and_says_each_thing_once(outbox: Outbox) -> None:
    """Many publications are on their way at a time, and what waited on disk is not said again."""
    async with FakeBroker(holds_acknowledgements=True) as broker:
        publisher = a_publisher(outbox, settings(broker.port))
        publisher.nodes_changed([a_node(address) for address in range(2, 62)], a_run())
        publisher.event("warning", {}, None)
        async with running(publisher, wait=False):
            await eventually(lambda: broker.held == 1)
            broker.release()  # the state, which comes before everything else
            await eventually(lambda: broker.held == 16)
            broker.holds_acknowledgements = False
            broker.release(16)
            await eventually(lambda: "bridge/event" in broker.topics())
            await eventually(lambda: len(outbox) == 0)
    topics = broker.topics()
    assert topics.count("bridge/nodes") == 1
    assert {topics.count(topic) for topic in topics if topic.startswith("node/")} == {1}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_links_that_are_cut_are_not_made_faster_and_faster(
    outbox: Outbox, protocol: str
) -> None:
    """Without a word of the broker the pause grows, and our client identifier is named."""
    pauses: list[float] = []

    def random_share() -> float:
        pauses.append(asyncio.get_running_loop().time())
        return 0.02

    async with FakeBroker() as broker:
        publisher = a_publisher(outbox, settings(broker.port, protocol), random_share=random_share)
        with capture_logs() as logs:
            async with running(publisher, wait=False):
                for links in range(1, 7):
                    await eventually(lambda: publisher.is_connected)
                    await eventually(lambda: len(outbox) == 0)
                    broker.cut()
                    await eventually(lambda links=links: len(pauses) == links)
    assert pauses[5] - pauses[4] > 0.02 * 8.0 > pauses[1] - pauses[0] - 0.3
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert "'fastprovd:gw1'" in error["advice"]
    assert f"{LOOPBACK}:{broker.port}" in error["reason"]


async def test_a_corrected_acl_takes_effect_on_the_same_link(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retained values that were refused are brought, and requests are asked for, by themselves."""
    monkeypatch.setattr(mqtt, "UPKEEP_S", 0.05)
    monkeypatch.setattr(courier, "UPKEEP_S", 0.05)
    async with FakeBroker(suback=0x87, puback=lambda topic: 0x87 * ("nodes" in topic)) as broker:
        publisher = a_publisher(outbox, settings(broker.port))
        with capture_logs() as logs:
            async with running(publisher):
                await eventually(lambda: broker.topics().count("bridge/nodes") >= 3)
                assert len(broker.filters) >= 3
                broker.suback, broker.puback = 1, lambda _: 0
                said = {"mqtt_publish_allowed", "mqtt_subscription_allowed"}
                await eventually(lambda: said <= {entry["event"] for entry in logs})
                asked, told = len(broker.filters), broker.topics().count("bridge/nodes")
                await asyncio.sleep(0.3)
                assert (asked, told) == (len(broker.filters), broker.topics().count("bridge/nodes"))
    assert len(broker.connects) == 1
    errors = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert sorted(errors) == ["mqtt_publish_denied", "mqtt_subscription_denied"]


async def test_a_broker_that_knows_no_version_of_ours_is_said_so(outbox: Outbox) -> None:
    """And tried with both again and again: it may be replaced by one that does."""
    async with FakeBroker(connack=0x84) as broker:
        publisher = a_publisher(outbox, settings(broker.port), random_share=lambda: 0.0)
        with capture_logs() as logs:
            async with running(publisher, wait=False):
                await eventually(lambda: len(broker.connects) >= 6)
                broker.connack = 0
                await eventually(lambda: publisher.is_connected)
    assert {body[6] for body in broker.connects} == {4, 5}
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert "Unsupported protocol version" in error["reason"]
    assert "5 or 3.1.1" in error["advice"]


@pytest.mark.parametrize(
    "broken",
    [
        {"hangs_up_on": lambda *_: True},
        {"hangs_up_on": lambda topic, _: topic.endswith("info")},
        {"hangs_up_on_connect": True},
        {"after_suback": b"\xf0\x00"},
        {"opening": b"SSH-2.0-OpenSSH_9\r\n"},
        {"connack": 0x97},
        {"puback": lambda _: 0x87},
        {"suback": 0x80},
    ],
)
async def test_no_broker_fills_the_log(outbox: Outbox, broken: dict[str, Any]) -> None:
    """However often it is tried: some lines, with nodes enough to fill pages."""
    async with FakeBroker(**broken) as broker:
        publisher = a_publisher(outbox, settings(broker.port), random_share=lambda: 0.0)
        publisher.nodes_changed([a_node(address) for address in range(2, 62)], a_run())
        with capture_logs() as logs:
            async with running(publisher, wait=False):
                await eventually(
                    lambda: len(broker.connects) > 30 or (publisher.is_connected and not outbox)
                )
    loud = [entry for entry in logs if entry["log_level"] in {"warning", "error"}]
    assert 0 < len(loud) < 20


async def test_drops_are_told(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """What did not fit while the broker was away is one event with the count."""
    outbox = Outbox(tmp_path / "small.db", max_rows=10)
    for number in range(30):
        outbox.put("fastprovd/gw1/bridge/event", json.dumps({"seq": number}).encode())
    async with reader(mosquitto.port) as found:
        with capture_logs() as logs:
            async with running(a_publisher(outbox, settings(mosquitto.port))):
                await found.until(lambda: found.seqs()[-1:] == [1])
    outbox.close()
    told = found.last("bridge/event")
    assert told["type"] == "outbox_dropped"
    assert told["data"]["count"] >= 20
    assert "outbox_dropped" in [entry["event"] for entry in logs]


async def test_a_node_that_is_gone_is_cleared(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """A node missing from the new list loses its retained topic; one unchanged is not repeated."""
    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port))) as publisher,
    ):
        publisher.nodes_changed([a_node(5), a_node(6)], a_run())
        await found.until(lambda: found.all("node/0x0006"))
        publisher.nodes_changed([a_node(5)], a_run())
        await found.until(lambda: found.all("node/0x0006")[-1:] == [None])
        await found.until(lambda: found.last("bridge/nodes")["count"] == 1)
    assert len(found.all("node/0x0005")) == 1


def test_pauses_double_up_to_the_cap(run_virtual: RunVirtual[Any], outbox: Outbox) -> None:
    """Without a broker the attempts are 0.5 s, 1 s, 2 s … 60 s apart at full share."""
    times: list[float] = []

    async def main() -> None:
        with socket.socket() as nobody:
            nobody.bind((LOOPBACK, 0))

            def random_share() -> float:
                times.append(asyncio.get_running_loop().time())
                return 1.0

            publisher = a_publisher(
                outbox, settings(nobody.getsockname()[1]), random_share=random_share
            )
            async with running(publisher, wait=False):
                while len(times) < 11:  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(10.0)

    with capture_logs() as logs:
        run_virtual(main())
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    expected = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, BACK_OFF_CAP_S, BACK_OFF_CAP_S]
    assert pauses[:9] == pytest.approx(expected, abs=0.4)
    levels = [entry["log_level"] for entry in logs if entry["event"] == "mqtt_disconnected"]
    assert levels[0] == "warning"
    assert set(levels[1:]) == {"debug"}


async def test_stops_under_load_publish_nothing_twice(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """Messages in flight at a stop are waited for: over many restarts each event comes once."""
    async with reader(mosquitto.port) as found:
        told = 0
        for _ in range(5):
            async with running(a_publisher(outbox, settings(mosquitto.port))) as publisher:
                for _ in range(300):
                    publisher.event("warning", {}, None)
                told += 300
                seen = len(found.seqs())
                await found.until(lambda seen=seen: len(found.seqs()) > seen + 10)
        async with running(a_publisher(outbox, settings(mosquitto.port))):
            await found.until(lambda: found.seqs()[-1] == told)
    assert found.seqs() == list(range(1, told + 1))


async def test_an_old_value_in_the_outbox_does_not_follow_the_new_one(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """What an earlier process left of a retained topic is superseded by the birth."""
    outbox.put("fastprovd/gw1/bridge/info", b'{"version":"0.9"}', retain=True)
    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port))) as publisher,
    ):
        publisher.event("warning", {}, None)
        await found.until(lambda: found.seqs() == [1])
    assert [info["version"] for info in found.all("bridge/info")] == ["1.0.0"]


async def test_new_facts_about_the_gateway_are_published(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    """info_changed replaces bridge/info."""
    async with (
        reader(mosquitto.port) as found,
        running(a_publisher(outbox, settings(mosquitto.port))) as publisher,
    ):
        publisher.info_changed(replace(INFO, iv_index=1))
        await found.until(lambda: len(found.all("bridge/info")) == 2)
    assert [info["network"]["iv_index"] for info in found.all("bridge/info")] == [None, 1]


class LosingClient:
    """A connection that is lost when `go` is set; it acknowledges all until then."""

    timeout = 1.0
    is_v5 = True
    limits = Limits()

    def __init__(self, go: asyncio.Event) -> None:
        self._go = go

    async def subscribe_commands(self, topic: str) -> ReasonCode:
        return ReasonCode(PacketTypes.SUBACK, identifier=0)

    async def subscribe_retained(self, topic: str) -> ReasonCode:
        return ReasonCode(PacketTypes.SUBACK, identifier=0x87)

    async def publish_acknowledged(self, *_: Any) -> ReasonCode:
        return ReasonCode(PacketTypes.PUBACK, identifier=0)

    def fail_acknowledgements(self, error: Exception) -> None:
        """Nobody waits for any."""

    @property
    async def messages(self) -> AsyncIterator[Any]:
        await self._go.wait()
        raise aiomqtt.MqttError("Disconnected during message iteration")
        yield


@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_is_not_lost_when_the_connection_is(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """In the same few turns of the loop: it ends, and connects to nobody again."""
    go, connections = asyncio.Event(), itertools.count()

    @contextlib.asynccontextmanager
    async def connected(*_: Any) -> AsyncIterator[LosingClient]:
        if next(connections):
            raise aiomqtt.MqttError("refused")
        yield LosingClient(go)

    monkeypatch.setattr(mqtt, "connected", connected)
    publisher = a_publisher(outbox, settings(1))
    task = asyncio.create_task(publisher.run())
    await eventually(lambda: publisher.is_connected)
    task.cancel()
    for _ in range(turns):
        await asyncio.sleep(0)
    go.set()
    done, _ = await asyncio.wait([task], timeout=10.0)
    assert done
    assert task.cancelled()
