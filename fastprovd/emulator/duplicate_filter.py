"""What a controller that was asked to filter duplicates keeps to itself."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum

from fastprovd.emulator.peripheral import Report


class DuplicateFilter(Enum):
    """What makes two advertising reports the same; controllers differ.

    The Core specification (v5.4 Vol 6 Part B §4.3.3) says that the data is of no account: what a
    board advertises anew is told when the scan begins again. Controllers tell types of events
    apart, so a mesh PDU does not hide the connectable advertisement of the same address.
    """

    BY_ADDRESS = "address and type of event"
    BY_DATA = "address, type of event and data"
    OFF = "no two"


class Reported:
    """What was reported since the scan began."""

    def __init__(self) -> None:
        self._keys: set[Hashable] = set()

    def restart(self) -> None:
        """Begin anew, as with each start of a scan."""
        self._keys.clear()

    def is_new(self, report: Report, kind: DuplicateFilter) -> bool:
        """Take a report, and tell whether a filter of that kind passes it on."""
        if kind is DuplicateFilter.OFF:
            return True
        key: tuple[Hashable, ...] = (report.device_address, report.connectable)
        if kind is DuplicateFilter.BY_DATA:
            key = (*key, tuple(report.service_data.items()))
        if key in self._keys:
            return False
        self._keys.add(key)
        return True
