"""When the last board became a node, as exactly as the evidence tells; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

# A figure is told if it is right to about a second; lists are read each 2 s.
_WIDTH_S: Final = 2.2
# From Complete to the child's answer to AppKey Add, emulated: 0.48 s to 2.4 s in 98 of 100
# children, 0.8 s in the median.
_ANSWER_S: Final = (0.45, 2.4)
# A Temporary Provisioner reports 5 s after its latest child (FP §7).
_REPORT_S: Final = 5.0


class Span(NamedTuple):
    """A time between two, in seconds of the loop's clock."""

    earliest_s: float
    latest_s: float

    def and_(self, other: Span) -> Span:
        """Return what both allow."""
        return Span(max(self.earliest_s, other.earliest_s), min(self.latest_s, other.latest_s))


def last_of(spans: Iterable[Span]) -> Span:
    """Return when the last one was; any time at all if there is none."""
    spans = list(spans)
    if not spans:
        return ANY_TIME
    return Span(max(s.earliest_s for s in spans), max(s.latest_s for s in spans))


ANY_TIME: Final = Span(-math.inf, math.inf)


class NodeTimes:
    """When each address was given, from what tells of it."""

    def __init__(self) -> None:
        self._spans: dict[int, Span] = {}

    def answered(self, address: int, now: float) -> None:
        """Take the child's answer to the AppKey Add of its provisioner, overheard now."""
        quickest, slowest = _ANSWER_S
        self._take(address, Span(now - slowest, now - quickest))

    def listed(self, address: int, read_s: float, now: float, *, is_own: bool) -> None:
        """Take that a list names it that was read at `read_s` before, without it.

        A child of the Primary itself (`is_own`) is in there at once, others are reported.
        """
        self._take(address, Span(read_s, now) if is_own else Span(-math.inf, now - _REPORT_S))

    def exists(self, address: int, now: float) -> None:
        """Take that the node is there."""
        self._take(address, Span(-math.inf, now))

    def _take(self, address: int, span: Span) -> None:
        self._spans[address] = self._spans.get(address, ANY_TIME).and_(span)

    def last_s(self, on_air: Span) -> float | None:
        """Return when the last address was given, `None` if nothing tells it to a second.

        `on_air` is what the air tells of that time.
        """
        given = last_of(self._spans.values())
        both = given.and_(on_air)
        # BlueZ may tell of a node's time as an unprovisioned device late; the mesh is believed.
        last = both if both.earliest_s <= both.latest_s else given
        if last.latest_s - last.earliest_s > _WIDTH_S:
            return None
        return (last.earliest_s + last.latest_s) / 2
