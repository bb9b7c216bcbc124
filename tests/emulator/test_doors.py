"""One contract for every door to the emulated boards: backend classes in process, and D-Bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from bleak import BleakClient
from bleak.backends.scanner import AdvertisementData
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
    BleakGATTProtocolError,
)

from fastprovd.emulator.bluez_adapter import BlueZQuirks
from fastprovd.emulator.peripheral import CONNECTION_TIMEOUT, Characteristic, Service
from fastprovd.emulator.private_bus import PrivateBus
from tests.support.doors import IN, OUT, PROVISIONING, PROXY, Bench, bench, now
from tests.support.fake_air import (
    DATA_IN,
    DATA_OUT,
    NODE_IDENTITY,
    PROVISIONING_SERVICE,
    PROXY_CCCD,
    PROXY_OUT,
    UNPROVISIONED,
    FakeBoard,
)

Scenario = Callable[[Bench], Coroutine[Any, Any, None]]
RunOnDoor = Callable[..., None]


def run_on(door: PrivateBus | None, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> RunOnDoor:
    def run_scenario(scenario: Scenario, **scene: Any) -> None:
        async def main() -> None:
            async with bench(door, **scene) as b:
                await scenario(b)

        run(main())

    return run_scenario


@pytest.fixture(params=["in_process", "dbus"])
def run_on_door(request: pytest.FixtureRequest) -> RunOnDoor:
    """Run a scenario on each door."""
    if request.param == "in_process":
        return run_on(None, request.getfixturevalue("run_virtual"))
    bus = request.getfixturevalue("private_bus")
    return run_on(bus, request.getfixturevalue("run_paced"))


@pytest.fixture
def run_on_dbus(
    private_bus: PrivateBus, run_paced: Callable[[Coroutine[Any, Any, Any]], Any]
) -> RunOnDoor:
    """Run a scenario on the door that has a bluetoothd and a bus to lose."""
    return run_on(private_bus, run_paced)


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - what it waits for happens outside the test
            await asyncio.sleep(0.01)


# Scanning


@pytest.mark.parametrize("boards", [1, 20, 100])
def test_a_scan_hears_every_board(run_on_door: RunOnDoor, boards: int) -> None:
    """Each is reported with address, name, service data and RSSI within a second."""

    async def scenario(b: Bench) -> None:
        async with b.scanner() as scanner:
            await until(lambda: len(scanner.discovered_devices) == boards)
        found = scanner.discovered_devices_and_advertisement_data
        assert set(found) == {board.address for board in b.boards}
        for device, advertisement in found.values():
            assert (device.name, advertisement.rssi) == ("ESP-BLE-MESH", -50)
            assert advertisement.service_data == {PROVISIONING: UNPROVISIONED}
        await until(lambda: not b.air.is_used)

    run_on_door(scenario, boards=boards)


def test_nothing_is_told_before_the_scan_has_started(run_on_door: RunOnDoor) -> None:
    """The first advertisement comes after start() has returned."""

    async def scenario(b: Bench) -> None:
        first: list[float] = []
        scanner = b.scanner(lambda _, __: first.append(now()))
        await scanner.start()
        started = now()
        await until(lambda: bool(first))
        await scanner.stop()
        assert first[0] >= started

    run_on_door(scenario)


@pytest.mark.parametrize(
    ("duplicates", "expected"),
    [
        (True, {PROXY: NODE_IDENTITY}),
        (False, {PROVISIONING: UNPROVISIONED, PROXY: NODE_IDENTITY}),
    ],
)
def test_stale_advertisement_data(
    run_on_door: RunOnDoor, duplicates: bool, expected: dict[str, bytes]
) -> None:
    """UUIDs pile up always, service data without DuplicateData."""

    async def scenario(b: Bench) -> None:
        seen: list[AdvertisementData] = []
        async with b.scanner(lambda _, heard: seen.append(heard), duplicates=duplicates):
            await until(lambda: bool(seen))
            b.board.become_node()
            await until(lambda: PROXY in seen[-1].service_data)
        assert seen[-1].service_data == expected
        assert seen[-1].service_uuids == [PROVISIONING, PROXY]

    run_on_door(scenario)


def test_a_beacon_repeats_stale_service_data(run_on_door: RunOnDoor) -> None:
    """A board that only sends mesh PDUs is reported with the service data it had before."""

    async def scenario(b: Bench) -> None:
        await b.find()
        b.board.advertising = False
        seen: list[AdvertisementData] = []
        async with b.scanner(lambda _, heard: seen.append(heard)):
            await asyncio.sleep(1)
            assert seen == []
            b.air.beacon(b.board)
            await until(lambda: bool(seen))
        assert seen[0].service_data == {PROVISIONING: UNPROVISIONED}

    run_on_door(scenario)


def test_one_program_scans_once(run_on_door: RunOnDoor) -> None:
    """A second scan of the same program is InProgress, and disturbs the first one not at all."""

    async def scenario(b: Bench) -> None:
        seen: list[float] = []
        async with b.scanner(lambda _, __: seen.append(now())):
            with pytest.raises(BleakDBusError, match=r"org\.bluez\.Error\.InProgress"):
                await b.scanner().start()
            count = len(seen)
            await until(lambda: len(seen) > count)

    run_on_door(scenario)


def test_another_program_scans_as_well(run_on_door: RunOnDoor) -> None:
    """Discovery goes on until the last program ended it, and its end is not told to the others."""

    async def scenario(b: Bench) -> None:
        seen: list[float] = []
        async with b.other_program_scans():
            async with b.scanner(lambda _, __: seen.append(now())):
                await until(lambda: bool(seen))
            assert b.adapter.discovering
        await until(lambda: not b.adapter.discovering)
        assert not b.air.is_used

    run_on_door(scenario)


def test_a_silent_device_is_forgotten(run_on_door: RunOnDoor) -> None:
    """Half a minute after its last advertisement a device has to be found again."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        await asyncio.sleep(25)
        async with b.client(device):
            pass
        b.board.advertising = False
        await asyncio.sleep(31)
        # BleakError "device 'dev_...' not found" over D-Bus
        with pytest.raises(BleakError, match="not found"):
            await b.client(device).connect()

    run_on_door(scenario)


