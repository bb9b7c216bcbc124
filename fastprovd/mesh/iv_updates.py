"""Which beacons may move the IV Index, by time (Mesh Profile v1.0.1 §3.10.5, §3.10.6); pure.

Whoever has the NetKey can make a beacon. If each were followed, a handful took us so far ahead
that no node of the network understands us any more.
"""

from __future__ import annotations

import math
from typing import Final

from fastprovd.mesh.iv_index import IvIndex

# §3.10.5: a node stays in each state for 96 hours at least.
UPDATE_S: Final = 96 * 3600.0
# §3.10.6: not more than one IV Index Recovery within 192 hours.
RECOVERY_S: Final = 192 * 3600.0
# §3.10.6: a beacon further ahead than this is not believed.
MAX_STEP: Final = 42


def is_recovery(ours: IvIndex, theirs: IvIndex) -> bool:
    """Whether going over to `theirs` leaves out a state of the IV Update procedure."""
    step = theirs.value - ours.value
    return step > 1 or (step == 1 and (ours.update_in_progress or not theirs.update_in_progress))


class IvUpdates:
    """When the IV Index moved, in seconds of the loop's clock; `-inf`: long ago, or never.

    `changed_s` is its last regular change since the last recovery, which was at `recovered_s`.
    """

    def __init__(self, changed_s: float = -math.inf, recovered_s: float = -math.inf) -> None:
        self._changed_s = changed_s
        self._recovered_s = recovered_s

    def allow(self, ours: IvIndex, theirs: IvIndex, now: float) -> bool:
        """Whether a beacon of `theirs` moves our IV Index `now`.

        The end of an update is always believed: we may have learnt late that it began, and it moves
        nothing that its begin did not allow.
        """
        step = theirs.value - ours.value
        if step == 0:
            return ours.update_in_progress and not theirs.update_in_progress
        if not 0 < step <= MAX_STEP:
            return False
        if is_recovery(ours, theirs):
            return now - self._recovered_s >= RECOVERY_S
        return now - self._changed_s >= UPDATE_S

    def moved(self, ours: IvIndex, theirs: IvIndex, now: float) -> None:
        """Take note that our IV Index went over to `theirs`."""
        if is_recovery(ours, theirs):
            self._recovered_s = now
            self._changed_s = -math.inf  # after a recovery the 96 hours do not count (§3.10.6)
        else:
            self._changed_s = now
