"""How many publications may be on their way at once."""

from __future__ import annotations

import asyncio
from collections import deque


class Window:
    """Lets in at most `size` at a time, in the order in which they came.

    Who asks to be alone is let in when everybody else has left, and nobody is let in beside it.
    """

    def __init__(self, size: int) -> None:
        """Take the size, at least 1."""
        self._size = size
        self._inside = 0
        self._alone = False
        self._failure: Exception | None = None
        self._waiting: deque[tuple[asyncio.Future[None], bool]] = deque()

    async def enter(self, *, alone: bool = False) -> None:
        """Wait for a place; `leave` gives it back. Raises what `fail` was given."""
        if self._failure is not None:
            raise self._failure
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, alone))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # it was let in at the moment of its cancellation
            raise

    def leave(self) -> None:
        """Give a place back."""
        self._inside -= 1
        self._alone = False
        self._admit()

    def fail(self, failure: Exception) -> None:
        """Let nobody in any more."""
        self._failure = failure
        for turn, _ in self._waiting:
            if not turn.done():
                turn.set_exception(failure)
        self._waiting.clear()

    def _admit(self) -> None:
        while self._waiting and not self._alone and self._failure is None:
            turn, alone = self._waiting[0]
            if turn.done():  # cancelled while it waited
                self._waiting.popleft()
                continue
            if self._inside >= (1 if alone else self._size):
                return
            self._waiting.popleft()
            self._inside += 1
            self._alone = alone
            turn.set_result(None)
