"""Boards behind an emulated bluetoothd for programs of their own, at the speed of real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fastprovd.emulator import virtual_time
from fastprovd.emulator.air import Air
from fastprovd.emulator.bluez import Bluetoothd
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.hosts import Flaws
from fastprovd.records import StepKind
from tests.support.scene import device_address

_START_S: Final = 10.0
_LOOK_S: Final = 0.005
_FROZEN_S: Final = 30.0


class Boards:
    """A thread with boards and a bluetoothd; look at them once it has ended."""

    def __init__(self, boards: int, bus_address: str) -> None:
        self._count = boards
        self._bus_address = bus_address
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: virtual_time.run(self._live(), speed=1.0), name="boards", daemon=True
        )

    def start(self) -> None:
        """Power all boards on."""
        self._thread.start()
        assert self._started.wait(_START_S)

    def stop(self) -> None:
        """Freeze them as they are."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_START_S)
        assert not self._thread.is_alive()

    def call(self, change: Callable[[], None]) -> None:
        """Change something in their thread, at once."""
        done = threading.Event()

        def do() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(do)
        assert done.wait(_START_S)

    def freeze(self) -> threading.Event:
        """Let them and bluetoothd hang until what is returned is set, or for half a minute."""
        thaw = threading.Event()
        self._loop.call_soon_threadsafe(thaw.wait, _FROZEN_S)
        return thaw

    async def _live(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        self.air = Air(1)
        for number in range(1, self._count + 1):
            self.air.add_board(device_address(number), flaws=Flaws.none())
        self.adapter = EmulatedAdapter(self.air.adapter(), seed=1)
        async with Bluetoothd(self.adapter, self._bus_address):
            self._started.set()
            await self._ending.wait()


@contextmanager
def boards_on(bus_address: str, boards: int) -> Iterator[Boards]:
    """Have boards on the air while the context lasts."""
    world = Boards(boards, bus_address)
    world.start()
    try:
        yield world
    finally:
        world.stop()


class Provisioning:
    """`fastprovd provision` as a program of its own."""

    def __init__(self, directory: Path, bus_address: str, boards: int, method: str) -> None:
        self.state = directory / "state"
        config = directory / "fastprovd.toml"
        config.write_text(f'[mqtt]\nenabled = false\n[state]\ndirectory = "{self.state}"\n')
        self._command = [sys.executable, "-m", "fastprovd", "provision", "--config", str(config)]
        self._command += ["--expected", str(boards), "--method", method]
        self._environ = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus_address}
        self._log = directory / "log"

    def run(self, timeout_s: float) -> int:
        """Let it come to its end, and return its exit status."""
        child = self._start()
        try:
            return child.wait(timeout_s)
        finally:
            child.kill()
            child.wait()

    def run_until(self, kind: StepKind, timeout_s: float) -> None:
        """Kill it as soon as a step of that kind is in its journal."""
        child = self._start()
        end = time.monotonic() + timeout_s
        try:
            while kind.value not in self.journal():
                assert child.poll() is None, self._log.read_text()
                assert time.monotonic() < end, f"no {kind} in time"
                time.sleep(_LOOK_S)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()

    def journal(self) -> list[str]:
        """Return the kinds of all steps that are on the disk."""
        path = self.state / "state.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return [kind for (kind,) in connection.execute("select kind from journal order by id")]
        except sqlite3.OperationalError:  # it is being made
            return []
        finally:
            connection.close()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ
            )
