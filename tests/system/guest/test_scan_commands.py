"""What the kernel asks of a controller that scans: Debian 12 (6.1) and 13 (6.12)."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.contract.scanning import CYCLE_S
from tests.support.door import now, run_on_door
from tests.system.guest_door import GuestDoor


@pytest.mark.slow
@pytest.mark.parametrize("duplicates", [True, False])
@run_on_door
async def test_every_active_scan_filters_duplicates(door: GuestDoor, duplicates: bool) -> None:
    """DuplicateData changes nothing about that; after 10.24 s the kernel ends the scan.

    BlueZ has it begin anew at once, but 5.82 without DuplicateData after 5 s.
    """
    door.place_fakes()
    begun = now()
    async with door.scanner(duplicates=duplicates):
        await asyncio.sleep(20)
    first, ended, second, *_ = [command for command in door.scan_commands if command.at_s >= begun]
    assert (first.enable, ended.enable, second.enable) == (True, False, True)
    for started in (first, second):
        assert started.active
        assert started.filter_duplicates
    assert abs(ended.at_s - first.at_s - CYCLE_S) < 3.0
    assert second.at_s - ended.at_s < (2.0 if duplicates else 10.0)


@pytest.mark.slow
@run_on_door
async def test_a_second_program_changes_no_filter(door: GuestDoor) -> None:
    """Whoever joins a discovery, and with whatever filter: duplicates stay filtered."""
    door.place_fakes()
    begun = now()
    async with door.scanning_elsewhere():
        await asyncio.sleep(1)
        async with door.scanner():
            await asyncio.sleep(2)
    commands = [command for command in door.scan_commands if command.at_s >= begun]
    assert commands
    assert all(command.filter_duplicates for command in commands if command.enable)
