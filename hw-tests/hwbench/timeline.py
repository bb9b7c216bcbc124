"""Everything that was seen, in one order: consoles, MQTT, and what the bench itself did."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

# Some things happen without an entry, such as a program's end.
_LOOK_S: Final = 0.2

BENCH = "bench"
MQTT = "mqtt"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: seconds of the host's monotonic clock, who said it, and what.

    `source` is a board's id, `mqtt` or `bench`; `topic` belongs to `mqtt`, whose `said` is the
    JSON value; every other `said` is text.
    """

    time_s: float
    source: str
    said: Any
    topic: str | None = None

    def to_json(self) -> str:
        """Return the line of timeline.jsonl."""
        shape = {"t_s": round(self.time_s, 4), "from": self.source, "said": self.said}
        if self.topic is not None:
            shape["topic"] = self.topic
        return json.dumps(shape)


class Timeline:
    """Takes entries from every thread, stamps them, writes them down, wakes who waits.

    The stamp is taken under the lock, so the file is in the order of time as it is written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._news = threading.Condition()
        self._entries: list[Entry] = []
        self._hearers: list[Callable[[Entry], None]] = []

    def close(self) -> None:
        """Close the file; nothing may be added any more."""
        self._file.close()

    def on_entry(self, hearer: Callable[[Entry], None]) -> None:
        """Let `hearer` have every entry, in order, before anybody who waits is woken."""
        with self._news:
            self._hearers.append(hearer)

    def add(self, source: str, said: Any, topic: str | None = None) -> Entry:
        """Write an entry down, with the time of now."""
        with self._news:
            entry = Entry(time.monotonic(), source, said, topic)
            self._entries.append(entry)
            self._file.write(entry.to_json() + "\n")
            for hearer in self._hearers:
                hearer(entry)
            self._news.notify_all()
        return entry

    def since(self, time_s: float = 0.0) -> list[Entry]:
        """Return the entries from that time on."""
        with self._news:
            return [entry for entry in self._entries if entry.time_s >= time_s]

    def wait(self, what: str, timeout_s: float, look: Callable[[], T | None]) -> T:
        """Return what `look` finds, as soon as it is neither None nor False.

        Raises:
            BenchTimeout: nothing came; `what` says for what it waited.
        """
        with self._news:
            end = time.monotonic() + timeout_s
            while True:
                found = look()
                if found is not None and found is not False:
                    return found
                rest = end - time.monotonic()
                if rest <= 0:
                    raise BenchTimeout(f"expected {what} within {timeout_s:g} s, nothing came")
                self._news.wait(min(rest, _LOOK_S))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep entries out, to read what hearers have gathered."""
        with self._news:
            yield


class BenchTimeout(AssertionError):
    """What a scenario waited for did not come: the sentence says what and how long."""
