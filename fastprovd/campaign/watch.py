"""Listening: to the air until something is heard, or beside an open link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.ports import Bearer
from fastprovd.errors import BearerError
from fastprovd.mesh.beacons import Advertisement

log = structlog.get_logger()

# A scan that broke is begun again after this; bluetoothd needs 0.6..2.2 s for a restart.
RESTART_S: Final = 1.0
# A board on the air is reported every 10.24 s even by a controller that filters duplicates; twice
# that without any report is a scanner that BlueZ or the controller has lost, or an empty air,
# which a restart does not harm.
SILENT_S: Final = 20.0


class Watch:
    """Feeds the AirPicture from scans; `new_board` is told each matching board once.

    `last_error` is why scanning does not work now, `None` while advertisements come;
    `silent_restarts` counts scans begun again because nothing at all was heard.
    """

    def __init__(
        self, bearer: Bearer, picture: AirPicture, new_board: Callable[[HeardBoard], None]
    ) -> None:
        self._bearer = bearer
        self._picture = picture
        self._new_board = new_board
        self.last_error: BearerError | None = None
        self.silent_restarts = 0

    async def until(
        self, wanted: Callable[[Advertisement], bool], seconds: float
    ) -> Advertisement | None:
        """Scan until an advertisement is `wanted`; `None` when `seconds` are over.

        A scan that breaks or falls silent is begun again. On return the adapter does not discover
        any more.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        async with self._bearer.scan() as scan:
                            heard = aiter(scan)
                            while (advertisement := await self._next(heard)) is not None:
                                self.last_error = None
                                verdict = wanted(advertisement)
                                self._take(advertisement)
                                if verdict:
                                    return advertisement
                    except BearerError as error:
                        (log.warning if self.last_error is None else log.debug)(
                            "scan_broken", reason=str(error)
                        )
                        self.last_error = error
                    await asyncio.sleep(RESTART_S)
        except TimeoutError:
            return None

    async def listen(self, seconds: float) -> None:
        """Scan for so long."""
        await self.until(lambda _: False, seconds)

    async def run(self) -> None:
        """Scan until cancelled; for use beside an open link."""
        while True:
            await self.listen(3600.0)  # one scan as long as nothing breaks it

    async def _next(self, heard: AsyncIterator[Advertisement]) -> Advertisement | None:
        """Return the next advertisement; `None` when the scan has ended or is to be ended."""
        try:
            async with asyncio.timeout(SILENT_S):
                return await anext(heard, None)
        except TimeoutError:
            self.silent_restarts += 1
            (log.warning if self.silent_restarts == 1 else log.debug)(
                "scan_silent", seconds=SILENT_S, restarts=self.silent_restarts
            )
            return None

    def _take(self, advertisement: Advertisement) -> None:
        board = self._picture.receive(advertisement)
        if board is not None:
            self._new_board(board)
