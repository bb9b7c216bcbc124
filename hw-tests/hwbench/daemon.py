"""The daemon under test: `fastprovd run`, as a program of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from fastprovd.checking import format_value

Settings = Mapping[str, Mapping[str, Any]]

_STOP_S: Final = 20.0  # it ends a run, says goodbye to the broker and hangs up in less than 10 s


class Daemon:
    """Can be started, stopped and killed again and again; all it logs goes into one file."""

    def __init__(
        self,
        command: tuple[str, ...],
        settings: Settings,
        directory: Path,
        log: Path,
        environ: Mapping[str, str],
    ) -> None:
        directory.mkdir(mode=0o700)
        config = directory / "fastprovd.toml"
        own: Settings = {"state": {"directory": directory / "state"}, "log": {"format": "json"}}
        config.write_text("".join(_toml({**own, **settings})), "utf-8")
        self._command = (*command, "run", "--config", str(config))
        self._log_path = log
        self._log: TextIO | None = None
        self._child: subprocess.Popen[bytes] | None = None
        mine = {name: value for name, value in os.environ.items() if not _is_setting(name)}
        self._environ = mine | dict(environ)

    def start(self) -> None:
        """Start it; it is ready when it says `online`."""
        self._log = self._log_path.open("a", encoding="utf-8")
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=self._environ,
        )

    def kill(self) -> None:
        """End it as by SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._ended(self._child)

    def stop(self) -> int:
        """End it as systemd does, and return its exit status; raises TimeoutExpired."""
        if self._child is None:
            return 0
        child = self._child
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
        finally:
            self._ended(child)
        return child.returncode

    @property
    def exit_status(self) -> int | None:
        """The exit status if it ended by itself."""
        return None if self._child is None else self._child.poll()

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        child.wait()
        self._child = None
        if self._log is not None:
            self._log.close()


def _is_setting(name: str) -> bool:
    return name.startswith("FASTPROVD_")


def _toml(tables: Settings) -> list[str]:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]\n")
        lines += [f"{name} = {format_value(value)}\n" for name, value in values.items()]
    return lines
