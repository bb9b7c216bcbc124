"""The vendor server: every INFO_STATUS, the list, the proxy's return, stopping."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.models.fast_provisioning import Action, InfoSet, NodeAddr
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet, OnOffSetUnacknowledged
from tests.conftest import RunVirtual
from tests.emulator.top import PROXY, Top, address_of, payload_of


def info_set(**changes: Any) -> str:
    """Return the recorded INFO_SET (count 1, 0010 to 0400, group C000) with some fields changed."""
    fields: dict[str, Any] = {
        "node_addr_cnt": 1,
        "unicast_min": 0x0010,
        "unicast_max": 0x0400,
        "flags": 0,
        "iv_index": 0,
        "net_idx": 0,
        "group_addr": 0xC000,
        "match_val": b"\xdd\xdd",
        "action": 0x81,
    }
    return InfoSet(**(fields | changes)).encode_unchecked().hex()


ENTER = info_set()


async def scene(boards: int = 1, seed: int = 0, host: Host = Host.BLUEDROID) -> tuple[Air, Top]:
    air = Air(seed)
    for number in range(1, boards + 1):
        air.add_board(address_of(number), host=host, flaws=Flaws.none())
    await asyncio.sleep(3.0)
    top = Top(air)
    return air, top


async def ask(top: Top, parameters: str, dst: int = 5) -> str | None:
    """Send an INFO_SET and return the parameters of its answer."""
    before = len(top.received)
    top.send(bytes.fromhex("c0e502" + parameters), dst=dst)
    await asyncio.sleep(0.3)
    if len(top.received) == before:
        return None
    payload = payload_of(top.received[before].message)
    assert payload[:3].hex() == "c1e502"
    return payload[3:].hex()


def primary(air: Air) -> Board:
    return next(board for board in air.boards if board.is_primary)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("000000", "010001"),
        ("0000", None),
        (info_set(action=None), "400003"),
        ("400000c0", "400003"),
        (info_set(action=0x00), "400001"),
        (info_set(action=0x80), "400001"),
        (info_set(action=0x82), "400001"),
        (info_set(action=0x83), "400001"),
        ("000202", "400001"),
        (info_set(unicast_min=0x0400, unicast_max=0x0010), "020002"),
        (info_set(unicast_min=0x0005), "020004"),
        (info_set(unicast_min=0x0000), "020001"),
        (info_set(unicast_min=0x8000, unicast_max=0x9000), "020001"),
        (info_set(unicast_max=0x8000), "020001"),
        (info_set(group_addr=0x0010), "080001"),
        (info_set(group_addr=0x8000), "080001"),
        (info_set(group_addr=0xFFFF), "080001"),
        (info_set(group_addr=0xFF00), "7f0000000000000000"),
        (info_set(pri_prov_addr=0xC000), "100001"),
        (info_set(match_val=b"\xdd" * 17), "200001"),
        (info_set(match_val=b"\xdd" * 16), "7f0000000000000000"),
        (info_set(net_idx=1), "44000102"),
        (ENTER, "7f0000000000000000"),
    ],
)
async def test_each_info_set_has_its_answer(sent: str, status: str | None) -> None:
    """Every row of the table of measured answers."""
    _, top = await scene()
    await top.prepare()
    await asyncio.sleep(0.1)
    assert await ask(top, sent) == status


async def test_the_range_is_looked_at_before_the_group() -> None:
    """An INFO_SET with several faults is refused for the first in the firmware's order."""
    air, top = await scene()
    await top.prepare()
    await asyncio.sleep(0.1)
    worst = {"unicast_min": 0x0400, "unicast_max": 0x0010, "group_addr": 0x0010, "action": 0}
    assert await ask(top, info_set(**worst)) == "020002"
    assert await ask(top, info_set(group_addr=0x0010, action=0)) == "080001"
    assert air.boards[0].groups == frozenset()
    # A group that is right stays subscribed although the action is refused.
    assert await ask(top, info_set(action=0)) == "400001"
    assert air.boards[0].groups == {0xC000}


async def test_pending_is_for_ever() -> None:
    """After an unknown NetKeyIndex every INFO_SET is answered by 7F 00 and ones; lists work."""
    air, top = await scene()
    await top.prepare()
    await asyncio.sleep(0.1)
    assert await ask(top, info_set(net_idx=1)) == "44000102"
    assert await ask(top, ENTER) == "7f00" + "01" * 7
    top.send(bytes.fromhex("c2e502") + bytes(16), dst=5)
    await asyncio.sleep(0.3)
    assert payload_of(top.received[-1].message).hex() == "c3e5020101"
    await top.request(NodeAddr((0x0200,)), dst=5)
    assert await top.list_addresses() == (0x0200,)
    assert not air.boards[0].is_provisioner
    assert top.link is not None


async def test_an_active_board_says_so() -> None:
    """While active: 40 00 04, and 40 00 00 to a stop request; suspending changes neither."""
    air, top = await scene()
    await top.prepare()
    await top.start(count=1)
    await top.back()
    assert await ask(top, ENTER) == "400004"
    assert await ask(top, "000202") == "400000"
    assert await ask(top, "000203") == "400000"
    board = primary(air)
    assert board.is_provisioning
    await asyncio.sleep(10.1)
    assert not board.is_provisioning
    assert await ask(top, "000202") == "400000"
    assert await ask(top, ENTER) == "400004"


