"""The objects that `org.bluez` shows on D-Bus; every change of them is signalled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from dbus_fast import Message, MessageType, Variant

ADAPTER: Final = "org.bluez.Adapter1"
DEVICE: Final = "org.bluez.Device1"
SERVICE: Final = "org.bluez.GattService1"
CHARACTERISTIC: Final = "org.bluez.GattCharacteristic1"
DESCRIPTOR: Final = "org.bluez.GattDescriptor1"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"

# The D-Bus type of each property; a name means the same on every interface.
_TYPES: Final = {
    "Adapter": "o",
    "Address": "s",
    "AddressType": "s",
    "Alias": "s",
    "Characteristic": "o",
    "Connected": "b",
    "Device": "o",
    "Discovering": "b",
    "Flags": "as",
    "MTU": "q",
    "Name": "s",
    "NotifyAcquired": "b",
    "Notifying": "b",
    "Paired": "b",
    "Powered": "b",
    "Primary": "b",
    "RSSI": "n",
    "Roles": "as",
    "Service": "o",
    "ServiceData": "a{sv}",
    "ServicesResolved": "b",
    "UUID": "s",
    "UUIDs": "as",
    "Value": "ay",
}

Interfaces = dict[str, dict[str, Any]]


class ObjectTree:
    """Paths, their interfaces, and the properties of these; `send` takes the signals."""

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send
        self._objects: dict[str, Interfaces] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._objects

    def has(self, path: str, interface: str | None) -> bool:
        """Tell whether there is such an object with such an interface."""
        return interface in self._objects.get(path, {})

    def properties(self, path: str, interface: str) -> dict[str, Any]:
        """Return the properties as they are now; raises KeyError."""
        return self._objects[path][interface]

    def below(self, path: str) -> list[str]:
        """Return the paths under `path`, parents first."""
        return sorted(other for other in self._objects if other.startswith(f"{path}/"))

    def managed(self) -> dict[str, dict[str, dict[str, Variant]]]:
        """Return all objects as GetManagedObjects does."""
        return {
            path: {interface: _packed(values) for interface, values in interfaces.items()}
            for path, interfaces in self._objects.items()
        }

    def add(self, path: str, interface: str, **values: Any) -> None:
        """Show an object."""
        self._objects[path] = {interface: values}
        self._signal(
            "/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", path, {interface: _packed(values)}
        )

    def change(self, path: str, interface: str, *, gone: Iterable[str] = (), **values: Any) -> None:
        """Set properties, and take away those that are `gone`."""
        known = self._objects[path][interface]
        known.update(values)
        invalidated = [name for name in gone if known.pop(name, None) is not None]
        if values or invalidated:
            self._signal(
                path,
                PROPERTIES,
                "PropertiesChanged",
                "sa{sv}as",
                interface,
                _packed(values),
                invalidated,
            )

    def remove(self, path: str) -> None:
        """Take an object away, and those below it first."""
        for gone in [*reversed(self.below(path)), path]:
            interfaces = self._objects.pop(gone, None)
            if interfaces is not None:
                self._signal(
                    "/", OBJECT_MANAGER, "InterfacesRemoved", "oas", gone, list(interfaces)
                )

    def _signal(self, path: str, interface: str, member: str, signature: str, *body: Any) -> None:
        self._send(
            Message(
                message_type=MessageType.SIGNAL,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
            )
        )


def _packed(values: dict[str, Any]) -> dict[str, Variant]:
    return {name: Variant(_TYPES[name], value) for name, value in values.items()}
