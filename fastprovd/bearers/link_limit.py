"""How many links an adapter bears: found out from links that opened and links that were refused.

Nobody tells that number. BlueZ has words for some refusals of a controller; those of Debian 12 and
13 leave the question unanswered instead, as for a board that does not advertise. Sans IO: times are
seconds of one clock.
"""

from __future__ import annotations

from typing import Final

from fastprovd.records import AdapterLinks

# Adapters of all makes bear that many, but for those that bear only 3.
START_LINKS: Final = 5
# So many links are tried beyond those that were open at once: a refusal costs a board 5 s.
TRIED_BEYOND: Final = 2
# More are not of any use: a run is then held up by the air.
MAX_LINKS: Final = 32
# After a refusal one link more is tried again so much later, and each time twice as late: an
# adapter may have been busy, and its firmware does not change.
RETRY_S: Final = 60.0
MAX_RETRY_S: Final = 3600.0
# Silence with fewer links than were borne may have been the radio.
RETRY_SOON_S: Final = 10.0


class LinkLimit:
    """Says how many links may be open at once; all counts include those that BlueZ is hanging up.

    `configured` is a ceiling, `kept` what was learnt before. Without either it begins modestly.
    `others` are the links of other programs, which count against the adapter; set it.
    """

    def __init__(
        self, configured: int | None = None, kept: int | None = None, now_s: float = 0.0
    ) -> None:
        self.others = 0
        self._configured = configured
        self._most = MAX_LINKS if configured is None else configured
        self._bears = kept  # None while no refusal was met
        self._found = "" if kept is None else "learnt before"
        self._borne = 0  # open at once, ours and others'
        self._held: int | None = None
        self._retry_s = RETRY_S
        self._retry_at = now_s + RETRY_S

    @property
    def learnt(self) -> int | None:
        """How many links the adapter bears, whosever they are; `None` while that is not known."""
        return self._bears if self._retry_s >= RETRY_S else None

    def allowed(self, now_s: float) -> int:
        """Return how many links of ours may be open or being opened now."""
        retry = 1 if self._bears is not None and now_s >= self._retry_at else 0
        limit = self._believed + retry - self.others
        if self._held is not None:
            limit = min(limit, self._held)
        return max(1, min(limit, self._most))

    def links(self) -> AdapterLinks:
        """Return the number to plan with, and how it was found."""
        now = max(1, min(self._believed - self.others, self._most))
        found = self._found or ("learning" if self._configured is None else "configured")
        return AdapterLinks(now, self._most if self._bears is None else now, found)

    def opened(self, ours: int) -> bool:
        """Note that `ours` are open now; returns whether what was learnt has changed."""
        total = ours + self.others
        self._borne = max(self._borne, total)
        if self._bears is None or total <= self._bears:
            return False
        # It bears more than it did: learn again how many.
        self._bears, self._found, self._retry_s = None, "", RETRY_S
        return True

    def hold(self, ours: int) -> None:
        """Try no more than `ours` until it is clear whether the adapter has refused one."""
        self._held = max(1, ours) if self._held is None else max(1, min(self._held, ours))

    def denied(self) -> None:
        """It was not the adapter."""
        self._held = None

    def refused(self, ours: int, answer: str, now_s: float, *, certain: bool) -> bool:
        """Note that it bears `ours` and the others' links, and refused one more with `answer`.

        Returns whether the number has changed.
        """
        self._held = None
        total = max(1, ours + self.others)
        if not certain and total < self._borne:
            self._retry_s = RETRY_SOON_S
        elif total == self._bears and now_s >= self._retry_at:
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)
        else:
            self._retry_s = RETRY_S
        self._retry_at = now_s + self._retry_s
        self._borne = total
        self._found = f"learnt: link {total + 1} was refused ({answer})"
        is_new = self._bears != total
        self._bears = total
        return is_new

    @property
    def _believed(self) -> int:
        if self._bears is not None:
            return self._bears
        if self._configured is not None:
            return self._configured + self.others
        return max(START_LINKS, self._borne + TRIED_BEYOND)
