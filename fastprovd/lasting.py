"""Output that holds nobody up: nobody may read it, or it may go away while a run goes on.

A pipe that is full (`| less`, `| sleep 1000`), a terminal after Ctrl-S and a journal that hangs
block whoever writes to them. So a thread writes, out of a memory with a bound.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TextIO, cast

# More than a run of 300 boards tells, and an hour of the log at its level for such a run.
MOST_OCTETS: Final = 1 << 20
# At the end; whoever reads at all has taken something in this time.
PATIENCE_S: Final = 5.0
# A page at a time, so that a slow reader is seen to read.
_PIECE: Final = 4096

Notice = Callable[[int], str]
"""Return the line that tells how many lines are missing."""


def lines_missing(lines: int) -> str:
    """Tell people."""
    return f"fastprovd: {lines} lines are missing here, nobody read them in time"


def lasting(stream: TextIO | None, notice: Notice = lines_missing) -> TextIO:
    """Return a stream that never fails and never waits.

    What nobody takes in time is dropped, counted, and told by a `notice` where it is missing; at
    the end of the program what is left is waited for as long as somebody reads. `None`, which is
    Python's standard output if it was closed before the start, takes nothing. A stream that is one
    already is returned, with another `notice`.
    """
    if isinstance(stream, _Lasting):
        stream.notice = notice
        return stream
    return cast(TextIO, _Lasting(stream, notice))


class _Lasting:
    def __init__(self, stream: TextIO | None, notice: Notice) -> None:
        self._stream = stream
        self.notice = notice
        self._descriptor = _descriptor(stream)
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._written = 0
        self._missing = 0
        self._is_gone = stream is None
        self._writer: threading.Thread | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def flush(self) -> None:
        if self._descriptor is None and not self._is_gone:
            self._directly(lambda stream: stream.flush())

    def write(self, text: str) -> int:
        if self._descriptor is None:
            self._directly(lambda stream: stream.write(text))
            return len(text)
        with self._changed:
            if self._is_gone:
                return len(text)
            if self._octets + len(text) > MOST_OCTETS:
                self._missing += text.count("\n")
            else:
                self._tell_missing()
                self._append(text)
                if self._writer is None:
                    self._begin()
                self._changed.notify_all()
        return len(text)

    def finish(self) -> None:
        """Wait until all is written, or nobody reads on; then that is said on standard error."""
        with self._changed:
            self._tell_missing()
            self._changed.notify_all()
            while self._octets and self._goes_on():
                pass
            unread = sum(octets.count(b"\n") for octets in self._waiting)
        errors = sys.stderr
        if unread and errors is not None and self._descriptor != _descriptor(errors):
            said = _Lasting(errors, self.notice)
            said.write(f"fastprovd: nobody read the last {unread} lines of output\n")
            said.finish()

    def _goes_on(self) -> bool:
        written = self._written
        return self._changed.wait_for(lambda: self._written != written, PATIENCE_S)

    def _directly(self, do: Callable[[TextIO], object]) -> None:
        """Write to what is no file of the system, such as a test's, which holds nobody up."""
        if self._stream is not None and not self._is_gone:
            try:
                do(self._stream)
            except OSError:
                self._is_gone = True

    def _begin(self) -> None:
        # A daemon: the end of the program does not wait for a reader that never comes.
        self._writer = threading.Thread(target=self._write_forever, name="output", daemon=True)
        self._writer.start()
        atexit.register(self.finish)

    def _tell_missing(self) -> None:
        if self._missing:
            self._append(f"{self.notice(self._missing)}\n")
            self._missing = 0

    def _append(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        octets = text.encode(encoding, errors="backslashreplace")
        self._waiting.append(octets)
        self._octets += len(octets)

    def _write_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                octets = self._waiting[0]
            for begin in range(0, len(octets), _PIECE):
                piece = octets[begin : begin + _PIECE]
                missing = 0
                try:
                    self._write_all(piece)
                except (BrokenPipeError, ConnectionResetError):
                    self._gone()
                    return
                except OSError:  # a full disk, a terminal that was closed
                    missing = piece.count(b"\n")
                with self._changed:
                    self._octets -= len(piece)
                    self._written += len(piece)
                    self._missing += missing
                    if begin + len(piece) == len(octets):
                        self._waiting.popleft()
                    self._changed.notify_all()

    def _write_all(self, octets: bytes) -> None:
        assert self._descriptor is not None  # noqa: S101 - the thread is begun for one only
        while octets:
            try:
                octets = octets[os.write(self._descriptor, octets) :]
            except BlockingIOError:  # another program made it so: the file is shared
                select.select([], [self._descriptor], [])

    def _gone(self) -> None:
        with self._changed:
            self._is_gone = True
            self._waiting.clear()
            self._octets = 0
            self._written += 1
            self._changed.notify_all()


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return None
