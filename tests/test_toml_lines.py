"""The line of each value, however it is written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.toml_lines import toml_lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = 1", {"a": 1}),
        ("# a = 1\n\na = 1 # b = 2\r\nb = 2\n", {"a": 3, "b": 4}),
        ("[t]\na = 1\n[ t . u ]\n  b=2", {"t": 1, "t.a": 2, "t.u": 3, "t.u.b": 4}),
        ("t.a = 1\nt . 'b' = 2", {"t": 1, "t.a": 1, "t.b": 2}),
        ('"t"."a" = 1', {"t": 1, "t.a": 1}),
        ("a = { b = 1, c = { d = 2 } }\ne = 3", {"a": 1, "a.b": 1, "a.c": 1, "a.c.d": 1, "e": 2}),
        ("a = [\n 1,\n # 9\n 2\n]\nb = 3", {"a": 1, "a[0]": 2, "a[1]": 4, "b": 6}),
        ('a = ["x]", "y"]\nb = 1', {"a": 1, "a[0]": 1, "a[1]": 1, "b": 2}),
        ("a = [[1, 2], [3]]", {"a": 1, "a[0]": 1, "a[0][0]": 1, "a[0][1]": 1, "a[1]": 1}),
        ("a = '''\nb = 1\n'''\nc = 2", {"a": 1, "c": 4}),
        ('a = """\n\\"""[t]\n"""\nc = 2', {"a": 1, "c": 4}),
        ('a = """x"""""\nc = 2', {"a": 1, "c": 2}),
        ('a = "\\"#"\nb = \'#\'\nc = 1979-05-27 07:32:00', {"a": 1, "b": 2, "c": 3}),
        ("[[t]]\na = 1\n[[t]]\na = 2", {"t": 1, "t.a": 2}),
        ("", {}),
    ],
)
def test_lines(text: str, lines: dict[str, int]) -> None:
    """Tables, dotted and quoted keys, inline tables and arrays, texts of several lines."""
    tomllib.loads(text)
    found = toml_lines(text)
    assert {path: found.get(path) for path in lines} == lines
    assert all(path.startswith(("a[", *lines)) for path in found)


KEYS = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
VALUES: Any = st.recursive(
    st.sampled_from(["1", "true", '"]}#="', "'[{'", "'''\n x = 1\n'''", '"""\n[y]\n"""']),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[\n{', '.join(items)}\n]"),
    max_leaves=5,
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_every_key_is_found_where_it_is_written(values: dict[str, str]) -> None:
    """Whatever stands in the values before it."""
    text, expected = "", {}
    for key, value in values.items():
        expected[key] = text.count("\n") + 1
        text += f"{key} = {value}\n"
    assert list(tomllib.loads(text)) == list(expected)
    found = toml_lines(text)
    assert {path: line for path, line in found.items() if "[" not in path} == expected


@given(st.text())
def test_it_ends_with_whatever_text(text: str) -> None:
    """Also what is no TOML is walked through once."""
    assert all(0 < line <= text.count("\n") + 1 for line in toml_lines(text).values())
