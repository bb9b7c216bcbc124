"""The contract of all doors, through the real bluetoothd and kernel."""

from __future__ import annotations

from tests.support.contract import DoorContract


class TestGuestDoor(DoorContract):
    """The whole list."""
