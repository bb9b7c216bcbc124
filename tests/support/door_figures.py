"""How long things take at a door, measured the same way at all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bleak.exc import BleakDBusError

from tests.support.contract.common import IN
from tests.support.door import Door, now
from tests.support.fake_air import GENERIC_ATTRIBUTE

WRITES = 300


@dataclass(frozen=True)
class Figure:
    """A duration: `clock_s` by the clock that daemon and boards live by, `real_s` by ours."""

    name: str
    clock_s: float
    real_s: float


async def figures(door: Door) -> list[Figure]:
    """Go once through the life of a link."""
    taken: list[Figure] = []

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        clock_s, real_s = now(), time.perf_counter()
        yield
        taken.append(Figure(name, now() - clock_s, time.perf_counter() - real_s))

    (board,) = door.place_fakes(base=(GENERIC_ATTRIBUTE,))
    with timed("scan until one board is heard"):
        device = await door.find()
    client = door.client(device)
    with timed("connect and discover"):
        await client.connect()
    with timed(f"{WRITES} writes of 20 octets"):
        for index in range(WRITES):
            await client.write_gatt_char(IN, index.to_bytes(2, "big") * 10, response=False)
        await door.until(lambda: len(board.written) == WRITES)
    with timed("swap until the old service is refused"):
        board.become_node()
        try:
            async with asyncio.timeout(10 * door.patience):
                while True:
                    await client.write_gatt_char(IN, b"x", response=False)
        except BleakDBusError:
            pass
    with timed("disconnect"):
        await client.disconnect()
    client = door.client(device)
    with timed("connect to the new service"):
        await client.connect()
    await client.disconnect()
    return taken


def table(door: str, taken: list[Figure]) -> str:
    """Return figures as text."""
    lines = [f"{door:<40} {'clock s':>9} {'real s':>9}\n"]
    lines += [f"{f.name:<40} {f.clock_s:>9.3f} {f.real_s:>9.3f}\n" for f in taken]
    return "".join(lines)