def test_a_foreign_adapter(run_on_door: RunOnDoor) -> None:
    """An adapter that is not there is named in the error."""

    async def scenario(b: Bench) -> None:
        with pytest.raises(BleakError, match="adapter 'hci7' not found"):
            await b.scanner(adapter="hci7").start()

    run_on_door(scenario)


# Connecting


def test_connecting_shows_the_services(run_on_door: RunOnDoor) -> None:
    """Discovery takes half a second; the handles are those of the declarations."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        started = now()
        async with b.client(device) as client:
            assert 0.49 <= now() - started <= 2
            (listed,) = client.services
            assert listed.uuid == PROVISIONING
            assert {(c.uuid, c.handle) for c in listed.characteristics} == {
                (IN, DATA_IN - 1),
                (OUT, DATA_OUT - 1),
            }
            assert client.is_connected
            assert client.name == "ESP-BLE-MESH"
        assert not client.is_connected
        assert len(b.lost) == 1

    run_on_door(scenario)


def test_an_address_is_searched_first(run_on_dbus: RunOnDoor) -> None:
    """A client made from an address scans by itself, and fails when nobody answers."""

    async def scenario(b: Bench) -> None:
        async with b.client(b.board.address):
            pass
        b.board.advertising = False
        await asyncio.sleep(31)
        with pytest.raises(BleakDeviceNotFoundError):
            await b.client(b.board.address).connect()

    run_on_dbus(scenario)


def test_disconnecting_takes_two_seconds(run_on_door: RunOnDoor) -> None:
    """The link ends after BlueZ's delay; meanwhile the client is connected."""

    async def scenario(b: Bench) -> None:
        client = b.client(await b.find())
        await client.connect()
        started = now()
        await client.disconnect()
        assert 1.99 <= now() - started < 3.5
        assert b.board.log[-1] == "disconnected"
        assert b.adapter.connections == 0

    run_on_door(scenario)


def test_service_changed_is_subscribed(run_on_door: RunOnDoor) -> None:
    """BlueZ asks for Service Changed by itself; it shows that service, but not Generic Access."""

    def prepare(board: FakeBoard) -> None:
        changed = Characteristic(0x2A05, 0x08, frozenset({"indicate"}), 0x09)
        board.services = (
            Service(0x1800, 0x01, (Characteristic(0x2A00, 0x03, frozenset({"read"})),)),
            Service(0x1801, 0x06, (changed,)),
            PROVISIONING_SERVICE,
        )

    async def scenario(b: Bench) -> None:
        async with b.connected() as client:
            assert b.board.log == ["connected", "cccd 0200"]
            assert sorted(listed.uuid[4:8] for listed in client.services) == ["1801", "1827"]

    run_on_door(scenario, prepare=prepare)


