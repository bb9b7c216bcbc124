"""In which line of a TOML file each value stands, which tomllib does not tell."""

from __future__ import annotations

import re
from typing import Final

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_TEXT: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]+")


def toml_lines(text: str) -> dict[str, int]:
    """Return the line, from 1, of each table, key and array item of a valid TOML file.

    By dotted path: `mqtt.tls`, `mqtt.tls.ca`, `mesh.allow[1]`; what stands in several places is
    told of the first.
    """
    return _Walk(text).lines


class _Walk:
    """One pass over a text that tomllib has taken, so nothing is checked again."""

    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self._text = text
        self._at = 0
        table = ""
        self._skip_blank()
        while self._at < len(text):
            if self._takes("["):
                self._takes("[")
                table = self._key("")
                self._takes("]")
                self._takes("]")
            else:
                self._pair(table)
            self._skip_blank()

    def _pair(self, table: str) -> None:
        path = self._key(table)
        self._takes("=")
        self._value(path)

    def _key(self, path: str) -> str:
        """Read a key of one or more parts below `path`, and note each table on the way."""
        while True:
            self._skip_blank()
            quoted = _TEXT.match(self._text, self._at)
            found = quoted or _BARE_KEY.match(self._text, self._at)
            if found is None:  # not TOML
                self._at = len(self._text)
                return path
            part = found[0][1:-1] if quoted else found[0]
            path = f"{path}.{part}" if path else part
            self._note(path)
            self._at = found.end()
            if not self._takes("."):
                return path

    def _value(self, path: str) -> None:
        if self._takes("["):
            number = 0
            while not self._takes("]") and self._at < len(self._text):
                item = f"{path}[{number}]"
                self._note(item)
                self._value(item)
                self._takes(",")
                number += 1
        elif self._takes("{"):
            while not self._takes("}") and self._at < len(self._text):
                self._pair(path)
                self._takes(",")
        else:
            found = _TEXT.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            self._at = len(self._text) if found is None else found.end()

    def _note(self, path: str) -> None:
        self.lines.setdefault(path, self._text.count("\n", 0, self._at) + 1)

    def _takes(self, mark: str) -> bool:
        self._skip_blank()
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        self._skip_blank()
        return True

    def _skip_blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = self._at if found is None else found.end()
