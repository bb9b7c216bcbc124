"""The GATT objects of one device under `org.bluez`: values written, notifications told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Any, Final

from bleak.exc import BleakDBusError
from bleak.uuids import normalize_uuid_16
from dbus_fast import Message

from fastprovd.emulator.bluez_adapter import IN_PROGRESS, EmulatedAdapter
from fastprovd.emulator.bluez_objects import CHARACTERISTIC, DESCRIPTOR, SERVICE, ObjectTree
from fastprovd.emulator.connection import FAILED, GENERIC_ACCESS, Connection
from fastprovd.emulator.peripheral import AttError, Characteristic, Service

NOT_SUPPORTED: Final = "org.bluez.Error.NotSupported"
_NOT_PERMITTED: Final = "org.bluez.Error.NotPermitted"
_ON: Final = b"\x01\x00"
_OFF: Final = b"\x00\x00"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a method returns; the end of the socket is the caller's once it was sent."""

    signature: str = ""
    body: tuple[Any, ...] = ()
    handed_over: socket.socket | None = None


class _Subscription:
    """Who wants to hear of one characteristic: clients by signal, or one client by a socket."""

    def __init__(self) -> None:
        self.clients: set[str] = set()
        self.socket: socket.socket | None = None


class GattObjects:
    """Shows what the last discovery found; BlueZ keeps showing it after the link is gone."""

    def __init__(self, adapter: EmulatedAdapter, tree: ObjectTree, device_path: str) -> None:
        self._adapter = adapter
        self._tree = tree
        self._device_path = device_path
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._characteristics: dict[str, Characteristic] = {}
        self._subscriptions: dict[str, _Subscription] = {}

    def open(self, connection: Connection) -> None:
        """Take a link of the device; its services are shown when discovery has found them."""
        self._connection = connection
        connection.on_value = self._notified
        connection.on_refreshed = self.show

    def close(self) -> None:
        """End all subscriptions, because the link is gone."""
        self._connection = None
        for path, subscription in self._subscriptions.items():
            self._release(subscription)
            self._tell(path, Notifying=False)
        self._subscriptions.clear()

    def show(self, services: tuple[Service, ...]) -> None:
        """Show exactly these; what is shown already and did not change stays."""
        assert self._connection is not None  # noqa: S101 - nobody discovers without a link
        mtu = self._connection.opened.result().mtu_octets
        wanted = self._wanted(services, mtu)
        for path in self._tree.below(self._device_path):
            if path in self._tree and not self._is_kept(path, wanted):
                self._tree.remove(path)
        for path in [path for path in self._subscriptions if path not in self._characteristics]:
            self._release(self._subscriptions.pop(path))
        for path, (interface, values) in wanted.items():
            if path not in self._tree:
                self._tree.add(path, interface, **values)
            elif self._tree.properties(path, interface).get("MTU", mtu) != mtu:
                self._tree.change(path, interface, MTU=mtu)

    async def call(self, message: Message) -> Reply:
        """Answer a method of a characteristic; raises BleakDBusError."""
        method = _METHODS.get(message.member or "")
        if method is None or message.interface != CHARACTERISTIC:
            raise BleakDBusError(NOT_SUPPORTED, ["Operation is not supported"])
        connection = self._connection
        if connection is None or not connection.alive:
            if message.member == "WriteValue" and not self._adapter.quirks.racing_writes_fail:
                return Reply()
            raise BleakDBusError(FAILED, ["Not connected"])
        return await method(self, message, connection)

    def client_gone(self, client: str) -> None:
        """End what a client subscribed to that has left the bus."""
        for path, subscription in list(self._subscriptions.items()):
            if client in subscription.clients:
                subscription.clients.discard(client)
                if not subscription.clients:
                    self._unsubscribe(path)

    def _wanted(
        self, services: tuple[Service, ...], mtu: int
    ) -> dict[str, tuple[str, dict[str, Any]]]:
        wanted: dict[str, tuple[str, dict[str, Any]]] = {}
        self._characteristics = {}
        for service in services:
            if service.uuid == GENERIC_ACCESS:
                continue
            service_path = f"{self._device_path}/service{service.start_handle:04x}"
            wanted[service_path] = (
                SERVICE,
                {
                    "UUID": normalize_uuid_16(service.uuid),
                    "Device": self._device_path,
                    "Primary": True,
                },
            )
            for found in service.characteristics:
                # BlueZ names a characteristic by its declaration, which precedes the value.
                path = f"{service_path}/char{found.value_handle - 1:04x}"
                self._characteristics[path] = found
                values = {
                    "UUID": normalize_uuid_16(found.uuid),
                    "Service": service_path,
                    "Flags": sorted(found.properties),
                    "MTU": mtu,
                }
                if found.cccd_handle is not None:
                    values |= {"Notifying": False, "NotifyAcquired": False}
                    wanted[f"{path}/desc{found.cccd_handle:04x}"] = (
                        DESCRIPTOR,
                        {"UUID": normalize_uuid_16(0x2902), "Characteristic": path},
                    )
                wanted[path] = (CHARACTERISTIC, values)
        return dict(sorted(wanted.items()))

    def _is_kept(self, path: str, wanted: dict[str, tuple[str, dict[str, Any]]]) -> bool:
        interface, values = wanted.get(path, ("", {}))
        if not self._tree.has(path, interface):
            return False
        return bool(self._tree.properties(path, interface)["UUID"] == values["UUID"])

    async def _write_value(self, message: Message, connection: Connection) -> Reply:
        value, options = message.body
        found = self._characteristics[message.path or ""]
        kind = options["type"].value if "type" in options else "request"
        wanted = "write-without-response" if kind == "command" else "write"
        if wanted not in found.properties:
            if kind == "request":  # the board is asked, and refuses
                raise BleakDBusError(_NOT_PERMITTED, ["Write not permitted"])
            raise BleakDBusError(NOT_SUPPORTED, ["Operation is not supported"])
        link = connection.opened.result()
        if len(value) > link.mtu_octets - 3:
            raise BleakDBusError(FAILED, ["Failed to initiate write"])
        link.write_command(found.value_handle, bytes(value))
        return Reply()

    async def _read_value(self, message: Message, connection: Connection) -> Reply:
        raise BleakDBusError(_NOT_PERMITTED, ["Read not permitted"])

    async def _start_notify(self, message: Message, connection: Connection) -> Reply:
        path, client = message.path or "", message.sender or ""
        subscription = self._subscription(path)
        if client in subscription.clients:
            raise BleakDBusError(IN_PROGRESS, ["In Progress"])
        # From here on values are told: a board may send one before it answers.
        subscription.clients.add(client)
        try:
            await self._write_cccd(path, connection)
        except BaseException:
            subscription.clients.discard(client)
            raise
        self._tell(path, Notifying=True)
        return Reply()

    async def _stop_notify(self, message: Message, connection: Connection) -> Reply:
        path, client = message.path or "", message.sender or ""
        subscription = self._subscriptions.get(path)
        if subscription is None or client not in subscription.clients:
            raise BleakDBusError(FAILED, ["No notify session started"])
        if subscription.clients == {client}:
            await self._write_cccd(path, connection, _OFF)
            self._tell(path, Notifying=False)
        subscription.clients.discard(client)
        return Reply()

    async def _acquire_notify(self, message: Message, connection: Connection) -> Reply:
        path = message.path or ""
        subscription = self._subscription(path)
        if subscription.clients:
            raise BleakDBusError(IN_PROGRESS, ["In Progress"])
        await self._write_cccd(path, connection)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        subscription.socket = ours
        self._loop.add_reader(ours, self._unsubscribe, path)  # readable: the other end is closed
        self._tell(path, NotifyAcquired=True)
        return Reply("hq", (0, connection.opened.result().mtu_octets), theirs)

    def _subscription(self, path: str) -> _Subscription:
        if not self._characteristics[path].properties & {"notify", "indicate"}:
            raise BleakDBusError(NOT_SUPPORTED, ["Operation is not supported"])
        subscription = self._subscriptions.setdefault(path, _Subscription())
        if subscription.socket is not None:
            raise BleakDBusError(_NOT_PERMITTED, ["Notify acquired"])
        return subscription

    async def _write_cccd(self, path: str, connection: Connection, value: bytes = _ON) -> None:
        try:
            await connection.write_cccd(self._characteristics[path].cccd_handle or 0, value)
        except AttError as error:
            raise BleakDBusError(
                FAILED, [f"Operation failed with ATT error: 0x{error.code:02x}"]
            ) from error

    def _notified(self, value_handle: int, value: bytes) -> None:
        for path, subscription in self._subscriptions.items():
            if self._characteristics[path].value_handle == value_handle:
                if subscription.socket is not None:
                    subscription.socket.send(value)
                elif subscription.clients:
                    self._tell(path, Value=value)

    def _unsubscribe(self, path: str) -> None:
        subscription = self._subscriptions.pop(path)
        self._release(subscription)
        self._tell(path, Notifying=False, NotifyAcquired=False)
        if self._connection is not None and self._connection.alive:
            cccd_handle = self._characteristics[path].cccd_handle or 0
            # Nobody is left to be told that the board refused.
            with contextlib.suppress(AttError):
                self._connection.opened.result().write_cccd(cccd_handle, _OFF)

    def _tell(self, path: str, **values: Any) -> None:
        # The objects may have gone under a method that waited for the board.
        if self._tree.has(path, CHARACTERISTIC):
            self._tree.change(path, CHARACTERISTIC, **values)

    def _release(self, subscription: _Subscription) -> None:
        if subscription.socket is not None:
            self._loop.remove_reader(subscription.socket)
            subscription.socket.close()


_METHODS: Final = {
    "WriteValue": GattObjects._write_value,
    "ReadValue": GattObjects._read_value,
    "StartNotify": GattObjects._start_notify,
    "StopNotify": GattObjects._stop_notify,
    "AcquireNotify": GattObjects._acquire_notify,
}
