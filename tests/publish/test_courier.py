"""What the broker does not take is counted, said once per topic, and blocks nothing."""

from __future__ import annotations

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from structlog.testing import capture_logs

from fastprovd.clock import SystemClock
from fastprovd.publish import courier
from fastprovd.publish.client import PACKET_TOO_LARGE
from fastprovd.publish.courier import MAX_NAMED, Courier
from fastprovd.publish.failures import Kind, LinkError
from fastprovd.publish.limits import Limits
from fastprovd.publish.messages import Message

TAKEN = ReasonCode(PacketTypes.PUBACK, identifier=0)
DENIED = ReasonCode(PacketTypes.PUBACK, identifier=0x87)


def lost(*in_flight: Message) -> LinkError:
    """Return the end of a link while these were on their way."""
    error = LinkError(Kind.LOST, "hung up")
    error.unacknowledged, error.acknowledged = in_flight, 1
    return error


class FakeClient:
    """A connection that answers everything with `code`."""

    def __init__(self, code: ReasonCode = TAKEN) -> None:
        self.code = code
        self.limits = Limits(maximum_packet_octets=100)
        self.sent: list[tuple[Message, bool]] = []

    async def publish_acknowledged(self, message: Message, *, alone: bool = False) -> ReasonCode:
        """Take note."""
        self.sent.append((message, alone))
        return self.code


async def test_what_is_denied_is_named_once_per_topic_and_counted() -> None:
    """And its retained topics are known, for when they are allowed."""
    account = Courier(SystemClock())
    with capture_logs() as logs:
        for _ in range(3):
            await account.publish(FakeClient(DENIED), Message("a", b"", retain=True))
            await account.publish(FakeClient(DENIED), Message("b", b""))
    assert [entry["topic"] for entry in logs] == ["a", "b"]
    assert account.set_aside == 6
    assert list(account.refused) == ["a"]


async def test_only_some_topics_are_named() -> None:
    """A gateway with 300 nodes does not write 300 lines."""
    account = Courier(SystemClock())
    with capture_logs() as logs:
        for number in range(300):
            await account.publish(FakeClient(DENIED), Message(f"node/{number}", b""))
    events = [entry["event"] for entry in logs]
    assert events == ["mqtt_publish_denied"] * MAX_NAMED + ["mqtt_more_denied"]
    assert account.set_aside == 300


async def test_a_topic_that_comes_and_goes_is_not_said_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That it is allowed again is said after a while only, then a new denial too."""
    account, message = Courier(SystemClock()), Message("a", b"", retain=True)
    with capture_logs() as logs:
        for _ in range(50):
            await account.publish(FakeClient(DENIED), message)
            await account.publish(FakeClient(TAKEN), message)
        assert len(logs) == 1
        assert not account.refused
        monkeypatch.setattr(courier, "UPKEEP_S", 0.0)
        await account.publish(FakeClient(TAKEN), message)
        await account.publish(FakeClient(DENIED), message)
    assert [entry["event"] for entry in logs] == [
        "mqtt_publish_denied",
        "mqtt_publish_allowed",
        "mqtt_publish_denied",
    ]


async def test_what_is_too_long_is_told_with_both_lengths() -> None:
    """The advice is about the limit, not about rights."""
    with capture_logs() as logs:
        await Courier(SystemClock()).publish(FakeClient(PACKET_TOO_LARGE), Message("a", bytes(200)))
    assert logs[0]["reason"] == "209 octets, the broker takes packets of 100"
    assert "max_packet_size" in logs[0]["advice"]


async def test_what_the_broker_hangs_up_on_is_not_sent_a_third_time() -> None:
    """The second time it is alone; then it is answered as too large, and others go through."""
    account, poison = Courier(SystemClock()), Message("a", b"x")
    assert account.link_ended(lost(Message("b", b""), poison), lasted=False) is False
    assert account.link_ended(lost(poison), lasted=False) is True
    client, newer = FakeClient(), Message("a", b"y")
    with capture_logs() as logs:
        assert await account.publish(client, poison) is PACKET_TOO_LARGE
    await account.publish(client, Message("b", b""))
    assert client.sent == [(Message("b", b""), True)]
    await account.publish(client, newer)
    assert client.sent[1:] == [(newer, True)]
    assert "hung up" in logs[0]["reason"]
    assert account.set_aside == 1


async def test_a_good_link_that_ends_forgives() -> None:
    """The broker was restarted, perhaps with another configuration."""
    account, poison = Courier(SystemClock()), Message("a", b"x")
    for _ in range(2):
        explained = account.link_ended(lost(poison), lasted=False)
    assert explained
    account.link_ended(lost(), lasted=True)
    client = FakeClient()
    await account.publish(client, poison)
    assert client.sent == [(poison, False)]


async def test_what_was_brought_on_this_link_is_known() -> None:
    """The same retained value, not another one, and not on the next link."""
    account, message = Courier(SystemClock()), Message("a", b"x", retain=True)
    await account.publish(FakeClient(), message)
    assert account.is_at_broker(message)
    assert not account.is_at_broker(Message("a", b"y", retain=True))
    assert not account.is_at_broker(Message("a", b"x"))
    account.link_begins()
    assert not account.is_at_broker(message)
