"""A program beside bleak that asks things of bluetoothd."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

# Without hardware virtualisation everything takes about ten times longer.
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.05
_ADAPTER: Final = "org.bluez.Adapter1"


class BluezClient:
    """A D-Bus client of bluetoothd; `async with` it."""

    async def __aenter__(self) -> BluezClient:
        self._bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bus.disconnect()
        with contextlib.suppress(OSError, EOFError):  # the bus went first
            await self._bus.wait_for_disconnect()

    async def objects(self) -> dict[str, dict[str, dict[str, Variant]]]:
        """Return all objects by path, interface and property; none while bluetoothd is away."""
        reply = await self._call("/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        return {} if reply is None else reply[0]

    async def adapter(self) -> str:
        """Wait for an adapter and return its path."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for path, interfaces in (await self.objects()).items():
                    if _ADAPTER in interfaces:
                        return path
                await asyncio.sleep(_POLL_S)

    async def powered_adapter(self) -> str:
        """Wait for an adapter, switch it on if need be, and return its path."""
        adapter = await self.adapter()
        async with asyncio.timeout(PATIENCE_S):
            while not await self.is_on(adapter, "Powered"):
                await self.power(adapter, on=True)
                await asyncio.sleep(_POLL_S)
        return adapter

    async def is_on(self, adapter: str, name: str) -> bool:
        """Return a property of an adapter, `Powered` or `Discovering`; False when it is gone."""
        properties = (await self.objects()).get(adapter, {}).get(_ADAPTER)
        return properties is not None and bool(properties[name].value)

    async def power(self, adapter: str, *, on: bool) -> None:
        """Switch an adapter; bluetoothd may be busy and refuse."""
        body = [_ADAPTER, "Powered", Variant("b", on)]
        await self._call(adapter, "org.freedesktop.DBus.Properties", "Set", "ssv", body)

    async def start_discovery(self, adapter: str) -> None:
        """Discover LE devices until this client leaves the bus."""
        le = {"Transport": Variant("s", "le")}
        await self._call(adapter, _ADAPTER, "SetDiscoveryFilter", "a{sv}", [le])
        assert await self._call(adapter, _ADAPTER, "StartDiscovery") is not None

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
