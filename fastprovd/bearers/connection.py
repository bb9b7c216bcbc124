"""Links and their ends, which never fail and never last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog
from bleak import BleakClient

from fastprovd.bearers.errors import BLEAK_ERRORS, describe
from fastprovd.bearers.gatt import GattLink
from fastprovd.bearers.slots import Attempt
from fastprovd.edges import guarded

# bleak gives up after 10 s.
DISCONNECT_TIMEOUT_S: Final = 12.0
# The link is gone with bluetoothd or the adapter; this is for bleak to close its files.
_GONE_TIMEOUT_S: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Connection:
    """A link and bleak's side of it; `is_gone` with bluetoothd or the adapter.

    `attempt`: it counts as one of the links that the adapter bears, until BlueZ has hung it up.
    `has_slot`: its end gives the slot back.
    """

    device_address: str
    link: GattLink
    client: BleakClient
    is_gone: bool = False
    attempt: Attempt | None = None
    has_slot: bool = False
    hanging_up: asyncio.Timeout | None = None

    def lose(self, reason: str) -> None:
        """Note that bluetoothd or the adapter took the link with it; a hang-up ends soon."""
        self.is_gone = True
        self.link.lose(reason)
        if self.hanging_up is not None and not self.hanging_up.expired():
            self.hanging_up.reschedule(asyncio.get_running_loop().time() + _GONE_TIMEOUT_S)

    async def hang_up(self) -> bool:
        """End the link and return whether that is sure; what goes wrong with it is logged."""
        limit_s = _GONE_TIMEOUT_S if self.is_gone else DISCONNECT_TIMEOUT_S
        try:
            async with asyncio.timeout(limit_s) as self.hanging_up:
                await self.client.disconnect()
        except BLEAK_ERRORS as error:
            (log.debug if self.is_gone else log.warning)(
                "disconnect_failed", device_address=self.device_address, error=describe(error)
            )
            return False
        else:
            log.debug("link_closed", device_address=self.device_address)
            # The kernel keeps links when bluetoothd is killed, and bleak does not ask it.
            return not self.is_gone
        finally:
            self.hanging_up = None


class Connections:
    """All links of a bearer, and those of them that BlueZ is hanging up; `ended` is told of each.

    BlueZ takes 2 s for that, in the background. `closed` is told the BD_ADDR of a board to which
    surely none is left.
    """

    def __init__(
        self,
        ended: Callable[[Connection], None],
        closed: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._ended = ended
        self._closed = closed
        self._all: set[Connection] = set()
        self._hang_ups: dict[asyncio.Task[None], Connection] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._all))

    def add(self, connection: Connection) -> None:
        """Take a link, from before it is opened."""
        self._all.add(connection)

    def hang_up(self, connection: Connection) -> None:
        """Begin to end it."""
        # Not in a TaskGroup: an error elsewhere must not cancel it and leave a link behind.
        task = asyncio.create_task(
            self._end(connection), name=f"hang_up[{connection.device_address}]"
        )
        self._hang_ups[task] = connection

        def ended(task: asyncio.Task[None]) -> None:
            # Whatever went wrong, it is over: who waits for it must not wait for ever.
            del self._hang_ups[task]
            self._all.discard(connection)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error(
                    "hang_up_failed", device_address=connection.device_address, exc_info=error
                )
            self._ended(connection)

        task.add_done_callback(guarded(ended))

    def hang_up_all(self) -> None:
        """Begin to end what nobody has ended."""
        ending = set(self._hang_ups.values())
        for connection in self._all - ending:
            self.hang_up(connection)

    async def _end(self, connection: Connection) -> None:
        is_closed = await connection.hang_up()
        address = connection.device_address
        is_last = all(each.device_address != address for each in self._all - {connection})
        if is_closed and is_last and self._closed is not None:
            await self._closed(address)

    def hang_ups(self, device_address: str | None = None) -> list[asyncio.Task[None]]:
        """Return what is going on, with one board or with all."""
        return [
            task
            for task, connection in self._hang_ups.items()
            if device_address in (None, connection.device_address)
        ]

    async def hung_up(self, device_address: str | None = None) -> None:
        """Wait for the end of what is going on, with one board or with all."""
        while tasks := self.hang_ups(device_address):
            await asyncio.wait(tasks)
