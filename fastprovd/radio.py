"""The adapter as the daemon uses it: opened for a while, checked before a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
# with the scan of before. Where a person waits for it, one that is away longer fails the run.
_ADAPTER_PAUSES_S: Final = (1.0, 2.0, 4.0, 4.0)
# Where nobody waits: a serial adapter may come up more than a minute after the boot. Asking is
# cheap, and boards that have no provisioner any more need not hurry.
_LATE_PAUSE_S: Final = 5.0

Probe = Callable[[], Awaitable[str | None]]
"""Return why the adapter can not be used now, or `None` if it can."""


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

    def hurry(self) -> None:
        """Wait for Bluetooth no longer; the program has to end."""
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


async def problem_now(radio: Radio) -> str | None:
    """Return why the adapter can not be used, or `None` if it can."""
    try:
        async with radio:
            await radio.close_left_links()
            async with radio.scan():
                return None
    except BearerError as error:
        return str(error)


async def adapter_problem(radio: Radio) -> str | None:
    """Return why the adapter can not be used, after some attempts, or `None` if it can."""
    return await _problem(lambda: problem_now(radio))


async def bluetooth_ready(probe: Probe, waiting: Callable[[str], None]) -> None:
    """Wait until the adapter can be used, however long that takes.

    When it takes longer than a restart of bluetoothd `waiting` is told why, each reason once.
    """
    told: set[str] = set()
    problem = await _problem(probe)
    while problem is not None:
        if problem not in told:
            told.add(problem)
            log.warning("bluetooth_awaited", reason=problem)
            waiting(problem)
        await asyncio.sleep(_LATE_PAUSE_S)
        problem = await probe()
    if told:
        log.info("bluetooth_ready")


async def _problem(probe: Probe) -> str | None:
    for pause_s in _ADAPTER_PAUSES_S:
        problem = await probe()
        if problem is None:
            return None
        log.info("adapter_not_usable", reason=problem, pause_s=pause_s)
        await asyncio.sleep(pause_s)
    return await probe()
