"""A radio that hears, beside what is on the air, what somebody without a key pretends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice
from fastprovd.records import Node
from tests.support.scene import Door, in_process

# From where somebody pretends who does not even take the trouble to borrow an address.
ELSEWHERE = "66:66:66:66:66:66"


def unprovisioned(node: Node, device_address: str | None = None) -> Advertisement:
    """Return what a radio says that pretends to be the node's board, unprovisioned."""
    assert node.device_uuid is not None
    address = device_address or node.device_address
    assert address is not None
    return Advertisement(address, UnprovisionedDevice(node.device_uuid), -30, 0.0)


class PretendedRadio:
    """Another radio, and what `pretended` returns every 0.1 s of each of its scans."""

    def __init__(
        self, radio: BleakBearer, pretended: Callable[[], Iterable[Advertisement]]
    ) -> None:
        self._radio = radio
        self._pretended = pretended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._radio, name)

    async def __aenter__(self) -> PretendedRadio:
        await self._radio.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._radio.__aexit__(*raised)

    @asynccontextmanager
    async def scan(self, *, gives_way: bool = False) -> AsyncIterator[AsyncIterator[Advertisement]]:
        """Discover both."""
        async with self._radio.scan(gives_way=gives_way) as scan:
            yield self._mix(scan)

    async def _mix(self, scan: Any) -> AsyncIterator[Advertisement]:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            if loop.time() >= due_s:
                due_s = loop.time() + 0.1
                for advertisement in self._pretended():
                    yield replace(advertisement, seen_s=loop.time())
            try:
                async with asyncio.timeout_at(due_s):
                    heard = await anext(scan)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return
            yield heard


def haunted(pretended: Callable[[], Iterable[Advertisement]]) -> Door:
    """Return a way to the boards over which somebody else is heard too."""

    @asynccontextmanager
    async def reach(adapter: EmulatedAdapter) -> AsyncIterator[Any]:
        async with in_process(None)(adapter) as bearer:
            yield PretendedRadio(bearer, pretended)

    return reach
