"""Callbacks that end nothing but themselves."""

from __future__ import annotations

import inspect

from structlog.testing import capture_logs

from fastprovd.edges import guarded


def test_whatever_is_raised_stays_inside() -> None:
    """The first exception is told with its traceback, the others are counted."""
    raised = iter([KeyError("a"), OSError(5, "b"), RuntimeError("c")])

    def fail(number: int) -> None:
        raise next(raised)

    callback = guarded(fail)
    with capture_logs() as logs:
        for number in range(3):
            callback(number)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("callback_failed", "error"),
        ("callback_failed", "debug"),
        ("callback_failed", "debug"),
    ]
    assert logs[0]["exc_info"]
    assert logs[-1]["failures"] == 3


def test_what_works_is_called_as_it_is() -> None:
    """Libraries look at the parameters of a callback before they take it."""
    heard: list[int] = []
    callback = guarded(heard.append)
    callback(1)
    assert heard == [1]

    def take(message: str) -> None: ...

    assert inspect.signature(guarded(take)) == inspect.signature(take)
