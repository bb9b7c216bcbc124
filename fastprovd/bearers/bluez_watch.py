"""Whether bluetoothd and the adapter are still there; bleak does not tell when they go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import structlog
from dbus_fast import AuthError, BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from fastprovd.bearers.errors import describe

_ADAPTER: Final = "org.bluez.Adapter1"
_CHARACTERISTIC: Final = "org.bluez.GattCharacteristic1"
_BLUEZ: Final = "/org/bluez"
_RULES: Final = (
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.bluez'",
    "type='signal',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
    f"path_namespace='{_BLUEZ}',arg0='{_ADAPTER}'",
    "type='signal',interface='org.freedesktop.DBus.ObjectManager',member='InterfacesRemoved'",
    "type='signal',interface='org.freedesktop.DBus.ObjectManager',member='InterfacesAdded'",
)
# Five questions to the bus itself, which answers in milliseconds.
_TIMEOUT_S: Final = 5.0
# A D-Bus daemon that was restarted listens within a second; a refused connection costs nothing.
_REOPEN_S: Final = 0.5

log = structlog.get_logger(__name__)


class BluezWatch:
    """Calls `lost` with a sentence when bluetoothd, the adapter or the bus goes; `async with` it.

    `adapter` returns the name of the one in use (`hci0`), empty while there is none. It does not
    tell when they return: try. It comes back with D-Bus; without, that is logged once, and nothing
    is told. `characteristic` gets path and UUID of each one that BlueZ begins to show.
    """

    def __init__(
        self,
        adapter: Callable[[], str],
        lost: Callable[[str], None],
        characteristic: Callable[[str, str], None],
    ) -> None:
        self._adapter = adapter
        self._lost = lost
        self._characteristic = characteristic
        self._working: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            bus = await self._open()
        except (OSError, EOFError, AuthError) as error:
            log.warning("bluez_not_watched", error=describe(error))
            bus = None
        self._working = asyncio.create_task(self._work(bus), name="bluez_watch")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait({self._working})

    async def _work(self, bus: MessageBus | None) -> None:
        while True:
            if bus is not None:
                await self._tell_end(bus)
            await asyncio.sleep(_REOPEN_S)
            try:
                bus = await self._open()
            except (OSError, EOFError, AuthError):
                bus = None

    async def _open(self) -> MessageBus:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await bus.connect()
                for rule in _RULES:
                    await _add_match(bus, rule)
        except BaseException:
            bus.disconnect()
            raise
        bus.add_message_handler(self._receive)
        return bus

    async def _tell_end(self, bus: MessageBus) -> None:
        try:
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except (OSError, EOFError) as error:
            log.debug("bus_lost", error=describe(error))
        finally:
            bus.disconnect()
        self._lost("D-Bus ended")

    def _receive(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        match message.member, message.body:
            case "InterfacesAdded", [str(path), interfaces] if _CHARACTERISTIC in interfaces:
                self._characteristic(path, interfaces[_CHARACTERISTIC]["UUID"].value)
        reason = loss(message, f"{_BLUEZ}/{self._adapter()}")
        if reason is not None:
            self._lost(reason)


def loss(message: Message, adapter_path: str) -> str | None:
    """Return in words what a signal says is gone, if anything."""
    match message.member, message.body:
        case "NameOwnerChanged", ["org.bluez", str(old_owner), str()] if old_owner:
            return "bluetoothd ended"
        case "PropertiesChanged", [interface, changed, *_] if interface == _ADAPTER:
            path, powered = message.path or "", changed.get("Powered")
            if powered is not None and not powered.value and path == adapter_path:
                return f"the adapter {_name(path)} was switched off"
        case "InterfacesRemoved", [str(path), interfaces]:
            if _ADAPTER in interfaces and path == adapter_path:
                return f"the adapter {_name(path)} is gone"
    return None


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


async def _add_match(bus: MessageBus, rule: str) -> None:
    reply = await bus.call(
        Message(
            destination="org.freedesktop.DBus",
            path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus",
            member="AddMatch",
            signature="s",
            body=[rule],
        )
    )
    if reply is None or reply.message_type is MessageType.ERROR:
        raise OSError(f"the bus refuses a match rule ({reply and reply.error_name})")
