"""Time as an argument: the Clock port and the system's clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where shells read time once and pass it down."""

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        ...

    def utc_now(self) -> datetime:
        """Wall clock time, aware, UTC."""
        ...


class SystemClock:
    """The running event loop's time, so that a virtual loop is a virtual clock."""

    def monotonic(self) -> float:
        """Return the running loop's time in seconds."""
        return asyncio.get_running_loop().time()

    def utc_now(self) -> datetime:
        """Return the system's wall clock time."""
        return datetime.now(UTC)