def test_a_refused_connection_ends_with_the_timeout(run_on_door: RunOnDoor) -> None:
    """A board that accepts nobody is not reached; the timeout leaves nothing behind."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        b.board.connectable = False
        started = now()
        with pytest.raises(TimeoutError):
            await b.client(device, timeout=5).connect()
        assert 4.99 <= now() - started < 7
        await until(lambda: not b.air.is_used)
        assert b.adapter.connections == 0
        b.board.connectable = True
        async with b.client(device):
            pass

    run_on_door(scenario)


def test_a_connection_bluez_refuses(run_on_door: RunOnDoor) -> None:
    """The error of a failed connect names what BlueZ said."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        b.adapter.fail_connects.append(
            BleakDBusError("org.bluez.Error.Failed", ["br-connection-canceled"])
        )
        with pytest.raises(BleakDBusError, match="br-connection-canceled"):
            await b.client(device).connect()
        async with b.client(device):
            pass

    run_on_door(scenario)


def test_le_connection_abort_by_local_is_tried_again(run_on_door: RunOnDoor) -> None:
    """A link lost at once is established again inside connect()."""

    async def scenario(b: Bench) -> None:
        b.board.drop_after_open_s = 0.02
        async with b.connected() as client:
            assert client.is_connected
        assert b.board.log[:3] == ["connected", "hang up", "connected"]

    run_on_door(scenario)


def test_a_link_lost_during_discovery(run_on_door: RunOnDoor) -> None:
    """Service discovery ends with the link."""

    async def scenario(b: Bench) -> None:
        b.board.drop_after_open_s = 0.3
        device = await b.find()
        with pytest.raises(BleakError, match="failed to discover services, device disconnected"):
            await b.client(device).connect()
        assert b.adapter.connections == 0

    run_on_door(scenario)


def test_a_second_connection_to_a_board_is_in_progress(run_on_door: RunOnDoor) -> None:
    """Two connects at once: one is refused, the other goes on."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        b.board.advertising = False
        client = b.client(device, timeout=20)
        connecting = asyncio.create_task(client.connect())
        await until(lambda: b.adapter.connections == 1)
        with pytest.raises(BleakDBusError, match="InProgress"):
            await b.client(device).connect()
        b.board.advertising = True
        await connecting
        assert client.is_connected
        await client.disconnect()

    run_on_door(scenario)


def test_no_discovery_while_connecting(run_on_door: RunOnDoor) -> None:
    """StartDiscovery is InProgress while a connection is pending."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        b.board.advertising = False
        connecting = asyncio.create_task(b.client(device, timeout=20).connect())
        await until(lambda: b.adapter.connections == 1)
        with pytest.raises(BleakDBusError, match="InProgress"):
            await b.scanner().start()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await until(lambda: b.adapter.connections == 0)

    run_on_door(scenario)


