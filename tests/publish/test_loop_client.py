"""Whatever the broker sends, the loop is not kept busy, and the end has a reason."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import aiomqtt
import pytest
from structlog.testing import capture_logs

from fastprovd.publish.client import BrokerSettings, Client, connected
from fastprovd.publish.failures import Kind, LinkError, kind_of
from fastprovd.publish.messages import Message
from tests.support.fake_broker import FakeBroker, packet, publication
from tests.support.mqtt import LOOPBACK, eventually

pytestmark = pytest.mark.asyncio  # real sockets

REQUEST = "fastprovd/gw1/bridge/request/run/stop"


def settings(broker: FakeBroker, **more: Any) -> BrokerSettings:
    """Return settings for a broker on this machine."""
    return BrokerSettings(LOOPBACK, broker.port, "gw1", **({"timeout_s": 0.5} | more))


def callbacks_of_sockets() -> int:
    """Return how many descriptors the loop watches for somebody."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    return len(selector.get_map())


async def how_it_ends(broker: FakeBroker, octets: bytes) -> BaseException:
    """Connect, let the broker say something, and return why the connection ended."""
    client: Client | None = None
    with contextlib.suppress(aiomqtt.MqttError):
        async with connected(settings(broker), "5") as client:
            broker.say(octets)
            async for _ in client.messages:
                pass
    assert client is not None
    assert client.ended is not None
    return client.ended


@pytest.mark.parametrize(
    "octets",
    [
        publication(REQUEST, properties=b"\x7f\x00\x00"),  # a property that does not exist
        publication("t", properties=b"\x08\x00\x01a\x08\x00\x01b"),  # Response Topic twice
        packet(3, b"\x00\x01t\x00\x07\x00{}", 0b0110),  # QoS 3
        packet(15, b"\x18\x00"),  # AUTH, which nobody asked for
        packet(4, b"\x00"),  # a PUBACK cut off
        packet(9, b""),
        b"\x32\xff\xff\xff\xff\xff\x7f",
    ],
)
async def test_what_is_not_mqtt_ends_the_connection(octets: bytes) -> None:
    """And leaves nothing in the loop, although octets that nobody reads still come."""
    async with FakeBroker() as broker:
        before = callbacks_of_sockets()
        error = await how_it_ends(broker, octets + bytes(200))
        assert kind_of(error) is Kind.PROTOCOL
        await eventually(lambda: callbacks_of_sockets() <= before)


@pytest.mark.parametrize("topic", [b"", b"a/#", b"+/x", b"\xff\xfe"])
async def test_a_message_without_a_possible_topic_is_passed_over(topic: bytes) -> None:
    """Said once; the connection goes on, the processor rests, and what follows is heard."""
    async with FakeBroker() as broker, connected(settings(broker), "5") as client:
        with capture_logs() as logs:
            for _ in range(50):
                broker.say(publication(topic))
            broker.say(publication(REQUEST))
            used = time.process_time()
            message = await anext(client.messages)
            await asyncio.sleep(0.3)
            assert time.process_time() - used < 0.25
        assert message.topic.value == REQUEST
    assert [entry["log_level"] for entry in logs if "malformed" in entry["event"]] == [
        "warning",
        *["debug"] * 49,
    ]


async def test_libraries_write_no_lines_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    """They would be as many as the broker likes."""
    async with FakeBroker() as broker:
        await how_it_ends(broker, packet(15, b"") * 100)
        async with connected(settings(broker), "5"):
            broker.say(packet(9, b"\x77\x77\x00\x01") * 100 + publication(b"\xff") * 500)
            await asyncio.sleep(0.05)
    assert [record.name for record in caplog.records if record.levelno >= 30] == []


