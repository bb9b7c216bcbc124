"""Which `hciX` an adapter is; the numbers change from boot to boot, the address does not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from dbus_fast import AuthError, BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from fastprovd.bearers.errors import describe
from fastprovd.errors import BluetoothUnavailable

# A local question to bluetoothd; D-Bus may start it first.
_TIMEOUT_S: Final = 10.0


async def find_adapter(address: str) -> str:
    """Return the name of the adapter with this BD_ADDR, such as `hci0`.

    Raises:
        BluetoothUnavailable: no such adapter, or bluetoothd does not answer.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            objects = await _managed_objects()
    except (OSError, EOFError, AuthError) as error:
        raise BluetoothUnavailable(
            f"bluetoothd could not be asked for adapter {address} ({describe(error)}); start it"
        ) from error
    return adapter_name(objects, address)


def adapter_name(objects: Mapping[str, Mapping[str, Mapping[str, Any]]], address: str) -> str:
    """Pick the adapter out of BlueZ's managed objects; raises BluetoothUnavailable."""
    found = {
        str(interfaces["org.bluez.Adapter1"]["Address"].value).upper(): path.rsplit("/", 1)[-1]
        for path, interfaces in objects.items()
        if "org.bluez.Adapter1" in interfaces
    }
    name = found.get(address.upper())
    if name is None:
        raise BluetoothUnavailable(
            f"no adapter has the address {address}, there are {', '.join(found) or 'none'}; "
            "correct `adapter`"
        )
    return name


async def _managed_objects() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    bus = MessageBus(bus_type=BusType.SYSTEM)
    try:
        await bus.connect()
        reply = await bus.call(
            Message(
                destination="org.bluez",
                path="/",
                interface="org.freedesktop.DBus.ObjectManager",
                member="GetManagedObjects",
            )
        )
    finally:
        bus.disconnect()
    if reply is None or reply.message_type is MessageType.ERROR:
        raise BluetoothUnavailable(
            f"bluetoothd does not answer ({reply and reply.error_name}); start it"
        )
    objects: Mapping[str, Mapping[str, Mapping[str, Any]]] = reply.body[0]
    return objects
