"""A reply goes to topics of those who ask, and to no other."""

from __future__ import annotations

import pytest

from fastprovd.publish.reply_topics import (
    MAX_REPLY_TOPIC_LEVELS,
    MAX_REPLY_TOPIC_OCTETS,
    is_reply_topic,
)


@pytest.mark.parametrize(
    "topic",
    [
        "me/answers",
        "/",
        "a//b",
        "with space",
        "\U0001f600",
        "fastprovd2/hall/bridge/state",
        "Fastprovd/hall",
        "homeassistants/x",
        "me/$SYS/x",
        "x" * MAX_REPLY_TOPIC_OCTETS,
        "/" * (MAX_REPLY_TOPIC_LEVELS - 1),
    ],
)
def test_a_topic_of_who_asks(topic: str) -> None:
    """Any topic that can be published to and is nobody's in particular."""
    assert is_reply_topic(topic, "fastprovd")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "#",
        "a/+/b",
        "a/b+",
        "$SYS/broker/x",
        "$share/group/x",
        "$",
        "a\x00b",
        "a\x01b",
        "a\x7fb",
        "a\x9fb",
        "a\ud800b",
        "a\ufdd0b",
        "a\ufffeb",
        "a\U0001ffffb",
        "x" * (MAX_REPLY_TOPIC_OCTETS + 1),
        "ü" * (MAX_REPLY_TOPIC_OCTETS // 2 + 1),
        "x" * 65_535,
        "/" * MAX_REPLY_TOPIC_LEVELS,
        "fastprovd",
        "fastprovd/",
        "fastprovd/hall/bridge/state",
        "fastprovd/hall/node/0x0002",
        "fastprovd/hall/bridge/request/run/stop",
        "fastprovd/other/bridge/request/run/start",
        "homeassistant",
        "homeassistant/light/hall/config",
    ],
)
def test_a_topic_that_is_not_answered_on(topic: str) -> None:
    """What the broker hangs up on, and what would pass for the word of somebody else."""
    assert not is_reply_topic(topic, "fastprovd")


def test_a_base_topic_of_several_levels() -> None:
    """Everything below the whole of it is the gateways' own, and nothing beside it."""
    assert not is_reply_topic("house/light/hall/bridge/state", "house/light")
    assert is_reply_topic("house/me", "house/light")
