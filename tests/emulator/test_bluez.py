"""What `org.bluez` tells on the bus, seen by a program without bleak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from dbus_fast import Message, MessageType, unpack_variants
from dbus_fast.aio import MessageBus

from fastprovd.emulator.private_bus import PrivateBus
from tests.support.doors import Bench, bench
from tests.support.fake_air import FakeBoard

RunPaced = Callable[[Coroutine[Any, Any, Any]], Any]

ADAPTER = "/org/bluez/hci0"
DEVICE = f"{ADAPTER}/dev_24_0A_C4_5E_00_01"
SERVICE, DATA_OUT = f"{DEVICE}/service0014", f"{DEVICE}/service0014/char0017"
PROXY = f"{DEVICE}/service000e"


class Program:
    """Calls methods, and remembers the signals in a short notation."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.signals: list[str] = []
        bus.add_message_handler(self._receive)

    def _receive(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "PropertiesChanged":
            _, changed, gone = message.body
            name = (message.path or "").rsplit("/", 1)[-1]
            self.signals += [f"{name} {key}={value.value}" for key, value in changed.items()]
            self.signals += [f"{name} -{key}" for key in gone]
        elif (message.member or "").startswith("Interfaces"):
            sign = "+" if message.member == "InterfacesAdded" else "-"
            self.signals.append(sign + message.body[0].rsplit("/", 1)[-1])

    async def call(self, path: str, method: str, signature: str = "", *body: Any) -> Any:
        interface, _, member = method.rpartition(".")
        reply = await self.bus.call(
            Message(
                destination="org.bluez",
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
            )
        )
        if reply.message_type is MessageType.ERROR:
            return f"{reply.error_name}: {reply.body[0]}"
        return reply.body[0] if reply.body else None

    async def objects(self) -> dict[str, Any]:
        managed = await self.call("/", "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
        objects: dict[str, Any] = unpack_variants(managed)
        return objects

    async def find(self, board: FakeBoard) -> None:
        await self.call(ADAPTER, "org.bluez.Adapter1.StartDiscovery")
        async with asyncio.timeout(5):
            while DEVICE not in await self.objects():  # noqa: ASYNC110 - it asks another program
                await asyncio.sleep(0.05)
        await self.call(ADAPTER, "org.bluez.Adapter1.StopDiscovery")

    async def connect(self) -> None:
        assert await self.call(DEVICE, "org.bluez.Device1.Connect") is None
        await asyncio.sleep(1)


@asynccontextmanager
async def program(bus: PrivateBus) -> AsyncIterator[Program]:
    connection = await MessageBus(bus_address=bus.address).connect()
    try:
        made = Program(connection)
        await connection.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="AddMatch",
                signature="s",
                body=["type='signal',sender='org.bluez'"],
            )
        )
        yield made
    finally:
        connection.disconnect()
        await connection.wait_for_disconnect()


def run(run_paced: RunPaced, bus: PrivateBus, scenario: Callable[[Bench, Program], Any]) -> None:
    async def main() -> None:
        async with bench(bus) as b, program(bus) as p:
            await scenario(b, p)

    run_paced(main())


def test_the_order_of_a_connection(run_paced: RunPaced, private_bus: PrivateBus) -> None:
    """Connected, the GATT objects with parents first, ServicesResolved; then the way back."""

    async def scenario(b: Bench, p: Program) -> None:
        await p.find(b.board)
        p.signals.clear()
        await p.connect()
        await p.call(DEVICE, "org.bluez.Device1.Disconnect")
        await asyncio.sleep(0.2)
        name = DEVICE.rsplit("/", 1)[-1]
        assert p.signals == [
            f"{name} Connected=True",
            "+service0014",
            "+char0015",
            "+char0017",
            "+desc0019",
            f"{name} ServicesResolved=True",
            f"{name} ServicesResolved=False",
            f"{name} Connected=False",
        ]

    run(run_paced, private_bus, scenario)


def test_gatt_objects_stay_until_the_next_discovery(
    run_paced: RunPaced, private_bus: PrivateBus
) -> None:
    """After the link is gone they are shown still; the next discovery replaces them."""

    async def scenario(b: Bench, p: Program) -> None:
        await p.find(b.board)
        await p.connect()
        await p.call(DEVICE, "org.bluez.Device1.Disconnect")
        assert SERVICE in await p.objects()
        answer = await p.call(DATA_OUT, "org.bluez.GattCharacteristic1.StartNotify")
        assert answer == "org.bluez.Error.Failed: Not connected"
        b.board.become_node()
        await p.connect()
        objects = await p.objects()
        assert SERVICE not in objects
        assert PROXY in objects

    run(run_paced, private_bus, scenario)


def test_the_end_of_a_discovery_takes_the_rssi_back(
    run_paced: RunPaced, private_bus: PrivateBus
) -> None:
    """Without discovery there is no RSSI; the device stays known for half a minute."""

    async def scenario(b: Bench, p: Program) -> None:
        await p.find(b.board)
        b.board.advertising = False
        device = (await p.objects())[DEVICE]["org.bluez.Device1"]
        assert device["Address"] == b.board.address
        assert "RSSI" not in device
        await asyncio.sleep(31)
        assert DEVICE not in await p.objects()
        assert p.signals[-1] == "-" + DEVICE.rsplit("/", 1)[-1]

    run(run_paced, private_bus, scenario)


