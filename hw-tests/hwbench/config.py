"""bench.toml: which boards there are, and how the bench reaches and switches them."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from fastprovd.checking import Problem, check_mapping, setting
from fastprovd.errors import ConfigError

T = TypeVar("T")

Backend = Literal["uhubctl", "tasmota", "rts", "none"]

_MAC: Final = "([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}"
_INTERNAL: Final = {"internal": True}
_MQTT_PORT: Final = 1883


@dataclass(frozen=True, slots=True)
class HubPort:
    """One port of a USB hub, as `uhubctl` shows it."""

    hub: str = setting(pattern=r"[0-9]+(-[0-9.]+)?", expected="a hub such as 1-2")
    port: int = setting(low=1, high=32)


@dataclass(frozen=True, slots=True)
class Relay:
    """One relay of a Tasmota plug."""

    url: str = setting(pattern="http://[^/]+", expected="http://HOST")
    relay: int = setting(1, low=1, high=8)


@dataclass(frozen=True, slots=True)
class BoardConfig:
    """One `[[board]]`; `mac` is its Bluetooth address, as `fastprovd scan` shows it."""

    id: str = setting(pattern="[a-z0-9_-]{1,32}", expected="1 to 32 of a-z 0-9 _ -")
    port: str = setting(pattern="/.+", expected="the path of a serial port")
    chip: str = setting(pattern="esp32[a-z0-9]*", expected="a chip such as esp32c3")
    mac: str = setting(pattern=_MAC, expected="an address such as 34:85:18:00:00:01")
    firmware: str | None = setting(None)
    power: HubPort | Relay | None = field(default=None, metadata=_INTERNAL)


@dataclass(frozen=True, slots=True)
class Service:
    """Commands that kill a program of the gateway, as by SIGKILL, and start it again."""

    kill: tuple[str, ...]
    start: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """`[gateway]`: the adapter, and how fastprovd is started."""

    adapter: str = setting("")
    command: tuple[str, ...] = field(
        default=(sys.executable, "-m", "fastprovd"), metadata=_INTERNAL
    )


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """A whole bench.toml."""

    name: str
    gateway: GatewayConfig
    mqtt_host: str
    mqtt_port: int
    power: Backend | Literal["emulated"]
    boards: tuple[BoardConfig, ...]
    services: Mapping[str, Service] = field(default_factory=dict)
    manifest: Path | None = None


@dataclass(frozen=True, slots=True)
class _Top:
    name: str = setting(pattern="[a-z0-9_-]{1,32}", expected="1 to 32 of a-z 0-9 _ -")


@dataclass(frozen=True, slots=True)
class _Mqtt:
    url: str = setting()


@dataclass(frozen=True, slots=True)
class _Power:
    backend: Backend = setting("none")


@dataclass(frozen=True, slots=True)
class _Firmware:
    manifest: Path | None = setting(None)


_OUTLETS: Final[Mapping[str, type[HubPort] | type[Relay]]] = {"uhubctl": HubPort, "tasmota": Relay}
_SERVICES: Final = ("bluetoothd", "broker")
_TABLES: Final = ("gateway", "mqtt", "power", "services", "firmware", "board")


def load(path: Path) -> BenchConfig:
    """Read a bench.toml.

    Raises:
        ConfigError: it can not be read, or every mistake in it: file, key, what is allowed.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {error}"]) from error
    reader = _Reader()
    config = reader.bench(raw, path.parent)
    if config is None:
        raise ConfigError([f"{path}: {p.path or 'bench'}: {p.message}" for p in reader.problems])
    return config


