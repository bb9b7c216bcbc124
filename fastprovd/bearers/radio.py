"""Who may use the adapter: one scan alone, or connections that are opened side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class RadioUse:
    """BlueZ opens connections beside each other well, and beside a discovery badly.

    A scan waits for the connections that are being opened, they wait for the scan, or end it if it
    is one that gives way. A search for one board is a short scan that comes first: who wants to
    open a connection waits for it. It knows nothing of links that are open: they are in nobody's
    way.
    """

    def __init__(self) -> None:
        self.is_scanning = False
        self._give_way: Callable[[], None] | None = None
        self._opening = 0
        self._waiting = 0  # to open; the next scan lets them go first
        self._searches = 0  # waiting ones, too
        self._is_searching = False
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def scanning(self, give_way: Callable[[], None] | None = None) -> AsyncIterator[None]:
        """Wait for one's turn, then discover until the context ends.

        With `give_way` it is to end as soon as that was called: somebody wants to connect.
        """
        while self.is_scanning or self._opening or self._waiting or self._searches:
            await self._change()
        self.is_scanning = True
        self._give_way = give_way
        try:
            yield
        finally:
            self.is_scanning = False
            self._give_way = None
            self._tell()

    @property
    def is_blocked(self) -> bool:
        """Whether a scan goes on that gives no way."""
        return self.is_scanning and self._give_way is None

    @asynccontextmanager
    async def searching(self) -> AsyncIterator[None]:
        """Wait for the end of a scan and of what is being opened, then search."""
        self._searches += 1
        try:
            while self.is_scanning or self._opening or self._is_searching:
                self._ask_for_the_way()
                await self._change()
            self._is_searching = True
            try:
                yield
            finally:
                self._is_searching = False
        finally:
            self._searches -= 1
            self._tell()

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Wait for the end of a scan or search, then open a connection until the context ends."""
        self._waiting += 1
        try:
            while self.is_scanning or self._searches:
                self._ask_for_the_way()
                await self._change()
        finally:
            self._waiting -= 1
            self._tell()
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1
            self._tell()

    def _ask_for_the_way(self) -> None:
        if self._give_way is not None:
            self._give_way()

    async def _change(self) -> None:
        await self._changed.wait()

    def _tell(self) -> None:
        # Everybody who waits looks again; who waits from now on, waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