def test_a_program_that_dies_leaves_its_link(run_paced: RunPaced, private_bus: PrivateBus) -> None:
    """BlueZ keeps the link, ends the subscriptions and the scan, and lets others use the link."""

    async def scenario(b: Bench, p: Program) -> None:
        await p.find(b.board)
        async with program(private_bus) as other:
            await other.connect()
            await other.call(DATA_OUT, "org.bluez.GattCharacteristic1.StartNotify")
            await other.call(ADAPTER, "org.bluez.Adapter1.StartDiscovery")
            assert b.adapter.discovering
        await asyncio.sleep(0.5)
        assert b.board.log == ["connected", "cccd 0100", "cccd 0000"]
        assert not b.adapter.discovering
        assert (await p.objects())[DEVICE]["org.bluez.Device1"]["Connected"]
        assert await p.call(DEVICE, "org.bluez.Device1.Connect") is None
        await p.call(DEVICE, "org.bluez.Device1.Disconnect")
        assert b.adapter.connections == 0

    run(run_paced, private_bus, scenario)


def test_errors_are_worded_as_bluez_does(run_paced: RunPaced, private_bus: PrivateBus) -> None:
    """Whoever scrapes the text of an error finds it."""

    async def scenario(b: Bench, p: Program) -> None:
        adapter = "org.bluez.Adapter1"
        assert (
            await p.call(ADAPTER, f"{adapter}.StopDiscovery")
            == "org.bluez.Error.Failed: No discovery started"
        )
        assert (
            await p.call(ADAPTER, f"{adapter}.RemoveDevice", "o", DEVICE)
            == "org.bluez.Error.DoesNotExist: Does Not Exist"
        )
        answer = await p.call(DEVICE, "org.bluez.Device1.Connect")
        assert answer.startswith("org.freedesktop.DBus.Error.UnknownObject: Method")
        b.adapter.power(on=False)
        assert (
            await p.call(ADAPTER, f"{adapter}.StartDiscovery")
            == "org.bluez.Error.NotReady: Resource Not Ready"
        )

    run(run_paced, private_bus, scenario)


def test_an_adapter_is_unplugged_and_plugged_in(
    run_paced: RunPaced, private_bus: PrivateBus
) -> None:
    """Its objects go, links with them; it comes back under another name, switched on."""

    async def scenario(b: Bench, p: Program) -> None:
        await p.find(b.board)
        await p.connect()
        await b.bluetoothd.unplug()
        assert await p.objects() == {}
        assert b.adapter.connections == 0
        error = await p.call(ADAPTER, "org.bluez.Adapter1.StartDiscovery")
        assert str(error).startswith("org.freedesktop.DBus.Error.UnknownObject")
        b.bluetoothd.plug("hci1")
        (objects,) = (await p.objects()).items()
        assert objects[0] == "/org/bluez/hci1"
        assert objects[1]["org.bluez.Adapter1"]["Powered"]

    run(run_paced, private_bus, scenario)


def test_a_scan_may_outlive_a_crash(run_paced: RunPaced, private_bus: PrivateBus) -> None:
    """The next bluetoothd is busy until the kernel has ended it; after a proper stop it is not."""

    async def scenario(b: Bench, p: Program) -> None:
        b.adapter.scan_outlives_crash = True
        for end in (b.bluetoothd.terminate, b.bluetoothd.kill):
            assert await p.call(ADAPTER, "org.bluez.Adapter1.StartDiscovery") is None
            await end()
            await b.bluetoothd.start()
        error = await p.call(ADAPTER, "org.bluez.Adapter1.StartDiscovery")
        assert str(error).startswith("org.bluez.Error.InProgress")
        await asyncio.sleep(b.adapter.timing.orphan_scan_s)
        assert await p.call(ADAPTER, "org.bluez.Adapter1.StartDiscovery") is None

    run(run_paced, private_bus, scenario)


def test_the_radio_is_disturbed(run_paced: RunPaced, private_bus: PrivateBus) -> None:
    """Every link is lost on both sides, and can be opened again."""

    async def scenario(b: Bench, p: Program) -> None:
        await p.find(b.board)
        await p.connect()
        b.adapter.lose_links()
        await asyncio.sleep(0.2)
        assert f"{DEVICE.rsplit('/', 1)[-1]} Connected=False" in p.signals
        assert b.adapter.connections == 0
        await p.connect()

    run(run_paced, private_bus, scenario)


def test_a_board_that_answers_nothing_is_connected_for_30_s(
    run_paced: RunPaced, private_bus: PrivateBus
) -> None:
    """No services are resolved; BlueZ ends the link when its request was not answered."""

    async def scenario(b: Bench, p: Program) -> None:
        await p.find(b.board)
        b.board.answers = False
        p.signals.clear()
        await p.connect()
        await asyncio.sleep(25)
        name = DEVICE.rsplit("/", 1)[-1]
        assert p.signals == [f"{name} Connected=True"]
        await asyncio.sleep(8)
        assert p.signals == [f"{name} Connected=True", f"{name} Connected=False"]

    run(run_paced, private_bus, scenario)
