"""An adapter whose scans and links are scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from fastprovd.bearers.link_limit import START_LINKS
from fastprovd.errors import BearerError, BluetoothUnavailable
from fastprovd.mesh.beacons import Advertisement
from fastprovd.records import AdapterLinks
from tests.support.fake_link import FakeLink

# A scan: what is heard how many seconds after it began; an exception breaks it.
Script = Sequence[tuple[float, Advertisement | BearerError]]


class FakeBearer:
    """Meets the port `Bearer`. Each scan plays the next script, and then hears nothing.

    It lasts for ever, unless it is not `endless`. `scans` has begin and end of each scan,
    `connects` each attempt to open a link.
    """

    def __init__(
        self,
        *scripts: Script,
        link: Callable[[str], FakeLink] | None = None,
        endless: bool = True,
        links: int = START_LINKS,
    ) -> None:
        self.scripts = list(scripts) or [()]
        self._link = link
        self._endless = endless
        self.links = AdapterLinks(links, links, "configured")
        self.scans: list[list[float]] = []
        self.connects: list[tuple[float, str]] = []
        self.refuses_scans_until_s = 0.0
        # Seconds that an attempt takes, and how it ends.
        self.refuses: Callable[[str], tuple[float, BearerError] | None] = lambda _: None

    @property
    def is_scanning(self) -> bool:
        """Whether a scan has begun and not ended."""
        return any(len(times) == 1 for times in self.scans)

    @asynccontextmanager
    async def scan(self, *, gives_way: bool = False) -> AsyncIterator[AsyncIterator[Advertisement]]:
        """Play the next script."""
        assert not self.is_scanning, "one discovery at a time"
        loop = asyncio.get_running_loop()
        if loop.time() < self.refuses_scans_until_s:
            raise BluetoothUnavailable("bluetoothd is gone")
        times = [loop.time()]
        self.scans.append(times)
        script = self.scripts.pop(0) if self.scripts else ()
        try:
            yield self._play(script)
        finally:
            times.append(loop.time())

    async def _play(self, script: Script) -> AsyncIterator[Advertisement]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for after_s, heard in script:
            await asyncio.sleep(max(0.0, begun + after_s - loop.time()))
            if isinstance(heard, BearerError):
                raise heard
            yield replace(heard, seen_s=loop.time())
        if self._endless:
            await asyncio.Event().wait()

    @asynccontextmanager
    async def proxy_link(self, device_address: str) -> AsyncIterator[FakeLink]:
        """Open what `link` makes, unless it is refused."""
        self.connects.append((asyncio.get_running_loop().time(), device_address))
        refusal = self.refuses(device_address)
        if refusal is not None:
            await asyncio.sleep(refusal[0])
            raise refusal[1]
        assert self._link is not None
        link = self._link(device_address)
        try:
            yield link
        finally:
            if link.is_connected:
                link.hang_up()

    @asynccontextmanager
    async def provisioning_link(self, device_address: str) -> AsyncIterator[FakeLink]:
        """Open the same; the board at the other end makes the difference."""
        async with self.proxy_link(device_address) as link:
            yield link
