"""Boards that are not ours: kept out before the start, named when they came in after it."""

from __future__ import annotations

from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.inventory import refusal
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.states import WAITS, RunEnd, Trigger
from fastprovd.campaign.verdict import shortened
from fastprovd.campaign.watch import Watch
from fastprovd.clock import Clock
from fastprovd.records import Stranger

FREE = "it is still unprovisioned, no board took it"
TAKEN = "the boards provisioned it into our network; power-cycle it to release it"
GONE = (
    "it left the air as an unprovisioned device, most likely because the boards provisioned it; "
    "power-cycle it to release it"
)
NEVER_HEARD = (
    "there is one address more than boards that were announced or heard: a board out of our reach "
    "was provisioned, or one board twice"
)


class Strangers:
    """The firmware takes whatever begins with the match value, so it must fit nobody else.

    What appears after INFO_SET can not be refused any more, only told.
    """

    def __init__(
        self, settings: RunSettings, *, log: RunLog, picture: AirPicture, watch: Watch, clock: Clock
    ) -> None:
        self._settings = settings
        self._log = log
        self._picture = picture
        self._watch = watch
        self._clock = clock
        self._begun = clock.monotonic()
        self._started_s: float | None = None

    def check(self) -> bytes:
        """Return the match value to send.

        Raises:
            RunEnd: a board on the air that is not ours would be provisioned too.
        """
        match = self._settings.inventory.match_value(self._picture.boards)
        now = self._clock.monotonic()
        on_air = [
            (board.uuid, board.device_address)
            for board in self._picture.strangers.values()
            if self._is_on_air(board, now, WAITS["board_gone"].seconds)
        ]
        reason = refusal(match, self._picture.boards, on_air)
        if reason is not None and not self._settings.allow_strangers:
            raise RunEnd(Trigger.STRANGERS_HEARD, reason)
        return match

    async def look_again(self) -> None:
        """Listen once more right before INFO_SET, then check and settle the match value.

        A board that had power before the run began is heard by now, whenever it came on the air.

        Raises:
            RunEnd: as `check`; or nobody can tell, because scanning fails.
        """
        if self._settings.inventory.is_selective and not self._settings.allow_strangers:
            on_air_s = self._begun + WAITS["power_on"].seconds - self._clock.monotonic()
            await self._watch.listen(max(on_air_s, 0.0) + WAITS["last_look"].seconds)
            if self._watch.last_error is not None:
                raise RunEnd(
                    Trigger.REFUSED,
                    f"can not listen for boards that are not ours: {self._watch.last_error}",
                )
        match = self.check()
        self._started_s = self._clock.monotonic()
        await self._log.change(match=match)

    def heard(self, board: HeardBoard) -> None:
        """Warn of a board that is not ours and that came too late to be refused."""
        if self._started_s is not None and board.uuid.startswith(self._log.run.match):
            self._log.event(
                "warning",
                about=board.device_address,
                reason="a board that is not ours was switched on after the start; its Device UUID "
                f"{board.uuid.hex()} begins like ours, so the boards will provision it",
            )

    def taken(self) -> list[HeardBoard]:
        """Return those that do not advertise themselves as unprovisioned any more."""
        now = self._clock.monotonic()
        free_s = WAITS["board_quiet"].seconds
        return [board for board in self._in_reach() if not self._is_on_air(board, now, free_s)]

    def named(self) -> tuple[Stranger, ...]:
        """Return each board that is not ours and could be provisioned, and what became of it."""
        if self._started_s is None:
            return ()
        taken = {board.uuid for board in self.taken()}
        strangers = []
        for board in self._in_reach():
            reason = FREE
            if board.uuid in taken:
                reason = TAKEN if self._picture.became_proxy(board) else GONE
            strangers.append(Stranger(reason, board.uuid, board.device_address))
        if self._settings.inventory.is_selective:
            accounted = max(self._settings.expected or 0, len(self._picture.boards)) + len(taken)
            strangers += [Stranger(NEVER_HEARD)] * (len(self._log.nodes) - accounted)
        return shortened(strangers, Stranger)

    def _in_reach(self) -> list[HeardBoard]:
        if self._started_s is None:
            return []
        since = self._started_s - WAITS["board_gone"].seconds
        return [
            board
            for board in self._picture.strangers.values()
            if board.uuid.startswith(self._log.run.match) and board.last_seen_s >= since
        ]

    def _is_on_air(self, board: HeardBoard, now: float, within_s: float) -> bool:
        return now - board.last_seen_s <= within_s and not self._picture.became_proxy(board)
