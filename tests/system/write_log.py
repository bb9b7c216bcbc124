"""An air that remembers what was written to its boards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from fastprovd.emulator.peripheral import AirPort, Central, PeripheralLink, Report, Service


class LoggingPort:
    """An `AirPort` in front of another; `written` holds value handle and value by BD_ADDR."""

    def __init__(self, port: AirPort) -> None:
        self.written: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._port = port

    def observe(self, observer: Callable[[Report], None]) -> Callable[[], None]:
        """Report every advertising event."""
        return self._port.observe(observer)

    def initiate(
        self, device_address: str, central: Central, opened: Callable[[PeripheralLink], None]
    ) -> Callable[[], None]:
        """Connect, and log the writes of the link."""
        log = self.written[device_address]
        return self._port.initiate(
            device_address, central, lambda link: opened(_LoggingLink(link, log))
        )


class _LoggingLink:
    def __init__(self, link: PeripheralLink, log: list[tuple[int, bytes]]) -> None:
        self._link = link
        self._log = log

    @property
    def mtu_octets(self) -> int:
        return self._link.mtu_octets

    def services(self) -> tuple[Service, ...]:
        return self._link.services()

    def write_command(self, handle: int, value: bytes) -> None:
        self._log.append((handle, value))
        self._link.write_command(handle, value)

    def write_cccd(self, handle: int, value: bytes) -> None:
        self._link.write_cccd(handle, value)

    def disconnect(self) -> None:
        self._link.disconnect()
