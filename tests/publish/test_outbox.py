"""The outbox keeps order, loses nothing to a crash, and stays within its bounds."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.errors import StoreError
from fastprovd.publish.messages import Message
from fastprovd.publish.outbox import Outbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the outbox is."""
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    """An empty outbox."""
    box = Outbox(path)
    yield box
    box.close()


def waiting(outbox: Outbox) -> list[tuple[str, bytes]]:
    """Return topic and payload of all that waits, in order."""
    return [(entry.message.topic, entry.message.payload) for entry in outbox.peek(1_000_000)]


def test_messages_come_out_in_the_order_they_went_in(outbox: Outbox) -> None:
    """peek returns the oldest first and leaves them there."""
    for number in range(5):
        outbox.put("event", b"%d" % number)
    assert waiting(outbox) == [("event", b"%d" % number) for number in range(5)]
    assert [entry.message.payload for entry in outbox.peek(2)] == [b"0", b"1"]
    assert len(outbox) == 5


def test_an_entry_gives_back_what_was_put(outbox: Outbox) -> None:
    """Topic, payload octets and the retain flag survive."""
    outbox.put("a/b", b"\x00\xff", retain=True)
    assert outbox.peek(1)[0].message == Message("a/b", b"\x00\xff", retain=True)


def test_deleted_messages_are_gone(outbox: Outbox) -> None:
    """delete forgets exactly the named messages."""
    for number in range(4):
        outbox.put("event", b"%d" % number)
    entries = outbox.peek(4)
    outbox.delete([entries[0].entry_id, entries[2].entry_id])
    assert waiting(outbox) == [("event", b"1"), ("event", b"3")]


def test_a_retained_topic_keeps_only_its_newest_value_at_the_end(outbox: Outbox) -> None:
    """A new retained value replaces the old one and waits behind what came before it."""
    outbox.put("run", b"old", retain=True)
    outbox.put("event", b"1")
    outbox.put("run", b"new", retain=True)
    assert waiting(outbox) == [("event", b"1"), ("run", b"new")]


def test_an_acknowledged_old_value_does_not_delete_its_successor(outbox: Outbox) -> None:
    """A retained value that was replaced while in flight leaves the new one in the queue."""
    outbox.put("run", b"old", retain=True)
    in_flight = outbox.peek(1)
    outbox.put("run", b"new", retain=True)
    outbox.delete([entry.entry_id for entry in in_flight])
    assert waiting(outbox) == [("run", b"new")]


def test_retained_values_that_were_superseded_can_be_discarded(outbox: Outbox) -> None:
    """discard_retained spares other topics, messages not retained, and newer values."""
    outbox.put("info", b"old", retain=True)
    outbox.put("node", b"other", retain=True)
    outbox.put("info", b"not retained")
    newest = outbox.last_id()
    outbox.put("run", b"newer", retain=True)
    outbox.discard_retained(["info", "run"], newest)
    assert [payload for _, payload in waiting(outbox)] == [b"other", b"not retained", b"newer"]


def test_the_oldest_messages_go_when_there_are_too_many(path: Path) -> None:
    """Past the row bound those not retained go first, oldest first, and are counted once."""
    outbox = Outbox(path, max_rows=3)
    outbox.put("run", b"r", retain=True)
    for number in range(5):
        outbox.put("event", b"%d" % number)
    assert waiting(outbox) == [("run", b"r"), ("event", b"3"), ("event", b"4")]
    assert outbox.take_dropped() == 3
    assert outbox.take_dropped() == 0
    outbox.close()


def test_retained_values_go_when_nothing_else_is_left(path: Path) -> None:
    """A queue full of retained values drops its oldest one."""
    outbox = Outbox(path, max_rows=2)
    for number in range(3):
        outbox.put(f"node/{number}", b"x", retain=True)
    assert [topic for topic, _ in waiting(outbox)] == ["node/1", "node/2"]
    outbox.close()


