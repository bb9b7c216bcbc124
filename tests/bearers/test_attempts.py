"""How often a connection is tried, and what is done between two attempts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from bleak.backends.client import BaseBleakClient
from bleak.backends.service import BleakGATTService
from bleak.exc import BleakDBusError, BleakGATTProtocolError, BleakGATTProtocolErrorCode
from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.attempts import BUSY_PAUSES_S, CONNECT_BACK_OFF_S, Attempts
from fastprovd.bearers.errors import Diagnosis, Remedy, describe
from fastprovd.bearers.gatt import PROVISIONING, GattLink
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.errors import ConnectionLost, WrongService
from tests.support.fake_bench import BearerBench, now


def pauses(remedy: Remedy, attempts: Attempts) -> list[float]:
    """Return the pauses until there is to be no further attempt."""
    diagnosis = Diagnosis(ConnectionLost, remedy, "")
    return list(iter(lambda: attempts.pause_s(diagnosis), None))


def test_each_remedy_has_its_pauses() -> None:
    """An error is tried again twice, a busy board for a while, and BlueZ forgets a board once."""
    assert pauses(Remedy.RETRY, Attempts(3)) == list(CONNECT_BACK_OFF_S[:2])
    assert pauses(Remedy.SEARCH, Attempts(1)) == []
    assert pauses(Remedy.GIVE_UP, Attempts(3)) == []
    attempts = Attempts(3)
    assert pauses(Remedy.BUSY, attempts) == list(BUSY_PAUSES_S)
    assert attempts.number == 1
    assert len(pauses(Remedy.FORGET, Attempts(1))) == 1


async def find(bench: BearerBench, bearer: Any) -> str:
    async with bearer.scan() as scan:
        address: str = (await anext(scan)).device_address
    return address


BUSY = BleakDBusError("org.bluez.Error.InProgress", ["In Progress"])


async def test_a_board_that_is_busy_costs_no_attempt() -> None:
    """Another program connects to it: it is waited for, with all attempts still at hand."""
    bench = BearerBench()
    async with bench.bearer(connect_attempts=1) as bearer:
        address = await find(bench, bearer)
        bench.adapter.fail_connects.extend([BUSY] * len(BUSY_PAUSES_S))
        async with bearer.provisioning_link(address) as link:
            assert link.is_connected


async def test_a_board_that_stays_busy_is_named() -> None:
    """After 20 s, and the adapter is not blamed."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        bench.adapter.fail_connects.extend([BUSY] * 10)
        begun_s = now()
        with pytest.raises(ConnectionLost, match="another program connects to this board"):
            async with bearer.provisioning_link(address):
                pytest.fail("the link opened")
        assert now() - begun_s == pytest.approx(20, abs=1)
    assert bench.is_quiet()


