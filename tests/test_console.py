"""What people and programs read about a run."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastprovd.console import (
    PHASES,
    ROLES,
    JsonLines,
    PlainLines,
    node_lines,
    progress_text,
    summary_lines,
    tree_lines,
)
from fastprovd.records import (
    MissingBoard,
    Node,
    NodeRole,
    ParentSource,
    Run,
    RunState,
    Stranger,
    Window,
)

RUN = Run("r-1", RunState.SCANNING, datetime(2026, 11, 22, tzinfo=UTC), expected=4)
PRIMARY = Node(
    2,
    "r-1",
    NodeRole.PRIMARY_PROVISIONER,
    proven=True,
    device_address="24:0A:C4:5E:00:01",
    provisioned_by=1,
    onoff=False,
)
TEMPORARY = Node(
    3,
    "r-1",
    NodeRole.TEMPORARY_PROVISIONER,
    proven=True,
    provisioned_by=2,
    parent_source=ParentSource.INFERRED,
    onoff=True,
)
CHILD = Node(9, "r-1", provisioned_by=3, parent_source=ParentSource.OBSERVED)
ORPHAN = Node(0x20, "r-1", proven=True)
NODES = [PRIMARY, TEMPORARY, CHILD, ORPHAN]
END = replace(
    RUN,
    state=RunState.PARTIAL,
    heard=4,
    known=4,
    proven=3,
    elapsed_s=30.0,
    t_provisioned_s=12.25,
    t_known_s=14.0,
    reason="1 of 4 boards can not be proven: 0x0009",
    missing=(MissingBoard("it answers nothing", 9, device_address="24:0A:C4:5E:00:04"),),
)


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_run_without_a_primary_has_words_of_its_own() -> None:
    """Nobody provisions each other, and there was no INFO_SET."""
    run = replace(END, state=RunState.PROVISIONING, primary=None)
    assert progress_text(run).startswith("provisioning the boards: ")
    assert progress_text(replace(run, primary=2)).startswith("boards provision each other: ")
    assert any("(first connection)" in line for line in summary_lines(run, NODES))
    assert any("(INFO_SET)" in line for line in summary_lines(replace(run, primary=2), NODES))


def test_every_state_and_role_has_words() -> None:
    """No state and no role is shown by its identifier."""
    assert set(PHASES) == set(RunState)
    assert set(ROLES) == set(NodeRole)


def test_the_summary_tells_of_the_window_and_of_strangers() -> None:
    """Whether boards still join and how that is known; who is not ours, and what became of it."""
    end = replace(
        END,
        window=Window.UNKNOWN,
        window_evidence="nobody confirmed it",
        strangers=(
            Stranger("it is free", device_address="24:0A:C4:5E:00:09"),
            Stranger("one more"),
        ),
    )
    lines = list(summary_lines(end, NODES))
    assert "The join window is perhaps open: nobody confirmed it." in lines
    assert not any(line.startswith("  join window closed") for line in lines)
    assert "  24:0A:C4:5E:00:09: it is free" in lines
    assert "  a board: one more" in lines
    closed = replace(end, window=Window.CLOSED, t_closed_s=42.0)
    assert "  join window closed        42.0 s" in list(summary_lines(closed, NODES))


def test_json_lines_tell_changes_once() -> None:
    """A run is told again only when its state or a count changed."""
    stream = io.StringIO()
    lines = JsonLines(stream)
    for run in (RUN, replace(RUN, elapsed_s=2.0), replace(RUN, known=1), replace(RUN, known=1)):
        lines.run_changed(run)
    assert [(o["event"], o["provisioned"]) for o in objects(stream)] == [
        ("run_changed", 0),
        ("run_changed", 1),
    ]


def test_json_lines_tell_events_as_they_are() -> None:
    """An event has its kind, its run and its data; the end is left to `finished`."""
    stream = io.StringIO()
    lines = JsonLines(stream)
    lines.event("node_added", {"addr": "0x0003"}, "r-1")
    lines.event("run_finished", {"state": "done"}, "r-1")
    assert objects(stream) == [{"event": "node_added", "run_id": "r-1", "addr": "0x0003"}]


def test_the_last_json_line() -> None:
    """The end has everything a program needs, and what its caller adds."""
    stream = io.StringIO()
    JsonLines(stream).finished(END, NODES, wall_s=1.5)
    (end,) = objects(stream)
    assert end == {
        "event": "run_finished",
        "run_id": "r-1",
        "state": "partial",
        "expected": 4,
        "addresses": ["0x0002", "0x0003", "0x0009", "0x0020"],
        "proven": 3,
        "elapsed_s": 30.0,
        "t_provisioned_s": 12.25,
        "t_known_s": 14.0,
        "t_proven_s": None,
        "t_closed_s": None,
        "window": None,
        "strangers": [],
        "missing": [
            {
                "addr": "0x0009",
                "uuid": None,
                "device_address": "24:0A:C4:5E:00:04",
                "reason": "it answers nothing",
            }
        ],
        "reason": "1 of 4 boards can not be proven: 0x0009",
        "wall_s": 1.5,
    }


def test_expected_is_what_had_to_be_proven() -> None:
    """More boards heard than announced had to be proven as well."""
    stream = io.StringIO()
    JsonLines(stream).finished(replace(END, expected=2, heard=5), NODES)
    assert objects(stream)[0]["expected"] == 5


def test_plain_lines() -> None:
    """A change of phase is told at once, counting now and then, nothing twice."""
    stream = io.StringIO()
    lines = PlainLines(stream)
    collecting = replace(RUN, state=RunState.COLLECTING, heard=4, elapsed_s=20.0)
    for run in (
        RUN,
        collecting,
        replace(collecting, known=1, elapsed_s=21.0),
        replace(collecting, known=2, elapsed_s=24.0),
        replace(collecting, known=2, elapsed_s=29.0),
    ):
        lines.run_changed(run)
    lines.event("warning", {"reason": "the board was not found"}, "r-1")
    lines.event("device_found", {}, "r-1")
    lines.tick()
    assert stream.getvalue().splitlines() == [
        "   0.0 s  listening for boards",
        "  20.0 s  collecting addresses",
        "  24.0 s  collecting addresses: 2 of 4 addresses known, 0 proven",
        "          warning: the board was not found",
    ]


def test_an_end_counts_nothing() -> None:
    """The line of an end is the phase alone."""
    assert progress_text(END) == "partial: some boards are missing"


def test_the_tree() -> None:
    """Who provisioned whom is indented; seen and inferred differ; unknown is said."""
    assert list(tree_lines(NODES)) == [
        "0x0001 fastprovd",
        "   - 0x0002 Primary Provisioner",
        "      ~ 0x0003 Temporary Provisioner",
        "         - 0x0009 node, answers nothing",
        "(provisioner not known)",
        "   - 0x0020 node",
    ]


def test_the_table() -> None:
    """Every node has a row, with question marks for what is not known."""
    head, *rows = node_lines(NODES)
    assert [row.split()[0] for row in rows] == ["0x0002", "0x0003", "0x0009", "0x0020"]
    assert rows[0].split()[3:] == ["0x0001", "proven", "off", "24:0A:C4:5E:00:01"]
    assert rows[3].split()[1:] == ["node", "?", "proven", "?", "?"]
    assert rows[0].index("24:0A") == head.index("device")
    assert rows[0].index("0x0001") == head.index("provisioned by")


def test_the_summary() -> None:
    """It has the reason, the clocks, and each missing board with its own reason."""
    stream = io.StringIO()
    PlainLines(stream).finished(END, NODES)
    text = stream.getvalue()
    assert "partial: 1 of 4 boards can not be proven: 0x0009" in text
    assert "3 of 4 boards answered under the AppKey, 4 addresses." in text
    assert "last board provisioned    12.2 s" in text
    assert "last board proven            ?\n" in text
    assert "  0x0009 24:0A:C4:5E:00:04: it answers nothing" in text


def test_a_run_without_nodes() -> None:
    """A failed run is its reason, and a board that nobody can name is still a board."""
    failed = replace(RUN, state=RunState.FAILED, reason="no adapter")
    assert list(summary_lines(failed, [])) == ["", "failed: no adapter"]
    lost = replace(failed, missing=(MissingBoard("it is off"),))
    assert list(summary_lines(lost, []))[-1] == "  a board: it is off"
