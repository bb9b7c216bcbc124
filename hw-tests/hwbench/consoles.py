"""What the boards say about themselves: the demo firmware's log lines, read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from hwbench.timeline import Entry

POWER_CUT: Final = "(power cut)"
"""What the bench puts into a board's place in the timeline, as no board can say it."""

_PREFIX: Final = re.compile(r"(?:\x1b\[[0-9;]*m)?[EWIDV] \(\d+\) (?P<rest>.*?)(?:\x1b\[0m)?\s*")


@dataclass(slots=True)
class BoardView:
    """One board, from its console; a reset makes it forget, `ever_had` and `boots` stay."""

    boots: int = 0
    is_ready: bool = False
    address: int | None = None
    has_app_key: bool = False
    light: bool | None = None
    elf_sha256: str | None = None
    children: set[int] = field(default_factory=set)
    ever_had: set[int] = field(default_factory=set)

    def hear(self, line: str) -> None:
        """Take one line of the console."""
        if line.startswith(("rst:0x", "Rebooting...", POWER_CUT)):
            self._forget()
            return
        prefixed = _PREFIX.fullmatch(line)
        if prefixed is None:
            return
        for pattern, take in _LINES:
            found = pattern.fullmatch(prefixed["rest"])
            if found is not None:
                take(self, found)
                return

    def begin_trial(self) -> None:
        """Forget what it had before; what it has now stays."""
        self.ever_had = set() if self.address is None else {self.address}

    def _forget(self) -> None:
        self.is_ready = self.has_app_key = False
        self.address = self.light = None
        self.children.clear()

    # One method for each line

    def _initializing(self, _: re.Match[str]) -> None:
        self._forget()
        self.boots += 1

    def _initialized(self, _: re.Match[str]) -> None:
        self.is_ready = True

    def _elf(self, found: re.Match[str]) -> None:
        self.elf_sha256 = found["digits"]

    def _node(self, found: re.Match[str]) -> None:
        self.address = int(found["address"], 16)
        self.ever_had.add(self.address)

    def _app_key(self, _: re.Match[str]) -> None:
        self.has_app_key = True

    def _child(self, found: re.Match[str]) -> None:
        self.children.add(int(found["address"], 16))

    def _onoff(self, found: re.Match[str]) -> None:
        self.light = found["state"] == "01"


_LINES: Final[tuple[tuple[re.Pattern[str], Callable[[BoardView, re.Match[str]], None]], ...]] = (
    # cpu_start in ESP-IDF 4 and 5.0, app_init since
    (re.compile(r"\w+: ELF file SHA256: +(?P<digits>[0-9a-f]+)\.\.\."), BoardView._elf),
    (re.compile(r"EXAMPLE: Initializing\.\.\."), BoardView._initializing),
    (re.compile("EXAMPLE: BLE Mesh Fast Prov Node initialized"), BoardView._initialized),
    (
        re.compile("EXAMPLE: net_idx: 0x[0-9a-f]+, unicast_addr: 0x(?P<address>[0-9a-f]{4})"),
        BoardView._node,
    ),
    (re.compile("EXAMPLE: Unicast address 0x(?P<address>[0-9a-f]{4})"), BoardView._child),
    (re.compile("EXAMPLE: Config Server get Config AppKey Add"), BoardView._app_key),
    (re.compile("EXAMPLE: onoff 0x(?P<state>[0-9a-f]{2})"), BoardView._onoff),
)


class Consoles:
    """The views of all boards; `hear` is for the timeline."""

    def __init__(self, board_ids: Iterable[str]) -> None:
        self.views = {board_id: BoardView() for board_id in board_ids}

    def hear(self, entry: Entry) -> None:
        """Take an entry of the timeline, if it is a board's."""
        view = self.views.get(entry.source)
        if view is not None:
            view.hear(entry.said)