@pytest.mark.parametrize("slow", [True, False])
def test_connecting_while_another_program_scans(run_on_door: RunOnDoor, slow: bool) -> None:
    """It works; with the quirk it may take until the kernel restarts its scan."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        times = []
        async with b.other_program_scans():
            for _ in range(4 if slow else 1):
                client = b.client(device, timeout=20)
                started = now()
                await client.connect()
                times.append(now() - started)
                await client.disconnect()
        assert (max(times) > 2) is slow
        assert max(times) < 12

    run_on_door(scenario, quirks=BlueZQuirks(slow_connect_while_discovering=slow))


# An open link


@pytest.mark.parametrize("mtu", [23, 69, 247])
def test_the_mtu_bounds_a_write(run_on_door: RunOnDoor, mtu: int) -> None:
    """A write of MTU - 3 octets arrives whole, one octet more is refused and harms nothing."""

    async def scenario(b: Bench) -> None:
        b.board.mtu_octets = mtu
        async with b.connected() as client:
            data_in = client.services.get_characteristic(IN)
            assert data_in is not None
            assert data_in.max_write_without_response_size == mtu - 3
            with pytest.raises(BleakDBusError, match="Failed to initiate write"):
                await client.write_gatt_char(IN, bytes(mtu - 2), response=False)
            await client.write_gatt_char(IN, bytes(mtu - 3), response=False)
            await until(lambda: bool(b.board.written))
        assert b.board.written == [(DATA_IN, bytes(mtu - 3))]

    run_on_door(scenario)


def test_300_writes_arrive_in_order(run_on_door: RunOnDoor) -> None:
    """Writes without response are not lost and not reordered."""

    async def scenario(b: Bench) -> None:
        values = [index.to_bytes(2, "big") for index in range(300)]
        async with b.connected() as client:
            for value in values:
                await client.write_gatt_char(IN, value, response=False)
        assert [value for _, value in b.board.written] == values

    run_on_door(scenario)


def test_notifications_before_the_first_write(run_on_door: RunOnDoor) -> None:
    """What a board says the moment it is subscribed to is heard, and a write comes after it."""

    async def scenario(b: Bench) -> None:
        got: list[bytes] = []
        b.board.on_cccd = lambda: b.board.notify(DATA_OUT, b"beacon")
        async with b.connected() as client:
            await client.start_notify(OUT, lambda _, value: got.append(bytes(value)))
            await until(lambda: got == [b"beacon"])
            await client.write_gatt_char(IN, b"x", response=False)
        assert b.board.log[:3] == ["connected", "cccd 0100", "write"]

    run_on_door(scenario)


def test_notifications_arrive_in_order(run_on_door: RunOnDoor) -> None:
    """What the board says in one moment is not shuffled, and ends with stop_notify."""

    async def scenario(b: Bench) -> None:
        got: list[int] = []
        async with b.connected() as client:
            await client.start_notify(OUT, lambda _, value: got.append(value[0]))
            for index in range(100):
                b.board.notify(DATA_OUT, bytes([index]))
            await until(lambda: len(got) == 100)
            await client.stop_notify(OUT)
            b.board.notify(DATA_OUT, b"\xff")
            await asyncio.sleep(0.2)
        assert got == list(range(100))
        assert b.board.log == ["connected", "cccd 0100", "cccd 0000", "disconnected"]

    run_on_door(scenario)


def test_notifications_by_socket(run_on_dbus: RunOnDoor) -> None:
    """AcquireNotify gives a socket; the board is told when the program closes it."""

    async def scenario(b: Bench) -> None:
        got: list[int] = []
        async with b.connected() as client:
            await client.start_notify(
                OUT, lambda _, value: got.append(value[0]), bluez={"use_start_notify": False}
            )
            for index in range(100):
                b.board.notify(DATA_OUT, bytes([index]))
            await until(lambda: len(got) == 100)
            await client.stop_notify(OUT)
            await until(lambda: b.board.log[-1] == "cccd 0000")
        assert got == list(range(100))

    run_on_dbus(scenario)


def test_what_a_characteristic_does_not_offer_is_refused(run_on_door: RunOnDoor) -> None:
    """Write Request, notification and read need their property."""

    async def scenario(b: Bench) -> None:
        async with b.connected() as client:
            with pytest.raises(BleakGATTProtocolError, match="Request Not Supported"):
                await client.write_gatt_char(IN, b"x", response=True)
            with pytest.raises(BleakDBusError, match="NotSupported"):
                await client.start_notify(IN, lambda _, __: None)
            with pytest.raises(BleakGATTProtocolError, match="Read Not Permitted"):
                await client.read_gatt_char(OUT)

    run_on_door(scenario)


def test_a_hidden_cccd_answers_an_att_error(run_on_door: RunOnDoor) -> None:
    """start_notify on a service that went raises the board's ATT error."""

    async def scenario(b: Bench) -> None:
        async with b.connected() as client:
            b.board.become_node()
            with pytest.raises(BleakGATTProtocolError, match="Invalid Handle"):
                await client.start_notify(OUT, lambda _, __: None)

    run_on_door(scenario)


async def shows_proxy(client: BleakClient) -> bool:
    assert [listed.uuid for listed in client.services] == [PROXY]
    return PROXY_CCCD in client.services.descriptors


def test_the_services_swap_with_service_changed(run_on_door: RunOnDoor) -> None:
    """bleak keeps the old service, a write to it fails; a new link shows the new one."""

    async def scenario(b: Bench) -> None:
        async with b.connected() as client:
            b.board.become_node()
            await asyncio.sleep(1)
            assert [listed.uuid for listed in client.services] == [PROVISIONING]
            with pytest.raises(BleakDBusError, match="UnknownObject"):
                await client.write_gatt_char(IN, b"x", response=False)
            assert client.is_connected
        async with b.connected() as client:
            assert await shows_proxy(client)

    run_on_door(scenario)


