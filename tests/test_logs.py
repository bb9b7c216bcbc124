"""Log lines: format, level, and nothing secret in them."""

from __future__ import annotations

import io
import json
import logging
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from fastprovd import logs
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from fastprovd.records import Switched

SECRET = bytes(range(0x40, 0x50))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("restored_logging")


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_has_event_level_time_and_logger() -> None:
    """A line is one JSON object with the event's name and its values as keys."""
    stream = io.StringIO()
    logs.configure(stream=stream)
    log = structlog.get_logger("fastprovd.campaign.run")
    log.info("provisioning_completed", unicast_address="0x0102", elapsed_s=3.1)
    (line,) = lines_of(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {
        "event": "provisioning_completed",
        "level": "info",
        "logger": "fastprovd.campaign.run",
        "unicast_address": "0x0102",
        "elapsed_s": 3.1,
    }


@pytest.mark.parametrize(
    ("stream", "chosen", "is_json"),
    [
        (io.StringIO(), "auto", True),
        (Terminal(), "auto", False),
        (Terminal(), "json", True),
        (io.StringIO(), "console", False),
    ],
)
def test_format(stream: io.StringIO, chosen: Any, is_json: bool) -> None:
    """Automatic means console on a terminal and JSON elsewhere; a choice is a choice."""
    logs.configure(format=chosen, stream=stream)
    structlog.get_logger("fastprovd.x").info("something_happened", n=1)
    assert stream.getvalue().startswith("{") is is_json
    assert "something_happened" in stream.getvalue()


def test_console_has_no_colours_in_a_file() -> None:
    """Escape sequences go to terminals only."""
    stream, terminal = io.StringIO(), Terminal()
    for target in (stream, terminal):
        logs.configure(format="console", stream=target)
        structlog.get_logger("fastprovd.x").info("something_happened")
    assert "\x1b[" not in stream.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_levels() -> None:
    """Our debug level is ours alone: libraries stay at INFO, and above when we are above."""
    stream = io.StringIO()
    logs.configure("debug", stream=stream)
    structlog.get_logger("fastprovd.x").debug("ours")
    for library in ("bleak", "dbus_fast.aio", "paho"):
        logging.getLogger(library).debug("library_debug")
        logging.getLogger(library).info("library %s", "info")
    assert [line["event"] for line in lines_of(stream)] == ["ours", *["library info"] * 3]

    stream = io.StringIO()
    logs.configure("error", stream=stream)
    structlog.get_logger("fastprovd.x").warning("ours")
    logging.getLogger("bleak").warning("library")
    assert stream.getvalue() == ""


def test_library_lines_have_the_same_shape() -> None:
    """What a library logs through `logging` is a line like ours."""
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("bleak.backends").warning("no %s", "adapter")
    (line,) = lines_of(stream)
    assert (line["event"], line["level"]) == ("no adapter", "warning")
    assert line["logger"] == "bleak.backends"


def test_configured_again_replaces() -> None:
    """A second set-up takes the place of the first; no line comes twice."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure(stream=first)
    logs.configure(stream=second)
    structlog.get_logger("fastprovd.x").info("once")
    assert (first.getvalue(), len(lines_of(second))) == ("", 1)


def test_bound_context_is_in_each_line() -> None:
    """What is bound by contextvars, such as the run, is in the lines of every module."""
    stream = io.StringIO()
    logs.configure(stream=stream)
    with structlog.contextvars.bound_contextvars(run_id="r-1"):
        structlog.get_logger("fastprovd.x").info("a")
    structlog.get_logger("fastprovd.x").info("b")
    assert [line.get("run_id") for line in lines_of(stream)] == ["r-1", None]


@dataclass
class Confirmation:
    """A record with a secret in it."""

    confirmation: str
    count: int
    payload: bytes


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("payload", SECRET, "<16 bytes>"),
        ("payload", bytearray(3), "<3 bytes>"),
        ("payload", memoryview(SECRET), "<16 bytes>"),
        ("what", NetKey(SECRET), "<hidden>"),
        ("what", AppKey(SECRET), "<hidden>"),
        ("what", DevKey(SECRET), "<hidden>"),
        ("net_key", SECRET.hex(), "<hidden>"),
        ("AppKey", SECRET.hex(), "<hidden>"),
        ("session_key", SECRET, "<16 bytes>"),
        ("keys", [SECRET.hex()], "<hidden>"),
        ("password", "hunter2", "<hidden>"),
        ("mqtt_password", "hunter2", "<hidden>"),
        ("random", SECRET.hex(), "<hidden>"),
        ("confirmation", SECRET.hex(), "<hidden>"),
        ("ecdh_secret", 5, "<hidden>"),
        ("auth_value", "00", "<hidden>"),
        ("AuthValue", "00", "<hidden>"),
        ("authvalue", "00", "<hidden>"),
        ("devkey", SECRET.hex(), "<hidden>"),
        ("NET_KEY", SECRET.hex(), "<hidden>"),
        ("sessionKey2", SECRET.hex(), "<hidden>"),
        ("key_hex", SECRET.hex(), "<hidden>"),
        ("provisioner_random", SECRET.hex(), "<hidden>"),
        ("randoms", [SECRET.hex()], "<hidden>"),
        ("device_confirmation", SECRET.hex(), "<hidden>"),
        ("access_token", "abc", "<hidden>"),
        ("secret", {"a": "b"}, "<hidden>"),
        ("password", None, None),
        ("net_key_index", 3, 3),
        ("app_key_index", 0, 0),
        ("key_index", 1, 1),
        ("app_key_indexes", [1, 2], [1, 2]),
        ("KeyIndex", 1, 1),
        ("unconfirmed", 3, 3),
        ("unconfirmed", (2, 5), [2, 5]),
        ("confirmed", [2, 5], [2, 5]),
        ("confirm", True, True),
        ("confirm_s", 20.0, 20.0),
        ("keyless", 2, 2),
        ("keys_left", 4, 4),
        ("key_refresh", False, False),
        ("password_file", "/run/password", "/run/password"),
        ("monkeys", 1, 1),
        ("randomised", True, True),
        ("", "nameless", "nameless"),
        ("count", 7, 7),
        ("event", "node_added", "node_added"),
        (
            "deep",
            {"a": [{"net_key": "x", "b": SECRET}]},
            {"a": [{"net_key": "<hidden>", "b": "<16 bytes>"}]},
        ),
        (
            "told",
            {"unconfirmed": [2], "nodes": [{"confirmed": 3, "password": "hunter2"}]},
            {"unconfirmed": [2], "nodes": [{"confirmed": 3, "password": "<hidden>"}]},
        ),
        ("told", [{"tokens": ["x"]}, {"keyless": [4]}], [{"tokens": "<hidden>"}, {"keyless": [4]}]),
        ("pair", (SECRET, 1), ["<16 bytes>", 1]),
        (
            "record",
            Confirmation("aa", 2, SECRET),
            {"confirmation": "<hidden>", "count": 2, "payload": "<16 bytes>"},
        ),
        (
            "record",
            Switched(0xFFFF, True, (2,), (3,)),
            {"address": 0xFFFF, "onoff": True, "confirmed": [2], "unconfirmed": [3]},
        ),
    ],
)
def test_redaction(name: str, value: Any, shown: Any) -> None:
    """Octets, key objects and values with a secret's name are replaced at any depth.

    A name that only contains letters of such a name, or tells about the secret, is shown.
    """
    assert logs.redact(None, "info", {name: value}) == {name: shown}


VALUES = st.recursive(
    st.sampled_from([SECRET, bytearray(SECRET), NetKey(SECRET), DevKey(SECRET), 5, "text", None]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner) | st.tuples(inner),
    max_leaves=8,
)


@given(VALUES)
def test_no_octets_at_any_depth(value: Any) -> None:
    """However deep the secret lies, no spelling of it is in the line."""
    line = json.dumps(logs.redact(None, "info", {"value": value}), default=str)
    for spelling in (SECRET.hex(), SECRET.decode(), repr(list(SECRET))):
        assert spelling not in line


@pytest.mark.parametrize("chosen", ["json", "console"])
def test_traceback_shows_no_local_variables(chosen: Any) -> None:
    """A logged exception has its traceback, but not the octets its frames held."""
    stream = Terminal()
    logs.configure(format=chosen, stream=stream)

    def fail(held: bytes, text: str) -> None:
        raise RuntimeError("went wrong")

    try:
        fail(SECRET, SECRET.hex())
    except RuntimeError:
        structlog.get_logger("fastprovd.x").exception("step_failed")
    shown = stream.getvalue()
    assert "went wrong" in shown
    assert "test_logs.py" in shown
    assert SECRET.hex() not in shown
    assert SECRET.decode() not in shown


def test_missing_lines_of_the_log_are_told_in_its_format() -> None:
    """Whoever reads JSON reads on."""
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        logs.configure(format="json", stream=stream)
        handler = logging.getLogger().handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        line = json.loads(handler.stream.notice(3))
        assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
        assert line == {"event": "log_lines_missing", "level": "warning", "lines": 3}
    os.close(reader)
