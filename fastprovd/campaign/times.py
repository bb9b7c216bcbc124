"""How long a run is expected to take, and how we know; pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MEASURED: Final = "measured on the unmodified firmware"
MEASURED_CLOCK: Final = "measured on the unmodified firmware in a clock of its own, on two airs"
EMULATED: Final = "emulated boards without flaws"
EXTRAPOLATED: Final = "extrapolated from emulated boards"


@dataclass(frozen=True, slots=True)
class Expected:
    """From INFO_SET, or from the first connect, to the last address: seconds, and their source.

    The first connect counts where we provision all boards that are heard ourselves.
    """

    low_s: float
    high_s: float
    source: str

    @property
    def middle_s(self) -> float:
        """What to compare."""
        return (self.low_s + self.high_s) / 2


# Boards, quickest and slowest run, source; between two rows linear, and of the later one's source.
_Row = tuple[int, float, float, str]
# node_addr_cnt 1, both Bluetooth hosts.
_ONE_PRIMARY: Final[tuple[_Row, ...]] = (
    (1, 3.6, 3.7, MEASURED),
    (3, 15.8, 16.6, MEASURED),
    (7, 18.2, 21.6, MEASURED),
    (12, 20.6, 36.5, MEASURED),
    (20, 32.4, 46.2, MEASURED),
    (50, 45.0, 76.0, MEASURED_CLOCK),
    (100, 64.0, 120.0, MEASURED_CLOCK),
)
# Two to five Primaries; two of them were measured, with node_addr_cnt absent and 1.
_MORE_PRIMARIES: Final[tuple[_Row, ...]] = (
    (2, 3.6, 3.7, MEASURED),
    (12, 24.2, 24.2, MEASURED),
    (20, 33.4, 35.2, MEASURED),
    (50, 33.4, 60.0, MEASURED_CLOCK),
    (100, 61.0, 105.0, MEASURED_CLOCK),
)
# A board that we provision ourselves (observed.md §18): connect and discover 0.55, provision 0.21,
# its service swapped 0.2 to 0.46, configure 0.21, and then BlueZ takes 2.0 to hang up, for which
# the last boards are not waited for. So 20 boards took 11.0 s over 5 links, 4.6 over 10, 1.7 over
# 20.
_DIRECT_S: Final = 1.7
_SLOT_S: Final = 3.1
_DIRECT_SOURCE: Final = "3.1 s for each board and link, 2.0 of them BlueZ hanging up; measured"
# From the end of the last of them to INFO_SET, when nodes of ours provision further boards: each
# is heard and linked again.
_LINKED_AGAIN_S: Final = (2.4, 4.4)


def direct_time(boards: int, links: int) -> Expected:
    """Return how long we need for all boards, `links` at a time."""
    seconds = round((-(-boards // links) - 1) * _SLOT_S + _DIRECT_S, 1)
    return Expected(seconds, seconds, _DIRECT_SOURCE)


def fast_time(boards: int, primaries: int) -> Expected:
    """Return how long boards need that provision each other below `primaries` Primaries."""
    rows = _ONE_PRIMARY if primaries == 1 else _MORE_PRIMARIES
    for lower, upper in pairwise(rows):
        if boards <= upper[0]:
            return _between(lower, upper, boards, upper[3])
    return _between(rows[-2], rows[-1], boards, EXTRAPOLATED)


def reach_out_time(heard: int, unheard: int, primaries: int, links: int) -> Expected:
    """Return how long we need for `heard` boards, and then `primaries` of them for the others."""
    own, others = direct_time(heard, links), fast_time(primaries + unheard, primaries)
    low_s, high_s = _LINKED_AGAIN_S
    return Expected(
        round(own.low_s + low_s + others.low_s, 1),
        round(own.high_s + high_s + others.high_s, 1),
        f"{shown(own)} for those that are heard ({own.source}), {low_s:.0f}..{high_s:.0f} s until "
        f"INFO_SET ({EMULATED}), {shown(others)} for the others ({others.source})",
    )


def shown(expected: Expected) -> str:
    """Return the time as people write it."""
    low, high = round(expected.low_s), round(expected.high_s)
    return f"{low} s" if low == high else f"{low}..{high} s"


def _between(lower: _Row, upper: _Row, boards: int, source: str) -> Expected:
    part = max(0.0, (boards - lower[0]) / (upper[0] - lower[0]))
    low, high = (
        one + part * (other - one) for one, other in zip(lower[1:3], upper[1:3], strict=True)
    )
    return Expected(round(low, 1), round(high, 1), source)
