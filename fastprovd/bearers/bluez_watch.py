"""Whether bluetoothd and the adapter are still there; bleak does not tell when they go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import structlog
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from fastprovd.bearers.bluez_owner import NAME, BluezOwner, add_match
from fastprovd.bearers.errors import BUS_ERRORS, describe
from fastprovd.edges import guarded

_ADAPTER: Final = "org.bluez.Adapter1"
_BLUEZ: Final = "/org/bluez"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_OBJECTS: Final = "org.freedesktop.DBus.ObjectManager"
_RULES: Final = (
    f"type='signal',sender='{NAME}',interface='{_PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{_BLUEZ}',arg0='{_ADAPTER}'",
    f"type='signal',sender='{NAME}',interface='{_OBJECTS}',member='InterfacesRemoved'",
    f"type='signal',sender='{NAME}',interface='{_OBJECTS}',member='InterfacesAdded'",
)
# Six questions to the bus itself, which answers in milliseconds.
_TIMEOUT_S: Final = 5.0
# A D-Bus daemon that was restarted listens within a second; a refused connection costs nothing.
_REOPEN_S: Final = 0.5

log = structlog.get_logger(__name__)


class BluezWatch:
    """Calls `lost` with a sentence when bluetoothd, the adapter or the bus goes; `async with` it.

    `adapter` returns the name of the one in use (`hci0`), empty while there is none. It does not
    tell when they return: try. It comes back with D-Bus; without, nothing is told, and whoever uses
    the adapter hears why. `characteristic` gets path and UUID of each one that BlueZ begins to show
    there.

    Signals count from the owner of org.bluez alone.
    """

    def __init__(
        self,
        adapter: Callable[[], str],
        lost: Callable[[str], None],
        characteristic: Callable[[str, str], None],
    ) -> None:
        self._adapter = adapter
        self._lost = guarded(lost)
        self._characteristic = characteristic
        self._working: asyncio.Task[None] | None = None
        self._owner = BluezOwner()

    async def __aenter__(self) -> Self:
        try:
            bus = await self._open()
        except BUS_ERRORS as error:
            log.debug("bluez_not_watched", error=describe(error))
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
            if not self._working.cancelled() and (error := self._working.exception()) is not None:
                log.error("bluez_watch_failed", exc_info=error)

    async def _work(self, bus: MessageBus | None) -> None:
        while True:
            if bus is not None:
                await self._tell_end(bus)
            await asyncio.sleep(_REOPEN_S)
            try:
                bus = await self._open()
            except BUS_ERRORS:
                bus = None

    async def _open(self) -> MessageBus:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await bus.connect()
                self._owner = BluezOwner()
                bus.add_message_handler(guarded(self._receive))
                for rule in _RULES:
                    await add_match(bus, rule)
                await self._owner.follow(bus)
        except BaseException:
            bus.disconnect()
            raise
        return bus

    async def _tell_end(self, bus: MessageBus) -> None:
        try:
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except BUS_ERRORS as error:
            log.debug("bus_lost", error=describe(error))
        finally:
            bus.disconnect()
        self._lost("D-Bus ended")

    def _receive(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or not self._owner.is_said(message):
            return
        path = f"{_BLUEZ}/{self._adapter()}"
        found = shown_characteristic(message, path)
        if found is not None:
            self._characteristic(*found)
        reason = loss(message, path)
        if reason is not None:
            self._lost(reason)


def loss(message: Message, adapter_path: str) -> str | None:
    """Return in words what a signal says is gone, if anything; a malformed one says nothing."""
    match message.member, message.body:
        case "NameOwnerChanged", ["org.bluez", str(old_owner), str()] if old_owner:
            return "bluetoothd ended"
        case "PropertiesChanged", [str(interface), {"Powered": Variant(value=False)}, *_]:
            if interface == _ADAPTER and message.path == adapter_path:
                return f"the adapter {_name(adapter_path)} was switched off"
        case "InterfacesRemoved", [str(path), list(interfaces)]:
            if _ADAPTER in interfaces and path == adapter_path:
                return f"the adapter {_name(path)} is gone"
    return None


def shown_characteristic(message: Message, adapter_path: str) -> tuple[str, str] | None:
    """Return path and UUID of a characteristic that a signal says is shown now, if any is."""
    match message.member, message.body:
        case "InterfacesAdded", [
            str(path),
            {"org.bluez.GattCharacteristic1": {"UUID": Variant(value=str(uuid))}},
        ] if path.startswith(f"{adapter_path}/dev_"):
            return path, uuid
    return None


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
