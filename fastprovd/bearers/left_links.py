"""Which links are ours, remembered from before they are opened: BlueZ keeps them when we die.

BlueZ does not tell who holds a link, and Disconnect ends it for everybody. So what nobody remembers
belongs to another program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Protocol

import structlog

from fastprovd.bearers.errors import describe
from fastprovd.errors import StoreError

log = structlog.get_logger(__name__)


class LinkRecord(Protocol):
    """Keeps BD_ADDRs durably; raises StoreError."""

    def open_links(self) -> Collection[str]:
        """Return the devices to which links of ours are open, or were when we died."""
        ...

    def note_open_link(self, device_address: str) -> None:
        """Keep that one is about to be opened."""
        ...

    def drop_open_links(self, device_addresses: Iterable[str]) -> None:
        """Keep that they have ended."""
        ...


class LeftLinks:
    """The record of our links; without one nothing is remembered, and nothing taken for ours.

    A disk that is full keeps no link from being opened: that is logged, and a link which is then
    left behind stays until the board or BlueZ ends it.
    """

    def __init__(self, record: LinkRecord | None) -> None:
        self._record = record
        # So that a link which could not be hung up is still known to be ours.
        self._known: set[str] = set()

    def __contains__(self, device_address: str) -> bool:
        return device_address in self._known

    async def opening(self, device_address: str) -> None:
        """Remember a link, before it is opened."""
        self._known.add(device_address)
        if self._record is not None:
            try:
                await asyncio.to_thread(self._record.note_open_link, device_address)
            except StoreError as error:
                log.warning("link_not_remembered", error=describe(error))

    async def ended(self, device_addresses: Collection[str]) -> None:
        """Forget links, after their end."""
        self._known.difference_update(device_addresses)
        if self._record is not None and device_addresses:
            try:
                await asyncio.to_thread(self._record.drop_open_links, device_addresses)
            except StoreError as error:
                log.warning("link_not_forgotten", error=describe(error))

    async def left(self) -> set[str]:
        """Return the devices of all links that are remembered."""
        if self._record is not None:
            try:
                self._known.update(await asyncio.to_thread(self._record.open_links))
            except StoreError as error:
                log.warning("links_not_remembered", error=describe(error))
        return set(self._known)
