"""Standard output that may go away while a run goes on: closed terminal, `| head`, full disk."""

from __future__ import annotations

import os
from typing import Any, TextIO, cast


def lasting(stream: TextIO | None) -> TextIO:
    """Return a stream that drops what is written once nobody takes it any more.

    `None`, which is Python's standard output if it was closed before the start, takes nothing.
    """
    return cast(TextIO, _Lasting(stream))


class _Lasting:
    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                return self._stream.write(text)
            except OSError:
                self._drop()
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError:
                self._drop()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:  # Python would flush what is left, and complain, at the end
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
