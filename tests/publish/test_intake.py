"""Each request has its answer, however many come at once, within bounds of memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from structlog.testing import capture_logs

from fastprovd.clock import SystemClock
from fastprovd.publish.client import correlation
from fastprovd.publish.exchange import Request, Response
from fastprovd.publish.fitting import packet_overhead
from fastprovd.publish.intake import MAX_HELD_OCTETS, Intake, Reply
from fastprovd.publish.messages import Topics
from fastprovd.publish.requests import MAX_AT_ONCE, RequestDesk

TOPICS = Topics("fastprovd/gw1")


class Handler:
    """Answers when it may."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.may_end = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        """Answer with what was asked."""
        self.requests.append(request)
        await self.may_end.wait()
        return Response({"asked": request.command})


class Wire:
    """Keeps what was sent, and may be stuck or broken."""

    def __init__(self) -> None:
        self.sent: list[tuple[Reply, dict[str, Any]]] = []
        self.moves = asyncio.Event()
        self.moves.set()
        self.failure: Exception | None = None

    async def send(self, reply: Reply, payload: bytes) -> None:
        """Take an answer."""
        await self.moves.wait()
        if self.failure is not None:
            raise self.failure
        self.sent.append((reply, json.loads(payload)))


def an_intake(handler: Handler | None = None) -> Intake:
    """Return an open intake."""
    intake = Intake(RequestDesk(handler or Handler(), SystemClock()), TOPICS, "fastprovd")
    intake.open()
    return intake


def a_message(
    command: str = "run/stop",
    payload: bytes = b"{}",
    *,
    retain: bool = False,
    topic: str | None = None,
    **properties: Any,
) -> aiomqtt.Message:
    """Return a request as it arrives."""
    sent = Properties(PacketTypes.PUBLISH)
    for name, value in properties.items():
        setattr(sent, name, value)
    topic = topic or f"fastprovd/gw1/bridge/request/{command}"
    return aiomqtt.Message(topic, payload, 1, retain, 1, sent)


def take(intake: Intake, message: aiomqtt.Message, limit: int | None = None, **more: bool) -> None:
    """Hand over a message."""
    told = {"retain_is_told": True, **more}
    intake.take(message, max_packet_size=limit, **told)


@contextlib.asynccontextmanager
async def sending(intake: Intake, wire: Wire) -> AsyncIterator[asyncio.Task[None]]:
    """Send while the body lasts, and until nothing is left to send."""
    task = asyncio.create_task(intake.send_forever(wire.send))
    try:
        yield task
        for _ in range(20):
            await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_request_goes_through_the_handler() -> None:
    """The answer goes where the request says."""
    handler, wire = Handler(), Wire()
    handler.may_end.set()
    intake = an_intake(handler)
    async with sending(intake, wire):
        message = a_message(ResponseTopic="me/answers", CorrelationData=b"\x01")
        take(intake, message)
    ((reply, answer),) = wire.sent
    assert reply == Reply("run/stop", "me/answers", b"\x01")
    assert answer["data"] == {"asked": "run/stop"}


async def test_a_bad_response_topic_leaves_the_plain_one() -> None:
    """Neither it nor the Correlation Data, which may be long, is kept."""
    wire, intake = Wire(), an_intake()
    async with sending(intake, wire):
        for topic in ("", "#", "fastprovd/other/bridge/state", "homeassistant/light/x/config"):
            payload = b"nonsense"
            take(intake, a_message(payload=payload, ResponseTopic=topic, CorrelationData=b"\x01"))
    assert [reply for reply, _ in wire.sent] == [Reply("run/stop", None, None)] * 4


async def test_what_is_no_request_is_not_answered() -> None:
    """Other topics, such as those that are looked through at a birth."""
    wire, intake = Wire(), an_intake()
    async with sending(intake, wire):
        take(intake, a_message(topic="fastprovd/gw1/node/0x0002"))
        take(intake, a_message(topic="fastprovd/gw2/bridge/request/run/stop"))
    assert wire.sent == []


async def test_a_thousand_at_once_are_answered() -> None:
    """Those that can not be executed now are busy, at once and each by its own transaction."""
    handler, wire = Handler(), Wire()
    intake = an_intake(handler)
    async with sending(intake, wire):
        for number in range(1_000):
            take(intake, a_message(payload=json.dumps({"transaction": number}).encode()))
        for _ in range(1_000):
            await asyncio.sleep(0)
        codes = [answer.get("code") for _, answer in wire.sent]
        assert codes == ["busy"] * (1_000 - MAX_AT_ONCE)
        handler.may_end.set()
    assert sorted(answer["transaction"] for _, answer in wire.sent) == list(range(1_000))
    assert intake.take_dropped() == 0


async def test_a_thousand_times_the_same_are_executed_once() -> None:
    """All that wait for one execution get its result, and hold up no other request."""
    handler, wire = Handler(), Wire()
    intake = an_intake(handler)
    async with sending(intake, wire):
        for _ in range(1_000):
            take(intake, a_message(payload=b'{"transaction": "a1"}'))
        take(intake, a_message("nonsense"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert [reply.command for reply, _ in wire.sent] == ["nonsense"]
        handler.may_end.set()
        for _ in range(1_000):
            await asyncio.sleep(0)
    assert len(handler.requests) == 1
    assert [answer["status"] for _, answer in wire.sent] == ["error"] + ["ok"] * 1_000


async def test_what_can_not_be_held_is_counted() -> None:
    """When nothing can be sent the answers end at their limit; what was held is sent later."""
    handler, wire = Handler(), Wire()
    handler.may_end.set()
    intake = an_intake(handler)
    wire.moves.clear()
    count = MAX_HELD_OCTETS // 60_000 + 100
    async with sending(intake, wire):
        for _ in range(count):
            message = a_message(
                payload=b"nonsense", ResponseTopic="me", CorrelationData=bytes(60_000)
            )
            take(intake, message)
        dropped = intake.take_dropped()
        assert 100 <= dropped < 110
        wire.moves.set()
        for _ in range(count):
            await asyncio.sleep(0)
        take(intake, a_message())
    assert len(wire.sent) == count - dropped + 1
    assert intake.take_dropped() == 0


async def test_every_place_is_given_back() -> None:
    """After results, refusals and failures there is as much room as before."""
    handler, wire = Handler(), Wire()
    handler.may_end.set()
    intake = an_intake(handler)
    data = bytes(MAX_HELD_OCTETS // 2)
    for _ in range(3):
        async with sending(intake, wire):
            take(intake, a_message(ResponseTopic="me", CorrelationData=data))
            for _ in range(10):
                await asyncio.sleep(0)
            take(intake, a_message(payload=b"nonsense", ResponseTopic="me", CorrelationData=data))
    wire.failure = aiomqtt.MqttError("gone")
    for _ in range(3):
        async with sending(intake, wire) as task:
            take(intake, a_message(ResponseTopic="me", CorrelationData=data))
        assert isinstance(task.exception(), aiomqtt.MqttError)
    assert len(wire.sent) == 6
    assert intake.take_dropped() == 0


async def test_answers_that_find_no_connection_are_one_line() -> None:
    """Whoever asked is gone with it; how many there were is told at the next connection."""
    handler, wire = Handler(), Wire()
    intake = an_intake(handler)
    with capture_logs() as logs:
        take(intake, a_message())
        for _ in range(5):
            take(intake, a_message(payload=b"nonsense"))
        intake.close()
        handler.may_end.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert logs == []
        intake.open()
        intake.close()
        intake.open()
    assert [(entry["event"], entry["responses"]) for entry in logs] == [("mqtt_responses_lost", 6)]
    async with sending(intake, wire):
        take(intake, a_message(payload=b"nonsense"))
    assert len(wire.sent) == 1


async def test_nothing_is_executed_without_a_connection() -> None:
    """What still arrives while the gateway takes its leave is not begun."""
    handler = Handler()
    intake = an_intake(handler)
    intake.close()
    take(intake, a_message())
    await asyncio.sleep(0)
    assert handler.requests == []


async def test_an_empty_message_runs_only_what_it_can_not_clear() -> None:
    """With MQTT 3.1.1 it looks like the one that clears a retained command."""
    handler, wire = Handler(), Wire()
    handler.may_end.set()
    intake = an_intake(handler)
    async with sending(intake, wire):
        take(intake, a_message(payload=b""), retain_is_told=False)
        take(intake, a_message(payload=b"", retain=True))
        take(intake, a_message(payload=b""))
    assert len(handler.requests) == 1
    codes = [answer.get("code") for _, answer in wire.sent]
    assert codes == ["invalid_request", "retained_command", None]


async def test_an_answer_fits_into_a_packet() -> None:
    """What is in a packet beside it is counted: the longer topic and the Correlation Data."""
    wire, intake = Wire(), an_intake()
    message = a_message(
        payload=b'{"transaction": {}}', ResponseTopic="me", CorrelationData=bytes(99)
    )
    limit = 200 + packet_overhead(TOPICS.response("run/stop"), correlation(bytes(99)))
    async with sending(intake, wire):
        take(intake, message)
        take(intake, message, limit)
    (_, whole), (_, short) = wire.sent
    assert len(json.dumps(whole, separators=(",", ":"))) > 200
    assert whole["data"]["errors"]
    assert len(json.dumps(short, separators=(",", ":"))) <= 200
    assert short["data"]["errors"] is None
