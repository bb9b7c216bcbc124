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
_BLUEZ: Final = "/org/bluez"
_RULES: Final = (
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.bluez'",
    "type='signal',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
    f"path_namespace='{_BLUEZ}',arg0='{_ADAPTER}'",
    "type='signal',interface='org.freedesktop.DBus.ObjectManager',member='InterfacesRemoved'",
)
# Four questions to the bus itself, which answers in milliseconds.
_TIMEOUT_S: Final = 5.0

log = structlog.get_logger(__name__)


class BluezWatch:
    """Calls `lost` with a sentence when bluetoothd, the adapter or the bus goes; `async with` it.

    `adapter` is a name (`hci0`); when it is empty the loss of any adapter counts, because bleak
    does not tell which one it took. It does not tell when they return: try. Without D-Bus that is
    logged, and nothing is told.
    """

    def __init__(self, adapter: str, lost: Callable[[str], None]) -> None:
        self._path = f"{_BLUEZ}/{adapter}" if adapter else ""
        self._lost = lost
        self._bus: MessageBus | None = None
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await bus.connect()
                for rule in _RULES:
                    await _add_match(bus, rule)
        except BaseException as error:
            bus.disconnect()
            if not isinstance(error, OSError | EOFError | AuthError):
                raise
            log.warning("bluez_not_watched", error=describe(error))
            return self
        bus.add_message_handler(self._receive)
        self._bus = bus
        self._ending = asyncio.create_task(self._tell_end(bus), name="bluez_watch")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        bus, self._bus = self._bus, None
        if bus is not None and self._ending is not None:
            bus.disconnect()
            await asyncio.wait({self._ending})

    async def _tell_end(self, bus: MessageBus) -> None:
        try:
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except (OSError, EOFError) as error:
            log.debug("bus_lost", error=describe(error))
        if self._bus is not None:
            self._lost("D-Bus ended")

    def _receive(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or self._bus is None:
            return
        reason = loss(message, self._path)
        if reason is not None:
            self._lost(reason)


def loss(message: Message, adapter_path: str) -> str | None:
    """Return in words what a signal says is gone, if anything; an empty path is any adapter."""
    match message.member, message.body:
        case "NameOwnerChanged", ["org.bluez", str(old_owner), str()] if old_owner:
            return "bluetoothd ended"
        case "PropertiesChanged", [interface, changed, *_] if interface == _ADAPTER:
            path, powered = message.path or "", changed.get("Powered")
            if powered is not None and not powered.value and adapter_path in ("", path):
                return f"the adapter {_name(path)} was switched off"
        case "InterfacesRemoved", [str(path), interfaces]:
            if _ADAPTER in interfaces and adapter_path in ("", path):
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
