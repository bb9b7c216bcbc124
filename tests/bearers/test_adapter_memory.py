"""What is learnt of an adapter is kept for it alone, and counts the links of other programs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fastprovd.bearers import adapter_memory
from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.adapter_memory import AdapterMemory
from fastprovd.emulator.link_limit import Refusal
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
def test_links_of_other_programs_count_and_stay(
    private_bus: Any, run_paced: Any, refusal: Refusal
) -> None:
    """Two links are another program's: ours are two of four; the next process knows that."""

    async def main() -> None:
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

    run_paced(main())


def test_another_system_begins_anew(monkeypatch: pytest.MonkeyPatch, run_virtual: Any) -> None:
    """A number that was learnt under another BlueZ or kernel does not count."""

    async def versions(said: str) -> None:
        async def system() -> str:
            return said

        monkeypatch.setattr(adapter_memory, "_system", system)

    async def main() -> None:
        kept = Memory()
        await versions("5.66, Linux 6.1")
        first = AdapterMemory(kept)
        assert await first.load("00:1A") is None
        first.save(7)
        assert await AdapterMemory(kept).load("00:1A") == 7
        assert await AdapterMemory(kept).load("00:1B") is None
        await versions("5.82, Linux 6.12")
        assert await AdapterMemory(kept).load("00:1A") is None

    run_virtual(main())


def test_without_a_memory_nothing_is_asked(run_virtual: Any) -> None:
    """No program is started for the sake of a number that nobody keeps."""

    async def main() -> None:
        memory = AdapterMemory(None)
        assert await memory.load("00:1A") is None
        assert memory.address == "00:1A"
        memory.save(3)

    run_virtual(main())
