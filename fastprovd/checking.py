"""Mappings from outside (TOML, JSON) to frozen dataclasses, with every mistake named at once."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_SHOWN_CHARACTERS: Final = 40  # of a wrong value in a message


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the dotted path of the value and a sentence about it."""

    path: str
    message: str


def setting(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    pattern: str | None = None,
    expected: str = "",
    hexadecimal: bool = False,
    check: Callable[[str], None] | None = None,
    sample: Any = None,
) -> Any:
    """Return a dataclass field that `check_mapping` understands; without default it is required.

    `low` and `high` bound a number, or the octets of a bytes value (written as hex digits), both
    inclusive. `pattern` is a regular expression for the whole text, `expected` says it in words;
    `check`, of a text or a path, raises ValueError with such a sentence. `hexadecimal` numbers are
    shown as 0x0005 and may also come as such a text. `sample` is shown in an example where the
    default would tell nothing. A field with `internal` in its metadata can not be set from outside.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "doc": doc,
            "low": low,
            "high": high,
            "pattern": pattern,
            "expected": expected,
            "hexadecimal": hexadecimal,
            "check": check,
            "sample": sample,
        },
    )


def check_mapping(
    cls: type[T], mapping: Mapping[str, Any], where: str = ""
) -> tuple[T | None, list[Problem]]:
    """Return `cls` made of `mapping`, or `None` and every problem found.

    `cls` is a dataclass whose fields are bool, int, float, str, bytes (hex digits), Path,
    `Literal`, either of two such values, a tuple of any length of one of them, any of them or
    `None`, or dataclasses of the same kind. `where` is the dotted path of the mapping itself.
    """
    problems: list[Problem] = []
    value = _table(cls, mapping, where, problems)
    return (None if problems else value), problems


def format_value(value: Any, *, hexadecimal: bool = False) -> str:
    """Return a value as it is written in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and hexadecimal:
        return f"0x{value:04x}"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(format_value(item) for item in value)}]"
    text = value.hex() if isinstance(value, bytes) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def field_types(cls: Any) -> dict[str, Any]:
    """Return the resolved type of each field that may be set from outside, in order."""
    hints = get_type_hints(cls)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(cls)
        if not field.metadata.get("internal")
    }


def optional(kind: Any) -> tuple[Any, bool]:
    """Return the type without `None`, and whether it had it."""
    arms = [arm for arm in either(kind) if arm is not type(None)]
    return Union[tuple(arms)], len(arms) < len(either(kind))  # noqa: UP007 - of any number


