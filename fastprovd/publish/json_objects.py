"""JSON objects from outside: read without surprises, and written shorter where they are too long.

What two readers could understand differently (RFC 8259 §4, §6), or what costs more to look at than
an honest message does, is refused with a sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

MAX_DEPTH: Final = 16  # an honest request has 2 levels
MAX_FIELDS: Final = 64  # an honest request has 10 at most
MAX_DIGITS: Final = 100
_SHOWN_CHARACTERS: Final = 40  # of a name in a sentence
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_WHITESPACE: Final = b" \t\r\n"  # RFC 8259 §2

_Place = tuple[dict[str, Any], str]


class NotJson(ValueError):
    """The octets are no JSON."""


class BadObject(ValueError):
    """It is JSON and not to be taken; `path` names the field, "" the whole."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def is_blank(payload: bytes) -> bool:
    """Tell whether there is nothing in a payload, as of `mosquitto_pub -n` or an empty line."""
    return not payload.removeprefix(_BYTE_ORDER_MARK).strip(_WHITESPACE)


def read_object(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in a payload; a byte order mark before it is skipped.

    Raises:
        NotJson, BadObject: there is none, or one that is not to be taken.
    """
    try:
        value = json.loads(
            payload,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
            object_pairs_hook=_without_doubles,
        )
    except BadObject:
        raise
    except (ValueError, RecursionError):
        raise NotJson("the payload is not JSON") from None
    if not isinstance(value, dict):
        raise BadObject("must be a JSON object")
    if len(value) > MAX_FIELDS:
        raise BadObject(f"must have at most {MAX_FIELDS} fields")
    if _is_deeper(value, MAX_DEPTH):
        raise BadObject(f"must not be nested deeper than {MAX_DEPTH} levels")
    return value


def encode(value: Mapping[str, Any]) -> bytes:
    """Return JSON octets.

    Raises:
        TypeError, ValueError: something in it is not JSON; the sentence names its type only.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def shorten(payload: bytes, max_octets: int) -> bytes:
    """Return a JSON object in at most `max_octets`, with `null` for lists that had to go.

    The longest lists go first, and those inside of others before these; `"shortened": true` then
    says so. What has no list to leave out is returned as it is, however long.
    """
    if len(payload) <= max_octets:
        return payload
    fields = json.loads(payload)
    fields["shortened"] = True
    while len(short := encode(fields)) > max_octets:
        lists = sorted(
            ((_octets(holder[name]), holder, name) for holder, name in _innermost_lists(fields)),
            key=lambda each: -each[0],
        )
        if not lists:
            return payload
        excess = len(short) - max_octets
        for octets, holder, name in lists:
            holder[name] = None
            excess -= octets - len("null")
            if excess <= 0:
                break
    return short


def _octets(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _innermost_lists(value: Any) -> list[_Place]:
    """Return where the lists are that hold no other list."""
    found: list[_Place] = []
    if isinstance(value, dict):
        for name, inner in value.items():
            below = _innermost_lists(inner)
            found += below or ([(value, name)] if isinstance(inner, list) and inner else [])
    elif isinstance(value, list):
        for inner in value:
            found += _innermost_lists(inner)
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise BadObject("is there more than once", name[:_SHOWN_CHARACTERS])
        fields[name] = value
    return fields


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise BadObject(f"a number has more than {MAX_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadObject("a number is out of range")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_deeper(value: Any, depth: int) -> bool:
    level: list[Any] = [value]
    for _ in range(depth):
        level = [inner for outer in level for inner in _inside(outer)]
    return any(isinstance(inner, dict | list) for inner in level)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
