"""An adapter that bears so many links and no more, in front of an air."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from fastprovd.emulator.peripheral import AirPort, Central, PeripheralLink, Report


class Refusal(Enum):
    """What a program is told when the controller refuses a connection; the value is BlueZ's word.

    With the kernels 6.1 and 6.12 and BlueZ 5.66 and 5.82 it is SILENCE, whatever the controller
    says (0x07, 0x09, 0x0C, 0x0D): Connect is not answered, and the Disconnect of who waited in vain
    has BlueZ forget the device. The others are those of BlueZ's source for the same codes.
    """

    SILENCE = None
    LIMIT = "le-connection-concurrent-connection-limit"
    MEMORY = "le-connection-memory-allocation"
    BUSY = "le-connection-busy"
    REFUSED = "le-connection-refused"


class LimitedPort:
    """An `AirPort` that asks for a connection when it hears the board, as the kernel does.

    `is_full` is asked at that moment, with the number of those who were admitted before and are
    not open yet.
    """

    def __init__(self, air: AirPort, is_full: Callable[[int], bool]) -> None:
        self._air = air
        self._is_full = is_full
        self._admitted = 0

    def initiate(
        self,
        device_address: str,
        central: Central,
        opened: Callable[[PeripheralLink], None],
        refused: Callable[[], None],
    ) -> Callable[[], None]:
        """Connect as `AirPort.initiate`, or call `refused` once; returns the function to cancel."""
        attempt = _Attempt()

        def heard(report: Report) -> None:
            if report.device_address != device_address or not report.connectable:
                return
            attempt.stop()
            if self._is_full(self._admitted):
                attempt.stop = _nothing
                refused()
                return
            self._admitted += 1
            cancel = self._air.initiate(device_address, central, done)

            def give_up() -> None:
                self._admitted -= 1
                cancel()

            attempt.stop = give_up

        def done(link: PeripheralLink) -> None:
            attempt.stop = _nothing
            self._admitted -= 1
            opened(link)

        attempt.stop = self._air.observe(heard)
        return lambda: attempt.stop()


class _Attempt:
    """What ends the attempt now."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] = _nothing


def _nothing() -> None:
    """There is nothing to end."""
