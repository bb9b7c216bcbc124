"""One link and its end, which never fails and never lasts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog
from bleak import BleakClient

from fastprovd.bearers.errors import BLEAK_ERRORS, describe
from fastprovd.bearers.gatt import GattLink

# bleak gives up after 10 s.
DISCONNECT_TIMEOUT_S: Final = 12.0
# The link is gone with bluetoothd or the adapter; this is for bleak to close its files.
_GONE_TIMEOUT_S: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Connection:
    """A link and bleak's side of it; `is_gone` with bluetoothd or the adapter.

    `has_slot`: it counts as one of the links that the adapter bears.
    """

    device_address: str
    link: GattLink
    client: BleakClient
    is_gone: bool = False
    has_slot: bool = False
    hanging_up: asyncio.Timeout | None = None

    def lose(self, reason: str) -> None:
        """Note that bluetoothd or the adapter took the link with it; a hang-up ends soon."""
        self.is_gone = True
        self.link.lose(reason)
        if self.hanging_up is not None and not self.hanging_up.expired():
            self.hanging_up.reschedule(asyncio.get_running_loop().time() + _GONE_TIMEOUT_S)

    async def hang_up(self) -> None:
        """End the link; what goes wrong with that is logged."""
        limit_s = _GONE_TIMEOUT_S if self.is_gone else DISCONNECT_TIMEOUT_S
        try:
            async with asyncio.timeout(limit_s) as self.hanging_up:
                await self.client.disconnect()
        except BLEAK_ERRORS as error:
            (log.debug if self.is_gone else log.warning)(
                "disconnect_failed", device_address=self.device_address, error=describe(error)
            )
        else:
            log.debug("link_closed", device_address=self.device_address)
        finally:
            self.hanging_up = None
