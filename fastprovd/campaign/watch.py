"""Listening: to the air until something is heard, or beside an open link."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

import structlog

from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.ports import Bearer, Scan
from fastprovd.errors import BearerError
from fastprovd.mesh.beacons import Advertisement

log = structlog.get_logger()

# A scan that broke is begun again after this; bluetoothd needs 0.6..2.2 s for a restart, and its
# return must be noticed soon.
RESTART_S: Final = 0.5
# While no scan can be begun all waits stand still, but no longer than this: an adapter is plugged
# in again after half a minute, and BlueZ may need 10 s more to scan with it.
ABSENCE_S: Final = 45.0
# A controller that filters duplicates tells an unchanged advertiser once in a scan, and Linux lets
# it begin anew only each 10.24 s (observed.md §18). So we begin anew ourselves: a board that is
# still there is told again, and one that is not told has left. Shorter would be deaf for too much
# of the time; BlueZ needs up to 0.15 s for each start. It also wakes a scanner that BlueZ or the
# controller has lost. Another program that scans as well keeps the old scan going, and with it the
# filter; what must be sure of an absence waits for its 10.24 s (WAITS["board_gone"]).
FRESH_S: Final = 1.5


class Watch:
    """Feeds the AirPicture from scans; `new_board` is told each matching board once.

    `restarted` is told why scans that broke are begun again, once for a series. Each scan lasts
    `fresh_s` at most. `last_error` is why scanning does not work now, `None` while advertisements
    come.
    """

    def __init__(
        self,
        bearer: Bearer,
        picture: AirPicture,
        new_board: Callable[[HeardBoard], None],
        restarted: Callable[[str], None],
        fresh_s: float = FRESH_S,
    ) -> None:
        self._bearer = bearer
        self._picture = picture
        self._new_board = new_board
        self._restarted = restarted
        self._deaf_since: float | None = None
        self._deaf_before_s = 0.0
        self._fresh_s = fresh_s
        self.last_error: BearerError | None = None

    @property
    def deaf_s(self) -> float:
        """For how long waits stood still in all."""
        if self._deaf_since is None:
            return self._deaf_before_s
        now = asyncio.get_running_loop().time()
        return self._deaf_before_s + min(now - self._deaf_since, ABSENCE_S)

    async def until(
        self,
        wanted: Callable[[Advertisement], bool],
        seconds: float,
        *,
        gives_way: bool = False,
        begins_anew: bool = True,
    ) -> Advertisement | None:
        """Scan until an advertisement is `wanted`; `None` when `seconds` are over.

        One that `gives_way` pauses while somebody opens a link. Without `begins_anew` it is one
        scan, which is a little quicker and tells boards that are new.
        A scan that breaks is begun again; the time until it works does not count, up to ABSENCE_S.
        On return the adapter does not discover any more.
        """
        end_s = asyncio.get_running_loop().time() + seconds - self.deaf_s
        try:
            async with asyncio.timeout_at(end_s + self._longest_deaf_s()) as limit:
                while True:
                    try:
                        async with self._bearer.scan(gives_way=gives_way) as scan:
                            self._deaf(False)
                            limit.reschedule(end_s + self._longest_deaf_s())
                            longest_s = self._fresh_s if begins_anew else math.inf
                            found, is_over = await self._listen(scan, wanted, longest_s)
                        if found is not None:
                            return found
                        if is_over or gives_way:
                            continue
                    except BearerError as error:
                        self._broken(error)
                        limit.reschedule(end_s + self._longest_deaf_s())
                    await asyncio.sleep(RESTART_S)
        except TimeoutError:
            return None

    def _longest_deaf_s(self) -> float:
        return self._deaf_before_s + (0.0 if self._deaf_since is None else ABSENCE_S)

    def _deaf(self, is_deaf: bool) -> None:
        if is_deaf and self._deaf_since is None:
            self._deaf_since = asyncio.get_running_loop().time()
        elif not is_deaf:
            self._deaf_before_s = self.deaf_s
            self._deaf_since = None

    def _broken(self, error: BearerError) -> None:
        if self.last_error is None:
            log.warning("scan_broken", reason=str(error))
            self._restarted(str(error))
        else:
            log.debug("scan_broken", reason=str(error))
        self.last_error = error
        self._deaf(True)

    async def _listen(
        self, scan: Scan, wanted: Callable[[Advertisement], bool], longest_s: float
    ) -> tuple[Advertisement | None, bool]:
        """Return what is wanted, and whether this scan is to be followed by a fresh one."""
        try:
            async with asyncio.timeout(longest_s):
                async for advertisement in scan:
                    self.last_error = None
                    verdict = wanted(advertisement)
                    self._take(advertisement)
                    if verdict:
                        return advertisement, False
        except TimeoutError:
            return None, True
        return None, False

    async def listen(self, seconds: float) -> None:
        """Scan for so long."""
        await self.until(lambda _: False, seconds)

    async def run(self, is_needed: Callable[[], bool]) -> None:
        """Scan until cancelled while it is needed, beside links that are open or being opened."""
        while True:
            if is_needed():
                await self.until(lambda _: not is_needed(), self._fresh_s, gives_way=True)
            else:
                await asyncio.sleep(RESTART_S)

    def _take(self, advertisement: Advertisement) -> None:
        board = self._picture.receive(advertisement)
        if board is not None:
            self._new_board(board)
