"""bluetoothd in the guest: start, kill, and what is asked of it beside bleak."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

PROGRAM: Final = "/usr/libexec/bluetooth/bluetoothd"
LOG: Final = Path("/run/control/bluetoothd.log")
# Without hardware virtualisation everything takes about ten times longer.
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.05


class Bluetoothd:
    """The daemon, as a child of the tests."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is ready once an adapter is powered."""
        with LOG.open("ab") as log:
            self._child = subprocess.Popen([PROGRAM, "--nodetach"], stdout=log, stderr=log)

    async def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait until it is gone."""
        assert self._child is not None
        os.kill(self._child.pid, number)
        await asyncio.to_thread(self._child.wait)


class BlueZ:
    """A D-Bus client of bluetoothd; `async with` it."""

    async def __aenter__(self) -> BlueZ:
        self._bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bus.disconnect()

    async def objects(self) -> dict[str, dict[str, dict[str, Variant]]]:
        """Return all objects by path, interface and property; none while bluetoothd is away."""
        reply = await self._call("/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        return {} if reply is None else reply[0]

    async def powered_adapter(self) -> str:
        """Wait for a powered adapter and return its path."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for path, interfaces in (await self.objects()).items():
                    adapter = interfaces.get("org.bluez.Adapter1")
                    if adapter is not None:
                        if adapter["Powered"].value:
                            return path
                        await self.power(path, on=True)
                await asyncio.sleep(_POLL_S)

    async def power(self, adapter: str, *, on: bool) -> None:
        """Switch an adapter."""
        body = ["org.bluez.Adapter1", "Powered", Variant("b", on)]
        await self._call(adapter, "org.freedesktop.DBus.Properties", "Set", "ssv", body)

    async def connected_devices(self) -> set[str]:
        """Return the BD_ADDRs of devices that are connected."""
        return {
            str(device["Address"].value)
            for interfaces in (await self.objects()).values()
            if (device := interfaces.get("org.bluez.Device1")) and device["Connected"].value
        }

    async def _call(
        self, path: str, interface: str, member: str, signature: str = "", body: Any = ()
    ) -> list[Any] | None:
        reply = await self._bus.call(
            Message("org.bluez", path, interface, member, signature=signature, body=list(body))
        )
        if reply is None or reply.message_type is MessageType.ERROR:
            return None
        return list(reply.body)
