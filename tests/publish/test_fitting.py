"""A message is as long as a packet may be, and says so when it is not whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from fastprovd.publish.client import correlation
from fastprovd.publish.fitting import fitted, packet_overhead
from fastprovd.publish.limits import packet_octets
from fastprovd.publish.messages import Message, Topics, nodes_message
from tests.support.mqtt import a_node, a_run

NOW = datetime(2026, 11, 22, 7, 20, 5, tzinfo=UTC)
TOPICS = Topics("fastprovd/gw1")


@pytest.mark.parametrize("limit", [20_000, 5_000, 300])
def test_a_list_that_does_not_fit_says_so(limit: int) -> None:
    """The count stays, then the addresses, and the packet is not longer than allowed."""
    nodes = [a_node(address) for address in range(2, 302)]
    whole = nodes_message(TOPICS, nodes, a_run(), 3, NOW)
    short = fitted(whole, limit)
    assert (short.topic, short.retain) == (whole.topic, True)
    assert len(short.payload) + packet_overhead(short.topic) <= limit
    payload = json.loads(short.payload)
    assert (payload["count"], payload["nodes"], payload["shortened"]) == (300, None, True)
    assert payload["addresses"] == (
        None if limit == 300 else json.loads(whole.payload)["addresses"]
    )


def test_a_message_that_fits_is_as_it_was() -> None:
    """Without a limit, below it, and where nothing can be left out."""
    message = nodes_message(TOPICS, [a_node(2)], a_run(), 3, NOW)
    for same in (message, Message("a", b"", retain=True)):
        assert fitted(same, None) is same
        assert fitted(same, 20_000) is same
    text = Message("a", json.dumps({"a": "x" * 999}).encode())
    assert fitted(text, 500) is text


@pytest.mark.parametrize("payload", [b"", b"x" * 127, b"x" * 20_000, b"x" * 3_000_000])
@pytest.mark.parametrize("data", [None, b"", b"x" * 99, b"x" * 60_000])
def test_the_overhead_is_enough(payload: bytes, data: bytes | None) -> None:
    """Never less than what a packet has beside its payload, and a few octets more at most."""
    properties = correlation(data)
    beside = packet_octets(Message("a/b", payload), properties) - len(payload)
    assert beside <= packet_overhead("a/b", properties) <= beside + 3
