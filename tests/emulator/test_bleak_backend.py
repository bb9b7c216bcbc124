"""Unmodified bleak over the emulated adapter behaves as it does over BlueZ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
    BleakGATTProtocolError,
)
from bleak.uuids import normalize_uuid_16

from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.bluez_quirks import BlueZQuirks
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.emulator.peripheral import CONNECTION_TIMEOUT, Characteristic, Service
from tests.support.fake_air import (
    CCCD,
    DATA_IN,
    DATA_OUT,
    NODE_IDENTITY,
    PROVISIONING_SERVICE,
    PROXY_CCCD,
    UNPROVISIONED,
    FakeAir,
    FakeBoard,
)

PROVISIONING = normalize_uuid_16(0x1827)
PROXY = normalize_uuid_16(0x1828)
IN = normalize_uuid_16(0x2ADB)
OUT = normalize_uuid_16(0x2ADC)

Seen = list[tuple[float, dict[str, bytes]]]


def now() -> float:
    return asyncio.get_running_loop().time()


class Bench:
    """One board, one adapter."""

    def __init__(self, quirks: BlueZQuirks | None = None) -> None:
        self.board = FakeBoard()
        self.air = FakeAir(self.board)
        self.adapter = EmulatedAdapter(self.air, quirks=quirks)
        self.lost: list[float] = []

    def scanner(self, seen: Seen, *, duplicates: bool = True, **kwargs: Any) -> BleakScanner:
        def detected(device: BLEDevice, advertisement: AdvertisementData) -> None:
            assert device.address == self.board.address
            seen.append((now(), advertisement.service_data))

        return BleakScanner(
            detected,
            bluez={"filters": {"DuplicateData": duplicates}},
            backend=scanner_backend(self.adapter),
            **kwargs,
        )

    async def find(self) -> BLEDevice:
        found = await BleakScanner.find_device_by_address(
            self.board.address, backend=scanner_backend(self.adapter)
        )
        assert found is not None
        return found

    def client(self, device: BLEDevice | str | None = None, timeout: float = 5) -> BleakClient:
        return BleakClient(
            device or self.board.address,
            disconnected_callback=lambda _: self.lost.append(now()),
            timeout=timeout,
            backend=client_backend(self.adapter),
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[BleakClient]:
        async with self.client(await self.find()) as client:
            yield client


def without(quirk: str) -> BlueZQuirks:
    return replace(BlueZQuirks(), **{quirk: False})


UNFILTERED = replace(BlueZQuirks(), duplicate_filter=DuplicateFilter.OFF)


def test_every_quirk_is_on_by_default() -> None:
    """The adapter is as bad as the real one unless told otherwise."""
    assert all(getattr(BlueZQuirks(), quirk.name) for quirk in fields(BlueZQuirks))
    assert BlueZQuirks().duplicate_filter is DuplicateFilter.BY_ADDRESS


async def test_a_scan_reports_a_board() -> None:
    """Without a filter name, service data and RSSI arrive soon, and about ten times a second."""
    bench = Bench(UNFILTERED)
    seen: Seen = []
    async with bench.scanner(seen) as scanner:
        await asyncio.sleep(2)
    assert 15 <= len(seen) <= 22
    assert seen[0][0] < 0.1
    assert seen[0][1] == {PROVISIONING: UNPROVISIONED}
    ((device, advertisement),) = scanner.discovered_devices_and_advertisement_data.values()
    assert (device.name, advertisement.rssi) == ("ESP-BLE-MESH", -50)
    assert not bench.air.is_used


async def test_changed_data_is_reported_at_once() -> None:
    """The throttle does not hold back what is new; only the latest service data is shown."""
    bench = Bench(UNFILTERED)
    seen: Seen = []
    async with bench.scanner(seen):
        await asyncio.sleep(1)
        bench.board.become_node()
        changed_at = now()
        await asyncio.sleep(0.03)
    assert seen[-1][1] == {PROXY: NODE_IDENTITY}
    assert seen[-1][0] - changed_at < 0.025


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [
        (BlueZQuirks(), {PROVISIONING: UNPROVISIONED, PROXY: NODE_IDENTITY}),
        (without("accumulating_service_data"), {PROXY: NODE_IDENTITY}),
    ],
)
async def test_service_data_accumulates_without_duplicate_data(
    quirks: BlueZQuirks, expected: dict[str, bytes]
) -> None:
    """With DuplicateData off a node still shows the service data of its past."""
    bench = Bench(replace(quirks, duplicate_filter=DuplicateFilter.BY_DATA))
    seen: Seen = []
    async with bench.scanner(seen, duplicates=False):
        await asyncio.sleep(1)
        bench.board.become_node()
        await asyncio.sleep(1)
    assert seen[-1][1] == expected


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [(BlueZQuirks(), [PROVISIONING, PROXY]), (without("accumulating_service_uuids"), [PROXY])],
)
async def test_service_uuids_accumulate(quirks: BlueZQuirks, expected: list[str]) -> None:
    """The UUIDs of earlier advertisements stay with the device."""
    bench = Bench(quirks)
    await bench.find()
    bench.board.become_node()
    async with bench.scanner([]) as scanner:
        await asyncio.sleep(0.2)
    ((_, advertisement),) = scanner.discovered_devices_and_advertisement_data.values()
    assert advertisement.service_uuids == expected


@pytest.mark.parametrize(
    ("quirks", "reports"), [(BlueZQuirks(), 1), (without("stale_service_data"), 0)]
)
async def test_a_mesh_advertisement_repeats_stale_service_data(
    quirks: BlueZQuirks, reports: int
) -> None:
    """A board that only sends mesh PDUs is reported with the service data it had before."""
    bench = Bench(quirks)
    await bench.find()
    bench.board.advertising = False
    seen: Seen = []
    async with bench.scanner(seen):
        await asyncio.sleep(1)
        bench.air.beacon(bench.board)
    assert [data for _, data in seen] == [{PROVISIONING: UNPROVISIONED}] * reports


@pytest.mark.parametrize(
    ("quirks", "reports"), [(BlueZQuirks(), 1), (without("bare_first_report"), 0)]
)
async def test_a_beacon_may_be_the_first_report(quirks: BlueZQuirks, reports: int) -> None:
    """A device may be reported before its service data is known, and no UUID filter lets it by."""
    bench = Bench(quirks)
    bench.board.advertising = False
    seen: Seen = []
    async with bench.scanner(seen):
        bench.air.beacon(bench.board)
    assert [data for _, data in seen] == [{}] * reports
    filtered: Seen = []
    async with bench.scanner(filtered, service_uuids=[PROVISIONING]):
        bench.air.beacon(bench.board)
    assert filtered == []


async def test_a_device_is_forgotten() -> None:
    """Half a minute after its last advertisement BlueZ does not know a device any more."""
    bench = Bench()
    device = await bench.find()
    await asyncio.sleep(31)
    with pytest.raises(BleakDeviceNotFoundError, match="was not found"):
        await bench.client(device).connect()


async def test_scan_errors() -> None:
    """A second scan, a foreign adapter, no power: the errors that bleak passes on."""
    bench = Bench()
    async with bench.scanner([]):
        with pytest.raises(BleakDBusError, match=r"org\.bluez\.Error\.InProgress"):
            await bench.scanner([]).start()
    other = BleakScanner(bluez={"adapter": "hci7"}, backend=scanner_backend(bench.adapter))
    with pytest.raises(BleakError, match="adapter 'hci7' not found"):
        await other.start()
    bench.adapter.power(on=False)
    with pytest.raises(BleakBluetoothNotAvailableError):
        await bench.scanner([]).start()
    named = BleakScanner(bluez={"adapter": "hci0"}, backend=scanner_backend(bench.adapter))
    with pytest.raises(BleakDBusError, match="NotReady"):
        await named.start()


async def test_connecting_shows_the_services() -> None:
    """Connect and discovery take half a second and more, the handles are those of BlueZ."""
    bench = Bench()
    device = await bench.find()
    started = now()
    async with bench.client(device) as client:
        assert 0.5 <= now() - started <= 0.75
        (listed,) = client.services
        assert listed.uuid == PROVISIONING
        assert [(c.uuid, c.handle) for c in listed.characteristics] == [
            (IN, DATA_IN - 1),
            (OUT, DATA_OUT - 1),
        ]
        assert client.is_connected
        assert client.name == "ESP-BLE-MESH"
        with pytest.warns(UserWarning, match="default MTU"):
            assert client.mtu_size == 23
    assert not client.is_connected


async def test_an_address_is_searched_first() -> None:
    """A client made from an address finds the device by itself, or does not."""
    bench = Bench()
    async with bench.client(bench.board.address):
        pass
    bench.board.advertising = False
    await asyncio.sleep(60)
    started = now()
    with pytest.raises(BleakDeviceNotFoundError):
        await bench.client(bench.board.address).connect()
    assert 5 <= now() - started < 5.2


@pytest.mark.parametrize("mtu", [23, 69, 247])
async def test_the_mtu_bounds_a_write(mtu: int) -> None:
    """A write of MTU - 3 octets arrives whole, one octet more is refused and harms nothing."""
    bench = Bench()
    bench.board.mtu_octets = mtu
    async with bench.connected() as client:
        characteristic = client.services.get_characteristic(IN)
        assert characteristic is not None
        assert characteristic.max_write_without_response_size == mtu - 3
        with pytest.raises(BleakDBusError, match="Failed to initiate write"):
            await client.write_gatt_char(IN, bytes(mtu - 2), response=False)
        await client.write_gatt_char(IN, bytes(mtu - 3), response=False)
        await asyncio.sleep(0.05)
        assert bench.board.written == [(DATA_IN, bytes(mtu - 3))]


async def test_300_writes_arrive_in_order() -> None:
    """Writes without response are not lost and not reordered."""
    bench = Bench()
    values = [index.to_bytes(2, "big") for index in range(300)]
    async with bench.connected() as client:
        for value in values:
            await client.write_gatt_char(IN, value, response=False)
        await asyncio.sleep(2)
    assert [value for _, value in bench.board.written] == values


async def test_notifications_arrive_in_order() -> None:
    """What the board says in one moment is not shuffled, and ends with stop_notify."""
    bench = Bench()
    got: list[int] = []
    async with bench.connected() as client:
        started = now()
        await client.start_notify(OUT, lambda _, value: got.append(value[0]))
        assert 0.02 <= now() - started <= 0.08
        for index in range(100):
            bench.board.notify(DATA_OUT, bytes([index]))
        await asyncio.sleep(0.01)
        assert got == list(range(100))
        await client.stop_notify(OUT)
        bench.board.notify(DATA_OUT, b"\xff")
        await asyncio.sleep(0.01)
    assert got == list(range(100))
    assert bench.board.log == ["connected", "cccd 0100", "cccd 0000", "disconnected"]


async def test_service_changed_is_subscribed() -> None:
    """BlueZ asks for Service Changed by itself; it shows that service, but not Generic Access."""
    bench = Bench()
    changed = Characteristic(0x2A05, 0x08, frozenset({"indicate"}), 0x09)
    bench.board.services = (
        Service(0x1800, 0x01, (Characteristic(0x2A00, 0x03, frozenset({"read"})),)),
        Service(0x1801, 0x06, (changed,)),
        PROVISIONING_SERVICE,
    )
    async with bench.connected() as client:
        assert bench.board.log == ["connected", "cccd 0200"]
        assert [listed.uuid[4:8] for listed in client.services] == ["1801", "1827"]


async def test_what_the_characteristic_does_not_offer_is_refused() -> None:
    """Write Request and notification need their property."""
    bench = Bench()
    async with bench.connected() as client:
        with pytest.raises(BleakGATTProtocolError, match="Write Not Permitted"):
            await client.write_gatt_char(IN, b"x", response=True)
        with pytest.raises(BleakDBusError, match="NotSupported"):
            await client.start_notify(IN, lambda _, __: None)
        with pytest.raises(BleakGATTProtocolError, match="Read Not Permitted"):
            await client.read_gatt_char(OUT)


async def test_a_hidden_cccd_answers_an_att_error() -> None:
    """start_notify on a service that went raises the board's ATT error."""
    bench = Bench()
    async with bench.connected() as client:
        bench.board.become_node()
        with pytest.raises(BleakGATTProtocolError, match="Invalid Handle"):
            await client.start_notify(OUT, lambda _, __: None)


