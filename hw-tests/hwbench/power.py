"""The power of single boards: USB hub, plug, or the reset line."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Mapping
from typing import Final, Protocol

from hwbench.config import BenchConfig, BoardConfig, HubPort, Relay
from hwbench.serial_ports import SerialPort

_COMMAND_S: Final = 15.0  # uhubctl repeats up to a few seconds on slow hubs
_HTTP_S: Final = 5.0  # a plug in the same network answers in tenths


class Power(Protocol):
    """Switches one board."""

    def cut(self, board: BoardConfig) -> None:
        """Take its power away."""
        ...

    def restore(self, board: BoardConfig) -> None:
        """Give it back; the board boots."""
        ...


def power_for(config: BenchConfig, ports: Mapping[str, SerialPort]) -> Power | None:
    """Return the backend of bench.toml, None for `none`."""
    if config.power == "uhubctl":
        return Uhubctl()
    if config.power == "tasmota":
        return Tasmota()
    return ResetLine(ports) if config.power == "rts" else None


class Uhubctl:
    """Ports of a USB hub that really switches."""

    def cut(self, board: BoardConfig) -> None:
        """Switch its hub port off."""
        self._switch(board, "off")

    def restore(self, board: BoardConfig) -> None:
        """Switch its hub port on."""
        self._switch(board, "on")

    def _switch(self, board: BoardConfig, action: str) -> None:
        if not isinstance(board.power, HubPort):
            raise TypeError(f"{board.id} has no hub port")
        command = ["uhubctl", "-l", board.power.hub, "-p", str(board.power.port), "-a", action]
        subprocess.run(command, check=True, capture_output=True, timeout=_COMMAND_S)


class Tasmota:
    """Plugs with Tasmota, over HTTP."""

    def cut(self, board: BoardConfig) -> None:
        """Switch its relay off."""
        self._switch(board, "Off")

    def restore(self, board: BoardConfig) -> None:
        """Switch its relay on."""
        self._switch(board, "On")

    def _switch(self, board: BoardConfig, action: str) -> None:
        if not isinstance(board.power, Relay):
            raise TypeError(f"{board.id} has no relay")
        url = f"{board.power.url}/cm?cmnd=Power{board.power.relay}%20{action}"
        with urllib.request.urlopen(url, timeout=_HTTP_S) as answer:  # noqa: S310 - http by config
            answer.read()


class ResetLine:
    """No switch at all: EN held low is as good as no power, as far as the air can tell."""

    def __init__(self, ports: Mapping[str, SerialPort]) -> None:
        self._ports = ports

    def cut(self, board: BoardConfig) -> None:
        """Hold it in reset."""
        self._ports[board.id].hold_in_reset(True)

    def restore(self, board: BoardConfig) -> None:
        """Let it boot."""
        self._ports[board.id].hold_in_reset(False)