async def test_a_kept_link_waits_for_a_search() -> None:
    """bleak searches for a board that it does not know, and BlueZ is busy with another search."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        async with bearer.provisioning_link(address):
            bench.board.become_node()
            await asyncio.sleep(0.5)
            bearer._devices.clear()
            bench.adapter.fail_scans.extend([BUSY, BUSY])
            async with bearer.kept_proxy_link(address) as link:
                assert link.is_connected
    assert bench.board.log.count("connected") == 1
    assert bench.is_quiet()


def client_class(bench: BearerBench) -> type[BaseBleakClient]:
    return client_backend(bench.adapter)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("lost", [1, 9])
async def test_a_link_lost_before_notifications(lost: int, most: int) -> None:
    """It is hung up and tried again, whatever bleak made of it; nothing is left behind."""
    bench = BearerBench()
    links: list[GattLink] = []

    class Losing(client_class(bench)):  # type: ignore[misc]
        async def start_notify(self, *args: Any, **kwargs: Any) -> None:
            await super().start_notify(*args, **kwargs)
            links.extend(connection.link for connection in bearer._connections)
            if len(links) <= lost:
                links[-1].on_disconnected(self)

    bearer = BleakBearer("", scanner_backend(bench.adapter), Losing, connect_attempts=most)
    async with bearer:
        address = await find(bench, bearer)
        opened = False
        with contextlib.suppress(ConnectionLost):
            async with bearer.provisioning_link(address) as link:
                opened = link.is_connected
        assert opened is (lost < most)
        assert len(links) == min(lost + 1, most)
    assert bench.is_quiet()
    assert not len(bearer._connections)


def doubled(services: Any) -> None:
    services.add_service(BleakGATTService({}, 200, normalize_uuid_16(PROVISIONING.uuid)))


def listed_twice(services: Any) -> None:
    doubled(services)
    doubled(services)


def without_data_out(services: Any) -> None:
    service = services.get_service(normalize_uuid_16(PROVISIONING.uuid))
    for characteristic in service.characteristics:
        if "notify" in characteristic.properties:
            del service._characteristics[characteristic.handle]


def with_other_properties(services: Any) -> None:
    service = services.get_service(normalize_uuid_16(PROVISIONING.uuid))
    for characteristic in service.characteristics:
        characteristic._properties[:] = ["read"]


def with_one_characteristic_twice(services: Any) -> None:
    service = services.get_service(normalize_uuid_16(PROVISIONING.uuid))
    service._characteristics[999] = service.characteristics[0]


@pytest.mark.parametrize(
    "answer",
    [
        BleakGATTProtocolError(BleakGATTProtocolErrorCode.INVALID_HANDLE),
        BleakGATTProtocolError(BleakGATTProtocolErrorCode.ATTRIBUTE_NOT_FOUND),
        BleakDBusError("org.freedesktop.DBus.Error.UnknownObject", ["StartNotify"]),
        BleakDBusError("org.freedesktop.DBus.Error.UnknownMethod", ["StartNotify"]),
        BleakDBusError("org.bluez.Error.NotSupported", ["Operation is not supported"]),
    ],
    ids=describe,
)
async def test_a_handle_that_is_gone(answer: Exception) -> None:
    """Its services are those of before, whatever BlueZ calls that: the board is forgotten once."""
    bench = BearerBench()
    forgotten = 0

    class Stale(client_class(bench)):  # type: ignore[misc]
        async def start_notify(self, *args: Any, **kwargs: Any) -> None:
            if not forgotten:
                raise answer
            await super().start_notify(*args, **kwargs)

        async def unpair(self, *args: Any, **kwargs: Any) -> None:
            nonlocal forgotten
            forgotten += 1
            await super().unpair(*args, **kwargs)

    async with BleakBearer("", scanner_backend(bench.adapter), Stale) as bearer:
        address = await find(bench, bearer)
        async with bearer.provisioning_link(address) as link:
            assert link.is_connected
    assert forgotten == 1
    assert bench.is_quiet()


@pytest.mark.parametrize("heals", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [doubled, listed_twice, without_data_out, with_other_properties, with_one_characteristic_twice],
)
async def test_services_of_an_earlier_firmware_are_forgotten(
    spoil: Callable[[Any], None], heals: bool
) -> None:
    """BlueZ forgets the board once; where that does not help, the service is named."""
    bench = BearerBench()
    forgotten = 0

    class Stale(client_class(bench)):  # type: ignore[misc]
        async def connect(self, *args: Any, **kwargs: Any) -> None:
            await super().connect(*args, **kwargs)
            if not (heals and forgotten):
                spoil(self.services)

        async def unpair(self, *args: Any, **kwargs: Any) -> None:
            nonlocal forgotten
            forgotten += 1
            await super().unpair(*args, **kwargs)

    async with BleakBearer("", scanner_backend(bench.adapter), Stale) as bearer:
        address = await find(bench, bearer)
        with contextlib.nullcontext() if heals else pytest.raises(WrongService, match="in 2"):
            async with bearer.provisioning_link(address) as link:
                assert heals
                assert link.is_connected
    assert forgotten == 1
    assert bench.is_quiet()