async def test_disconnecting_takes_two_seconds() -> None:
    """The link ends after BlueZ's delay, the callback comes once."""
    bench = Bench()
    client = bench.client(await bench.find())
    await client.connect()
    started = now()
    await client.disconnect()
    assert now() - started == pytest.approx(2.0, abs=0.01)
    assert bench.board.log[-1] == "disconnected"
    assert len(bench.lost) == 1
    await client.disconnect()
    assert bench.adapter.connections == 0


async def test_a_cancelled_disconnect_still_ends_the_link() -> None:
    """BlueZ finishes what it was asked for; bleak reports the client as gone at once."""
    bench = Bench()
    client = bench.client(await bench.find())
    await client.connect()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.disconnect()
    assert not client.is_connected
    assert len(bench.lost) == 1
    assert bench.adapter.connections == 1
    # As bleak does where BlueZ says "connected", it joins the link that is about to end.
    await client.connect()
    assert client.is_connected
    await asyncio.sleep(1.6)
    assert not client.is_connected
    assert len(bench.lost) == 2
    assert bench.adapter.connections == 0


async def test_a_board_that_hangs_up_is_noticed() -> None:
    """What the board sent before it hung up arrives first; afterwards bleak knows no services."""
    bench = Bench()
    got: list[bytes] = []
    async with bench.connected() as client:
        await client.start_notify(OUT, lambda _, value: got.append(bytes(value)))
        bench.board.notify(DATA_OUT, b"last words")
        bench.board.hang_up()
        await asyncio.sleep(0.1)
        assert got == [b"last words"]
        assert len(bench.lost) == 1
        assert not client.is_connected
        with pytest.raises(BleakError, match="Service Discovery has not been performed yet"):
            await client.write_gatt_char(IN, b"x", response=False)
    assert len(bench.lost) == 1
    async with bench.connected() as client:
        assert client.is_connected


