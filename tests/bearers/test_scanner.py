"""Advertisements are judged by service data, throttled, and never block."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakDBusError
from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.scanner import (
    MAX_DEVICES,
    MAX_DEVICES_HEARD,
    MAX_QUEUED,
    BleakScan,
    _rssi,
)
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.errors import BluetoothUnavailable, LocalProtocolError
from fastprovd.mesh.beacons import (
    Advertisement,
    NetworkIdentity,
    NodeIdentity,
    UnprovisionedDevice,
)
from tests.support.fake_air import (
    NETWORK_ID,
    NODE_IDENTITY,
    UNPROVISIONED,
    UUID,
    FakeBoard,
)
from tests.support.fake_bench import BearerBench, now

IN_PROGRESS = BleakDBusError("org.bluez.Error.InProgress", ["Operation already in progress"])
NOT_READY = BleakDBusError("org.bluez.Error.NotReady", ["Resource Not Ready"])


async def collect(scan: BleakScan, seconds: float) -> list[Advertisement]:
    seen: list[Advertisement] = []
    try:
        async with asyncio.timeout(seconds):
            async for advertisement in scan:
                seen.append(advertisement)
    except TimeoutError:
        pass
    return seen


async def test_boards_are_classified() -> None:
    """Unprovisioned devices and both kinds of proxies arrive with address, RSSI and time."""
    boards = [FakeBoard(f"24:0A:C4:5E:00:0{index}") for index in range(3)]
    boards[1].service_data = {0x1828: NETWORK_ID}
    boards[2].service_data = {0x1828: NODE_IDENTITY}
    boards[2].rssi_dbm = -77
    bench = BearerBench(*boards)
    async with bench.bearer() as bearer, bearer.scan() as scan:
        first = {seen.device_address: seen for seen in await collect(scan, 0.2)}
    assert first[boards[0].address].data == UnprovisionedDevice(UUID, 0)
    assert first[boards[1].address].data == NetworkIdentity(NETWORK_ID[1:])
    assert first[boards[2].address].data == NodeIdentity(NODE_IDENTITY[1:9], NODE_IDENTITY[9:])
    assert first[boards[2].address].rssi_dbm == -77
    assert 0 < first[boards[2].address].seen_s < 0.2
    assert bench.is_quiet()


async def test_unchanged_data_is_throttled() -> None:
    """A board that says the same again is reported at most four times a second."""
    bench = BearerBench()
    bench.filter_duplicates(DuplicateFilter.OFF)
    async with bench.bearer() as bearer, bearer.scan() as scan:
        seen = await collect(scan, 10)
    gaps = [later.seen_s - earlier.seen_s for earlier, later in itertools.pairwise(seen)]
    assert 25 <= len(seen) <= 41
    assert min(gaps) >= 0.25


@pytest.mark.parametrize("kind", DuplicateFilter)
async def test_who_is_silent_in_a_scan_is_heard_in_the_next_one(kind: DuplicateFilter) -> None:
    """Whatever the controller filters, a new scan tells at once who is there, and what he says."""
    bench = BearerBench()
    bench.filter_duplicates(kind)
    async with bench.bearer() as bearer:
        async with bearer.scan() as scan:
            assert isinstance((await anext(scan)).data, UnprovisionedDevice)
            await collect(scan, 3)
        bench.board.become_node()
        async with bearer.scan() as scan:
            assert isinstance((await collect(scan, 0.2))[-1].data, NodeIdentity)


async def test_a_change_passes_at_once() -> None:
    """The first Node Identity after provisioning is not held back by the throttle."""
    bench = BearerBench()
    bench.filter_duplicates(DuplicateFilter.OFF)
    async with bench.bearer() as bearer, bearer.scan() as scan:
        assert isinstance((await anext(scan)).data, UnprovisionedDevice)
        bench.board.become_node()
        changed_s = now()
        found = await anext(scan)
        assert isinstance(found.data, NodeIdentity)
        assert found.seen_s - changed_s < 0.05


async def test_a_stale_node_identity_is_passed_on_with_its_random() -> None:
    """BlueZ repeats the old data of a board that fell silent; the Random tells it is old."""
    bench = BearerBench()
    bench.board.service_data = {0x1828: NODE_IDENTITY}
    async with bench.bearer() as bearer:
        async with bearer.scan() as scan:
            fresh = await anext(scan)
        bench.board.advertising = False
        async with bearer.scan() as scan:
            await asyncio.sleep(1)
            bench.air.beacon(bench.board)
            stale = await anext(scan)
    assert stale.seen_s > fresh.seen_s
    assert stale.data == fresh.data


async def test_a_reset_board_is_unprovisioned_again() -> None:
    """A board that goes back to 0x1827 is seen as what it says last."""
    bench = BearerBench()
    async with bench.bearer() as bearer, bearer.scan() as scan:
        await anext(scan)
        bench.board.become_node()
        await anext(scan)
        bench.board.service_data = {0x1827: UNPROVISIONED}
        assert (await anext(scan)).data == UnprovisionedDevice(UUID, 0)


def detect(scan: BleakScan, data: dict[int, bytes], address: str = "24:0A:C4:5E:00:01") -> None:
    """Report to the scan what bleak would, with accumulated data as another client may cause."""
    scan._on_detection(
        BLEDevice(address, None, {}),
        AdvertisementData(
            None,
            {},
            {normalize_uuid_16(uuid): value for uuid, value in data.items()},
            [],
            None,
            -50,
            (),
        ),
    )


async def test_accumulated_service_data_is_judged_by_what_changed() -> None:
    """With 0x1827 and 0x1828 side by side the one that is new counts."""
    scan = BleakScan("", None, lambda _: None)
    detect(scan, {0x1827: UNPROVISIONED, 0x1828: NODE_IDENTITY})
    assert isinstance((await anext(scan)).data, NodeIdentity)
    await asyncio.sleep(1)
    detect(scan, {0x1827: UNPROVISIONED, 0x1828: NODE_IDENTITY})
    assert isinstance((await anext(scan)).data, NodeIdentity)
    detect(scan, {0x1827: UNPROVISIONED[:-1] + b"\x01", 0x1828: NODE_IDENTITY})
    assert isinstance((await anext(scan)).data, UnprovisionedDevice)
    await asyncio.sleep(1)
    detect(scan, {0x1828: NODE_IDENTITY})
    assert isinstance((await anext(scan)).data, NodeIdentity)


@pytest.mark.parametrize("data", [{}, {0x180F: b"\x64"}, {0x1828: b"\x02" + bytes(16)}])
async def test_foreign_advertisements_are_ignored(data: dict[int, bytes]) -> None:
    """No service data, another service, another kind of 0x1828: nothing is reported."""
    scan = BleakScan("", None, lambda _: None)
    detect(scan, data)
    assert await collect(scan, 1) == []
    assert scan.malformed == 0


@pytest.mark.parametrize(
    "data", [{0x1827: b""}, {0x1827: bytes(17)}, {0x1827: bytes(18)}, {0x1828: b"\x01"}]
)
async def test_malformed_service_data_is_counted(data: dict[int, bytes]) -> None:
    """A board that sends nonsense is skipped, the scan goes on."""
    scan = BleakScan("", None, lambda _: None)
    detect(scan, data)
    detect(scan, {0x1827: UNPROVISIONED}, "24:0A:C4:5E:00:02")
    assert [seen.device_address for seen in await collect(scan, 1)] == ["24:0A:C4:5E:00:02"]
    assert scan.malformed == 1


async def test_a_slow_reader_loses_the_oldest() -> None:
    """The queue is bounded; what is dropped is counted."""
    scan = BleakScan("", None, lambda _: None)
    for index in range(MAX_QUEUED + 5):
        detect(scan, {0x1827: UNPROVISIONED}, f"board {index}")
    assert scan.dropped == 5
    assert (await anext(scan)).device_address == "board 5"


async def test_a_scan_that_hears_too_many_devices_is_over() -> None:
    """Whoever invents addresses can not fill the memory: bleak's record of them goes with it."""
    scan = BleakScan("", None, lambda _: None)
    for index in range(MAX_DEVICES_HEARD):
        detect(scan, {0x1827: UNPROVISIONED}, f"board {index}")
    assert len(scan._heard) == MAX_DEVICES
    assert len([seen async for seen in scan]) == MAX_QUEUED