@pytest.mark.parametrize(
    ("boards", "count", "earliest", "latest"),
    [
        (1, 1, 3.0, 3.1),
        (3, 2, 10.0, 25.0),
        (3, None, 10.0, 25.0),
        (3, 0, 10.0, 25.0),
    ],
)
async def test_the_proxy_comes_back(
    boards: int, count: int | None, earliest: float, latest: float
) -> None:
    """3 s after ENTER with count 1, else 10 s after the Primary's last child or report."""
    air, top = await scene(boards)
    await top.prepare()
    begun = await top.start(count=count)
    await top.back()
    entries = air.timeline
    proxy_on = next(e.time_s for e in entries if e.what is Happening.PROXY_ON)
    assert earliest <= proxy_on - begun <= latest
    if count != 1:
        own = [e.time_s for e in entries if e.what is Happening.LISTED and e.time_s < proxy_on]
        assert proxy_on - max(own) == pytest.approx(10.0, abs=0.3)


@pytest.mark.parametrize(("boards", "count"), [(1, 5), (1, 100), (3, 100)])
async def test_the_proxy_may_never_come_back(boards: int, count: int) -> None:
    """Stalls S1 and S2: no child with a small count, no report with a large one."""
    air, top = await scene(boards)
    await top.prepare()
    await top.start(count=count)
    await asyncio.sleep(120.0)
    assert not any(entry.what is Happening.PROXY_ON for entry in air.timeline)
    assert sum(board.unicast_address is not None for board in air.boards) == boards
    assert primary(air).advertiser.current is None


async def test_a_stalled_primary_recovers_through_a_spare() -> None:
    """NODE_ADDR through a plain node brings the proxy back after 10 s; with TTL 2 it does not."""
    air, top = await scene(4)
    spare_address = await top.prepare(6)
    await asyncio.sleep(0.1)
    assert await ask(top, "400000c0", dst=6) == "400003"
    top.disconnect()
    await top.prepare(5)
    await top.start(5, count=100)
    await asyncio.sleep(40.0)
    assert not any(entry.what is Happening.PROXY_ON for entry in air.timeline)
    await top.connect(spare_address)
    top.subscribe(PROXY)
    top.send(OnOffGet(), dst=0xC000)
    await asyncio.sleep(1.0)
    assert {event.src for event in top.received if event.dst == 1} >= {5, 6, 16, 17}
    top.send(NodeAddr((6,)), dst=5, ttl=2)
    await asyncio.sleep(15.0)
    assert not any(entry.what is Happening.PROXY_ON for entry in air.timeline)
    before = len(top.received)
    top.send(NodeAddr((6,)), dst=5, ttl=7)
    sent = top.loop.time()
    await asyncio.sleep(15.0)
    proxy_on = next(e.time_s for e in air.timeline if e.what is Happening.PROXY_ON)
    assert proxy_on - sent == pytest.approx(10.03, abs=0.1)
    assert len(top.received) == before  # the ACK has TTL 0
    top.disconnect()
    await top.back()
    assert await top.list_addresses() == (16, 17, 6)


@pytest.mark.parametrize("stop", [InfoSet(action=Action.SUSPEND), OnOffSetUnacknowledged(True, 9)])
async def test_stopping_keeps_late_boards_out(stop: InfoSet | OnOffSetUnacknowledged) -> None:
    """10 s after a stop request, or after a light was set, nobody provisions any more."""
    air, top = await scene(4)
    await top.prepare()
    await top.start(count=1)
    await asyncio.sleep(30.0)
    await top.back()
    top.send(stop, dst=0xFFFF if isinstance(stop, InfoSet) else 0xC000)
    await asyncio.sleep(12.0)
    assert not any(board.is_provisioning for board in air.boards)
    assert {board.onoff for board in air.boards} == {not isinstance(stop, InfoSet)}
    late = air.add_board(address_of(0x80), flaws=Flaws.none())
    await asyncio.sleep(30.0)
    assert late.unicast_address is None


def test_a_late_joiner_opens_the_hole(run_virtual: RunVirtual[None]) -> None:
    """A board provisioned within the 10 s has not heard the stop and goes on provisioning."""

    async def main(seed: int) -> bool:
        air, top = await scene(4, seed)
        await top.prepare()
        await top.start(count=1)
        await asyncio.sleep(30.0)
        await top.back()
        top.send(InfoSet(action=Action.SUSPEND), dst=0xFFFF)
        early = air.add_board(address_of(0x80), flaws=Flaws.none())
        await asyncio.sleep(14.0)
        late = air.add_board(address_of(0x81), flaws=Flaws.none())
        await asyncio.sleep(20.0)
        return early.is_provisioner and late.parent == early.device_address

    assert any(run_virtual(main(seed)) for seed in range(5))


async def test_only_the_first_set_of_a_boot_stops() -> None:
    """The 10 s run once; a Get does not start them, a repeated TID is not a Set."""
    air, top = await scene()
    await top.prepare()
    await top.start(count=1)
    await top.back()
    board = primary(air)
    await top.request(OnOffGet(), dst=5)
    await asyncio.sleep(11.0)
    assert board.is_provisioning
    await top.request(OnOffSet(True, 1), dst=5)
    await asyncio.sleep(6.5)
    await top.request(OnOffSet(False, 2), dst=5)
    await asyncio.sleep(3.7)
    assert not board.is_provisioning


async def test_the_list_has_no_duplicates_and_120_places() -> None:
    """Known addresses and groups are not added, nor a 121st address."""
    air, top = await scene()
    await top.prepare()
    for at in range(0, 124, 4):
        await top.request(NodeAddr(tuple(range(0x100 + at, 0x104 + at))), dst=5)
    top.send(bytes.fromhex("c4e502000100c0"), dst=5)
    await asyncio.sleep(0.3)
    assert air.boards[0].listed_addresses == tuple(range(0x100, 0x100 + 120))