@pytest.mark.parametrize("quirks", [BlueZQuirks(), without("racing_writes_fail")])
async def test_a_write_races_with_a_hang_up(quirks: BlueZQuirks) -> None:
    """A write on a link just gone raises Not connected, or is lost when the quirk is off."""
    bench = Bench(quirks)
    async with bench.connected() as client:
        bench.board.hang_up()
        if quirks.racing_writes_fail:
            with pytest.raises(BleakDBusError, match="Not connected"):
                await client.write_gatt_char(IN, b"x", response=False)
        else:
            await client.write_gatt_char(IN, b"x", response=False)
        await asyncio.sleep(0.1)
    assert bench.board.written == []


async def test_a_write_races_with_our_disconnect() -> None:
    """A call that is under way when the client closes ends in EOFError, as in dbus-fast."""
    bench = Bench()
    client = bench.client(await bench.find())
    await client.connect()
    closing = asyncio.create_task(client.disconnect())
    await asyncio.sleep(2.0004)
    with pytest.raises(EOFError):
        await client.write_gatt_char(IN, b"x", response=False)
    await closing


@pytest.mark.parametrize("quirks", [BlueZQuirks(), without("stale_services")])
async def test_the_kept_link_goes_on_offering_the_old_service(quirks: BlueZQuirks) -> None:
    """After the swap 0x1827 stays listed, a write to it fails; a new link shows 0x1828."""
    bench = Bench(quirks)
    async with bench.connected() as client:
        bench.board.become_node()
        await client.write_gatt_char(IN, b"too early to fail", response=False)
        await asyncio.sleep(0.5)
        assert [listed.uuid for listed in client.services] == [PROVISIONING]
        if quirks.stale_services:
            with pytest.raises(BleakDBusError, match="UnknownObject"):
                await client.write_gatt_char(IN, b"x", response=False)
        else:
            await client.write_gatt_char(IN, b"x", response=False)
    async with bench.connected() as client:
        assert [listed.uuid for listed in client.services] == [PROXY]
        assert PROXY_CCCD in client.services.descriptors
        assert CCCD not in client.services.descriptors


