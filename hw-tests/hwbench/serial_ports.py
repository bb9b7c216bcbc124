"""Serial consoles: one reader per port for the whole session."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import serial

from hwbench.timeline import Timeline

BAUD: Final = 115_200  # ESP-IDF's default
_READ_S: Final = 0.1  # how soon a reader sees that it shall end
_REOPEN_S: Final = 0.2  # a port whose power was cut comes back within a second or two
# What a port without modem lines answers, such as a pseudo terminal; pyserial's open ignores it.
_NO_LINES: Final = (errno.ENOTTY, errno.EINVAL)
_LONGEST_LINE: Final = 4096  # noise without a line end is cut here


class SerialPort:
    """Reads one console, and holds the lines that reset the board.

    It goes on when the port vanishes with the board's power and comes back.
    """

    def __init__(self, board_id: str, path: str, log: Path, timeline: Timeline) -> None:
        self._board_id = board_id
        self._path = path
        self._log = log
        self._timeline = timeline
        self._ending = threading.Event()
        self._port: serial.Serial | None = None
        self._held_in_reset = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name=f"serial/{board_id}", daemon=True)

    def start(self) -> None:
        """Open the port and read from now on; raises serial.SerialException."""
        self._port = open_quietly(self._path)
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def hold_in_reset(self, held: bool) -> None:
        """Pull EN low through RTS, or let it go, which boots the board."""
        with self._lock:
            self._held_in_reset = held
            if self._port is not None:
                self._port.rts = held

    def _read(self) -> None:
        pending = b""
        with self._log.open("a", encoding="utf-8", buffering=1) as log:
            while not self._ending.is_set():
                try:
                    pending = self._take(pending, log.write)
                except OSError:  # serial.SerialException is one
                    self._reopen()
        with self._lock:
            if self._port is not None:
                self._port.close()

    def _take(self, pending: bytes, write: Callable[[str], object]) -> bytes:
        port = self._port
        if port is None:
            raise OSError("no port")
        pending += port.read(max(1, port.in_waiting))
        *lines, pending = pending.split(b"\n")
        if len(pending) > _LONGEST_LINE:
            lines, pending = [*lines, pending], b""
        for line in lines:
            text = line.decode("utf-8", "backslashreplace").rstrip("\r")
            entry = self._timeline.add(self._board_id, text)
            write(f"{entry.time_s:.4f} {text}\n")
        return pending

    def _reopen(self) -> None:
        with self._lock:
            if self._port is not None:
                self._port.close()
                self._port = None
        self._timeline.add(self._board_id, f"(no serial port {self._path})")
        while not self._ending.wait(_REOPEN_S):
            try:
                port = open_quietly(self._path)
            except OSError:
                continue
            with self._lock:
                if self._held_in_reset:
                    port.rts = True
                self._port = port
            self._timeline.add(self._board_id, "(serial port is back)")
            return


def open_quietly(path: str) -> serial.Serial:
    """Open a port with DTR and RTS low, without resetting the board.

    The kernel raises both when it opens a port. The usual circuit resets while RTS is high and DTR
    is low, so RTS has to fall first.
    """
    port = serial.Serial(baudrate=BAUD, timeout=_READ_S, exclusive=True)
    port.port = path
    port.dtr = True
    port.rts = False
    port.open()
    try:
        port.dtr = False
    except OSError as error:
        if error.errno not in _NO_LINES:
            raise
    return port
