"""The configuration as text: a commented example, and what is in effect with its origins."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any, Final, Literal, get_args, get_origin

from fastprovd.checking import either, field_types, format_value
from fastprovd.config import DEFAULT_PATH, Config

_WIDTH: Final = 96

_HEAD: Final = f"""\
# Configuration of fastprovd: copy it to {DEFAULT_PATH} and change what you need.
# What stays commented out keeps its default. Later wins: this file, conf.d/*.toml beside it, then
# the environment, such as FASTPROVD_MQTT__HOST. `fastprovd check-config` shows what is in effect.
"""


def example() -> str:
    """Return a commented TOML file with every key at its default."""
    return _HEAD + "".join(_example_table(Config(), ""))


def format_effective(config: Config) -> str:
    """Return the configuration in effect as TOML, each value with its origin.

    No value is a secret: passwords are named by their file.
    """
    return "".join(_effective_table(config, "", config)).lstrip("\n")


def _example_table(table: Any, path: str) -> Iterator[str]:
    if path:
        yield f"\n# {(type(table).__doc__ or '').splitlines()[0]}\n[{path}]\n"
    nested = []
    for item in _items(table):
        value = getattr(table, item.name)
        if is_dataclass(value):
            nested.append((item.name, value))
            continue
        kind = field_types(type(table))[item.name]
        for line in textwrap.wrap(_comment(item, kind), _WIDTH):
            yield f"# {line}\n"
        shown = item.metadata["sample"] if value is None else value
        yield f"#{item.name} = {_written(item, shown)}\n"
    for name, value in nested:
        yield from _example_table(value, f"{path}.{name}" if path else name)


def _effective_table(table: Any, path: str, config: Config) -> Iterator[str]:
    if path:
        yield f"\n[{path}]\n"
    nested = []
    for item in _items(table):
        value = getattr(table, item.name)
        below = f"{path}.{item.name}" if path else item.name
        if is_dataclass(value):
            nested.append((below, value))
            continue
        origin = config.origins.get(below, "default")
        line = f"# {item.name} is not set" if value is None else ""
        yield f"{line or f'{item.name} = {_written(item, value)}':<40} # {origin}\n"
    for below, value in nested:
        yield from _effective_table(value, below, config)


def _items(table: Any) -> list[Field[Any]]:
    kinds = field_types(type(table))
    return [item for item in fields(table) if item.name in kinds]


def _written(item: Field[Any], value: Any) -> str:
    return format_value(value, hexadecimal=item.metadata["hexadecimal"])


def _comment(item: Field[Any], kind: Any) -> str:
    rules = item.metadata
    parts = [rules["doc"]]
    if rules["low"] is not None and kind is not bytes:
        low, high = (
            format_value(rules[end], hexadecimal=rules["hexadecimal"]) for end in ("low", "high")
        )
        parts.append(f"Range {low}..{high}.")
    for arm in either(kind):
        if get_origin(arm) is Literal:
            choices = [format_value(choice) for choice in get_args(arm)]
            parts.append(f"{'One of' if len(choices) > 1 else 'Or'} {', '.join(choices)}.")
    return " ".join(part for part in parts if part)
