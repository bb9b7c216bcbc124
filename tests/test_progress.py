"""The progress bar, and when there is none."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

from fastprovd.console import JsonLines, PlainLines
from fastprovd.progress import ProgressBar, reporting
from fastprovd.records import Node, Run, RunState

RUN = Run("r-1", RunState.PROVISIONING, datetime(2026, 11, 22, tzinfo=UTC), expected=4)


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def test_only_a_terminal_gets_a_bar() -> None:
    """JSON where it was asked for, lines into a pipe, bars on a terminal."""
    for stream, as_json, kind in (
        (Terminal(), True, JsonLines),
        (io.StringIO(), False, PlainLines),
        (Terminal(), False, ProgressBar),
    ):
        with reporting(stream, as_json=as_json) as reporter:
            assert type(reporter) is kind


def test_the_bars_count() -> None:
    """Provisioned, known and proven are told apart, the phase is in words, the end stays."""
    stream = Terminal()
    provisioned = [1]
    with reporting(stream, provisioned=lambda: provisioned[0]) as reporter:
        reporter.run_changed(replace(RUN, known=2, proven=3, elapsed_s=12.0))
        provisioned[0] = 4
        reporter.tick()
        reporter.event("warning", {"reason": "something is odd"}, "r-1")
        reporter.finished(replace(RUN, state=RunState.DONE), [Node(2, "r-1", proven=True)])
    text = stream.getvalue()
    for shown in ("boards provisioned", "4/4", "2/4", "3/4", PHASE, "something is odd", "0x0002"):
        assert shown in text


def test_what_nobody_knows_has_no_bar() -> None:
    """With real boards nobody counts those that are provisioned and not yet known."""
    stream = Terminal()
    with reporting(stream) as reporter:
        reporter.run_changed(RUN)
        reporter.tick()
    assert "boards provisioned" not in stream.getvalue()
    assert "addresses known" in stream.getvalue()


PHASE = "12.0 s  boards provision each other"
