"""The guest's daemons as children of the tests: they can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Final

_LOGS: Final = Path("/run/control")


class Program:
    """A program that runs until it is ended; `says_when_ready` with its first line."""

    def __init__(self, *command: str, says_when_ready: bool = False) -> None:
        self._command = command
        self._says_when_ready = says_when_ready
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it."""
        says = self._says_when_ready
        with (_LOGS / f"{Path(self._command[0]).name}.log").open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdout=subprocess.PIPE if says else log, stderr=log
            )
        if self._child.stdout is not None:
            with self._child.stdout as said:
                assert said.readline(), f"{self._command[0]} did not start; its log says why"

    async def end(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended by itself, and wait until it is gone."""
        if self._child is None:
            return
        if self.is_running:
            os.kill(self._child.pid, number)
        await asyncio.to_thread(self._child.wait)


def system_bus() -> Program:
    """Return the message bus."""
    return Program(
        "dbus-daemon", "--system", "--nofork", "--nopidfile", "--print-address",
        says_when_ready=True,
    )  # fmt: skip


def bluetoothd() -> Program:
    """Return bluetoothd; it is ready once an adapter is powered."""
    return Program("/usr/libexec/bluetooth/bluetoothd", "--nodetach")