def test_the_oldest_messages_go_when_they_take_too_much_room(path: Path) -> None:
    """Past the octet bound, topics included, the oldest go until it fits."""
    outbox = Outbox(path, max_octets=100)
    for number in range(4):
        outbox.put("four", b"%d" % number * 30)  # 34 octets each
    assert [payload[:1] for _, payload in waiting(outbox)] == [b"2", b"3"]
    assert outbox.take_dropped() == 2
    outbox.close()


def test_counters_survive_and_never_go_back(path: Path) -> None:
    """A counter begins at 0, is there after reopening, and ignores a smaller value."""
    outbox = Outbox(path)
    assert outbox.counter("event_seq") == 0
    outbox.put_all([], {"event_seq": 7})
    outbox.put_all([], {"event_seq": 5})
    outbox.close()
    reopened = Outbox(path)
    assert reopened.counter("event_seq") == 7
    reopened.close()


def test_only_the_owner_can_read_it(outbox: Outbox, path: Path) -> None:
    """All files of the outbox have mode 0600."""
    outbox.put("event", b"1")
    files = list(path.parent.glob("outbox.db*"))
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_readable_file_is_closed_to_others(path: Path) -> None:
    """A file with a generous mode is corrected when it is opened."""
    path.touch(mode=0o644)
    Outbox(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    """Garbage is renamed, said so at error, and a fresh outbox works."""
    path.write_bytes(b"this is no database" * 1000)
    with capture_logs() as logs:
        outbox = Outbox(path)
    outbox.put("event", b"1")
    assert waiting(outbox) == [("event", b"1")]
    outbox.close()
    aside = path.with_name("outbox.db.damaged")
    assert aside.read_bytes().startswith(b"this is no database")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("outbox_damaged", "error")]
    assert logs[0]["set_aside"] == str(aside)


def test_a_file_with_overwritten_pages_is_set_aside(path: Path) -> None:
    """Damage inside the tables is found when the outbox is opened."""
    outbox = Outbox(path)
    outbox.put_all(Message("event", b"x" * 500) for _ in range(200))
    outbox.close()
    octets = bytearray(path.read_bytes())
    octets[8192:40960] = b"\xa5" * (40960 - 8192)
    path.write_bytes(octets)
    with capture_logs() as logs:
        outbox = Outbox(path)
    assert len(outbox) == 0
    outbox.close()
    assert logs[0]["event"] == "outbox_damaged"


def test_a_file_of_another_version_is_set_aside(path: Path) -> None:
    """An outbox written by a newer fastprovd is kept, not used."""
    database = sqlite3.connect(path)
    database.execute("pragma user_version = 99")
    database.close()
    with capture_logs() as logs:
        Outbox(path).close()
    assert "99" in logs[0]["reason"]


def test_a_path_that_can_not_be_opened_is_said(tmp_path: Path) -> None:
    """Without its directory there is a StoreError that names the file."""
    with pytest.raises(StoreError, match=r"none/outbox\.db can not be opened"):
        Outbox(tmp_path / "none" / "outbox.db")


def test_a_failed_write_changes_nothing(outbox: Outbox) -> None:
    """Messages and counters are queued all or not at all."""
    broken = Message("event", None)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        outbox.put_all([Message("event", b"1"), broken], {"event_seq": 3})
    assert len(outbox) == 0
    assert outbox.counter("event_seq") == 0


