"""Listening: to the air until something is heard, or beside an open link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.ports import Bearer
from fastprovd.errors import BearerError
from fastprovd.mesh.beacons import Advertisement

log = structlog.get_logger()

# A scan that broke is begun again after this; bluetoothd needs 0.6..2.2 s for a restart.
RESTART_S = 1.0


class Watch:
    """Feeds the AirPicture from scans; `new_board` is told each matching board once.

    `last_error` is why scanning does not work now, `None` while advertisements come.
    """

    def __init__(
        self, bearer: Bearer, picture: AirPicture, new_board: Callable[[HeardBoard], None]
    ) -> None:
        self._bearer = bearer
        self._picture = picture
        self._new_board = new_board
        self.last_error: BearerError | None = None

    async def until(
        self, wanted: Callable[[Advertisement], bool], seconds: float
    ) -> Advertisement | None:
        """Scan until an advertisement is `wanted`; `None` when `seconds` are over.

        A scan that breaks is begun again. The adapter does not discover any more on return.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        async with self._bearer.scan() as scan:
                            async for advertisement in scan:
                                self.last_error = None
                                verdict = wanted(advertisement)
                                self._take(advertisement)
                                if verdict:
                                    return advertisement
                    except BearerError as error:
                        log.warning("scan_broken", reason=str(error))
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

    def _take(self, advertisement: Advertisement) -> None:
        board = self._picture.receive(advertisement)
        if board is not None:
            self._new_board(board)
