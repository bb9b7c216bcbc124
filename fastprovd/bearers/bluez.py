"""What bleak has no call for: which `hciX` to use, and links that nobody holds any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
from bleak.exc import BleakDBusError
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from fastprovd.bearers.errors import BUS_ERRORS, SWITCH_ON, UNBLOCK, describe, diagnose
from fastprovd.errors import BluetoothUnavailable

# A local question to bluetoothd, which D-Bus may start first; a disconnect takes it 2 s.
_TIMEOUT_S: Final = 10.0
# A connection is closed at once; one that was given up while it was made never says so.
_CLOSE_TIMEOUT_S: Final = 1.0
_ADAPTER: Final = "org.bluez.Adapter1"
_DEVICE: Final = "org.bluez.Device1"
_BLUEZ: Final = "/org/bluez"
# What BlueZ 5.65 and newer says of an adapter that rfkill blocks.
_BLOCKED: Final = "off-blocked"

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
        str(_value(values, "Address", "")).upper(): _name(path)
        for path, values in _with(objects, _ADAPTER).items()
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
    adapters = {_name(path): values for path, values in _with(objects, _ADAPTER).items()}
    if not adapters:
        raise BluetoothUnavailable("there is no Bluetooth adapter; plug one in")
    usable = {name for name, values in adapters.items() if "central" in _value(values, "Roles", ())}
    if not usable:
        raise BluetoothUnavailable(f"no LE on {', '.join(adapters)}; use another adapter")
    powered = [name for name in usable if _value(adapters[name], "Powered", False)]
    if not powered:
        is_blocked = any(_value(adapters[name], "PowerState", "") == _BLOCKED for name in usable)
        raise BluetoothUnavailable(
            f"{', '.join(sorted(usable))} is off; {UNBLOCK if is_blocked else SWITCH_ON}"
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
    path = f"{_BLUEZ}/{adapter}"
    values = _with(objects, _ADAPTER).get(path)
    if values is None:
        raise BluetoothUnavailable(f"there is no {adapter}; plug it in, or correct `adapter`")
    is_discovering = bool(_value(values, "Discovering", False))
    return str(_value(values, "Address", "")), connected_devices(objects, path), is_discovering


def connected_devices(objects: Objects, adapter_path: str) -> frozenset[str]:
    """Return the BD_ADDRs of the devices that are connected to an adapter, by any program."""
    return frozenset(_connected(objects, adapter_path).values())


async def close_left_links(adapter: str, ours: Collection[str] = ()) -> frozenset[str]:
    """Hang up those links on this adapter that are `ours`; return the boards left connected.

    A connected board is not on the air for anybody, and BlueZ keeps a link whose process died.

    Raises:
        BluetoothUnavailable: bluetoothd does not answer.
    """
    async with _bluetoothd() as bus:
        left = linked_boards(await _managed_objects(bus), adapter, ours)
        for path in left:
            log.warning("left_link_closed", device=_name(path))
        replies = await asyncio.gather(
            *(_call(bus, path, _DEVICE, "Disconnect") for path in left), return_exceptions=True
        )
    answers = zip(left.values(), replies, strict=True)
    return frozenset(address for address, reply in answers if not _is_closed(address, reply))


def _is_closed(address: str, reply: Message | BaseException | None) -> bool:
    error = reply if isinstance(reply, BaseException) else _error(reply)
    if error is None or "NotConnected" in str(error) or "UnknownObject" in str(error):
        return True
    log.warning("left_link_not_closed", device_address=address, error=describe(error))
    return False


def linked_boards(objects: Objects, adapter: str, ours: Collection[str] = ()) -> dict[str, str]:
    """Return path and BD_ADDR of the devices that are connected and `ours`, and of no others."""
    return {
        path: address
        for path, address in _connected(objects, f"{_BLUEZ}/{adapter}").items()
        if address in ours
    }


def _connected(objects: Objects, adapter_path: str) -> dict[str, str]:
    return {
        path: str(_value(device, "Address", ""))
        for path, device in _with(objects, _DEVICE).items()
        if _value(device, "Adapter", "") == adapter_path and _value(device, "Connected", False)
    }


def _with(objects: Objects, interface: str) -> dict[str, Mapping[str, Any]]:
    return {path: found[interface] for path, found in objects.items() if interface in found}


def _value(properties: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a property; BlueZ shows some of them only once it knows them."""
    found = properties.get(name)
    return found.value if isinstance(found, Variant) else default


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


@asynccontextmanager
async def _bluetoothd() -> AsyncIterator[MessageBus]:
    bus: MessageBus | None = None
    try:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        async with asyncio.timeout(_TIMEOUT_S):
            await bus.connect()
            yield bus
    except TimeoutError as error:
        raise BluetoothUnavailable(
            f"bluetoothd did not answer in {_TIMEOUT_S:g} s; restart it (systemctl restart "
            "bluetooth)"
        ) from error
    except BUS_ERRORS as error:
        raise BluetoothUnavailable(
            f"bluetoothd could not be asked ({describe(error)}); {diagnose(error).advice}"
        ) from error
    finally:
        if bus is not None:
            await _close(bus)


async def _close(bus: MessageBus) -> None:
    was_connected = bus.connected
    bus.disconnect()
    if was_connected:  # else it would wait for ever
        with suppress(*BUS_ERRORS):  # TimeoutError is an OSError
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


async def _managed_objects(bus: MessageBus) -> Objects:
    reply = await _call(bus, "/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    error = _error(reply)
    if error is not None:
        raise BluetoothUnavailable(
            f"bluetoothd does not answer ({describe(error)}); {diagnose(error).advice}"
        )
    match reply:
        case Message(body=[dict() as objects]):
            return objects
        case _:
            raise BluetoothUnavailable(
                "bluetoothd answers with no list of objects; something else has its name on D-Bus"
            )


def _error(reply: Message | None) -> BleakDBusError | None:
    if reply is None:
        return BleakDBusError("org.freedesktop.DBus.Error.NoReply", [])
    if reply.message_type is MessageType.ERROR:
        return BleakDBusError(reply.error_name or "", reply.body)
    return None


async def _call(bus: MessageBus, path: str, interface: str, member: str) -> Message | None:
    return await bus.call(
        Message(destination="org.bluez", path=path, interface=interface, member=member)
    )
