"""A connection tells what the broker answered, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import aiomqtt
import pytest

from fastprovd.publish.client import (
    PACKET_TOO_LARGE,
    BrokerSettings,
    connected,
    finish,
    is_failure,
    is_unsupported_protocol,
)
from fastprovd.publish.exchange import COMMANDS
from fastprovd.publish.failures import Kind, LinkError
from fastprovd.publish.limits import packet_octets
from fastprovd.publish.messages import Message
from tests.support.fake_broker import FakeBroker, serving
from tests.support.mqtt import LOOPBACK, Gate, Mosquitto, eventually

pytestmark = pytest.mark.asyncio  # real sockets


def settings(port: int, **more: Any) -> BrokerSettings:
    """Return settings for a broker on this machine."""
    return BrokerSettings(LOOPBACK, port, "gw1", **({"timeout_s": 2.0} | more))


def test_a_password_is_not_in_the_repr() -> None:
    """Settings can be logged."""
    assert "hunter2" not in repr(settings(1883, password="hunter2"))  # noqa: S106 - invented


async def test_a_publication_returns_the_reason_code(mosquitto: Mosquitto) -> None:
    """PUBACK says success, or that nobody subscribed, neither of which is a failure."""
    async with connected(settings(mosquitto.port), "5") as client:
        code = await client.publish_acknowledged(Message("t", b"x"))
    assert not is_failure(code)
    assert str(code) in {"Success", "No matching subscribers"}


async def test_a_missing_acknowledgement_is_an_error(mosquitto: Mosquitto) -> None:
    """A publication that is not acknowledged raises after the time-out."""
    async with (
        Gate(mosquitto.port) as gate,
        connected(settings(gate.port, timeout_s=0.3), "5") as client,
    ):
        gate.withhold_answers = True
        with pytest.raises(aiomqtt.MqttError, match=r"no PUBACK within 0\.3 s"):
            await client.publish_acknowledged(Message("t", b"x"))


async def test_what_is_too_long_for_the_broker_is_not_sent() -> None:
    """A packet of its Maximum Packet Size is sent, one octet more is not."""
    properties = b"\x27" + (1_000).to_bytes(4, "big")
    async with (
        FakeBroker(connack_properties=properties) as broker,
        connected(settings(broker.port), "5") as client,
    ):
        around = packet_octets(Message("t", bytes(900))) - 900
        for octets in (1_000, 1_001):
            code = await client.publish_acknowledged(Message("t", bytes(octets - around)))
            assert is_failure(code) is (octets > 1_000)
        assert code is PACKET_TOO_LARGE
        assert [len(payload) for _, payload in broker.published] == [1_000 - around]


@pytest.mark.parametrize(("receive_maximum", "most"), [(1, 1), (3, 3), (65_535, 16)])
async def test_no_more_is_in_flight_than_the_broker_bears(receive_maximum: int, most: int) -> None:
    """And as many as it does: a link with a long way is filled."""
    properties = b"\x21" + receive_maximum.to_bytes(2, "big")
    broker = FakeBroker(connack_properties=properties, holds_acknowledgements=True)
    async with broker, connected(settings(broker.port), "5") as client:
        tasks = [
            asyncio.create_task(client.publish_acknowledged(Message("t", str(n).encode())))
            for n in range(40)
        ]
        await eventually(lambda: broker.held == most)
        while not all(task.done() for task in tasks):
            broker.release()
            await asyncio.sleep(0.001)
        assert broker.most_in_flight == most
        assert [payload for _, payload in broker.published] == [str(n).encode() for n in range(40)]


async def test_a_suspect_is_alone_on_its_way() -> None:
    """Nothing is in flight beside it, so that the end of the link would be its doing."""
    broker = FakeBroker(holds_acknowledgements=True)
    async with broker, connected(settings(broker.port), "5") as client:
        publish = client.publish_acknowledged
        tasks = [
            asyncio.create_task(publish(Message("t", name.encode()), alone=name == "suspect"))
            for name in ("before", "suspect", "after")
        ]
        for name in ("before", "suspect", "after"):
            await eventually(lambda name=name: broker.published[-1:] == [("t", name.encode())])
            assert [m.payload.decode() for m in client.unacknowledged] == [name]
            broker.release()
        await asyncio.gather(*tasks)


async def test_a_long_message_on_a_slow_link_has_time() -> None:
    """As long as octets move the time limit for a PUBACK does not end the connection."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"\x20\x03\x00\x00\x00")
        got = 0
        while got < 600_000:
            octets = await reader.read(65_536)
            got += len(octets)
            await asyncio.sleep(0.02)
        writer.write(b"\x40\x02\x00\x01")
        await reader.read(1_000)

    async with serving(slow, slow=True) as port:
        before = asyncio.get_running_loop().time()
        async with connected(settings(port, timeout_s=0.25), "5") as client:
            code = await client.publish_acknowledged(Message("t", bytes(600_000)))
        assert asyncio.get_running_loop().time() - before > 0.5  # twice the limit
    assert not is_failure(code)