def test_a_subscription_goes_with_its_service(run_on_door: RunOnDoor) -> None:
    """After the swap nothing more is told of the old service, and the link stays."""

    async def scenario(b: Bench) -> None:
        got: list[bytes] = []
        async with b.connected() as client:
            await client.start_notify(OUT, lambda _, value: got.append(bytes(value)))
            b.board.notify(DATA_OUT, b"before")
            b.board.become_node()
            await asyncio.sleep(1)
            b.board.notify(PROXY_OUT, b"beacon")
            await asyncio.sleep(0.5)
            assert client.is_connected
        assert got == [b"before"]

    run_on_door(scenario)


def test_the_services_swap_without_service_changed(run_on_door: RunOnDoor) -> None:
    """BlueZ goes on as if nothing had happened, a write is lost; a new link shows the new one."""

    async def scenario(b: Bench) -> None:
        async with b.connected() as client:
            central, b.board.central = b.board.central, None
            b.board.become_node()
            b.board.central = central
            await asyncio.sleep(1)
            assert [listed.uuid for listed in client.services] == [PROVISIONING]
            await client.write_gatt_char(IN, b"x", response=False)
        async with b.connected() as client:
            assert await shows_proxy(client)

    run_on_door(scenario)


def test_a_board_that_hangs_up(run_on_door: RunOnDoor) -> None:
    """Its last words are heard first, then the loss, once; the board can be reached again."""

    async def scenario(b: Bench) -> None:
        heard: list[object] = []
        async with b.connected() as client:
            await client.start_notify(
                OUT, lambda _, value: heard.append((bytes(value), len(b.lost)))
            )
            b.board.notify(DATA_OUT, b"last words")
            b.board.hang_up()
            await until(lambda: bool(b.lost))
            assert heard == [(b"last words", 0)]
            assert not client.is_connected
            with pytest.raises(BleakError, match="Service Discovery has not been performed yet"):
                await client.write_gatt_char(IN, b"x", response=False)
        assert len(b.lost) == 1
        async with b.connected() as client:
            assert client.is_connected

    run_on_door(scenario)


def test_a_board_vanishes(run_on_door: RunOnDoor) -> None:
    """A supervision timeout is a lost link; without the board connecting takes its timeout."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        async with b.client(device) as client:
            b.board.advertising = False
            b.board.hang_up(CONNECTION_TIMEOUT)
            await until(lambda: bool(b.lost))
            assert not client.is_connected
        with pytest.raises(TimeoutError):
            await b.client(device, timeout=2).connect()

    run_on_door(scenario)


# The adapter


def test_the_adapter_goes_off_and_on(run_on_door: RunOnDoor) -> None:
    """Links are lost, scans and connects are refused; switched on, all of it works again."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        scanner = b.scanner()
        async with b.client(device):
            await scanner.start()
            b.adapter.power(on=False)
            await until(lambda: len(b.lost) == 1, 1)
            await scanner.stop()
        with pytest.raises(BleakBluetoothNotAvailableError):
            await b.scanner().start()
        with pytest.raises(BleakDBusError, match="NotReady"):
            await b.scanner(adapter="hci0").start()
        with pytest.raises(BleakDBusError, match="Input/output error"):
            await b.client(device).connect()
        b.adapter.power(on=True)
        await asyncio.sleep(0.1)
        async with b.connected() as client:
            assert client.is_connected

    run_on_door(scenario)


def test_the_adapter_goes_off_under_a_connect(run_on_door: RunOnDoor) -> None:
    """A pending connection ends with an error at once."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        b.board.advertising = False
        connecting = asyncio.create_task(b.client(device).connect())
        await until(lambda: b.adapter.connections == 1)
        b.adapter.power(on=False)
        with pytest.raises(BleakDBusError, match="Input/output error"):
            await connecting
        assert b.adapter.connections == 0

    run_on_door(scenario)


def test_a_removed_device_is_forgotten(run_on_door: RunOnDoor) -> None:
    """RemoveDevice ends the link, and the device must be found again."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        client = b.client(device)
        await client.connect()
        await client.unpair()
        await until(lambda: b.board.log[-1] == "disconnected")
        with pytest.raises(BleakError, match="not found"):
            await b.client(device).connect()
        await client.disconnect()
        async with b.connected():
            pass

    run_on_door(scenario)


