"""One order for all that is seen, whoever sees it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from hwbench.timeline import BenchTimeout, Entry, Timeline

PATIENCE_S = 10.0  # far beyond what a loaded machine needs


def test_threads_are_merged_in_the_order_of_time(tmp_path: Path) -> None:
    """Every line is in the file, stamped, in the order of the stamps."""
    path = tmp_path / "timeline.jsonl"
    timeline = Timeline(path)

    def write(source: str) -> None:
        for number in range(200):
            timeline.add(source, number)

    threads = [threading.Thread(target=write, args=(f"n{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timeline.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 800
    stamps = [line["t_s"] for line in lines]
    assert stamps == sorted(stamps)
    for source in ("n0", "n3"):
        assert [line["said"] for line in lines if line["from"] == source] == list(range(200))


def test_the_shape_of_a_line() -> None:
    """MQTT has its topic, consoles have none."""
    assert json.loads(Entry(1.23456, "n01", "boot").to_json()) == {
        "t_s": 1.2346,
        "from": "n01",
        "said": "boot",
    }
    message = Entry(1.0, "mqtt", {"state": "done"}, "bridge/run")
    assert json.loads(message.to_json())["topic"] == "bridge/run"


def test_waiting_ends_with_what_is_found(tmp_path: Path) -> None:
    """Hearers have an entry before who waits for it looks."""
    timeline = Timeline(tmp_path / "timeline.jsonl")
    heard: list[object] = []
    timeline.on_entry(lambda entry: heard.append(entry.said))
    later = threading.Timer(0.05, lambda: timeline.add("n01", "ready"))
    later.start()
    assert timeline.wait("readiness", PATIENCE_S, lambda: heard or None) == ["ready"]
    later.join()
    timeline.close()


def test_waiting_in_vain_says_for_what(tmp_path: Path) -> None:
    """A scenario that fails like this names what did not come."""
    timeline = Timeline(tmp_path / "timeline.jsonl")
    with pytest.raises(BenchTimeout, match="expected 3 boards to boot within"):
        timeline.wait("3 boards to boot", 0.01, lambda: False)
    timeline.close()


def test_entries_since(tmp_path: Path) -> None:
    """What was before does not count."""
    timeline = Timeline(tmp_path / "timeline.jsonl")
    timeline.add("n01", "before")
    begun = timeline.add("bench", "now")
    timeline.add("n01", "after")
    assert [entry.said for entry in timeline.since(begun.time_s)] == ["now", "after"]
    timeline.close()