@pytest.mark.parametrize(
    ("properties", "kind"), [(b"\x25\x00", Kind.NO_RETAIN), (b"\x24\x00", Kind.NO_QOS_1)]
)
async def test_a_broker_without_what_we_need_is_left(properties: bytes, kind: Kind) -> None:
    """Although it takes the connection: nothing is published that it forbids."""
    async with FakeBroker(connack_properties=properties) as broker:
        with pytest.raises(LinkError) as caught:
            async with connected(settings(broker.port), "5"):
                pass
    assert caught.value.kind is kind
    assert broker.published == []


async def test_without_wildcards_each_topic_is_asked_for() -> None:
    """The filter with a wildcard is not sent to a broker that has none."""
    async with (
        FakeBroker(connack_properties=b"\x28\x00") as broker,
        connected(settings(broker.port), "5") as client,
    ):
        code = await client.subscribe_commands("fastprovd/gw1/bridge/request/#")
    assert not is_failure(code)
    assert broker.filters == [f"fastprovd/gw1/bridge/request/{each}" for each in sorted(COMMANDS)]


async def test_our_limits_are_told_to_a_broker_with_mqtt_5() -> None:
    """Maximum Packet Size and Receive Maximum are in CONNECT."""
    async with FakeBroker() as broker:
        for protocol in ("5", "3.1.1"):
            async with connected(settings(broker.port), protocol):
                pass
    limits = b"\x21\x00\x14\x27\x00\x02\x00\x00"
    assert [sorted(limits) == sorted(body[11:19]) for body in broker.connects] == [True, False]


def test_two_gateways_share_an_identifier_only_with_all_topics() -> None:
    """It holds the base topic, and can be taken apart."""
    named = [
        BrokerSettings("h", 1, gateway_id, base_topic=base).client_id
        for base, gateway_id in (("a", "b-c"), ("a-b", "c"), ("a/b", "c"), ("fastprovd", "c"))
    ]
    assert named == ["a:b-c", "a-b:c", "a/b:c", "fastprovd:c"]


async def test_no_broker_is_an_error() -> None:
    """A port where nobody listens raises MqttError."""
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        with pytest.raises(aiomqtt.MqttError, match="Connect call failed"):
            async with connected(settings(nobody.getsockname()[1]), "5"):
                pass


async def test_a_peer_that_says_nothing_is_given_up(mosquitto: Mosquitto) -> None:
    """Without a CONNACK the connect ends with an error that is no refusal of MQTT 5."""
    async with Gate(mosquitto.port) as gate:
        gate.withhold_answers = True
        with pytest.raises(aiomqtt.MqttError) as caught:
            async with connected(settings(gate.port, timeout_s=0.2), "5"):
                pass
    assert not is_unsupported_protocol(caught.value)


async def test_a_connect_can_be_cancelled(mosquitto: Mosquitto) -> None:
    """Waiting for a CONNACK that does not come ends at once when cancelled."""

    async def connect(port: int) -> None:
        async with connected(settings(port, timeout_s=60.0), "5"):
            pass

    async with Gate(mosquitto.port) as gate:
        gate.withhold_answers = True
        task = asyncio.create_task(connect(gate.port))
        await eventually(lambda: gate.relayed_octets > 0)
        before = asyncio.get_running_loop().time()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.get_running_loop().time() - before < 3.0


async def test_work_is_finished_before_a_cancellation_goes_on() -> None:
    """finish lets the work end, then raises CancelledError."""
    may_end, done = asyncio.Event(), []

    async def work() -> None:
        await may_end.wait()
        done.append(True)

    task = asyncio.create_task(finish(work(), 10.0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_work_that_does_not_end_is_cancelled() -> None:
    """finish waits no longer than it was told."""
    ended = []

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ended.append(True)

    task = asyncio.create_task(finish(work(), 0.01))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert ended == [True]
