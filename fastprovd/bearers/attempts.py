"""How often a connection is tried, and what is done between two attempts; pure."""

from __future__ import annotations

from typing import Final

from fastprovd.bearers.errors import Diagnosis, Remedy

CONNECT_ATTEMPTS: Final = 3
# Failed establishments come in bursts of radio noise; the third attempt nearly always succeeds.
CONNECT_BACK_OFF_S: Final = (0.25, 0.5, 1.0)
# The kernel gives up another program's attempt to connect after 20 s. Seldom, because bleak answers
# each refusal with a Disconnect, which ends that attempt of the other program.
BUSY_PAUSES_S: Final = (1.0, 2.0, 4.0, 6.0, 7.0)


class Attempts:
    """The attempts to open one link; `number` is the one that goes on.

    A device that is busy costs none, and having BlueZ forget it is done once, whatever `most` is.
    """

    def __init__(self, most: int = CONNECT_ATTEMPTS) -> None:
        self.number = 1
        self._most = most
        self._busy = iter(BUSY_PAUSES_S)
        self._is_forgotten = False

    def pause_s(self, diagnosis: Diagnosis) -> float | None:
        """Return how long to wait for the next attempt; `None`: there is to be none."""
        remedy = diagnosis.remedy
        if remedy is Remedy.BUSY:
            return next(self._busy, None)
        if remedy is Remedy.FORGET:
            if self._is_forgotten:
                return None
            self._is_forgotten = True
        elif remedy is Remedy.GIVE_UP or self.number >= self._most:
            return None
        pause_s = CONNECT_BACK_OFF_S[min(self.number, len(CONNECT_BACK_OFF_S)) - 1]
        self.number += 1
        return pause_s