@pytest.mark.parametrize("faults", [[IN_PROGRESS], [NOT_READY, IN_PROGRESS, NOT_READY]])
async def test_the_start_is_retried(faults: list[Exception]) -> None:
    """InProgress and NotReady pass; the fourth attempt may still succeed."""
    bench = BearerBench()
    bench.adapter.fail_scans.extend(faults)
    async with bench.bearer() as bearer, bearer.scan() as scan:
        assert (await anext(scan)).device_address == bench.board.address
    assert bench.is_quiet()


async def test_the_start_is_given_up() -> None:
    """After four refusals the adapter is unavailable, with the reason and what to do."""
    bench = BearerBench()
    bench.adapter.fail_scans.extend([NOT_READY] * 4)
    async with bench.bearer() as bearer:
        with pytest.raises(BluetoothUnavailable, match=r"4 attempts .*NotReady.*power on"):
            async with bearer.scan():
                pytest.fail("the scan started")
        async with bearer.scan() as scan:
            await anext(scan)


async def test_a_missing_adapter_is_not_retried() -> None:
    """An adapter name that does not exist fails at once."""
    bench = BearerBench()
    async with bench.bearer(adapter="hci7") as bearer:
        with pytest.raises(BluetoothUnavailable, match=r"1 attempts .*'hci7' not found"):
            async with bearer.scan():
                pytest.fail("the scan started")


async def test_the_scan_ends_with_its_context() -> None:
    """A reader in another task is released when the context ends, even if BlueZ refuses to stop."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        async with bearer.scan() as scan:
            reader = asyncio.create_task(collect(scan, 3600))
            await asyncio.sleep(1)
            bench.adapter.power(on=False)
            bench.adapter.power(on=True)
        await reader
    assert now() < 2
    assert bench.is_quiet()


async def test_scans_do_not_nest() -> None:
    """A second scan inside the first is a bug of ours, and so is one before the bearer is open."""
    bench = BearerBench()
    async with bench.bearer() as bearer, bearer.scan():
        with pytest.raises(LocalProtocolError, match="end the scan"):
            async with bearer.scan():
                pass
    with pytest.raises(LocalProtocolError, match="enter the bearer"):
        async with bench.bearer().scan():
            pass


@pytest.mark.parametrize(
    ("told", "rssi_dbm"), [(-50, -50), (127, -127), (0, -127), (20, -127), (-127, -127)]
)
def test_an_rssi_that_is_none_is_the_weakest(told: int, rssi_dbm: int) -> None:
    """127 is HCI's word for unknown, 0 that of controllers that do not measure."""
    assert _rssi(told) == rssi_dbm
