"""Emulated time with a real message bus or a real broker in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

from bleak.backends.bluezdbus import manager as bluez_manager
from dbus_fast import Message
from dbus_fast.aio import MessageBus

from fastprovd.emulator import virtual_time
from fastprovd.emulator.virtual_time import VirtualTimeLoop
from fastprovd.publish import broker
from fastprovd.publish.broker import LOOPBACK, LocalBroker

T = TypeVar("T")

# D-Bus is a real program: it has milliseconds to answer while emulated seconds pass.
PACE: Final = 20.0
# The clock is never further ahead of the bus than this, however slow the machine is.
_BEAT_S: Final = 0.05
# A tenth of the shortest time in which a broker has to answer, half a second at a stop.
_BROKER_BEAT_S: Final = 0.05
# MQTT 3.1.1 §3.1, §3.2, §3.12: a client "beat", without keep alive, in a clean session.
_CONNECT: Final = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04beat"
_CONNACK_OCTETS: Final = 4
_PINGREQ: Final = b"\xc0\x00"
_PINGRESP: Final = b"\xd0\x00"
# Emulated seconds, longer than any test means to take.
LIMIT_S: Final = 600.0


def run(coroutine: Coroutine[Any, Any, T], bus_address: str, pace: float = PACE) -> T:
    """Run `coroutine` at `pace`, on a clock that waits for the bus; no task may be left behind."""

    async def guarded() -> T:
        beat = asyncio.create_task(_beat(bus_address), name="beat")
        try:
            async with asyncio.timeout(LIMIT_S):
                result = await coroutine
        finally:
            beat.cancel()
            await asyncio.wait({beat})
            await close_bleak()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        return result

    return virtual_time.run(guarded(), speed=pace)


async def _beat(bus_address: str) -> None:
    """Let the clock wait for the bus; while the test has killed it, for nothing."""
    while True:
        with contextlib.suppress(OSError, EOFError):
            await _beat_while_it_lives(bus_address)
        await asyncio.sleep(_BEAT_S)


async def _beat_while_it_lives(bus_address: str) -> None:
    """Ask the bus for an answer again and again, and let the clock stand until it comes."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    bus = MessageBus(bus_address=bus_address)
    try:
        await bus.connect()
    except BaseException:
        bus.disconnect()
        raise
    try:
        while True:
            await asyncio.sleep(_BEAT_S)
            with loop.hold():
                await bus.call(
                    Message(
                        destination="org.freedesktop.DBus",
                        path="/org/freedesktop/DBus",
                        interface="org.freedesktop.DBus",
                        member="GetId",
                    )
                )
    finally:
        bus.disconnect()
        with contextlib.suppress(OSError, EOFError):
            await bus.wait_for_disconnect()


async def close_bleak() -> None:
    """Close bleak's BlueZ manager of this loop, which would live as long as the loop."""
    manager = bluez_manager._global_instances.pop(asyncio.get_running_loop(), None)
    if manager is None or manager._bus is None or manager._bus_watcher_task is None:
        return
    manager._bus.disconnect()
    await asyncio.wait({manager._bus_watcher_task})


@contextlib.asynccontextmanager
async def local_broker() -> AsyncIterator[LocalBroker]:
    """Run a broker for the clock to wait for: what is on its way there costs no emulated time."""
    async with broker.local_broker() as found:
        reader, writer = await asyncio.open_connection(LOOPBACK, found.port)
        beat = asyncio.create_task(_beat_of_broker(reader, writer), name="beat")
        try:
            yield found
        finally:
            beat.cancel()
            await asyncio.wait({beat})
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _beat_of_broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    writer.write(_CONNECT)
    await reader.readexactly(_CONNACK_OCTETS)
    while True:
        await asyncio.sleep(_BROKER_BEAT_S)
        with loop.hold():
            writer.write(_PINGREQ)
            await reader.readexactly(len(_PINGRESP))