async def test_connecting_to_a_silent_board_hangs() -> None:
    """A board that does not advertise is not reached; the timeout leaves nothing behind."""
    bench = Bench()
    device = await bench.find()
    bench.board.advertising = False
    started = now()
    with pytest.raises(TimeoutError):
        await bench.client(device, timeout=5).connect()
    assert now() - started == pytest.approx(5, abs=0.01)
    assert bench.adapter.connections == 0
    assert not bench.air.is_used


async def test_connecting_to_a_silent_board_may_fail_fast() -> None:
    """Without the quirk the attempt ends with an error after two seconds."""
    bench = Bench(without("silent_connect"))
    device = await bench.find()
    bench.board.advertising = False
    with pytest.raises(BleakDBusError, match="le-connection-abort"):
        await bench.client(device).connect()
    assert not bench.air.is_used


async def test_an_aborted_establishment_is_tried_again() -> None:
    """le-connection-abort-by-local is repeated inside connect(), as bleak's own backend does."""
    bench = Bench()
    bench.board.drop_after_open_s = 0.02
    async with bench.connected() as client:
        assert client.is_connected
    assert bench.board.log[:3] == ["connected", "hang up", "connected"]


async def test_a_board_that_answers_nothing_fails_the_connect() -> None:
    """Discovery never completes; whoever waits longer than BlueZ's 30 s loses the link then."""
    bench = Bench()
    bench.board.answers = False
    device = await bench.find()
    with pytest.raises(TimeoutError):
        await bench.client(device).connect()
    assert bench.board.log == ["connected", "disconnected"]
    await bench.find()
    begun = now()
    with pytest.raises(BleakError, match="failed to discover services, device disconnected"):
        await bench.client(device, timeout=60).connect()
    assert 30 < now() - begun < 32.5