@pytest.mark.parametrize(
    ("opening", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", Kind.NOT_MQTT),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Kind.NOT_MQTT),
        (b"\x15\x03\x01\x00\x02\x02\x46", Kind.TLS_EXPECTED),
        (b"", Kind.SILENT),
        (b"\x20", Kind.SILENT),
    ],
)
async def test_what_is_no_broker_is_told(opening: bytes, kind: Kind) -> None:
    """By its first octets; an SSH server or a web server answers too."""
    async with FakeBroker(opening=opening) as broker:
        with pytest.raises(LinkError) as caught:
            async with connected(settings(broker), "5"):
                pass
    assert caught.value.kind is kind


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_broker_that_hangs_up_on_connect_is_noticed_at_once(protocol: str) -> None:
    """It does not take until the time limit."""
    async with FakeBroker(hangs_up_on_connect=True) as broker:
        before = asyncio.get_running_loop().time()
        with pytest.raises(LinkError) as caught:
            async with connected(settings(broker, timeout_s=60.0), protocol):
                pass
    assert caught.value.kind is Kind.HUNG_UP_ON_CONNECT
    assert asyncio.get_running_loop().time() - before < 30.0


@pytest.mark.parametrize(
    ("code", "kind"), [(1, Kind.VERSION), (2, Kind.CLIENT_ID), (4, Kind.LOGIN), (5, Kind.LOGIN)]
)
async def test_a_refusal_of_3_1_1_is_understood(code: int, kind: Kind) -> None:
    """Also that of the version, of which paho says nothing."""
    async with FakeBroker(connack=code) as broker:
        with pytest.raises(Exception, match="the broker says") as caught:
            async with connected(settings(broker), "3.1.1"):
                pass
    assert kind_of(caught.value) is kind


@pytest.mark.parametrize(("server_s", "asked_s"), [(0, 15), (1, 1), (600, 15)])
async def test_the_keep_alive_of_the_server_holds(server_s: int, asked_s: int) -> None:
    """Ours where it is shorter, since a broker that wants none may die unnoticed."""
    properties = b"\x13" + server_s.to_bytes(2, "big")
    async with (
        FakeBroker(connack_properties=properties) as broker,
        connected(settings(broker), "5") as client,
    ):
        assert client._client._keepalive == asked_s
        if server_s == 1:  # it hangs up after 1.5 s
            await eventually(lambda: broker.pings >= 2)
            assert client.ended is None


async def test_a_broker_that_falls_silent_is_given_up() -> None:
    """After two keep alive times without an answer to a ping."""
    broker = FakeBroker(connack_properties=b"\x13\x00\x01", answers_pings=False)
    async with broker, connected(settings(broker), "5") as client:
        await eventually(lambda: client.ended is not None)
    assert "fell silent" in str(client.ended)


async def test_a_closed_socket_s_number_is_not_watched() -> None:
    """What paho asked for while the connection was up is not done to another file later."""
    async with FakeBroker() as broker:
        client: Client
        async with connected(settings(broker), "5") as client:
            client._on_socket_register_write(client._client, None, None)
            client.drop()
        before = callbacks_of_sockets()
        await asyncio.sleep(0)
        assert callbacks_of_sockets() <= before


async def test_a_long_packet_on_a_slow_link_is_a_sign_of_life() -> None:
    """While octets come nobody says that the broker fell silent."""
    broker = FakeBroker(connack_properties=b"\x13\x00\x01", answers_pings=False)
    async with broker, connected(settings(broker), "5") as client:
        body = b"\x00\x01t\x00\x07\x00" + bytes(100_000)
        broker.say(packet(3, body, 0b0010)[:5])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4.0):
                while client.ended is None:
                    broker.say(bytes(100))
                    await asyncio.sleep(0.1)
        assert client.ended is None


async def test_silence_while_messages_are_on_their_way_ends_the_connection() -> None:
    """Everybody who waits for a PUBACK is told at once."""
    async with FakeBroker(puback=lambda _: None) as broker:
        async with connected(settings(broker), "5") as client:
            results = await asyncio.gather(
                *(client.publish_acknowledged(Message("t", b"x")) for _ in range(40)),
                return_exceptions=True,
            )
        assert {str(result) for result in results} == {"no PUBACK within 0.5 s"}
        assert len(client.unacknowledged) == 16
