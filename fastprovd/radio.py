"""The adapter as the daemon uses it: opened for a while, checked before a run."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Protocol

import structlog

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.adapter_memory import LinkMemory
from fastprovd.bearers.left_links import LinkRecord
from fastprovd.campaign.ports import Bearer
from fastprovd.config import Config
from fastprovd.errors import BearerError

log = structlog.get_logger(__name__)

# A restart of bluetoothd takes 0.6 to 2.2 s, and after a crash the adapter may be busy for 10 s
# with the scan of before; one that is away longer fails the run.
_ADAPTER_PAUSES_S: Final = (1.0, 2.0, 4.0, 4.0)


class Radio(Bearer, Protocol):
    """A Bearer that is open while its context lasts; it may be entered again afterwards."""

    async def __aenter__(self) -> object:
        """Open it; raises BluetoothUnavailable."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it, all links hung up."""
        ...

    async def close_left_links(self) -> None:
        """Hang up what a process before us left behind; raises BluetoothUnavailable."""
        ...


class RadioMemory(LinkMemory, LinkRecord, Protocol):
    """Keeps how many links which adapter bears, and which links are ours."""


def bluetooth(config: Config, memory: RadioMemory | None = None) -> Radio:
    """Return the adapter that the configuration names; nothing is opened yet."""
    return BleakBearer(
        config.bluetooth.adapter,
        connect_timeout_s=config.run.connect_timeout_s,
        connect_attempts=config.run.connect_attempts,
        max_links=config.bluetooth.links_ceiling,
        memory=memory,
        record=memory,
    )


async def adapter_problem(radio: Radio) -> str | None:
    """Return why the adapter can not be used, after some attempts, or `None` if it can."""
    for pause_s in (*_ADAPTER_PAUSES_S, None):
        try:
            async with radio:
                await radio.close_left_links()
                async with radio.scan():
                    return None
        except BearerError as error:
            if pause_s is None:
                return str(error)
            log.info("adapter_not_usable", reason=str(error), pause_s=pause_s)
        await asyncio.sleep(pause_s)
    return None