class Failing:
    """A connection to a disk that refuses commits, or everything, while it is told to."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._before = 0
        self.refuses: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "begin immediate":
            self._before = self._database.total_changes
        is_write = statement == "commit" and self._database.total_changes != self._before
        if (self.refuses == "writes" and is_write) or self.refuses == "all":
            self._database.rollback()
            raise sqlite3.OperationalError("database or disk is full")
        return self._database.execute(statement, *values)


def _failing(outbox: Outbox) -> Any:
    disk = outbox._database = Failing(outbox._database)  # type: ignore[assignment]
    return disk


@pytest.mark.parametrize("refuses", ["writes", "all"])
def test_a_disk_that_takes_nothing_stops_no_message(outbox: Outbox, refuses: str) -> None:
    """What comes waits in memory, in order, a retained topic once, and is said once."""
    disk = _failing(outbox)
    outbox.put_all([Message("event", b"1")], {"event_seq": 1})
    disk.refuses = refuses
    with capture_logs() as logs:
        outbox.put_all([Message("run", b"old", retain=True)], {"event_seq": 2})
        outbox.put_all([Message("event", b"2"), Message("run", b"new", retain=True)])
        shown = [entry.message.payload for entry in outbox.peek(16)]
        assert shown == ([b"1"] if refuses == "writes" else []) + [b"2", b"new"]
        outbox.delete([entry.entry_id for entry in outbox.peek(16)])
        assert outbox.peek(16) == []
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("outbox_failing", "error")]


def test_what_waited_in_memory_is_written_once_there_is_room(path: Path) -> None:
    """With what was deleted meanwhile, and the counters."""
    outbox = Outbox(path)
    disk = _failing(outbox)
    outbox.put("event", b"1")
    disk.refuses = "writes"
    (first,) = outbox.peek(16)
    outbox.delete([first.entry_id])
    outbox.put_all([Message("event", b"2")], {"event_seq": 2})
    assert outbox.counter("event_seq") == 2
    disk.refuses = None
    outbox.put("event", b"3")
    outbox.close()
    again = Outbox(path)
    assert [entry.message.payload for entry in again.peek(16)] == [b"2", b"3"]
    assert again.counter("event_seq") == 2
    again.close()


def test_retained_values_are_discarded_in_memory_too(outbox: Outbox) -> None:
    """Up to the number of the newest, wherever they are."""
    disk = _failing(outbox)
    outbox.put("run", b"1", retain=True)
    disk.refuses = "writes"
    outbox.put("nodes", b"2", retain=True)
    newest = outbox.last_id()
    outbox.put("info", b"3", retain=True)
    outbox.discard_retained(["run", "nodes", "info"], newest)
    assert [entry.message.topic for entry in outbox.peek(16)] == ["info"]


@pytest.mark.parametrize(
    "topic", ["cast(x'ff' as text)", "''", "'a/#'", "'a/+/b'", "'a' || char(0)"]
)
def test_a_topic_that_was_never_put_is_damage(path: Path, topic: str) -> None:
    """The broker would refuse it for ever, or it could not even be read."""
    outbox = Outbox(path)
    outbox.put("event", b"1")
    outbox.close()
    with sqlite3.connect(path) as database:
        database.execute(f"update outbox set topic = {topic}")  # noqa: S608
    database.close()
    with capture_logs() as logs:
        outbox = Outbox(path)
    assert [entry["event"] for entry in logs] == ["outbox_damaged"]
    assert len(outbox) == 0
    outbox.close()


_WRITER = """
import sys
from pathlib import Path
from fastprovd.publish.messages import Message
from fastprovd.publish.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
for number in range(1, 1_000_000):
    run = Message("run", b"%d" % number, retain=True)
    outbox.put_all([Message("event", b"%d" % number), run], {"event_seq": number})
    print(number, flush=True)
"""


def test_nothing_that_was_put_is_lost_to_a_kill(path: Path) -> None:
    """After SIGKILL amid writing every message that put returned for is there, in order."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(200)]
        child.kill()
        told += [int(line) for line in child.stdout if line.endswith("\n")]
    outbox = Outbox(path)
    events = [int(payload) for topic, payload in waiting(outbox) if topic == "event"]
    runs = [int(payload) for topic, payload in waiting(outbox) if topic == "run"]
    assert events[: len(told)] == told
    assert events == list(range(1, len(events) + 1))
    assert runs == [len(events)]
    assert outbox.counter("event_seq") == len(events)
    outbox.close()
