"""The stalls of the reference: each does what the source was read to do, and is off by default."""

from __future__ import annotations

import asyncio
from dataclasses import fields

from fastprovd.emulator import firmware
from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.stalls import Stalls
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.models.fast_provisioning import NodeAddr
from fastprovd.mesh.models.generic_onoff import OnOffSetUnacknowledged
from fastprovd.mesh.proxy import ProxyPduType
from tests.conftest import RunVirtual
from tests.emulator.top import PROVISIONING, PROXY, Top, address_of, payload_of

PRIMARY = 0x0005
ENTER = "7f030100100000040000000000000000c0dddd81"
NO_ADDRESSES = "400000c0"


async def ask(top: Top, parameters: str) -> str | None:
    """Send an INFO_SET and return the parameters of its INFO_STATUS."""
    before = len(top.received)
    top.send(bytes.fromhex("c0e502" + parameters), dst=PRIMARY)
    await asyncio.sleep(0.3)
    if len(top.received) == before:
        return None
    payload = payload_of(top.received[before].message)
    assert payload[:3].hex() == "c1e502"
    return payload[3:].hex()


async def prepared(boards: int = 1, seed: int = 1, **stalls: int) -> tuple[Air, Top, Board]:
    """Return a board that has the AppKey, and to which the stalls happen, and others beside it."""
    air = Air(seed)
    for number in range(1, boards + 1):
        board = air.add_board(address_of(number), flaws=Flaws.none())
        for name, value in stalls.items():
            setattr(board.stalls, name, value)
    top = Top(air)
    primary = air.board(await top.prepare())
    await asyncio.sleep(0.05)
    return air, top, primary


def happened(air: Air, what: Happening) -> list[float]:
    return [entry.time_s for entry in air.timeline if entry.what is what]


def test_all_stalls_are_off() -> None:
    """A board has none until a test switches one on."""
    assert not any(getattr(Stalls(), field.name) for field in fields(Stalls))


async def test_a_pending_board_refuses_everything() -> None:
    """STATE_PEND answers 7F 00 and seven ones, keeps its link, and never begins."""
    air, top, primary = await prepared(pending=True)
    for _ in range(2):
        assert await ask(top, ENTER) == "7f00" + 7 * "01"
    await asyncio.sleep(60.0)
    assert top.link is not None
    assert not primary.is_provisioner
    assert not happened(air, Happening.PROXY_OFF)


async def test_a_busy_board_says_ffff_first() -> None:
    """The answer has all bits and no octets; the next INFO_SET is taken."""
    _, top, primary = await prepared(busy=1)
    assert await ask(top, ENTER) == "ffff"
    assert await ask(top, ENTER) == "7f0000000000000000"
    assert primary.is_primary


async def test_a_status_that_is_not_queued_leaves_the_proxy_on() -> None:
    """No answer; then 40 00 04; the link stays, and no device is taken."""
    air, top, primary = await prepared(2, status_not_queued=True)
    assert await ask(top, ENTER) is None
    assert await ask(top, ENTER) == "400004"
    await asyncio.sleep(30.0)
    assert primary.is_provisioner
    assert not primary.is_provisioning
    assert top.link is not None
    assert len(happened(air, Happening.PROVISIONED)) == 1


def test_leaked_starts_cost_children(run_virtual: RunVirtual[None]) -> None:
    """With five of six counted already the Primary begins one device at a time, with six none."""

    async def main(leaked: int) -> tuple[int, int]:
        air, top, primary = await prepared(4, leaked_starts=leaked)
        await top.start(count=1)
        await asyncio.sleep(8.0)
        opened = [e for e in air.timeline if e.what is Happening.LINK_OPENED]
        by_primary = [e for e in opened if e.device_address == primary.device_address]
        closed = [e.time_s for e in air.timeline if e.what is Happening.LINK_CLOSED]
        before = [e for e in by_primary if not closed or e.time_s <= closed[0]]
        return len(before), len(by_primary)

    assert run_virtual(main(0))[0] == 3
    assert run_virtual(main(5))[0] == 1
    assert run_virtual(main(6)) == (0, 0)


async def test_a_proxy_timer_that_fails_is_started_by_node_addr() -> None:
    """The proxy stays away after 3 s, and comes back 10 s after a NODE_ADDR."""
    air, top, primary = await prepared(1, proxy_timer_fails=1)
    spare = air.add_board(address_of(9), flaws=Flaws.none(), power_on=False)
    await top.start(count=1)
    await asyncio.sleep(60.0)
    assert not happened(air, Happening.PROXY_ON)
    primary.listen_to_beacons(False)  # or it would take the spare
    spare.power_on()
    await top.connect(await top.find_unprovisioned())
    await top.provision(0x0007)
    top.subscribe(PROXY)
    sent = top.loop.time()
    top.send(NodeAddr((0x0007,)), dst=PRIMARY)
    await asyncio.sleep(20.0)
    (on,) = happened(air, Happening.PROXY_ON)
    assert firmware.PROXY_ENABLE_S <= on - sent < firmware.PROXY_ENABLE_S + 1.0


async def test_a_lost_complete_leaves_a_node_that_nobody_knows() -> None:
    """It has an address and no AppKey, is not listed, and its proxy is on; the address is burnt."""
    air, top, primary = await prepared(2)
    lost = next(board for board in air.boards if board is not primary)
    lost.stalls.complete_lost = True
    await top.start(count=1)
    await asyncio.sleep(90.0)
    assert lost.unicast_address == 0x0010
    assert not lost.has_app_key
    assert lost.visible_service is lost.host.proxy_service
    assert primary.listed_addresses == ()
    assert not happened(air, Happening.COMPLETE_HEARD)
    later = air.add_board(address_of(9), flaws=Flaws.none())
    await asyncio.sleep(15.0)
    assert later.unicast_address == 0x0011


def test_an_idle_node_may_say_success_unasked(run_virtual: RunVirtual[None]) -> None:
    """10 s after an OnOff Set, to whoever sent the last INFO_SET, which it had refused."""

    async def main(spurious: bool) -> list[float]:
        _, top, primary = await prepared(1, spurious_status=spurious)
        assert await ask(top, NO_ADDRESSES) == "400003"
        before = len(top.events)
        sent = top.loop.time()
        top.send(OnOffSetUnacknowledged(True, 1), dst=PRIMARY)
        await asyncio.sleep(15.0)
        assert not primary.is_provisioner
        return [at - sent for at, event in top.events[before:] if event in top.received]

    assert run_virtual(main(False)) == []
    (after_s,) = run_virtual(main(True))
    assert firmware.DISABLE_S <= after_s < firmware.DISABLE_S + 0.5


async def test_a_busy_device_is_silent_on_pb_gatt() -> None:
    """Enabling Data Out opens nothing; the next connection works."""
    air = Air(1)
    board = air.add_board(address_of(1), flaws=Flaws.none())
    board.stalls.silent_sessions = 1
    top = Top(air)
    device_address = await top.find_unprovisioned()
    await top.connect(device_address)
    top.subscribe(PROVISIONING)
    top.write(ProxyPduType.PROVISIONING_PDU, bytes.fromhex("0000"))  # Invite
    await asyncio.sleep(8.0)
    assert top.proxy_pdus == []
    assert top.link is not None
    top.disconnect()
    await asyncio.sleep(1.0)
    await top.connect(device_address)
    await top.provision(PRIMARY)
    assert board.unicast_address == PRIMARY