# bluetoothd and the bus


@pytest.mark.parametrize("found_again", [True, False])
def test_bluetoothd_is_killed(run_on_dbus: RunOnDoor, found_again: bool) -> None:
    """bleak stays deaf and says it is connected, until disconnect() has failed.

    That takes ten seconds when the board was found again, because BlueZ accepts to disconnect it.
    """

    async def scenario(b: Bench) -> None:
        client = b.client(await b.find())
        await client.connect()
        seen: list[float] = []
        scanner = b.scanner(lambda _, __: seen.append(now()))
        await scanner.start()
        await b.bluetoothd.kill()
        assert b.board.log[-1] == "disconnected"
        with pytest.raises(BleakDBusError, match=r"ServiceUnknown|NameHasNoOwner"):
            await client.write_gatt_char(IN, b"x", response=False)
        await b.bluetoothd.start()
        await asyncio.sleep(0.5)
        seen.clear()
        await asyncio.sleep(2)
        assert (client.is_connected, b.lost, seen) == (True, [], [])
        with pytest.raises(BleakDBusError, match="UnknownObject"):
            await client.write_gatt_char(IN, b"x", response=False)
        with pytest.raises(BleakDBusError, match="No discovery started"):
            await scanner.stop()
        if found_again:
            await b.find()
        started = now()
        with pytest.raises(TimeoutError if found_again else BleakDBusError):
            await client.disconnect()
        assert (now() - started > 9.9) is found_again
        assert not client.is_connected
        assert len(b.lost) == 1
        async with b.connected() as client:
            assert client.is_connected

    run_on_dbus(scenario)


def test_bluetoothd_is_stopped(run_on_dbus: RunOnDoor) -> None:
    """The loss is told at once; until the restart there is no Bluetooth, then all works again."""

    async def scenario(b: Bench) -> None:
        client = b.client(await b.find())
        await client.connect()
        scanner = b.scanner()
        await scanner.start()
        await b.bluetoothd.terminate()
        await until(lambda: len(b.lost) == 1, 1)
        assert b.board.log[-1] == "disconnected"
        with pytest.raises(BleakError, match="Service Discovery has not been performed yet"):
            await client.write_gatt_char(IN, b"x", response=False)
        with pytest.raises(BleakBluetoothNotAvailableError, match="No Bluetooth adapters"):
            await b.scanner().start()
        await b.bluetoothd.start()
        await asyncio.sleep(0.5)
        with pytest.raises(BleakDBusError, match="No discovery started"):
            await scanner.stop()
        await client.disconnect()
        async with b.connected() as client:
            assert client.is_connected

    run_on_dbus(scenario)


def test_bluetoothd_is_not_there_at_first(run_on_dbus: RunOnDoor) -> None:
    """Without the service nothing starts; once it is there, the same program goes on."""

    async def scenario(b: Bench) -> None:
        await b.bluetoothd.kill()
        with pytest.raises(BleakDBusError, match="ServiceUnknown"):
            await b.scanner().start()
        await b.bluetoothd.start()
        await asyncio.sleep(0.5)
        async with b.connected() as client:
            assert client.is_connected

    run_on_dbus(scenario)


def test_bluetoothd_is_killed_under_a_connect(run_on_dbus: RunOnDoor) -> None:
    """The pending call is answered by the bus."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        b.board.advertising = False
        connecting = asyncio.create_task(b.client(device, timeout=30).connect())
        await until(lambda: b.adapter.connections == 1)
        await b.bluetoothd.kill()
        with pytest.raises(BleakDBusError, match="NoReply"):
            await connecting
        assert b.adapter.connections == 0

    run_on_dbus(scenario)


def test_the_bus_is_gone(run_on_dbus: RunOnDoor) -> None:
    """The loss is told at once, everything else fails, disconnect() does not."""

    async def scenario(b: Bench) -> None:
        device = await b.find()
        client = b.client(device)
        await client.connect()
        assert b.bus is not None
        b.bus.kill()
        await until(lambda: len(b.lost) == 1, 1)
        assert b.board.log[-1] == "disconnected"
        for attempt in (b.scanner().start(), b.client(device).connect()):
            with pytest.raises(OSError):  # noqa: PT011 - socket gone or refused
                await attempt
        await client.disconnect()

    run_on_dbus(scenario)
