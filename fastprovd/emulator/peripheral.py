"""The seam between the boards and the adapters that reach them.

An `AirPort` is what a central's controller sees of the virtual air; `board.py` and `air.py` stand
on one side, `bleak_backend.py` on the other. All calls are synchronous and happen on the event
loop whose clock is the air's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

# HCI status codes that a disconnected link reports.
CONNECTION_TIMEOUT: Final = 0x08
REMOTE_USER_TERMINATED: Final = 0x13


@dataclass(frozen=True, slots=True)
class Report:
    """One advertising event as a controller hears it.

    `service_data` maps 16-bit service UUIDs to data; it is empty when the event was a
    non-connectable one (mesh, PB-ADV, beacon), which tells a host address and RSSI only.
    """

    device_address: str
    rssi_dbm: int
    connectable: bool
    service_uuids: tuple[int, ...] = ()
    service_data: Mapping[int, bytes] = field(default_factory=dict)
    local_name: str | None = None


@dataclass(frozen=True, slots=True)
class Characteristic:
    """A characteristic: 16-bit UUID, value handle, property names as BlueZ spells them."""

    uuid: int
    value_handle: int
    properties: frozenset[str]
    cccd_handle: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A primary service that is visible now."""

    uuid: int
    start_handle: int
    characteristics: tuple[Characteristic, ...]


class AttError(Exception):
    """The server answered a request with an ATT error code."""

    def __init__(self, code: int, handle: int) -> None:
        super().__init__(f"ATT error 0x{code:02x} on handle 0x{handle:04x}")
        self.code = code
        self.handle = handle


class Central(Protocol):
    """What the board tells the central on an open link."""

    def notified(self, value_handle: int, value: bytes) -> None:
        """A notification left the board."""
        ...

    def services_changed(self) -> None:
        """A Service Changed indication left the board."""
        ...

    def disconnected(self, reason: int) -> None:
        """The link is gone; `reason` is an HCI code. Not called after the central hung up."""
        ...


class PeripheralLink(Protocol):
    """The central's end of an open link."""

    @property
    def mtu_octets(self) -> int:
        """The ATT_MTU the board agrees to."""
        ...

    @property
    def answers(self) -> bool:
        """Whether requests are answered; a board that died keeps its link and says nothing."""
        ...

    def services(self) -> tuple[Service, ...]:
        """What a discovery finds now, on a link that answers."""
        ...

    def write_command(self, handle: int, value: bytes) -> None:
        """Deliver a Write Command; the board ignores what it does not like."""
        ...

    def write_cccd(self, handle: int, value: bytes) -> None:
        """Deliver a Write Request to a CCCD; raises AttError."""
        ...

    def disconnect(self) -> None:
        """Hang up; idempotent."""
        ...


class AirPort(Protocol):
    """The virtual air as one adapter's controller uses it."""

    def observe(self, observer: Callable[[Report], None]) -> Callable[[], None]:
        """Report every advertising event heard from now on; returns the function that stops it."""
        ...

    def initiate(
        self, device_address: str, central: Central, opened: Callable[[PeripheralLink], None]
    ) -> Callable[[], None]:
        """Connect at the board's next connectable advertising event, however long that takes.

        Calls `opened` once; returns the function that cancels a pending attempt.
        """
        ...