async def test_a_board_that_died_answers_no_request_on_its_link() -> None:
    """What is written without response goes nowhere; a request ends the link after 30 s."""
    bench = Bench()
    async with bench.connected() as client:
        bench.board.answers = False
        await client.write_gatt_char(IN, b"\x00", response=False)
        await asyncio.sleep(60)
        assert client.is_connected
        begun = now()
        with pytest.raises(BleakDBusError, match="Not connected"):
            await client.start_notify(OUT, lambda *_: None)
        assert 30 < now() - begun < 31
        assert len(bench.lost) == 1


async def test_a_link_lost_during_discovery_fails_the_connect() -> None:
    """Service discovery ends with the link."""
    bench = Bench()
    bench.board.drop_after_open_s = 0.3
    device = await bench.find()
    with pytest.raises(BleakError, match="failed to discover services, device disconnected"):
        await bench.client(device).connect()
    assert bench.adapter.connections == 0
    assert bench.lost == []


async def test_a_cancelled_connect_ends_the_link() -> None:
    """Cancelled while services are discovered, the link is hung up before connect() returns."""
    bench = Bench()
    connecting = asyncio.create_task(bench.client(await bench.find()).connect())
    await asyncio.sleep(0.2)
    assert bench.board.log == ["connected"]
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert bench.board.log == ["connected", "disconnected"]
    assert bench.adapter.connections == 0


