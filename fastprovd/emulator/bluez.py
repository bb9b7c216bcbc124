"""An `org.bluez` on a message bus, over the same adapter and air as `bleak_backend`.

Unmodified bleak, with its BlueZ backend, reaches the emulated boards through it when
`DBUS_SYSTEM_BUS_ADDRESS` names the bus. It offers what bleak uses, and errors as BlueZ words them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

from bleak.exc import BleakDBusError
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from fastprovd.emulator.bluez_adapter import NOT_READY, DeviceObject, EmulatedAdapter
from fastprovd.emulator.bluez_device import BluezDevice
from fastprovd.emulator.bluez_gatt import Reply
from fastprovd.emulator.bluez_objects import ADAPTER, OBJECT_MANAGER, ObjectTree

_NAME: Final = "org.bluez"
_UNKNOWN_OBJECT: Final = "org.freedesktop.DBus.Error.UnknownObject"
_DOES_NOT_EXIST: Final = "org.bluez.Error.DoesNotExist"
# So many messages fit into a socket, even if the bus reads none of them.
_WINDOW: Final = 32
# A device is looked after this long after BlueZ may forget it.
_GRACE_S: Final = 0.001

# Messages with the end of a socket that goes with each, in the order of sending.
Unsent = asyncio.Queue[tuple[Message, socket.socket | None]]


class Bluetoothd:
    """A bluetoothd with one adapter: `async with` it, and end or start it again inside.

    It loses its memory with its end: links, discovery sessions, device objects.
    """

    def __init__(self, adapter: EmulatedAdapter, bus_address: str) -> None:
        self._adapter = adapter
        self._bus_address = bus_address
        self._path = f"/org/bluez/{adapter.name}"
        self._group = asyncio.TaskGroup()
        self._life: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._bus: MessageBus | None = None
        self._unsent: Unsent = asyncio.Queue()
        self._tree = ObjectTree(self._send)
        self._devices: dict[str, BluezDevice] = {}
        self._duplicates: dict[str, bool] = {}  # by the unique name of the client
        self._settling: set[str] = set()  # clients that have not read their scan's start
        self._held: dict[str, DeviceObject] = {}  # devices heard meanwhile

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.kill()
        if isinstance(exc, asyncio.CancelledError):
            await self._group.__aexit__(exc_type, exc, traceback)
        else:  # what went wrong inside is not this group's, and goes on as it is
            await self._group.__aexit__(None, None, None)

    async def start(self) -> None:
        """Show the adapter and take the name."""
        bus = MessageBus(bus_address=self._bus_address, negotiate_unix_fd=True)
        await bus.connect()
        bus.add_message_handler(self._receive)
        await bus.call(
            _to_bus(
                "AddMatch",
                "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'",
            )
        )
        self._bus = bus
        self._unsent = asyncio.Queue()
        self._tree = ObjectTree(self._send)
        self._spawn(self._send_all(bus, self._unsent))
        self._life = self._group.create_task(self._live(bus), name="bluetoothd")
        await bus.request_name(_NAME)
        self._show_adapter()

    def plug(self, name: str) -> None:
        """Show the adapter that was unplugged, under whatever name, and switch it on."""
        self._adapter.name = name
        self._adapter.power(on=True)
        self._show_adapter()

    def _show_adapter(self) -> None:
        self._path = f"/org/bluez/{self._adapter.name}"
        self._adapter.on_power = self._powered
        self._tree.add(
            self._path,
            ADAPTER,
            Address=self._adapter.address,
            AddressType="public",
            Alias=self._adapter.name,
            Powered=self._adapter.powered,
            Discovering=False,
            Roles=["central", "peripheral"],
        )

    async def kill(self) -> None:
        """End as by SIGKILL: no signal is sent, the bus gives the name away; idempotent."""
        if self._bus is not None:
            self._bus.disconnect()
        if self._life is not None:
            await asyncio.wait({self._life})

    async def terminate(self) -> None:
        """End as by SIGTERM: the links are closed and every object taken away first."""
        if self._bus is None:
            return
        await self._hide_adapter()
        await self._unsent.join()
        await self._bus.release_name(_NAME)  # its answer proves that all signals have left
        await self.kill()

    async def unplug(self) -> None:
        """Take the adapter away with its links and devices; bluetoothd goes on."""
        await self._hide_adapter()
        self._adapter.power(on=False)

    async def _hide_adapter(self) -> None:
        await asyncio.sleep(self._adapter.rng.uniform(*self._adapter.timing.power_off_s))
        devices = list(self._devices.values())
        self._forget()
        for device in devices:
            device.remove()
        self._tree.remove(self._path)

    async def _live(self, bus: MessageBus) -> None:
        try:
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except (OSError, EOFError):
            pass  # the bus is gone, and bluetoothd goes with it
        finally:
            self._bus = None
            while not self._unsent.empty():
                _, handed_over = self._unsent.get_nowait()
                if handed_over is not None:
                    handed_over.close()
            for task in self._answering:
                task.cancel()
            self._adapter.leave_scan()
            self._forget()

    def _forget(self) -> None:
        self._adapter.on_power = None
        self._adapter.forget_everything()
        self._devices.clear()
        self._duplicates.clear()
        self._settling.clear()
        self._held.clear()

    def _send(self, message: Message, handed_over: socket.socket | None = None) -> None:
        self._unsent.put_nowait((message, handed_over))

    async def _send_all(self, bus: MessageBus, unsent: Unsent) -> None:
        """Send in order, and let the bus come after: dbus-fast gives up on a full socket."""
        sent = 0
        while True:
            message, handed_over = await unsent.get()
            try:
                await bus.send(message)
                sent += 1
                if sent % _WINDOW == 0:
                    await bus.call(_to_bus("GetId"))
            except (OSError, EOFError):
                pass  # the bus is gone, and who would have read it
            finally:
                unsent.task_done()
                if handed_over is not None:
                    handed_over.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(coroutine)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    # What the bus brings

    def _receive(self, message: Message) -> bool | None:
        if message.message_type is MessageType.SIGNAL:
            if message.member == "NameOwnerChanged" and not message.body[2]:
                self._spawn(self._client_gone(message.body[0]))
            return None
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if message.interface != OBJECT_MANAGER and not (message.interface or "").startswith(_NAME):
            return None  # dbus-fast answers for every service
        self._spawn(self._answer(message))
        return True

    async def _answer(self, message: Message) -> None:
        try:
            reply = await self._call(message)
        except BleakDBusError as error:
            # dbus_error_details is bleak's own wording
            text = " ".join(str(detail) for detail in error.args[1:])
            self._send(Message.new_error(message, error.dbus_error, text))
            return
        handed_over = reply.handed_over
        descriptors = [] if handed_over is None else [handed_over.fileno()]
        answer = Message.new_method_return(message, reply.signature, list(reply.body), descriptors)
        self._send(answer, handed_over)

    async def _call(self, message: Message) -> Reply:
        path = message.path or ""
        if message.interface == OBJECT_MANAGER and message.member == "GetManagedObjects":
            return Reply("a{oa{sa{sv}}}", (self._tree.managed(),))
        if not self._tree.has(path, message.interface):
            raise BleakDBusError(
                _UNKNOWN_OBJECT,
                [
                    f'Method "{message.member}" with signature "{message.signature}" on '
                    f'interface "{message.interface}" doesn\'t exist\n'
                ],
            )
        if path == self._path:
            await self._call_adapter(message)
            return Reply()
        # /org/bluez/hci0/dev_XX_XX_XX_XX_XX_XX and what is below
        device = self._devices["/".join(path.split("/")[:5])]
        try:
            return await device.call(message)
        finally:
            self._drop_if_forgotten(device)

    async def _call_adapter(self, message: Message) -> None:
        client = message.sender or ""
        if message.member == "RemoveDevice":
            await self._remove_device(message.body[0])
            return
        if not self._adapter.powered:
            raise BleakDBusError(NOT_READY, ["Resource Not Ready"])
        match message.member:
            case "SetDiscoveryFilter":
                wanted = message.body[0].get("DuplicateData")
                self._duplicates[client] = wanted is not None and bool(wanted.value)
            case "StartDiscovery":
                await self._adapter.start_discovery(
                    self._heard, duplicates=self._duplicates.get(client, False), client=client
                )
                self._tell_discovering()
                self._settling.add(client)
                self._spawn(self._settle(client))
            case "StopDiscovery":
                await self._stop_discovery(client)
            case _:
                raise BleakDBusError("org.bluez.Error.NotSupported", ["Operation is not supported"])

    async def _settle(self, client: str) -> None:
        """Hold back what is heard until the client has read that its scan is running.

        A radio needs longer than D-Bus for its first report, whatever the pace of the clock; and
        bleak misses what it reads together with the answer.
        """
        bus = self._bus
        try:
            for _ in range(2):  # the second one is read after the client has run
                if bus is not None and bus.connected:
                    await bus.call(
                        Message(
                            destination=client,
                            path="/",
                            interface="org.freedesktop.DBus.Peer",
                            member="Ping",
                        )
                    )
        except (OSError, EOFError):
            return  # the bus is gone
        self._settling.discard(client)
        held, self._held = self._held, {}
        for remote in held.values():
            self._heard(remote)

    async def _stop_discovery(self, client: str) -> None:
        try:
            await self._adapter.stop_discovery(client)
        finally:
            self._tell_discovering()

    async def _client_gone(self, client: str) -> None:
        self._duplicates.pop(client, None)
        for device in self._devices.values():
            device.gatt.client_gone(client)
        if self._adapter.has_session(client):
            await self._stop_discovery(client)

    # What the adapter tells

    def _powered(self, on: bool) -> None:
        self._tree.change(self._path, ADAPTER, Powered=on)
        self._tell_discovering()

    def _tell_discovering(self) -> None:
        discovering = self._adapter.discovering
        if self._path not in self._tree:
            return
        if self._tree.properties(self._path, ADAPTER)["Discovering"] == discovering:
            return
        self._tree.change(self._path, ADAPTER, Discovering=discovering)
        if not discovering:
            for device in self._devices.values():
                device.discovery_ended()

    def _heard(self, remote: DeviceObject) -> None:
        if self._settling:
            self._held[remote.path] = remote
            return
        known = self._devices.get(remote.path)
        if known is not None and known.remote is remote:
            known.heard()
            return
        if known is not None:
            known.remove()
        device = BluezDevice(self._adapter, self._tree, remote, self._spawn)
        self._devices[remote.path] = device
        self._look_after(device)

    def _look_after(self, device: BluezDevice) -> None:
        """Take the device away once the adapter has forgotten it; look again until then."""
        remote = device.remote
        if self._drop_if_forgotten(device):
            return
        loop = asyncio.get_running_loop()
        silent_since = remote.last_seen if remote.connection is None else loop.time()
        loop.call_at(
            silent_since + self._adapter.timing.forget_s + _GRACE_S, self._look_after, device
        )

    def _drop_if_forgotten(self, device: BluezDevice) -> bool:
        remote = device.remote
        if self._devices.get(remote.path) is not device:
            return True
        if self._adapter.device(remote.address) is remote:
            return False
        del self._devices[remote.path]
        device.remove()
        return True

    async def _remove_device(self, path: str) -> None:
        device = self._devices.get(path)
        if device is None:
            raise BleakDBusError(_DOES_NOT_EXIST, ["Does Not Exist"])
        await self._adapter.remove_device(device.remote.address)
        self._drop_if_forgotten(device)


def _to_bus(member: str, *body: str) -> Message:
    return Message(
        destination="org.freedesktop.DBus",
        path="/org/freedesktop/DBus",
        interface="org.freedesktop.DBus",
        member=member,
        signature="s" * len(body),
        body=list(body),
    )
