"""What is told gets into the outbox, in order, and costs a bounded memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.clock import SystemClock
from fastprovd.errors import StoreError
from fastprovd.publish import news
from fastprovd.publish.messages import Message, Topics
from fastprovd.publish.news import MAX_IN_MEMORY, News
from fastprovd.publish.outbox import Outbox
from tests.support.mqtt import a_node, a_run, eventually

TOPICS = Topics("fastprovd/gw1")


class FullOutbox(Outbox):
    """An outbox that refuses while `is_full`."""

    is_full = False
    refused = 0

    def put_all(self, *arguments: Any) -> None:
        """Refuse, or not."""
        if self.is_full:
            self.refused += 1
            raise StoreError("database or disk is full")
        super().put_all(*arguments)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[FullOutbox]:
    """An empty outbox."""
    box = FullOutbox(tmp_path / "outbox.db")
    yield box
    box.close()


def some_news(outbox: Outbox) -> News:
    """Return news of which nobody has told anything."""
    return News(TOPICS, outbox, SystemClock())


def waiting(outbox: Outbox) -> list[Message]:
    """Return what waits in the outbox."""
    return [entry.message for entry in outbox.peek(10_000)]


def seqs(outbox: Outbox) -> list[int]:
    """Return the numbers of the events that wait."""
    events = [m.payload for m in waiting(outbox) if m.topic == TOPICS.event]
    return [json.loads(payload)["seq"] for payload in events]


async def test_the_newest_of_a_topic_and_every_event_are_written(outbox: FullOutbox) -> None:
    """A retained topic waits once, behind the events that were told before its newest value."""
    told = some_news(outbox)
    for known in (1, 2):
        told.run_changed(a_run(known=known))
        told.event("warning", {}, None)
    told.run_changed(a_run(known=3))
    await told.write()
    assert [m.topic for m in waiting(outbox)] == [TOPICS.event, TOPICS.event, TOPICS.run]
    assert json.loads(waiting(outbox)[-1].payload)["provisioned"] == 3
    assert told.to_send.is_set()


async def test_the_values_of_the_gateway_come_before_those_of_nodes(outbox: FullOutbox) -> None:
    """What nobody has told is told as nothing; a node that was cleared is in it no more."""
    told = some_news(outbox)
    told.nodes_changed([a_node(5), a_node(6)], a_run())
    told.nodes_changed([a_node(5)], a_run())
    told.begin()
    info = Message(TOPICS.info, b"{}", retain=True)
    told.tell(lambda: [info])
    topics = [message.topic for message in told.in_order()]
    first = [TOPICS.info, TOPICS.nodes, TOPICS.groups, TOPICS.run]
    assert topics == [*first, TOPICS.node(5)]


async def test_numbers_go_on(outbox: FullOutbox) -> None:
    """Whoever reads events finds no number twice, over any number of restarts."""
    for _ in range(2):
        told = some_news(outbox)
        told.event("warning", {}, None)
        await told.write()
    assert seqs(outbox) == [1, 2]


async def test_nothing_that_is_told_raises(outbox: FullOutbox) -> None:
    """An event that is not JSON is logged and not published; its number is not lost."""
    told = some_news(outbox)
    with capture_logs() as logs:
        told.event("key_leak", {"key": bytes(16)}, None)
    told.event("warning", {}, None)
    await told.write()
    assert seqs(outbox) == [1]
    assert [entry["event"] for entry in logs] == ["publication_not_rendered"]


async def test_a_disk_that_is_full_for_a_while_loses_nothing(
    outbox: FullOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the outbox can not be written messages stay in memory, with one error in the log."""
    monkeypatch.setattr(news, "WRITE_RETRY_S", 0.01)
    told = some_news(outbox)
    outbox.is_full = True
    with capture_logs() as logs:
        writing = asyncio.create_task(told.write_forever())
        for _ in range(5):
            told.event("warning", {}, None)
        await eventually(lambda: outbox.refused >= 3)
        told.event("warning", {}, None)
        outbox.is_full = False
        await eventually(lambda: seqs(outbox) == [1, 2, 3, 4, 5, 6])
        writing.cancel()
        await asyncio.wait([writing])
    levels = [entry["log_level"] for entry in logs]
    assert levels[0] == "error"
    assert set(levels[1:]) == {"debug"}


async def test_a_large_network_costs_no_event(outbox: FullOutbox) -> None:
    """Retained topics are as many as there are nodes; they take no room from what happened."""
    told = some_news(outbox)
    told.event("run_finished", {}, None)
    told.nodes_changed([a_node(n) for n in range(1, MAX_IN_MEMORY + 2)], a_run())
    told.event("warning", {}, None)
    await told.write()
    assert seqs(outbox) == [1, 2]
    assert told.take_lost() == 0


async def test_memory_is_bounded(outbox: FullOutbox) -> None:
    """Too much told before anything can be written drops the oldest events, and counts them."""
    told = some_news(outbox)
    told.run_changed(a_run(known=4))
    for _ in range(MAX_IN_MEMORY + 500):
        told.event("warning", {}, None)
    await told.write()
    lost = told.take_lost()
    assert lost >= 500
    assert seqs(outbox) == list(range(lost + 1, MAX_IN_MEMORY + 501))
    assert TOPICS.run in [message.topic for message in waiting(outbox)]
    assert told.take_lost() == 0


def test_a_list_that_says_the_same_is_not_told_again(outbox: FullOutbox) -> None:
    """Its revision grows with what it says; whose nodes alone have changed are told one by one."""
    news = News(TOPICS, outbox, SystemClock())
    news.nodes_changed([a_node(2), a_node(3)], a_run())
    first = news.retained[TOPICS.nodes]
    news.nodes_changed([a_node(3), a_node(2)], a_run())
    assert news.retained[TOPICS.nodes] is first
    news.nodes_changed([a_node(2)], a_run())
    second = news.retained[TOPICS.nodes]
    assert [json.loads(told.payload)["revision"] for told in (first, second)] == [1, 2]
    assert TOPICS.node(3) not in news.retained
