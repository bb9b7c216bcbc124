"""When BlueZ has noticed that a board swapped its mesh services on an open link."""

from __future__ import annotations

import asyncio
from typing import Final

from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.gatt import PROXY

# BlueZ needs 0.3 s from Service Changed to the new objects; a board that does not indicate it
# never gets there.
SWAP_TIMEOUT_S: Final = 1.5
# For backends that tell nothing.
UNSEEN_S: Final = 0.4

_DATA_OUT: Final = normalize_uuid_16(PROXY.data_out)


class Swaps:
    """Remembers whose proxy came up since it was told to forget that board."""

    def __init__(self) -> None:
        self._shown: dict[str, asyncio.Event] = {}

    def characteristic(self, path: str, uuid: str) -> None:
        """BlueZ shows a characteristic, `/org/bluez/hci0/dev_24_0A_.../service000e/char0011`."""
        if uuid == _DATA_OUT:
            device = path.split("/")[4]
            self._event(device.removeprefix("dev_").replace("_", ":")).set()

    def forget(self, device_address: str) -> None:
        """What comes up from now on counts."""
        self._shown.pop(device_address, None)

    async def shown(self, device_address: str, *, seen: bool) -> None:
        """Wait for the proxy; when swaps are not `seen`, as long as they take.

        Raises:
            TimeoutError: it did not come up.
        """
        if not seen:
            await asyncio.sleep(UNSEEN_S)
            return
        async with asyncio.timeout(SWAP_TIMEOUT_S):
            await self._event(device_address).wait()

    def _event(self, device_address: str) -> asyncio.Event:
        return self._shown.setdefault(device_address, asyncio.Event())