def either(kind: Any) -> tuple[Any, ...]:
    """Return the types of which a value may have any."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _table(cls: type[T], mapping: Any, where: str, problems: list[Problem]) -> T | None:
    if not isinstance(mapping, Mapping):
        problems.append(Problem(where, f"expected a table, got {_shown(mapping)}"))
        return None
    before = len(problems)
    prefix = f"{where}." if where else ""
    kinds = field_types(cls)
    for name in mapping:
        if name not in kinds:
            close = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "known are " + ", ".join(kinds)
            problems.append(Problem(prefix + name, f"unknown key, {hint}"))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        path = prefix + field.name
        if field.name in kinds and field.name in mapping:
            kind, nullable = optional(kinds[field.name])
            raw = mapping[field.name]
            if not (nullable and raw is None):
                values[field.name] = _value(kind, raw, field.metadata, path, problems)
        elif field.default is dataclasses.MISSING is field.default_factory:
            problems.append(Problem(path, "required key is missing"))
    return cls(**values) if len(problems) == before else None


def _value(
    kind: Any, raw: Any, rules: Mapping[str, Any], path: str, problems: list[Problem]
) -> Any:
    if dataclasses.is_dataclass(kind):
        return _table(kind, raw, path, problems)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        return _items(get_args(kind)[0], raw, rules, path, problems)
    expected = []
    for arm in either(kind):
        try:
            if get_origin(arm) is Literal:
                return _choice(get_args(arm), raw)
            return _CHECKS[arm](raw, rules)
        except ValueError as error:
            sentence, _, got = str(error).rpartition(", got ")
            expected.append(sentence.removeprefix("expected "))
    problems.append(Problem(path, f"expected {' or '.join(expected)}, got {got}"))
    return None


def _choice(choices: tuple[Any, ...], raw: Any) -> Any:
    if type(raw) in {type(choice) for choice in choices} and raw in choices:
        return raw
    allowed = ", ".join(f"'{choice}'" for choice in choices)
    one_of = "one of " if len(choices) > 1 else ""
    raise ValueError(f"expected {one_of}{allowed}, got {_shown(raw)}")


def _boolean(raw: Any, rules: Mapping[str, Any]) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"expected true or false, got {_shown(raw)}")
    return raw


def _integer(raw: Any, rules: Mapping[str, Any]) -> int:
    hexadecimal = rules.get("hexadecimal", False)
    if hexadecimal and isinstance(raw, str) and re.fullmatch("0x[0-9a-fA-F]{1,8}", raw):
        raw = int(raw, 16)
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError(f"expected int, got {_shown(raw)}")
    _bounded(raw, raw, rules, hexadecimal=hexadecimal)
    return raw


def _number(raw: Any, rules: Mapping[str, Any]) -> float:
    try:
        number = math.nan if isinstance(raw, bool | str) else float(raw)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number, got {_shown(raw)}")
    _bounded(number, raw, rules)
    return number


def _text(raw: Any, rules: Mapping[str, Any]) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"expected text, got {_shown(raw)}")
    pattern = rules.get("pattern")
    if pattern is not None and not re.fullmatch(pattern, raw):
        raise ValueError(f"expected {rules['expected'] or pattern}, got {_shown(raw)}")
    _checked(raw, rules)
    return raw


def _path(raw: Any, rules: Mapping[str, Any]) -> Path:
    if not isinstance(raw, str) or not raw or "\0" in raw:
        raise ValueError(f"expected the path of a file, got {_shown(raw)}")
    _checked(raw, rules)
    return Path(raw)


def _checked(raw: str, rules: Mapping[str, Any]) -> None:
    try:
        raw.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected UTF-8, got {_shown(raw)}") from None
    check = rules.get("check")
    if check is not None:
        try:
            check(raw)
        except ValueError as error:
            raise ValueError(f"{error}, got {_shown(raw)}") from None


def _octets(raw: Any, rules: Mapping[str, Any]) -> bytes:
    if not isinstance(raw, str) or not re.fullmatch("([0-9a-fA-F]{2})*", raw):
        raise ValueError(f"expected pairs of hex digits, got {_shown(raw)}")
    value = bytes.fromhex(raw)
    _bounded(len(value), f"{len(value)} octets", rules)
    return value


def _items(
    kind: Any, raw: Any, rules: Mapping[str, Any], path: str, problems: list[Problem]
) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        problems.append(Problem(path, f"expected a list, got {_shown(raw)}"))
        return ()
    return tuple(
        _value(kind, item, rules, f"{path}[{number}]", problems) for number, item in enumerate(raw)
    )


_CHECKS: Final[Mapping[Any, Any]] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _text,
    Path: _path,
    bytes: _octets,
}


def _bounded(
    number: float, got: object, rules: Mapping[str, Any], *, hexadecimal: bool = False
) -> None:
    low, high = rules.get("low"), rules.get("high")
    if (low is None or number >= low) and (high is None or number <= high):
        return
    if low is None:
        allowed = f"{_bound(high, hexadecimal)} or less"
    elif high is None:
        allowed = f"{_bound(low, hexadecimal)} or more"
    else:
        allowed = f"{_bound(low, hexadecimal)}..{_bound(high, hexadecimal)}"
    raise ValueError(f"expected {allowed}, got {_bound(got, hexadecimal)}")


def _bound(number: Any, hexadecimal: bool) -> str:
    return f"0x{number:04x}" if hexadecimal else str(number)


def _shown(raw: Any) -> str:
    if isinstance(raw, str) and "@" in raw:  # of a URL with a password in it
        raw = "…" + raw[raw.rindex("@") :]
    text = repr(raw)
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "…"
    return f"{type(raw).__name__} {text}"
