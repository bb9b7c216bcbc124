"""Primary and Temporary Provisioner: the address arithmetic, retries, reports."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator import firmware
from fastprovd.emulator.air import Air, Reach
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.provisioner_role import ChildRanges, interpolate
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.models.fast_provisioning import ENTER_AS_PRIMARY, InfoSet
from tests.emulator.top import Top, address_of
from tests.support.data import RECORDING_NAMES
from tests.support.listener import listen


@pytest.mark.parametrize(
    ("first", "last", "own", "ranges"),
    [
        (
            0x0002,
            0x7FFF,
            6,
            "0008-155B 155C-2AAF 2AB0-4003 4004-5557 5558-6AAB 6AAC-7FFF",
        ),
        (0x0008, 0x155B, 6, "000E-039A 039B-0727 0728-0AB4 0AB5-0E41 0E42-11CE 11CF-155B"),
        (0x0400, 0x7FFF, 6, "0406-18AF 18B0-2D59 2D5A-4203 4204-56AD 56AE-6B57 6B58-7FFF"),
        (0x0406, 0x18AF, 6, "040C-077C 077D-0AED 0AEE-0E5E 0E5F-11CF 11D0-1540 1541-18AF"),
        (0x0010, 0x0020, 6, "0016-0017 0018-0019 001A-001B 001C-001D 001E-001F -"),
        (0x0016, 0x0017, 2, "- -"),
        (0x0010, 0x0012, 3, "- - -"),
        (0x0010, 0x0017, 6, "0016-0016 - - - - -"),
    ],
)
def test_ranges_follow_the_firmware(first: int, last: int, own: int, ranges: str) -> None:
    """The table of worked examples: own children first, the rest in equal parts."""
    arithmetic = ChildRanges(first, last, 6)
    spans = [arithmetic.take_range() for _ in range(own)]
    assert " ".join("-" if s is None else f"{s[0]:04X}-{s[1]:04X}" for s in spans) == ranges
    taken = [arithmetic.take_address() for _ in range(own)]
    assert taken == list(range(first, first + own))
    assert not arithmetic.has_address
    assert arithmetic.take_address() is None


def info_sets(name: str) -> list[tuple[int, int, InfoSet]]:
    """Return (SRC, DST, INFO_SET) of every complete one in a recording."""
    heard = []
    for message in listen(name).messages.values():
        payload = message.payload or b""
        if payload[:3] == b"\xc0\xe5\x02" and len(payload) > 6:
            heard.append((message.src, message.dst, InfoSet.decode_parameters(payload[3:])))
    return heard


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_recorded_ranges_follow_the_arithmetic(name: str) -> None:
    """Every range that a recorded provisioner gave is one that ours would give."""
    spans: dict[int, tuple[int, int]] = {}
    checked = 0
    for _, dst, info_set in info_sets(name):
        if info_set.action == ENTER_AS_PRIMARY and info_set.unicast_min and info_set.unicast_max:
            spans[dst] = (info_set.unicast_min, info_set.unicast_max)
    for src, dst, info_set in info_sets(name):
        if src == 1 or info_set.unicast_min is None or info_set.unicast_max is None:
            continue
        first, last = spans[src]
        arithmetic = ChildRanges(first, last, 6)
        possible = [arithmetic.take_range() for _ in range(6)]
        assert (info_set.unicast_min, info_set.unicast_max) in possible
        assert first <= dst <= arithmetic.last_own
        spans[dst] = (info_set.unicast_min, info_set.unicast_max)
        checked += 1
    assert checked == 0 or len(spans) > 1


def test_interpolation_is_flat_outside() -> None:
    """Linear between the rows, constant before the first and after the last."""
    table = ((2, 0.0, 1.0), (4, 1.0, 3.0))
    assert interpolate(table, 1, 1) == 0.0
    assert interpolate(table, 3, 1) == pytest.approx(0.5)
    assert interpolate(table, 4, 2) == 3.0
    assert interpolate(table, 9, 2) == 3.0


async def primary_with(boards: int, seed: int, reach: Reach | None = None) -> tuple[Air, Board]:
    air = Air(seed)
    for number in range(1, boards + 1):
        air.add_board(address_of(number), flaws=Flaws.none())
    top = Top(air)
    primary = air.board(await top.prepare())
    await top.start(count=1)
    if reach is not None:
        air.set_default_reach(reach)
    return air, primary


async def test_a_request_is_repeated_every_4_s() -> None:
    """A child that falls out of reach between Complete and AppKey Status is configured later."""
    air, primary = await primary_with(2, 1)
    while not any(e.what is Happening.COMPLETE_HEARD for e in air.timeline):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    child = next(board for board in air.boards if board is not primary)
    air.set_reach(primary.device_address, child.device_address, None)
    await asyncio.sleep(30.0)
    assert not child.has_app_key
    air.set_reach(primary.device_address, child.device_address, Reach())
    await asyncio.sleep(firmware.CLIENT_TIMEOUT_S + 1.5)
    assert child.has_app_key
    await asyncio.sleep(6.0)
    assert child.is_provisioner


async def test_a_report_is_repeated_until_acknowledged() -> None:
    """A Temporary Provisioner reports 5 s after its last child, again every 4 s."""
    air, primary = await primary_with(2, 1)
    await asyncio.sleep(15.0)
    temporary = next(board for board in air.boards if board is not primary)
    assert temporary.is_provisioner
    late = air.add_board(address_of(3), flaws=Flaws.none(), power_on=False)
    air.set_reach(primary.device_address, late.device_address, None)
    late.power_on()
    while late.unicast_address is None:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    provisioned = air.loop.time()
    assert late.parent == temporary.device_address
    await asyncio.sleep(4.5)
    assert late.unicast_address not in primary.listed_addresses
    air.set_reach(primary.device_address, temporary.device_address, None)
    await asyncio.sleep(30.0)
    assert late.unicast_address not in primary.listed_addresses
    air.set_reach(primary.device_address, temporary.device_address, Reach())
    await asyncio.sleep(4.5)
    assert late.unicast_address in primary.listed_addresses
    assert air.loop.time() - provisioned > 30.0


async def test_a_known_child_is_not_provisioned_again() -> None:
    """A board that was reset stays unprovisioned beside its parent."""
    air, primary = await primary_with(2, 1)
    await asyncio.sleep(20.0)
    child = next(board for board in air.boards if board is not primary)
    assert child.parent == primary.device_address
    child.power_off()
    child.power_on()
    await asyncio.sleep(30.0)
    assert child.unicast_address is None


async def test_the_uuid_prefix_decides() -> None:
    """Only boards whose UUID begins with the match value are taken."""
    air = Air(1)
    for number in range(1, 3):
        air.add_board(address_of(number), flaws=Flaws.none())
    stranger = air.add_board("30:AE:A4:00:00:01", flaws=Flaws.none(), power_on=False)
    top = Top(air)
    primary = air.board(await top.prepare())
    await asyncio.sleep(0.1)
    top.send(
        InfoSet(
            group_addr=0xC000,
            match_val=bytes.fromhex("dddd240a"),
            action=ENTER_AS_PRIMARY,
        ),
        dst=5,
    )
    stranger.power_on()
    await asyncio.sleep(30.0)
    assert stranger.unicast_address is None
    assert len(primary.children) == 1
