"""A message on which the broker hangs up is found and set aside; no other one is."""

from __future__ import annotations

import pytest

from fastprovd.publish.delivery import ENOUGH, FORGIVEN_AFTER_S, MAX_SUSPECTS, Delivery
from fastprovd.publish.messages import Message

POISON = Message("node/0x0002", b"x" * 900, retain=True)
OTHER = Message("bridge/event", b"{}")


def a_delivery() -> Delivery:
    """Return one whose broker took something long, so that length is no explanation."""
    delivery = Delivery()
    delivery.taken(Message("bridge/info", bytes(10_000), retain=True))
    return delivery


def lose_twice(delivery: Delivery, message: Message, now: float = 0.0) -> Message | None:
    """Let two links end while `message` is on its way alone."""
    delivery.link_ended([message], 1, now)
    return delivery.link_ended([message], 1, now)


def test_what_was_on_its_way_is_suspect_until_it_is_taken() -> None:
    """A link that ends makes suspects only; an acknowledgement clears one."""
    delivery = a_delivery()
    assert delivery.link_ended([POISON, OTHER], 1, 0.0) is None
    assert delivery.is_suspect(POISON)
    assert delivery.is_suspect(OTHER)
    assert not delivery.is_aside(POISON, 0.0)
    delivery.taken(OTHER)
    assert not delivery.is_suspect(OTHER)


def test_alone_at_the_second_end_is_set_aside() -> None:
    """It, and nothing else; a new value of its topic is tried, alone."""
    delivery = a_delivery()
    delivery.link_ended([OTHER, POISON], 1, 0.0)
    assert delivery.link_ended([POISON], 1, 0.0) == POISON
    assert delivery.is_aside(POISON, 0.0)
    assert not delivery.is_aside(OTHER, 0.0)
    newer = Message(POISON.topic, b"y", retain=True)
    assert delivery.is_suspect(newer)
    assert not delivery.is_aside(newer, 0.0)


def test_one_end_with_one_message_proves_nothing() -> None:
    """The first time a link ends it may be the link."""
    delivery = a_delivery()
    assert delivery.link_ended([POISON], 1, 0.0) is None
    assert not delivery.is_aside(POISON, 0.0)


def test_a_broker_that_takes_nothing_sets_nothing_aside() -> None:
    """Without an acknowledgement on the link the message is not to blame."""
    delivery = a_delivery()
    for _ in range(10):
        assert delivery.link_ended([POISON], 0, 0.0) is None
    assert not delivery.is_aside(POISON, 0.0)


def test_a_topic_that_is_not_allowed_is_set_aside_whole() -> None:
    """After two different messages; others of the same length are not touched."""
    delivery = a_delivery()
    for payload in (b"1", b"2"):
        lose_twice(delivery, Message("bridge/event", payload))
    assert delivery.is_aside(Message("bridge/event", b"3"), 0.0)
    assert not delivery.is_aside(Message("bridge/run", b"3"), 0.0)


def test_a_topic_is_good_again_when_something_of_it_is_taken() -> None:
    """Two bad messages of a topic with a good one between do not condemn it."""
    delivery = a_delivery()
    lose_twice(delivery, Message("bridge/event", b"1"))
    delivery.taken(Message("bridge/event", b"2"))
    lose_twice(delivery, Message("bridge/event", b"3"))
    assert not delivery.is_aside(Message("bridge/event", b"4"), 0.0)


def test_what_is_too_long_is_learnt() -> None:
    """Two longer than all that was taken: as long as the shorter one is too long everywhere."""
    delivery = Delivery()
    delivery.taken(Message("bridge/info", bytes(1_000)))
    for topic, octets in (("bridge/nodes", 50_000), ("bridge/groups", 30_000)):
        lose_twice(delivery, Message(topic, bytes(octets), retain=True))
    assert delivery.is_aside(Message("bridge/response/nodes/get", bytes(40_000)), 0.0)
    assert not delivery.is_aside(Message("bridge/response/nodes/get", bytes(20_000)), 0.0)


def test_shorter_packets_are_tried_until_the_broker_takes_them() -> None:
    """Each that is too long halves what is tried, alone; the topic is not to blame for it."""
    delivery = Delivery()
    delivery.taken(Message("bridge/info", bytes(500)))
    tried = []
    octets: int | None = 100_000
    while octets is not None and octets > 1_000:  # what this broker takes
        message = Message("bridge/nodes", bytes(octets), retain=True)
        assert not delivery.is_aside(message, 0.0)
        lose_twice(delivery, message)
        octets = delivery.safe_packet_octets
        tried.append(octets)
    assert tried == [8_192, 4_102, 2_057, 1_034, 523]
    short = Message("bridge/nodes", bytes(511), retain=True)
    assert delivery.is_suspect(short)
    assert not delivery.is_aside(short, 0.0)
    delivery.taken(short)
    assert delivery.safe_packet_octets == 523


def test_a_length_that_was_taken_is_not_too_long() -> None:
    """What is taken later corrects what was learnt."""
    delivery = Delivery()
    for topic in ("a", "b"):
        lose_twice(delivery, Message(topic, bytes(1_000)))
    assert delivery.is_aside(Message("c", bytes(2_000)), 0.0)
    delivery.taken(Message("d", bytes(5_000)))
    assert not delivery.is_aside(Message("c", bytes(2_000)), 0.0)


@pytest.mark.parametrize("how", ["lasted", "an hour"])
def test_everything_is_tried_again(how: str) -> None:
    """A broker that was mended gets another chance."""
    delivery = a_delivery()
    for payload in (b"1", b"2"):
        lose_twice(delivery, Message("t", payload), now=10.0)
    assert delivery.is_aside(Message("t", b"1"), 10.0 + FORGIVEN_AFTER_S - 1)
    if how == "lasted":
        delivery.forgive()
        now = 11.0
    else:
        now = 10.0 + FORGIVEN_AFTER_S
    assert not delivery.is_aside(Message("t", b"1"), now)
    assert not delivery.is_suspect(Message("t", b"3"))


def test_suspects_are_bounded() -> None:
    """Those of long ago are forgotten."""
    delivery = a_delivery()
    many = [Message("t", str(number).encode()) for number in range(MAX_SUSPECTS + ENOUGH)]
    delivery.link_ended(many, 1, 0.0)
    assert [delivery.is_suspect(many[0]), delivery.is_suspect(many[-1])] == [False, True]
