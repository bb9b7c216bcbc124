"""Mappings from outside become dataclasses, or every mistake in them is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.checking import Problem, check_mapping, format_value, setting


@dataclass(frozen=True, slots=True)
class Inner:
    """A nested table."""

    on: bool = False


@dataclass(frozen=True, slots=True)
class Outer:
    """One field of each kind."""

    needed: int = setting(low=1, high=9)
    address: int = setting(0xC000, low=0xC000, high=0xFEFF, hexadecimal=True)
    seconds: float = setting(1.5, low=0.5)
    name: str = setting("a", pattern="[a-z]+", expected="small letters")
    file: Path | None = None
    match: bytes = setting(b"\xdd", low=1, high=2)
    kind: Literal["x", "y"] = "x"
    limit: int | None = setting(None, high=5)
    names: tuple[str, ...] = setting((), pattern="[a-z]+", expected="small letters")
    inner: Inner = field(default_factory=Inner)
    many: tuple[int, ...] = setting((), low=1, high=9, hexadecimal=True)
    even: str = setting("", check=lambda text: _even(text))
    hidden: int = field(default=7, metadata={"internal": True})


def _even(text: str) -> None:
    if len(text) % 2:
        raise ValueError("expected an even length")


def problems_of(mapping: dict[str, Any]) -> list[Problem]:
    value, problems = check_mapping(Outer, {"needed": 1, **mapping}, "request")
    assert (value is None) == bool(problems)
    return problems


def test_every_kind_is_read() -> None:
    """Right values arrive in their Python types; an int serves as a number of seconds."""
    value, problems = check_mapping(
        Outer,
        {
            "needed": 9,
            "address": "0xC001",
            "seconds": 2,
            "name": "b",
            "file": "/x",
            "match": "DDee",
            "kind": "y",
            "limit": 5,
            "names": ["c", "d"],
            "inner": {"on": True},
            "many": ["0x0003", 4],
        },
    )
    assert problems == []
    assert value == Outer(
        9,
        0xC001,
        2.0,
        "b",
        Path("/x"),
        b"\xdd\xee",
        "y",
        5,
        ("c", "d"),
        Inner(True),
        (3, 4),
    )
    assert type(value.seconds) is float


def test_defaults_fill_what_is_absent() -> None:
    """Only what has no default is required, and `null` means absent where `None` is allowed."""
    value, problems = check_mapping(Outer, {"needed": 1, "limit": None})
    assert (value, problems) == (Outer(1), [])


@pytest.mark.parametrize(
    ("mapping", "path", "message"),
    [
        ({"needed": "1"}, "needed", "expected int, got str '1'"),
        ({"needed": True}, "needed", "expected int, got bool True"),
        ({"needed": None}, "needed", "expected int, got NoneType None"),
        ({"needed": 0}, "needed", "expected 1..9, got 0"),
        ({"needed": 10}, "needed", "expected 1..9, got 10"),
        ({"address": 0x1234}, "address", "expected 0xc000..0xfeff, got 0x1234"),
        ({"address": "1234"}, "address", "expected int, got str '1234'"),
        ({"seconds": 0.4}, "seconds", "expected 0.5 or more, got 0.4"),
        ({"seconds": float("nan")}, "seconds", "expected a number, got float nan"),
        ({"seconds": 10**400}, "seconds", "expected a number, got int 1000"),
        ({"seconds": "1.5"}, "seconds", "expected a number, got str '1.5'"),
        ({"seconds": []}, "seconds", "expected a number, got list []"),
        ({"seconds": False}, "seconds", "expected a number, got bool False"),
        ({"name": 1}, "name", "expected text, got int 1"),
        ({"name": "A"}, "name", "expected small letters, got str 'A'"),
        ({"name": "a\n"}, "name", "expected small letters, got str 'a\\n'"),
        ({"file": ""}, "file", "expected the path of a file, got str ''"),
        ({"match": "d"}, "match", "expected pairs of hex digits, got str 'd'"),
        ({"match": "dddddd"}, "match", "expected 1..2, got 3 octets"),
        ({"kind": "z"}, "kind", "expected one of 'x', 'y', got str 'z'"),
        ({"kind": ["x"]}, "kind", "expected one of 'x', 'y', got list ['x']"),
        ({"limit": 6}, "limit", "expected 5 or less, got 6"),
        ({"names": "a"}, "names", "expected a list, got str 'a'"),
        ({"names": ["a", "B"]}, "names[1]", "expected small letters, got str 'B'"),
        ({"inner": 1}, "inner", "expected a table, got int 1"),
        ({"inner": {"on": 1}}, "inner.on", "expected true or false, got int 1"),
        ({"inner": {"onn": 1}}, "inner.onn", "unknown key, did you mean 'on'?"),
        ({"many": 3}, "many", "expected a list, got int 3"),
        ({"many": [3, 10]}, "many[1]", "expected 0x0001..0x0009, got 0x000a"),
        ({"hidden": 1}, "hidden", "unknown key, known are "),
        ({"even": "abc"}, "even", "expected an even length, got str 'abc'"),
        ({"even": "a\udcff"}, "even", "expected UTF-8, got str 'a\\udcff'"),
        ({"file": "/\udcff"}, "file", "expected UTF-8, got str '/\\udcff'"),
        ({"even": "x://u:hush@h/"}, "even", "expected an even length, got str '…@h/'"),
    ],
)
def test_each_mistake_is_named(mapping: dict[str, Any], path: str, message: str) -> None:
    """One wrong value gives one problem with its path, what is allowed and what came."""
    (problem,) = problems_of(mapping)
    assert problem.path == f"request.{path}"
    assert problem.message.startswith(message)


def test_all_mistakes_are_named_at_once() -> None:
    """A mapping with four mistakes gives four problems."""
    _, problems = check_mapping(Outer, {"seconds": "x", "inner": {"on": "y"}, "nedeed": 3})
    assert {problem.path for problem in problems} == {"needed", "seconds", "inner.on", "nedeed"}


def test_a_long_wrong_value_is_cut() -> None:
    """A message never carries more than the beginning of what came."""
    (problem,) = problems_of({"needed": "x" * 10_000})
    assert len(problem.message) < 80


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
NAMES = st.sampled_from([*Outer.__dataclass_fields__, "other"])


@given(st.dictionaries(NAMES, JSON))
def test_anything_gives_a_value_or_problems(mapping: dict[str, Any]) -> None:
    """No mapping raises; it is a value without problems, or problems without a value."""
    value, problems = check_mapping(Outer, mapping)
    assert (value is None) == bool(problems)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (5, "5"),
        (1.5, "1.5"),
        (b"\xdd\xdd", '"dddd"'),
        (Path("/a b"), '"/a b"'),
        (("a", "b"), '["a", "b"]'),
        ((), "[]"),
        ('say "hi" \\', '"say \\"hi\\" \\\\"'),
    ],
)
def test_values_are_written_as_toml(value: Any, written: str) -> None:
    """Each kind of value is written as TOML reads it."""
    assert format_value(value) == written
