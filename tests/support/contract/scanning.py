"""Scanning."""

from __future__ import annotations

import asyncio

import pytest
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, AdvertisementDataCallback
from bleak.exc import BleakDBusError, BleakError

from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.errors import BluetoothUnavailable
from fastprovd.mesh.beacons import NodeIdentity, UnprovisionedDevice
from tests.support.contract.common import (
    PROVISIONING,
    PROXY,
    find,
    heard_until,
    provision_over,
)
from tests.support.door import Door, Need, contract, needs, now
from tests.support.fake_air import NODE_IDENTITY, PROVISIONING_SERVICE, UNPROVISIONED, FakeBoard

# The kernel ends its scan after 10.24 s and begins it anew; the controller then tells of everybody
# once more. BlueZ 5.66 and 5.82 need up to 0.3 s in between.
CYCLE_S = 10.24
NEXT_CYCLE_S = 12.0


def heard_of(board: FakeBoard, into: list[AdvertisementData]) -> AdvertisementDataCallback:
    """Return a callback that keeps what is told of one board."""

    def detected(device: BLEDevice, heard: AdvertisementData) -> None:
        if device.address == board.address:
            into.append(heard)

    return detected


@contract
class Scanning:
    """What a scan tells."""

    @pytest.mark.quick
    @pytest.mark.parametrize("count", [1, 20, 100])
    async def test_a_scan_tells_every_board(self, door: Door, count: int) -> None:
        """A scan tells address, name, service data and RSSI of 1, 20 and 100 boards."""
        wanted = {board.address for board in door.place_fakes(count)}
        async with door.scanner() as scanner:
            await door.until(
                lambda: wanted <= scanner.discovered_devices_and_advertisement_data.keys()
            )
        found = scanner.discovered_devices_and_advertisement_data
        for device, advertisement in (found[address] for address in wanted):
            assert (device.name, advertisement.rssi) == ("ESP-BLE-MESH", -50)
            assert advertisement.service_data == {PROVISIONING: UNPROVISIONED}
        await door.until(lambda: not door.fakes.is_used)

    @pytest.mark.quick
    @pytest.mark.parametrize("count", [1, 20, 100])
    async def test_the_bearer_hears_every_board(self, door: Door, count: int) -> None:
        """The bearer's scan tells the Device UUIDs of 1, 20 and 100 boards."""
        boards = {b.device_address: UnprovisionedDevice(b.uuid) for b in door.place_boards(count)}
        async with door.bearer() as bearer:
            heard = await heard_until(door, bearer, lambda heard: boards.keys() <= heard.keys())
        assert {address: heard[address].data for address in boards} == boards

    @needs(Need.SCRIPT)
    async def test_nothing_is_told_before_the_scan_has_started(self, door: Door) -> None:
        """The first advertisement comes after start() has returned."""
        door.place_fakes()
        first: list[float] = []
        scanner = door.scanner(lambda _, __: first.append(now()))
        await scanner.start()
        started = now()
        await door.until(lambda: bool(first))
        await scanner.stop()
        assert first[0] >= started

    @pytest.mark.slow
    async def test_an_unchanged_board_is_told_once_in_10_24_seconds(self, door: Door) -> None:
        """The kernel has duplicates filtered, whatever DuplicateData says, and starts anew."""
        door.place_fakes()
        told: list[float] = []
        async with door.scanner(lambda _, __: told.append(now())):
            started = now()
            await door.until(lambda: bool(told))
            await asyncio.sleep(9.5 - (now() - started))
            assert len(told) == 1
            await door.until(lambda: len(told) > 1, NEXT_CYCLE_S - 9.5)
        assert told[1] - started >= CYCLE_S - 0.5

    async def test_without_duplicate_data_nothing_is_told_twice(self, door: Door) -> None:
        """In one cycle, that is; BlueZ 5.82 then pauses for 5 s, and does not tell it again."""
        door.place_fakes()
        told: list[float] = []
        async with door.scanner(lambda _, __: told.append(now()), duplicates=False):
            await door.until(lambda: bool(told))
            await asyncio.sleep(3)
            assert len(told) == 1

    @pytest.mark.slow
    async def test_without_a_filter_each_advertisement_is_told(self, door: Door) -> None:
        """BlueZ itself hides nothing: a controller that filters nothing is heard all the time."""
        door.filter_duplicates(DuplicateFilter.OFF)
        door.place_fakes()
        told: list[float] = []
        async with door.scanner(lambda _, __: told.append(now())):
            await door.until(lambda: len(told) >= 20)
        assert told[-1] - told[0] < 4 * door.patience

    async def test_a_new_scan_begins_anew(self, door: Door) -> None:
        """A board that was told of in one scan is told of in the next one, at once."""
        door.place_fakes()
        for _ in range(3):
            started = now()
            await door.find()
            assert now() - started < 2 * door.patience

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "at_once"), [(DuplicateFilter.BY_ADDRESS, False), (DuplicateFilter.BY_DATA, True)]
    )
    async def test_new_data_is_told_at_once_or_in_the_next_cycle(
        self, door: Door, kind: DuplicateFilter, at_once: bool
    ) -> None:
        """To a controller that goes by the address alone, a changed payload is a duplicate."""
        door.filter_duplicates(kind)
        (board,) = door.place_fakes()
        seen: list[AdvertisementData] = []
        async with door.scanner(heard_of(board, seen)):
            started = now()
            await door.until(lambda: bool(seen))
            board.become_node()
            changed = now()
            await door.until(lambda: PROXY in seen[-1].service_data, NEXT_CYCLE_S)
            if at_once:
                assert now() - changed < 2 * door.patience
            else:
                assert now() - started >= CYCLE_S - 0.5

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("duplicates", "expected"),
        [
            (True, {PROXY: NODE_IDENTITY}),
            (False, {PROVISIONING: UNPROVISIONED, PROXY: NODE_IDENTITY}),
        ],
    )
    async def test_stale_advertisement_data(
        self, door: Door, duplicates: bool, expected: dict[str, bytes]
    ) -> None:
        """UUIDs pile up always, service data without DuplicateData."""
        door.filter_duplicates(DuplicateFilter.BY_DATA)
        (board,) = door.place_fakes()
        seen: list[AdvertisementData] = []
        async with door.scanner(heard_of(board, seen), duplicates=duplicates):
            await door.until(lambda: bool(seen) and bool(seen[-1].service_data))
            board.become_node()
            await door.until(lambda: PROXY in seen[-1].service_data)
        assert seen[-1].service_data == expected
        assert seen[-1].service_uuids == [PROVISIONING, PROXY]

    @pytest.mark.slow
    async def test_a_board_goes_back_to_earlier_data(self, door: Door) -> None:
        """Data that was heard before is told again after other data, at the latest in 10.24 s."""
        door.filter_duplicates(DuplicateFilter.BY_DATA)
        (board,) = door.place_fakes()
        seen: list[AdvertisementData] = []
        async with door.scanner(heard_of(board, seen)):
            await door.until(lambda: bool(seen) and PROVISIONING in seen[-1].service_data)
            before = dict(board.service_data)
            board.become_node()
            await door.until(lambda: PROXY in seen[-1].service_data)
            board.service_data, board.services = before, (PROVISIONING_SERVICE,)
            await door.until(lambda: PROXY not in seen[-1].service_data, NEXT_CYCLE_S)
        assert seen[-1].service_data == {PROVISIONING: UNPROVISIONED}
        assert seen[-1].service_uuids == [PROVISIONING, PROXY]

    async def test_a_node_is_heard_as_a_node_and_after_its_reset_as_a_board(
        self, door: Door
    ) -> None:
        """BlueZ's memory of old advertisements does not hide new ones from the bearer."""
        (board,) = door.place_boards(1)
        async with door.bearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await provision_over(link, 0x0005)
            await heard_until(
                door,
                bearer,
                lambda heard: (
                    board.device_address in heard
                    and isinstance(heard[board.device_address].data, NodeIdentity)
                ),
            )
            board.power_off()
            board.power_on()
            await find(door, bearer, board)

    @pytest.mark.slow
    async def test_a_beacon_repeats_stale_service_data(self, door: Door) -> None:
        """A board that only sends mesh PDUs is reported with the service data it had before."""
        (board,) = door.place_fakes()
        await door.find()
        board.advertising = False
        seen: list[AdvertisementData] = []
        async with door.scanner(heard_of(board, seen)):
            await asyncio.sleep(1)
            assert seen == []
            door.fakes.beacon(board)
            await door.until(lambda: bool(seen))
        assert seen[0].service_data == {PROVISIONING: UNPROVISIONED}

    @pytest.mark.slow
    async def test_a_mesh_pdu_hides_no_advertisement(self, door: Door) -> None:
        """Both types of event of one address are told, each once: they are no duplicates."""
        board, other = door.place_fakes(2)
        board.advertising = other.advertising = False
        seen: list[AdvertisementData] = []
        async with door.scanner(heard_of(board, seen)):
            door.fakes.beacon(board)
            door.fakes.beacon(board)
            board.advertising = other.advertising = True
            await door.until(lambda: any(told.service_data for told in seen))
            count = len(seen)
            assert count <= 2
            door.fakes.beacon(board)
            await asyncio.sleep(1)
            assert len(seen) == count

    async def test_one_program_scans_once(self, door: Door) -> None:
        """A second scan of the same program is InProgress, and the first one goes on."""
        (board,) = door.place_fakes()
        seen: list[AdvertisementData] = []
        async with door.scanner(heard_of(board, seen)):
            with pytest.raises(BleakDBusError, match=r"org\.bluez\.Error\.InProgress"):
                await door.scanner().start()
            count = len(seen)
            await door.until(lambda: len(seen) > count, NEXT_CYCLE_S)

    async def test_the_bearer_is_told_of_a_second_scan(self, door: Door) -> None:
        """A bearer says InProgress when its program scans elsewhere, and the first scan goes on."""
        (board,) = door.place_boards(1)
        async with door.bearer() as first, door.bearer() as second, first.scan() as scan:
            with pytest.raises(BluetoothUnavailable, match="InProgress"):
                async with second.scan():
                    pass
            async with asyncio.timeout(20 * door.patience):
                assert (await anext(scan)).device_address == board.device_address

    # Slow, because BlueZ 5.66 sometimes tells the second program of nothing for a minute.
    @pytest.mark.slow
    async def test_another_program_scans_as_well(self, door: Door) -> None:
        """Discovery goes on until the last program ended it; its end is not told to the others."""
        (board,) = door.place_fakes()
        seen: list[AdvertisementData] = []
        async with door.scanning_elsewhere():
            started = now()
            await asyncio.sleep(1)
            async with door.scanner(heard_of(board, seen)):
                # What the other program was told of already comes with the kernel's next restart
                # of the scan, after 10.24 s at most. 5.82 restarts it at once when the filters of
                # the programs differ, 5.66 does not.
                await door.until(lambda: bool(seen), 20.0)
            assert door.is_real or now() - started >= CYCLE_S - 0.5
            assert await door.is_discovering()

        async def is_over() -> bool:
            return not await door.is_discovering()

        await door.until(is_over)
        await door.until(lambda: not door.fakes.is_used)

    @pytest.mark.slow
    async def test_a_silent_device_is_forgotten(self, door: Door) -> None:
        """Half a minute after its last advertisement a device has to be found again."""
        (board,) = door.place_fakes()
        device = await door.find()
        await asyncio.sleep(20)
        async with door.client(device):
            pass
        board.advertising = False
        await asyncio.sleep(35)
        # BleakError "device 'dev_...' not found" over D-Bus
        with pytest.raises(BleakError, match="not found"):
            await door.client(device).connect()

    async def test_a_foreign_adapter(self, door: Door) -> None:
        """An adapter that is not there is named in the error."""
        with pytest.raises(BleakError, match="adapter 'hci7' not found"):
            await door.scanner(adapter="hci7").start()
