"""What is learnt of an adapter is kept for it alone, and counts the links of other programs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.bearers import adapter_memory
from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.adapter_memory import AdapterMemory
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.emulator.link_limit import Refusal
from fastprovd.errors import StoreError
from tests.support.doors import Bench, bench


class Memory:
    """A LinkMemory of one process."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, int]] = {}

    def adapter_links(self, address: str, system: str) -> int | None:
        """Return what is kept under this system."""
        kept_under, links = self.kept.get(address, ("", 0))
        return links if kept_under == system else None

    def save_adapter_links(self, address: str, system: str, links: int | None) -> None:
        """Keep it."""
        if links is None:
            self.kept.pop(address, None)
        else:
            self.kept[address] = system, links


async def visit_all(bearer: BleakBearer, addresses: list[str], workers: int) -> None:
    """Open a link to each board."""
    left = list(addresses)

    async def work() -> None:
        while left:
            async with bearer.provisioning_link(left.pop()):
                pass

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())


async def hear_all(b: Bench, bearer: BleakBearer) -> None:
    """Scan until all boards were heard that are not connected."""
    wanted = {board.address for board in b.boards if board.central is None}
    async with bearer.scan() as scan, asyncio.timeout(10):
        async for heard in scan:
            wanted.discard(heard.device_address)
            if not wanted:
                break


@pytest.mark.parametrize("refusal", [Refusal.SILENCE, Refusal.LIMIT])
async def test_links_of_other_programs_count_and_stay(private_bus: Any, refusal: Refusal) -> None:
    """Two links are another program's: ours are two of four; the next process knows that."""
    memory = Memory()
    async with bench(private_bus, boards=8) as b, AsyncExitStack() as others:
        b.adapter.max_links, b.adapter.refusal = 4, refusal
        for board in b.boards[:2]:
            await others.enter_async_context(b.client(await b.find(board.address)))
        ours = [board.address for board in b.boards[2:]]
        async with BleakBearer(memory=memory) as bearer:
            await hear_all(b, bearer)
            await visit_all(bearer, ours, 5)
            assert bearer.links.now == 2
            assert bearer.links.found.startswith("learnt: link 5 was refused")
        assert all(board.log[0] == "connected" for board in b.boards)
        assert all(board.central is not None for board in b.boards[:2])
        ((address, (_, links)),) = memory.kept.items()
        assert (address, links) == (b.adapter.address, 4)
        refused = b.adapter.refused
        async with BleakBearer(memory=memory) as bearer:
            await hear_all(b, bearer)
            await visit_all(bearer, ours, 5)
            assert (bearer.links.now, bearer.links.found) == (2, "learnt before")
        assert b.adapter.refused == refused


@pytest.mark.parametrize("others", [True, False])
async def test_silence_beside_another_programs_discovery_teaches_nothing(
    private_bus: Any, others: bool
) -> None:
    """There a connection may wait for 10.24 s, so that it was refused is not sure; else it is."""
    memory = Memory()
    async with bench(private_bus, boards=6) as b, AsyncExitStack() as stack:
        b.adapter.max_links, b.adapter.refusal = 2, Refusal.SILENCE
        b.adapter.quirks = replace(
            b.adapter.quirks,
            slow_connect_while_discovering=False,
            duplicate_filter=DuplicateFilter.OFF,
        )
        async with BleakBearer(memory=memory) as bearer:
            await hear_all(b, bearer)
            if others:
                await stack.enter_async_context(b.scanning_elsewhere())
            await visit_all(bearer, [board.address for board in b.boards], 3)
            assert b.adapter.refused
            assert (bearer.links.found == "learning") is others
        assert (memory.kept == {}) is others


class Full(Memory):
    """One whose disk is full."""

    def save_adapter_links(self, address: str, system: str, links: int | None) -> None:
        raise StoreError("the disk is full")

    def adapter_links(self, address: str, system: str) -> int | None:
        raise StoreError("the disk is full")


async def test_a_full_disk_costs_what_was_learnt() -> None:
    """It is said, and the link that taught it stays."""
    with capture_logs() as logs:
        memory = AdapterMemory(Full())
        assert await memory.load("00:1A") is None
        memory.save(3)
    events = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert events == ["adapter_links_not_known", "adapter_links_not_kept"]


async def test_another_system_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that was learnt under another BlueZ or kernel does not count."""

    async def versions(said: str) -> None:
        async def system() -> str:
            return said

        monkeypatch.setattr(adapter_memory, "_system", system)

    kept = Memory()
    await versions("5.66, Linux 6.1")
    first = AdapterMemory(kept)
    assert await first.load("00:1A") is None
    first.save(7)
    assert await AdapterMemory(kept).load("00:1A") == 7
    assert await AdapterMemory(kept).load("00:1B") is None
    await versions("5.82, Linux 6.12")
    assert await AdapterMemory(kept).load("00:1A") is None


async def test_without_a_memory_nothing_is_asked() -> None:
    """No program is started for the sake of a number that nobody keeps."""
    memory = AdapterMemory(None)
    assert await memory.load("00:1A") is None
    assert memory.address == "00:1A"
    memory.save(3)
