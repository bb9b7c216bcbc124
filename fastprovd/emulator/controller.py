"""An adapter's controller on the virtual air: it implements `peripheral.AirPort`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastprovd.emulator.peripheral import Central, PeripheralLink, Report

if TYPE_CHECKING:
    from fastprovd.emulator.air import Air
    from fastprovd.emulator.board import Board


# As a board is heard from a metre or two: 0 dBm, and the loss of free space.
STRONGEST_DBM: Final = -45


class Adapter:
    """Scans and connects; several scanners may share it."""

    def __init__(self, air: Air, name: str) -> None:
        self.name = name
        self._air = air
        self._random = air.random_for(name)
        self._observers: dict[int, Callable[[Report], None]] = {}
        self._next_observer = 0
        self._pending: dict[str, list[_Attempt]] = {}
        self._mesh_reports: dict[str, Report] = {}
        self._rssi_dbm: dict[str, int] = {}

    def rssi_dbm(self, device_address: str) -> int:
        """Return how strong this adapter hears that board; it does not change."""
        rssi = self._rssi_dbm.get(device_address)
        if rssi is None:
            loss_db = self._air.path_loss_db(self.name, device_address)
            rssi = self._rssi_dbm[device_address] = round(STRONGEST_DBM - loss_db)
        return rssi

    def observe(self, observer: Callable[[Report], None]) -> Callable[[], None]:
        """Report every advertising event heard from now on; returns the function that stops it."""
        number = self._next_observer
        self._next_observer += 1
        self._observers[number] = observer
        self._air.set_observing(self, active=True)

        def stop() -> None:
            self._observers.pop(number, None)
            if not self._observers:
                self._air.set_observing(self, active=False)

        return stop

    def initiate(
        self, device_address: str, central: Central, opened: Callable[[PeripheralLink], None]
    ) -> Callable[[], None]:
        """Connect at the board's next connectable advertising event, however long that takes."""
        attempt = _Attempt(central, opened)
        attempts = self._pending.setdefault(device_address, [])
        attempts.append(attempt)
        board = next((b for b in self._air.boards if b.device_address == device_address), None)
        if board is not None:
            board.advertiser.wake()

        def cancel() -> None:
            if attempt in attempts:
                attempts.remove(attempt)

        return cancel

    def is_initiating(self, device_address: str) -> bool:
        """Whether a connection to that board is wanted."""
        return bool(self._pending.get(device_address))

    def hear_connectable(self, board: Board) -> None:
        """Take one connectable event: connect if somebody waits for it, and report it."""
        content = board.advertiser.current
        if content is None:
            return
        attempts = self._pending.get(board.device_address)
        if self._observers:
            self._tell(content.report(board.device_address, self.rssi_dbm(board.device_address)))
        if attempts and content.answers:
            attempt = attempts.pop(0)
            attempt.opened(board.accept(attempt.central))

    def hear_non_connectable(self, board: Board) -> None:
        """Report an event that tells address and RSSI only."""
        report = self._mesh_reports.get(board.device_address)
        if report is None:
            report = self._mesh_reports[board.device_address] = Report(
                board.device_address, self.rssi_dbm(board.device_address), connectable=False
            )
        self._tell(report)

    def _tell(self, report: Report) -> None:
        for observer in tuple(self._observers.values()):
            observer(report)


class _Attempt:
    __slots__ = ("central", "opened")

    def __init__(self, central: Central, opened: Callable[[PeripheralLink], None]) -> None:
        self.central = central
        self.opened = opened
