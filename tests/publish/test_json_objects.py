"""JSON objects are read in one way only, and shortened where they are too long."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.publish.json_objects import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_FIELDS,
    BadObject,
    NotJson,
    encode,
    is_blank,
    read_object,
    shorten,
)


@pytest.mark.parametrize(
    "payload", [b"", b" ", b"\n", b"\r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"]
)
def test_nothing_is_blank(payload: bytes) -> None:
    """An empty line and a lone byte order mark are nothing, too."""
    assert is_blank(payload)


@pytest.mark.parametrize("payload", [b"{}", b"0", b"\x00", b"\xa0", b"\xef\xbb\xbf{}"])
def test_something_is_not_blank(payload: bytes) -> None:
    """Only the whitespace of JSON is nothing."""
    assert not is_blank(payload)


def test_a_byte_order_mark_is_skipped() -> None:
    """An editor's mark in front of the object does not matter."""
    assert read_object(b'\xef\xbb\xbf{"addr": 5}') == {"addr": 5}


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b"[" * 10_000,
        b'{"a":' * 3_000,
        b'{"expected": NaN}',
        b'{"expected": -Infinity}',
    ],
)
def test_what_is_no_json(payload: bytes) -> None:
    """NaN, octets that are no UTF-8, and what never ends are no JSON."""
    with pytest.raises(NotJson):
        read_object(payload)


@pytest.mark.parametrize(
    ("payload", "path", "says"),
    [
        (b"[]", "", "must be a JSON object"),
        (b"null", "", "must be a JSON object"),
        (b'{"state": "ON", "state": "OFF"}', "state", "more than once"),
        (b'{"transaction": 1, "transaction": 1}', "transaction", "more than once"),
        (b'{"data": {"a": 1, "a": 1}}', "a", "more than once"),
        (b'{"' + b"x" * 99 + b'":1,"' + b"x" * 99 + b'":1}', "x" * 40, "more than once"),
        (b'{"expected": 1e999}', "", "out of range"),
        (b'{"expected": ' + b"9" * (MAX_DIGITS + 1) + b"}", "", "digits"),
        (b'{"expected": ' + b"9" * 5_000 + b"}", "", "digits"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"0" + b"}" * (MAX_DEPTH + 1), "", "nested"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "", "nested"),
        (json.dumps(dict.fromkeys(map(str, range(MAX_FIELDS + 1)))).encode(), "", "fields"),
    ],
)
def test_what_is_not_to_be_taken(payload: bytes, path: str, says: str) -> None:
    """What readers understand differently, and what is out of proportion, is named."""
    with pytest.raises(BadObject, match=says) as caught:
        read_object(payload)
    assert caught.value.path == path


def test_the_limits_themselves_are_taken() -> None:
    """As deep, as long and as many as is allowed."""
    deep = b'{"a":' * MAX_DEPTH + b"0" + b"}" * MAX_DEPTH
    assert read_object(deep)
    assert read_object(b'{"a": ' + b"9" * MAX_DIGITS + b"}")
    assert len(read_object(encode(dict.fromkeys(map(str, range(MAX_FIELDS)))))) == MAX_FIELDS


def test_lone_surrogates_come_through() -> None:
    """They are no Unicode text, and yet can be repeated to whoever sent them."""
    assert json.loads(encode(read_object(b'{"transaction": "\\ud800"}'))) == {
        "transaction": "\ud800"
    }


def a_list(length: int, octets_each: int) -> list[str]:
    """Return a list of texts."""
    return ["x" * octets_each] * length


def test_what_fits_is_not_touched() -> None:
    """Not an octet changes up to the limit itself."""
    payload = encode({"nodes": a_list(3, 10)})
    assert shorten(payload, len(payload)) is payload


def test_the_longest_list_goes_first() -> None:
    """The short list stays, as long as it fits, and so does what is no list."""
    payload = encode({"count": 30, "addresses": a_list(30, 6), "nodes": a_list(30, 400)})
    short = json.loads(shorten(payload, 400))
    assert short == {
        "count": 30,
        "addresses": a_list(30, 6),
        "nodes": None,
        "shortened": True,
    }
    assert json.loads(shorten(payload, 100)) == {
        "count": 30,
        "addresses": None,
        "nodes": None,
        "shortened": True,
    }


def test_inner_lists_go_before_the_outer_one() -> None:
    """The groups are still named when their members are not, the small group keeps its own."""
    groups = [{"addr": "0xc000", "members": a_list(50, 50)}, {"addr": "0xc010", "members": ["a"]}]
    short = json.loads(shorten(encode({"groups": groups}), 200))
    assert short["groups"] == [
        {"addr": "0xc000", "members": None},
        {"addr": "0xc010", "members": ["a"]},
    ]


def test_many_groups_go_as_a_whole_at_last() -> None:
    """A thousand groups that fit in no way leave one null, without a step for each."""
    groups = [{"addr": "0xc000", "members": a_list(3, 50)} for _ in range(1_000)]
    assert json.loads(shorten(encode({"groups": groups}), 100)) == {
        "groups": None,
        "shortened": True,
    }


def test_what_has_no_list_is_left_as_it_is() -> None:
    """There is nothing that could be left out without a wrong meaning."""
    payload = encode({"reason": "x" * 500})
    assert shorten(payload, 100) is payload


values = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=3), values), st.integers(2, 300))
def test_shortening_ends_and_leaves_an_object(fields: dict[str, Any], room: int) -> None:
    """Whatever is shortened is an object that fits, or is untouched."""
    payload = encode(fields)
    short = shorten(payload, room)
    assert isinstance(json.loads(short), dict)
    assert short is payload or len(short) <= room
