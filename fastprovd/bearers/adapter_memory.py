"""What is known of an adapter from before: how many links it bears."""

from __future__ import annotations

import asyncio
import platform
from typing import Final, Protocol

import structlog

from fastprovd.bearers.errors import describe
from fastprovd.errors import StoreError

# It answers from its own binary.
_TIMEOUT_S: Final = 5.0

log = structlog.get_logger(__name__)


# BlueZ's word for a controller that has no public address.
_NO_ADDRESS: Final = "00:00:00:00:00:00"


class LinkMemory(Protocol):
    """Keeps a number for each adapter; one that was learnt on another `system` counts no more."""

    def adapter_links(self, address: str, system: str) -> int | None:
        """Return how many links the adapter with this BD_ADDR bears, if that is known."""
        ...

    def save_adapter_links(self, address: str, system: str, links: int | None) -> None:
        """Keep the number; `None` forgets it."""
        ...


class AdapterMemory:
    """The adapter in use, by its BD_ADDR, and what is kept of it; without `memory` nothing.

    A store that fails costs what was learnt, which is logged, and no link.
    """

    def __init__(self, memory: LinkMemory | None) -> None:
        self.address = ""
        self._memory = memory
        self._system = ""

    async def load(self, address: str) -> int | None:
        """Return what is kept of that adapter, which is the one in use from now on."""
        self.address = "" if address == _NO_ADDRESS else address
        if self._memory is None:
            return None
        self._system = await _system()
        try:
            return self._memory.adapter_links(address, self._system)
        except StoreError as error:
            log.warning("adapter_links_not_known", error=describe(error))
            return None

    def save(self, links: int | None) -> None:
        """Keep how many links the adapter in use bears."""
        if self._memory is None or not self.address:
            return
        try:
            self._memory.save_adapter_links(self.address, self._system, links)
        except StoreError as error:
            log.warning("adapter_links_not_kept", error=describe(error))


async def _system() -> str:
    """Return the versions of BlueZ and of the kernel, between which a refusal may get lost."""
    kernel = f"Linux {platform.release()}"
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            asked = await asyncio.create_subprocess_exec(
                "bluetoothctl", "--version", stdout=asyncio.subprocess.PIPE
            )
            said, _ = await asked.communicate()
    except OSError as error:  # TimeoutError is one
        log.debug("bluez_version_unknown", error=describe(error))
        return kernel
    return f"{said.decode('ascii', 'replace').strip()}, {kernel}"
