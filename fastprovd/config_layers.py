"""The layers of the configuration: system, TOML files, environment; each value with its origin."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, get_origin

from fastprovd.checking import either, field_types, optional
from fastprovd.text_files import read_text
from fastprovd.toml_lines import toml_lines

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
        self.doubts: list[str] = []
        self._names = {path.replace(".", "_"): path for path in _paths(schema)}

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
            if os.path.lexists(file):
                values = {"mqtt": {"password_file": str(file)}}
                self._lay(values, partial(_same_place, "$CREDENTIALS_DIRECTORY"))

    def add_directory(self, directory: Path) -> None:
        """Lay on the TOML files in a directory, which need not be there, in order of name."""
        try:
            files = sorted(file for file in directory.iterdir() if file.suffix == ".toml")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.problems.append(f"{directory}: {error.strerror}")
            return
        for file in files:
            self.add_file(file)

    def add_file(self, file: Path, *, must_exist: bool = True) -> None:
        """Lay on a TOML file."""
        try:
            text = read_text(file)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not must_exist:
                return
            self.problems.append(f"{file}: {error.strerror}")
            return
        except ValueError as error:
            self.problems.append(f"{file}: {error}")
            return
        try:
            values = tomllib.loads(text)
        except ValueError as error:
            line = re.search(r"at line (\d+)", str(error))
            number = line[1] if line else text.count("\n", 0, len(text.rstrip())) + 1
            self.problems.append(f"{file}:{number}: not TOML: {error}")
        else:
            lines = toml_lines(text)
            self._lay(values, lambda path: f"{file}:{lines[path]}" if path in lines else None)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Lay on FASTPROVD_SECTION__KEY; a name that only looks like one is told of."""
        for name in sorted(environ):
            prefix, rest = name[: len(ENVIRONMENT_PREFIX)], name[len(ENVIRONMENT_PREFIX) :]
            if prefix.upper() != ENVIRONMENT_PREFIX:
                continue
            path = rest.lower().split("__")
            meant = self._names.get(rest.lower().replace("__", "_"))
            if meant is not None and (prefix != ENVIRONMENT_PREFIX or meant != ".".join(path)):
                right = ENVIRONMENT_PREFIX + meant.upper().replace(".", "__")
                self.problems.append(f"{name}: no name of a key, did you mean {right}?")
            elif "__" not in rest or prefix != ENVIRONMENT_PREFIX:
                self.doubts.append(
                    f"{name}: no name of a key, so it changes nothing; they are written like "
                    f"{ENVIRONMENT_PREFIX}MQTT__HOST"
                )
            else:
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
                self._note_items(path, value, origin)

    def _note_items(self, path: str, value: Any, origin: Callable[[str], str | None]) -> None:
        for item in [known for known in self.origins if known.startswith(f"{path}[")]:
            del self.origins[item]
        for number in range(len(value) if isinstance(value, list) else 0):
            place = origin(f"{path}[{number}]")
            if place is not None:
                self.origins[f"{path}[{number}]"] = place


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


def _paths(schema: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of each key."""
    for name, kind in field_types(schema).items():
        if is_dataclass(kind):
            yield from _paths(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name
