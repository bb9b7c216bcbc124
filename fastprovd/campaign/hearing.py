"""Hearing the boards of a run: at its beginning, and those that come on the air later."""

from __future__ import annotations

from fastprovd.campaign.context import RunContext
from fastprovd.campaign.planner import is_direct
from fastprovd.campaign.states import WAITS
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice


class Hearing:
    """Listens for the boards that are expected, no longer than the settings allow in all."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._settings = context.settings
        self._boards = context.picture.boards
        self._watch = context.watch
        self._clock = context.clock
        self._end_s = 0.0

    async def hear(self) -> None:
        """Listen until there are enough to begin, or nothing new comes that nobody expects."""

        def is_last(advertisement: Advertisement) -> bool:
            return self._is_new(advertisement) and self._are_enough(len(self._boards) + 1)

        self._end_s = self._clock.monotonic() + self._settings.scan_s
        while (left_s := self._left_s()) > 0:
            before = len(self._boards)
            seconds = min(left_s, WAITS["boards_settle"].seconds)
            await self._watch.until(is_last, seconds, begins_anew=False)
            if self._are_enough(len(self._boards)):
                return
            if self._settings.expected is None and len(self._boards) == before > 0:
                return

    async def hear_another(self) -> None:
        """Listen on for a board that is expected and was not heard yet; the time goes on."""
        left_s = self._left_s()
        if len(self._boards) < (self._settings.expected or 0) and left_s > 0:
            await self._watch.until(self._is_new, left_s)

    def _left_s(self) -> float:
        return self._end_s + self._watch.deaf_s - self._clock.monotonic()

    def _is_new(self, advertisement: Advertisement) -> bool:
        """Whether it is of a board of ours that is not in the picture yet."""
        data = advertisement.data
        return (
            isinstance(data, UnprovisionedDevice)
            and data.uuid not in self._boards
            and self._settings.inventory.is_ours(data.uuid)
        )

    def _are_enough(self, heard: int) -> bool:
        """Whether to begin: all are heard, or as many as we can provision at once meanwhile."""
        expected = self._settings.expected
        if expected is None or heard >= expected:
            return expected is not None
        planned = self._context.planned
        return heard >= planned.links and all(is_direct(planned, n) for n in (heard, expected))