@pytest.mark.parametrize("quirks", [BlueZQuirks(), without("no_discovery_while_connecting")])
async def test_discovery_waits_for_a_pending_connection(quirks: BlueZQuirks) -> None:
    """StartDiscovery is InProgress while a connection is pending."""
    bench = Bench(quirks)
    device = await bench.find()
    bench.board.advertising = False
    connecting = asyncio.create_task(bench.client(device).connect())
    await asyncio.sleep(0.1)
    scanner = bench.scanner([])
    if quirks.no_discovery_while_connecting:
        with pytest.raises(BleakDBusError, match="InProgress"):
            await scanner.start()
    else:
        await scanner.start()
        await scanner.stop()
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)


def test_connecting_during_discovery_is_slow(run_virtual: Any) -> None:
    """With a scan running a connect may take until the kernel restarts its scan."""

    async def longest(quirks: BlueZQuirks) -> float:
        bench = Bench(quirks)
        device = await bench.find()
        times = []
        for _ in range(8):
            async with bench.scanner([]):
                client = bench.client(device, timeout=20)
                started = now()
                await client.connect()
                times.append(now() - started)
                await client.disconnect()
        return max(times)

    assert 1 < run_virtual(longest(BlueZQuirks())) < 11
    assert run_virtual(longest(without("slow_connect_while_discovering"))) < 1


async def test_power_off_ends_everything() -> None:
    """Links are lost, a pending connect and a new one fail, power on makes it work again."""
    bench = Bench()
    device = await bench.find()
    async with bench.client(device):
        bench.adapter.power(on=False)
        await asyncio.sleep(0.3)
        assert len(bench.lost) == 1
    with pytest.raises(BleakDBusError, match="Input/output error"):
        await bench.client(device).connect()
    bench.adapter.power(on=True)
    bench.board.advertising = False
    connecting = asyncio.create_task(bench.client(device).connect())
    await asyncio.sleep(0.1)
    bench.adapter.power(on=False)
    with pytest.raises(BleakDBusError, match="Input/output error"):
        await connecting
    bench.adapter.power(on=True)
    bench.board.advertising = True
    async with bench.client(device):
        pass


async def test_removing_a_device_forgets_it() -> None:
    """unpair() is RemoveDevice: the link ends and the device must be found again."""
    bench = Bench()
    device = await bench.find()
    client = bench.client(device)
    await client.connect()
    await client.unpair()
    await asyncio.sleep(0.1)
    assert bench.board.log[-1] == "disconnected"
    with pytest.raises(BleakDeviceNotFoundError):
        await bench.client(device).connect()


async def test_faults_are_scripted() -> None:
    """Each discovery and each connect takes the next fault."""
    bench = Bench()
    device = await bench.find()
    bench.adapter.fail_scans.extend([BleakDBusError("org.bluez.Error.NotReady", []), None])
    with pytest.raises(BleakDBusError, match="NotReady"):
        await bench.scanner([]).start()
    bench.adapter.fail_connects.append(
        BleakDBusError("org.bluez.Error.Failed", ["br-connection-canceled"])
    )
    with pytest.raises(BleakDBusError, match="br-connection-canceled"):
        await bench.client(device).connect()
    async with bench.scanner([]):
        pass


async def test_a_vanished_board_is_a_lost_link() -> None:
    """A supervision timeout ends the link as a hang-up does."""
    bench = Bench()
    async with bench.connected() as client:
        bench.board.hang_up(CONNECTION_TIMEOUT)
        await asyncio.sleep(0.1)
        assert not client.is_connected
