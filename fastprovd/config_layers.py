"""The layers of the configuration: system, TOML files, environment; each value with its origin."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, get_origin

from fastprovd.checking import either, field_types, optional

ENVIRONMENT_PREFIX: Final = "FASTPROVD_"
PASSWORD_CREDENTIAL: Final = "mqtt.password"  # noqa: S105 - the name of a file


class Layers:
    """The layers laid over each other so far, and where each value came from.

    `schema` is the dataclass that they are for.
    """

    def __init__(self, schema: type) -> None:
        self._schema = schema
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []

    def origin(self, path: str) -> str | None:
        """Return the place of a value, or of the nearest table around it."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path.rpartition(".")[0]
        return None

    def add_system(self, environ: Mapping[str, str], host_name: str) -> None:
        """Lay on what the system says."""
        name = re.sub("[^a-z0-9_-]+", "-", host_name.partition(".")[0].lower()).strip("-")[:32]
        if name:
            self._lay({"gateway": {"id": name}}, partial(_same_place, "host name"))
        if directory := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
            self._lay({"state": {"directory": directory}}, partial(_same_place, "$STATE_DIRECTORY"))
        if directory := environ.get("CREDENTIALS_DIRECTORY", ""):
            file = Path(directory, PASSWORD_CREDENTIAL)
            if file.exists():
                values = {"mqtt": {"password_file": str(file)}}
                self._lay(values, partial(_same_place, "$CREDENTIALS_DIRECTORY"))

    def add_file(self, file: Path) -> None:
        """Lay on a TOML file."""
        try:
            text = file.read_text("utf-8-sig")
            values = tomllib.loads(text)
        except OSError as error:
            self.problems.append(f"{file}: {error.strerror}")
        except UnicodeDecodeError:
            self.problems.append(f"{file}: not UTF-8")
        except ValueError as error:
            line = re.search(r"at line (\d+)", str(error))
            place = f"{file}:{line[1]}" if line else f"{file}"
            self.problems.append(f"{place}: not TOML: {error}")
        else:
            lines = _line_numbers(text)
            self._lay(values, lambda path: f"{file}:{lines[path]}" if path in lines else None)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Lay on FASTPROVD_SECTION__KEY; a name without a double underscore is not ours."""
        for name in sorted(environ):
            rest = name.removeprefix(ENVIRONMENT_PREFIX)
            if rest == name or "__" not in rest:
                continue
            path = rest.lower().split("__")
            value: Any = _environment_value(self._schema, path, environ[name])
            for key in reversed(path):
                value = {key: value}
            self._lay(value, partial(_same_place, name))

    def _lay(self, values: Mapping[str, Any], origin: Callable[[str], str | None]) -> None:
        self._merge(self.values, values, origin, "")

    def _merge(
        self,
        below: dict[str, Any],
        above: Mapping[str, Any],
        origin: Callable[[str], str | None],
        prefix: str,
    ) -> None:
        for key, value in above.items():
            path = prefix + key
            place = origin(path)
            if place is not None:
                self.origins[path] = place
            if isinstance(value, Mapping):
                table = below.get(key)
                if not isinstance(table, dict):
                    table = below[key] = {}
                self._merge(table, value, origin, f"{path}.")
            else:
                below[key] = value


def _same_place(place: str, path: str) -> str:
    return place


def _environment_value(schema: type, path: list[str], text: str) -> Any:
    """Return `text` as the value it means for the key: as in TOML, or the text where that fits."""
    kind: Any = schema
    for key in path:
        kind = field_types(kind).get(key) if is_dataclass(kind) else None
        kind = optional(kind)[0]
    if not any(arm in (bool, int, float) or get_origin(arm) is tuple for arm in either(kind)):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def _line_numbers(text: str) -> dict[str, int]:
    """Return the line of each key and table header of a TOML file, by dotted path.

    A line inside a multi-line text that looks like a key is taken for one; none of ours has that.
    """
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            path = _plain(header[1])
            table = f"{path}."
        elif key := re.match(r"\s*([\w\-.\"' ]+?)\s*=", line):
            path = table + _plain(key[1])
        else:
            continue
        lines.setdefault(path, number)
    return lines


def _plain(key: str) -> str:
    return re.sub(r"[\s\"']", "", key)
