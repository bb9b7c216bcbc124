"""bleak's BlueZ manager lives as long as its event loop; a test must not leave it behind."""

from __future__ import annotations

import asyncio

from bleak.backends.bluezdbus import manager as bluez_manager


async def close_bleak() -> None:
    """Close the manager of this loop, if there is one."""
    manager = bluez_manager._global_instances.pop(asyncio.get_running_loop(), None)
    if manager is None or manager._bus is None or manager._bus_watcher_task is None:
        return
    manager._bus.disconnect()
    await asyncio.wait({manager._bus_watcher_task})
