"""What bleak has no call for: which `hciX` to use, and links that nobody holds any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
from bleak.uuids import normalize_uuid_16
from dbus_fast import AuthError, BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from fastprovd.bearers.errors import describe
from fastprovd.errors import BluetoothUnavailable
from fastprovd.mesh.beacons import MESH_PROVISIONING_SERVICE, MESH_PROXY_SERVICE

# A local question to bluetoothd, which D-Bus may start first; a disconnect takes it 2 s.
_TIMEOUT_S: Final = 10.0
# A connection is closed at once; one that was given up while it was made never says so.
_CLOSE_TIMEOUT_S: Final = 1.0
_ADAPTER: Final = "org.bluez.Adapter1"
_DEVICE: Final = "org.bluez.Device1"
_SERVICE: Final = "org.bluez.GattService1"
_MESH: Final = {
    normalize_uuid_16(service) for service in (MESH_PROVISIONING_SERVICE, MESH_PROXY_SERVICE)
}

# What GetManagedObjects returns: path, interface, property.
Objects = Mapping[str, Mapping[str, Mapping[str, Any]]]

log = structlog.get_logger(__name__)


async def find_adapter(address: str = "") -> str:
    """Return the name, such as `hci0`, of the adapter with this BD_ADDR, or of one that is on.

    The numbers change from boot to boot and with every unplugging, the address does not.

    Raises:
        BluetoothUnavailable: no such adapter, or bluetoothd does not answer.
    """
    async with _bluetoothd() as bus:
        objects = await _managed_objects(bus)
    return adapter_name(objects, address) if address else first_adapter(objects)


def adapter_name(objects: Objects, address: str) -> str:
    """Pick the adapter with this BD_ADDR; raises BluetoothUnavailable."""
    found = {
        str(interfaces[_ADAPTER]["Address"].value).upper(): _name(path)
        for path, interfaces in objects.items()
        if _ADAPTER in interfaces
    }
    name = found.get(address.upper())
    if name is None:
        raise BluetoothUnavailable(
            f"no adapter has the address {address}, there are {', '.join(found) or 'none'}; "
            "plug it in, or correct `adapter`"
        )
    return name


def first_adapter(objects: Objects) -> str:
    """Pick the adapter of the lowest number that is on and has LE; raises BluetoothUnavailable."""
    adapters = {
        _name(path): interfaces[_ADAPTER]
        for path, interfaces in objects.items()
        if _ADAPTER in interfaces
    }
    if not adapters:
        raise BluetoothUnavailable("there is no Bluetooth adapter; plug one in")
    usable = {name for name, values in adapters.items() if "central" in values["Roles"].value}
    if not usable:
        raise BluetoothUnavailable(f"no LE on {', '.join(adapters)}; use another adapter")
    powered = [name for name in usable if adapters[name]["Powered"].value]
    if not powered:
        raise BluetoothUnavailable(
            f"{', '.join(sorted(usable))} is off; switch it on (bluetoothctl power on)"
        )
    return min(powered, key=lambda name: (len(name), name))


async def adapter_in_use(adapter: str) -> tuple[str, frozenset[str], bool]:
    """Return the adapter's BD_ADDR, those of all devices connected to it, and whether it discovers.

    Whichever programs do so.

    Raises:
        BluetoothUnavailable: no such adapter, or bluetoothd does not answer.
    """
    async with _bluetoothd() as bus:
        objects = await _managed_objects(bus)
    path = f"/org/bluez/{adapter}"
    if path not in objects:
        raise BluetoothUnavailable(f"there is no {adapter}; plug it in, or correct `adapter`")
    values = objects[path][_ADAPTER]
    is_discovering = bool(values["Discovering"].value) if "Discovering" in values else False
    return str(values["Address"].value), connected_devices(objects, path), is_discovering


def connected_devices(objects: Objects, adapter_path: str) -> frozenset[str]:
    """Return the BD_ADDRs of the devices that are connected to an adapter, by any program."""
    devices = (interfaces[_DEVICE] for interfaces in objects.values() if _DEVICE in interfaces)
    return frozenset(
        str(device["Address"].value)
        for device in devices
        if device["Adapter"].value == adapter_path and device["Connected"].value
    )


async def close_left_links(adapter: str) -> None:
    """Hang up every link to a mesh board on this adapter.

    BlueZ keeps a link whose process died, and a connected board is not on the air for anybody.

    Raises:
        BluetoothUnavailable: bluetoothd does not answer.
    """
    async with _bluetoothd() as bus:
        left = linked_boards(await _managed_objects(bus), adapter)
        for path in left:
            log.warning("left_link_closed", device=_name(path))
        await asyncio.gather(*(_call(bus, path, _DEVICE, "Disconnect") for path in left))


def linked_boards(objects: Objects, adapter: str) -> list[str]:
    """Return the paths of connected devices that show a mesh service, and of no others."""
    offered: dict[str, set[str]] = {}
    for interfaces in objects.values():
        if _SERVICE in interfaces:
            service = interfaces[_SERVICE]
            offered.setdefault(service["Device"].value, set()).add(service["UUID"].value)
    return [
        path
        for path, interfaces in objects.items()
        if _DEVICE in interfaces
        and interfaces[_DEVICE]["Adapter"].value == f"/org/bluez/{adapter}"
        and interfaces[_DEVICE]["Connected"].value
        and _MESH & {*_uuids(interfaces[_DEVICE]), *offered.get(path, ())}
    ]


def _uuids(device: Mapping[str, Any]) -> Collection[str]:
    return device["UUIDs"].value if "UUIDs" in device else ()


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


@asynccontextmanager
async def _bluetoothd() -> AsyncIterator[MessageBus]:
    bus = MessageBus(bus_type=BusType.SYSTEM)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await bus.connect()
            yield bus
    except (OSError, EOFError, AuthError) as error:
        raise BluetoothUnavailable(
            f"bluetoothd could not be asked ({describe(error)}); start it"
        ) from error
    finally:
        was_connected = bus.connected
        bus.disconnect()
        if was_connected:  # else it would wait for ever
            with suppress(OSError, EOFError):  # TimeoutError is an OSError
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


async def _managed_objects(bus: MessageBus) -> Objects:
    reply = await _call(bus, "/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    if reply is None or reply.message_type is MessageType.ERROR:
        raise BluetoothUnavailable(
            f"bluetoothd does not answer ({reply and reply.error_name}); start it"
        )
    objects: Objects = reply.body[0]
    return objects


async def _call(bus: MessageBus, path: str, interface: str, member: str) -> Message | None:
    return await bus.call(
        Message(destination="org.bluez", path=path, interface=interface, member=member)
    )
