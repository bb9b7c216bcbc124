"""One device under `org.bluez`: what was heard of it, and its link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from bleak.exc import BleakDBusError
from dbus_fast import Message, Variant

from fastprovd.emulator.bluez_adapter import DeviceObject, EmulatedAdapter
from fastprovd.emulator.bluez_gatt import NOT_SUPPORTED, GattObjects, Reply
from fastprovd.emulator.bluez_objects import DEVICE, ObjectTree
from fastprovd.emulator.connection import FAILED, Connection
from fastprovd.emulator.peripheral import Service

_ABORTED: Final = "le-connection-abort-by-local"


class BluezDevice:
    """Shown from its making until `remove()`; `spawn` runs what goes on after an answer."""

    def __init__(
        self,
        adapter: EmulatedAdapter,
        tree: ObjectTree,
        remote: DeviceObject,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.remote = remote
        self.gatt = GattObjects(adapter, tree, remote.path)
        self._adapter = adapter
        self._tree = tree
        self._spawn = spawn
        self._opening: asyncio.Task[Connection] | None = None
        self._remembered: tuple[Service, ...] | None = None
        self._connection: Connection | None = None
        tree.add(
            remote.path,
            DEVICE,
            Address=remote.address,
            AddressType="public",
            Adapter=remote.path.rpartition("/")[0],
            Paired=False,
            Connected=False,
            ServicesResolved=False,
            **self._advertised(),
        )

    def heard(self) -> None:
        """Tell what changed in the advertisement; the RSSI is told every time."""
        known = self._tree.properties(self.remote.path, DEVICE)
        self._tree.change(
            self.remote.path,
            DEVICE,
            **{
                name: value
                for name, value in self._advertised().items()
                if name == "RSSI" or known.get(name) != value
            },
        )

    def discovery_ended(self) -> None:
        """Take back the RSSI."""
        self._tree.change(self.remote.path, DEVICE, gone=["RSSI"])

    def remove(self) -> None:
        """Take the device away, a link before it."""
        self._unlink()
        self._tree.remove(self.remote.path)

    async def call(self, message: Message) -> Reply:
        """Answer a method of the device or of one of its GATT objects; raises BleakDBusError."""
        if message.interface != DEVICE:
            return await self.gatt.call(message)
        match message.member:
            case "Connect":
                await self._connect()
            case "Disconnect":
                await self._disconnect()
            case _:
                raise BleakDBusError(NOT_SUPPORTED, ["Operation is not supported"])
        return Reply()

    async def _connect(self) -> None:
        if self._connection is not None:
            return
        if self._adapter.fail_connects and _is_abort(self._adapter.fail_connects[0]):
            await self._abort()
        opening = asyncio.create_task(self._adapter.connect(self.remote, self._lost))
        self._opening = self._opening or opening
        try:
            connection = await opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise BleakDBusError(FAILED, ["br-connection-canceled"]) from None
        finally:
            if self._opening is opening:
                self._opening = None
        if self.remote.path not in self._tree:
            connection.hang_up()
            raise BleakDBusError(FAILED, [_ABORTED])
        self._connection = connection
        self.gatt.open(connection)
        self._tree.change(self.remote.path, DEVICE, Connected=True)
        if await _ends_within(connection, self._adapter.timing.establishment_s):
            raise BleakDBusError(FAILED, [_ABORTED])
        self._spawn(self._discover_services(connection))

    async def _abort(self) -> None:
        """Do as BlueZ does when an establishment fails: the device was connected for a moment."""
        fault = self._adapter.fail_connects.popleft()
        assert fault is not None  # noqa: S101 - _is_abort() has looked
        self._tree.change(self.remote.path, DEVICE, Connected=True)
        await asyncio.sleep(self._adapter.timing.dbus_s)
        self._tree.change(self.remote.path, DEVICE, Connected=False)
        raise fault

    async def _discover_services(self, connection: Connection) -> None:
        timing = self._adapter.timing
        total_s = self._adapter.rng.uniform(*timing.discover_services_s)
        await _ends_within(connection, total_s - timing.establishment_s)
        if self._connection is not connection or not connection.alive:
            return
        if not await connection.answered():
            return
        connection.discover()
        connection.subscribe_service_changed()
        services = connection.services
        if self._adapter.remembers_services and self._remembered is not None:
            services = self._remembered
        self._remembered = services
        self.gatt.show(services)
        self._tree.change(self.remote.path, DEVICE, ServicesResolved=True)

    async def _disconnect(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        elif self._connection is not None:
            connection = self._connection
            self._adapter.request_disconnect(self.remote)
            await connection.lost.wait()

    def _lost(self) -> None:
        if self.remote.path in self._tree:
            self._unlink()

    def _unlink(self) -> None:
        if self._connection is None:
            return
        self._connection = None
        self.gatt.close()
        if self._tree.properties(self.remote.path, DEVICE)["ServicesResolved"]:
            self._tree.change(self.remote.path, DEVICE, ServicesResolved=False)
        self._tree.change(self.remote.path, DEVICE, Connected=False)

    def _advertised(self) -> dict[str, Any]:
        remote = self.remote
        values: dict[str, Any] = {
            "Alias": remote.name or remote.address.replace(":", "-"),
            "RSSI": remote.rssi,
            "UUIDs": list(remote.service_uuids),
            "ServiceData": {
                uuid: Variant("ay", data) for uuid, data in remote.service_data.items()
            },
        }
        if remote.name is not None:
            values["Name"] = remote.name
        return values


async def _ends_within(connection: Connection, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await connection.lost.wait()
    except TimeoutError:
        return False
    return True


def _is_abort(fault: Exception | None) -> bool:
    return isinstance(fault, BleakDBusError) and _ABORTED in str(fault)
