"""How many SEQ strangers may cost us: an acknowledgment is sent before its message is opened."""

from __future__ import annotations

from typing import Final

# A list of 120 addresses that comes badly costs two dozen, and gives them back once it is opened.
BURST: Final = 256
# 17,000 a day at the most: the 16.7 million numbers of an IV Index last for years under attack.
REFILL_S: Final = 5.0


class AcknowledgmentBudget:
    """A number of acknowledgments; what an authenticated message cost is given back."""

    __slots__ = ("_left", "_refilled_s")

    def __init__(self) -> None:
        self._left = float(BURST)
        self._refilled_s: float | None = None

    def take(self, now: float) -> bool:
        """Return whether one more may be sent at `now`, in seconds of the loop's clock."""
        if self._refilled_s is not None:
            gained = max(0.0, now - self._refilled_s) / REFILL_S
            self._left = min(float(BURST), self._left + gained)
        self._refilled_s = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self, acknowledgments: int) -> None:
        """Take back what a message cost that turned out to be authentic."""
        self._left = min(float(BURST), self._left + acknowledgments)
