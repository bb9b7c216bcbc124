"""A scan alone, connections side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastprovd.bearers.radio import RadioUse


async def _use(context: Any, seconds: float, journal: list[tuple[float, str]], name: str) -> None:
    async with context:
        journal.append((asyncio.get_running_loop().time(), name))
        await asyncio.sleep(seconds)


async def test_connections_share_and_scans_do_not() -> None:
    """Two connections begin at once, a scan after both, a connection and a scan after that."""
    radio = RadioUse()
    journal: list[tuple[float, str]] = []
    begun = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for context, seconds, name in (
            (radio.opening(), 1.0, "one"),
            (radio.opening(), 2.0, "two"),
            (radio.scanning(), 5.0, "scan"),
        ):
            group.create_task(_use(context, seconds, journal, name))
            await asyncio.sleep(0)
        await asyncio.sleep(3.0)
        assert radio.is_scanning
        group.create_task(_use(radio.scanning(), 5.0, journal, "second scan"))
        group.create_task(_use(radio.opening(), 1.0, journal, "three"))
    # Connections go first, also before a scan that waits for longer.
    assert [(round(at - begun), name) for at, name in journal] == [
        (0, "one"),
        (0, "two"),
        (2, "scan"),
        (7, "three"),
        (8, "second scan"),
    ]
    assert not radio.is_scanning


async def test_who_gives_up_leaves_nothing_behind() -> None:
    """Cancelled while waiting, or inside: the next one gets its turn."""
    radio = RadioUse()
    journal: list[tuple[float, str]] = []
    scan = asyncio.create_task(_use(radio.scanning(), 60.0, journal, "scan"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(_use(radio.opening(), 1.0, journal, "never"))
    await asyncio.sleep(1.0)
    waiting.cancel()
    scan.cancel()
    async with asyncio.timeout(1.0):
        await _use(radio.opening(), 0.1, journal, "next")
        await _use(radio.scanning(), 0.1, journal, "last")
    assert [name for _, name in journal] == ["scan", "next", "last"]


async def test_a_scan_that_gives_way_is_asked_to() -> None:
    """As soon as somebody wants to connect or to search, who then waits for its end."""
    radio = RadioUse()
    asked = asyncio.Event()
    scans: list[float] = []
    begun = asyncio.get_running_loop().time()

    async def scan() -> None:
        while True:
            async with radio.scanning(asked.set):
                scans.append(asyncio.get_running_loop().time() - begun)
                assert not radio.is_blocked
                await asked.wait()
                asked.clear()
                await asyncio.sleep(0.1)  # a scan takes a while to end

    scanning = asyncio.create_task(scan())
    for context in (radio.opening(), radio.searching()):
        await asyncio.sleep(5.0)
        async with context:
            assert not radio.is_scanning
            await asyncio.sleep(1.0)
    await asyncio.sleep(1.0)
    assert scans == pytest.approx([0.0, 6.1, 12.2])
    scanning.cancel()
    await asyncio.wait([scanning])
    assert not radio.is_scanning