class _Reader:
    """Collects every problem of one file."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def bench(self, raw: Mapping[str, Any], directory: Path) -> BenchConfig | None:
        """Return the bench, or None with the problems."""
        rest = {name: value for name, value in raw.items() if name not in _TABLES}
        top = self._table(_Top, rest, "")
        gateway = self._gateway(raw.get("gateway", {}))
        host, port = self._mqtt(raw.get("mqtt", {}))
        power = self._table(_Power, raw.get("power", {}), "power")
        services = self._services(raw.get("services", {}))
        firmware = self._table(_Firmware, raw.get("firmware", {}), "firmware")
        manifest = None if firmware is None else firmware.manifest
        boards = self._boards(raw.get("board"), "none" if power is None else power.backend)
        if manifest is None and any(board.firmware is not None for board in boards):
            self._problem("firmware.manifest", "required, because a board names its firmware")
        if self.problems or top is None or gateway is None or power is None:
            return None
        return BenchConfig(
            top.name,
            gateway,
            host,
            port,
            power.backend,
            boards,
            services,
            None if manifest is None else directory / manifest,
        )

    def _problem(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def _table(self, cls: type[T], raw: Any, where: str) -> T | None:
        value, problems = check_mapping(cls, raw, where)
        self.problems += problems
        return value

    def _gateway(self, raw: Any) -> GatewayConfig | None:
        if not isinstance(raw, dict) or "command" not in raw:
            return self._table(GatewayConfig, raw, "gateway")
        rest = {name: value for name, value in raw.items() if name != "command"}
        gateway = self._table(GatewayConfig, rest, "gateway")
        command = self._command(raw["command"], "gateway.command")
        return None if gateway is None else replace(gateway, command=command)

    def _mqtt(self, raw: Any) -> tuple[str, int]:
        table = self._table(_Mqtt, raw, "mqtt")
        if table is None:
            return "", 0
        url = urlsplit(table.url)
        try:
            port = url.port or _MQTT_PORT
        except ValueError:
            port = 0
        if url.scheme != "mqtt" or not url.hostname or not port or url.username or url.path:
            self._problem("mqtt.url", f"expected mqtt://HOST or mqtt://HOST:PORT, got {table.url}")
        return url.hostname or "", port

    def _services(self, raw: Any) -> dict[str, Service]:
        if not isinstance(raw, dict):
            self._problem("services", "expected a table")
            return {}
        services = {}
        for name, commands in raw.items():
            where = f"services.{name}"
            if name not in _SERVICES:
                self._problem(where, f"unknown key, known are {', '.join(_SERVICES)}")
            elif not isinstance(commands, dict) or set(commands) != {"kill", "start"}:
                self._problem(where, "expected a table of the two commands kill and start")
            else:
                services[name] = Service(
                    self._command(commands["kill"], f"{where}.kill"),
                    self._command(commands["start"], f"{where}.start"),
                )
        return services

    def _command(self, raw: Any, where: str) -> tuple[str, ...]:
        if not isinstance(raw, list) or not raw or not all(isinstance(part, str) for part in raw):
            self._problem(where, 'expected a list of texts, such as ["systemctl", "stop", "x"]')
            return ()
        return tuple(raw)

    def _boards(self, raw: Any, backend: Backend) -> tuple[BoardConfig, ...]:
        if not isinstance(raw, list) or not raw:
            self._problem("board", "expected at least one [[board]]")
            return ()
        boards = []
        for number, table in enumerate(raw, 1):
            board = self._board(table, f"board[{number}]", backend)
            if board is not None:
                boards.append(board)
        for name in ("id", "port", "mac", "power"):
            seen: set[object] = set()
            for board in boards:
                value = getattr(board, name)
                if value is not None and value in seen:
                    self._problem(f"board.{name}", f"{board.id} has that of another board: {value}")
                seen.add(value)
        return tuple(boards)

    def _board(self, raw: Any, where: str, backend: Backend) -> BoardConfig | None:
        if not isinstance(raw, dict):
            self._problem(where, "expected a table")
            return None
        rest = {name: value for name, value in raw.items() if name != "power"}
        if isinstance(rest.get("mac"), str):
            rest["mac"] = rest["mac"].upper()
        board = self._table(BoardConfig, rest, where)
        kind = _OUTLETS.get(backend)
        outlet = None
        if kind is not None:
            if "power" not in raw:
                self._problem(f"{where}.power", f"required with [power] backend = '{backend}'")
            else:
                outlet = self._table(kind, raw["power"], f"{where}.power")
        elif "power" in raw:
            self._problem(f"{where}.power", f"not allowed with [power] backend = '{backend}'")
        return None if board is None else replace(board, power=outlet)
