"""A bus of one's own begins and ends with its `with`."""

from __future__ import annotations

import contextlib

import pytest
from dbus_fast.aio import MessageBus

from fastprovd.emulator.private_bus import PrivateBus

pytestmark = pytest.mark.asyncio  # a real message bus


def test_a_missing_dbus_daemon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can not have a bus is told what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "dbus-daemon" in (PrivateBus.missing() or "")


async def test_two_buses_are_two(private_bus: PrivateBus) -> None:
    """Each has its own address, and the end of one is not the end of the other."""
    with PrivateBus() as other:
        assert other.address != private_bus.address
        bus = await MessageBus(bus_address=other.address).connect()
        assert bus.unique_name
        bus.disconnect()
        await bus.wait_for_disconnect()
    still = await MessageBus(bus_address=private_bus.address).connect()
    assert still.unique_name
    still.disconnect()
    await still.wait_for_disconnect()


async def test_a_killed_bus_starts_again_at_its_address(private_bus: PrivateBus) -> None:
    """Who was connected is not any more; who connects now is."""
    address = private_bus.address
    before = await MessageBus(bus_address=address).connect()
    private_bus.kill()
    with contextlib.suppress(OSError, EOFError):
        await before.wait_for_disconnect()
    private_bus.start()
    assert private_bus.address == address
    after = await MessageBus(bus_address=address).connect()
    assert after.unique_name
    after.disconnect()
    await after.wait_for_disconnect()
