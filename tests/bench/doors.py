"""How long things take at the two doors to the emulated boards that open on this machine."""

from __future__ import annotations

import os
import time

from fastprovd.emulator import virtual_time
from fastprovd.emulator.private_bus import PrivateBus
from tests.support import paced
from tests.support.door_figures import Figure, figures, table
from tests.support.doors import bench


async def _measure(bus: PrivateBus | None, started_s: float) -> list[Figure]:
    async with bench(bus, boards=0) as door:
        opened = Figure("open the door", 0.0, time.perf_counter() - started_s)
        return [opened, *await figures(door)]


def tables() -> str:
    """Measure at both doors; without dbus-daemon at one."""
    text = table("door in process", virtual_time.run(_measure(None, time.perf_counter())))
    missing = PrivateBus.missing()
    if missing is not None:
        return f"{text}\ndoor on D-Bus: {missing}\n"
    started_s = time.perf_counter()
    with PrivateBus() as bus:
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
        taken = paced.run(_measure(bus, started_s), bus.address)
    return f"{text}\n{table('door on D-Bus', taken)}"
