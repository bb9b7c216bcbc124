"""What boards advertise for connections, flaws included."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator.advertising import QueuedPdu
from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.models.configuration import AppKeyAdd
from fastprovd.mesh.models.configuration_states import NodeIdentitySet
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet
from tests.conftest import RunVirtual
from tests.emulator.top import PROXY, Top, address_of


async def test_advertising_slows_down_after_60_s() -> None:
    """20 ms for the first minute, 500 ms afterwards, for the 0x1827 as for the 0x1828."""
    air = Air(1)
    board = air.add_board(address_of(1), flaws=Flaws.none())
    await asyncio.sleep(3.1)
    assert board.advertiser.current is not None
    assert board.advertiser.current.interval_s == 0.020
    await asyncio.sleep(61.0)
    assert board.advertiser.current.interval_s == 0.500
    top = Top(air)
    await top.prepare()
    top.disconnect()
    await asyncio.sleep(1.0)
    assert board.advertiser.current.interval_s == 0.020
    assert len(board.advertiser.current.service_data) == 17
    await asyncio.sleep(60.0)
    assert board.advertiser.current.interval_s == 0.500
    assert board.advertiser.current.service_data == b"\x00" + top.net_key.network_id


async def test_each_restart_has_its_own_random() -> None:
    """A queued PDU interrupts Node Identity; it goes on with another random."""
    air = Air(1)
    board = air.add_board(address_of(1), flaws=Flaws.none())
    top = Top(air)
    await top.prepare()
    seen = set()
    for _ in range(5):
        assert board.advertiser.current is not None
        seen.add(board.advertiser.current.service_data)
        board.queue.put(QueuedPdu(lambda times: None))
        assert board.advertiser.current is None
        await asyncio.sleep(0.1)
    assert len(seen) == 5


def test_bluedroid_advertises_a_false_proxy(run_virtual: RunVirtual[None]) -> None:
    """In most runs a Node Identity without 0x1828 is up for 0.3 to 0.41 s after the disconnect."""

    async def main(seed: int, host: Host, flaws: Flaws) -> tuple[int, ...] | None:
        air = Air(seed)
        air.add_board(address_of(1), host=host, flaws=flaws)
        top = Top(air)
        await top.prepare()
        await top.start(count=100)
        try:
            await top.connect(await top.find_proxy(5, 0.6), 1.0)
        except TimeoutError:
            return None
        return top.services()

    found = [run_virtual(main(seed, Host.BLUEDROID, Flaws())) for seed in range(20)]
    assert {PROXY in services for services in found if services is not None} == {False}
    assert 8 <= sum(services is not None for services in found) <= 19
    assert run_virtual(main(1, Host.BLUEDROID, Flaws.none())) is None


def test_nimble_rarely_advertises_what_answers_nobody(run_virtual: RunVirtual[None]) -> None:
    """1 in 25 starts shows one more proxy advertisement, and connecting to it hangs."""

    async def main(seed: int) -> bool:
        air = Air(seed)
        air.add_board(address_of(1), host=Host.NIMBLE)
        top = Top(air)
        await top.prepare()
        await top.start(count=100)
        try:
            device_address = await top.find_proxy(5, 0.3)
        except TimeoutError:
            return False
        with pytest.raises(TimeoutError):
            await top.connect(device_address, 5.0)
        return True

    assert 0 < sum(run_virtual(main(seed)) for seed in range(60)) < 12


def test_bluedroid_mostly_dies_when_node_identity_ends(run_virtual: RunVirtual[bool]) -> None:
    """60 s after Complete 92 of 100 boards without a link are dead, 15 of 22 with one."""

    async def main(seed: int, flaws: Flaws, hold: bool, host: Host = Host.BLUEDROID) -> bool:
        air = Air(seed)
        board = air.add_board(address_of(1), host=host, flaws=flaws)
        top = Top(air)
        await top.prepare()
        if not hold:
            top.disconnect()
        await asyncio.sleep(59.0)
        assert not board.is_silent
        await asyncio.sleep(3.0)
        if not board.is_silent:
            if hold:
                await top.request(OnOffGet(), dst=5)
            current = board.advertiser.current
            assert current is not None
            assert current.service_data[:1] == b"\x00"
        return board.is_silent

    def dead(hold: bool) -> int:
        return sum(run_virtual(main(seed, Flaws(), hold)) for seed in range(40))

    assert 33 <= dead(hold=False) <= 39
    assert 20 <= dead(hold=True) <= 34
    for hold in (False, True):
        assert not any(run_virtual(main(seed, Flaws.none(), hold)) for seed in range(5))
        assert not any(run_virtual(main(seed, Flaws(), hold, Host.NIMBLE)) for seed in range(5))


def test_node_identity_set_0_saves_a_bluedroid_board(run_virtual: RunVirtual[bool]) -> None:
    """Whose Node Identity was ended before its minute was over is alive, with or without a link."""

    async def main(seed: int) -> bool:
        air = Air(seed)
        board = air.add_board(address_of(1))
        top = Top(air)
        await top.prepare()
        await top.request(NodeIdentitySet(0, 0), dst=5, key=top.stack.dev_keys[5])
        if seed % 2:
            top.disconnect()
        await asyncio.sleep(75.0)
        return board.is_silent

    assert not any(run_virtual(main(seed)) for seed in range(10))


def test_the_minute_after_the_return_of_the_proxy_kills_too(run_virtual: RunVirtual[bool]) -> None:
    """A Bluedroid Primary dies 60 s after its proxy came back, its link held or not."""

    async def main(seed: int) -> bool:
        air = Air(seed)
        for number in (1, 2, 3):
            air.add_board(address_of(number))
        top = Top(air)
        primary = air.board(await top.prepare())
        await top.start(count=2)
        await top.back()
        returned = next(e.time_s for e in air.timeline if e.what is Happening.PROXY_ON)
        await asyncio.sleep(returned + 59.5 - top.loop.time())
        assert not primary.is_silent
        await asyncio.sleep(1.0)
        assert not any(board.is_silent for board in air.boards if board is not primary)
        return primary.is_silent

    assert 4 <= sum(run_virtual(main(seed)) for seed in range(10)) <= 9


async def test_a_dead_board_keeps_its_link_and_answers_nothing() -> None:
    """The controller holds the link; no request is answered, nothing is heard, no hang-up comes."""
    air = Air(1)
    for number in (1, 2):
        air.add_board(address_of(number))
    board, other = air.boards
    top = Top(air)
    await top.connect(board.device_address)
    await top.provision(5)
    top.subscribe(PROXY)
    await top.request(AppKeyAdd(top.app_key), dst=5, key=top.stack.dev_keys[5])
    link = top.link
    assert link is not None
    top.send(OnOffSet(True, 1), dst=5)
    board.fall_silent("for this test")
    heard = len(top.notified_values)
    top.send(OnOffSet(True, 2), dst=5)
    await asyncio.sleep(30.0)
    assert not link.answers
    assert len(top.notified_values) == heard
    assert top.disconnections == []
    assert board.link_count == 1
    assert not board.onoff
    assert board.advertiser.current is None
    top.disconnect()
    assert board.link_count == 0
    with pytest.raises(TimeoutError):
        await top.find(lambda report: report.device_address == board.device_address, 20.0)
    assert not other.is_silent


async def test_a_child_advertises_network_id_until_its_info_set() -> None:
    """A board provisioned over PB-ADV shows no Node Identity, and nothing once it provisions."""
    air = Air(1)
    for number in (1, 2):
        air.add_board(address_of(number))
    top = Top(air)
    primary = await top.prepare()
    await top.start(count=100)
    child = next(board for board in air.boards if board.device_address != primary)
    report = await top.find(
        lambda r: r.device_address == child.device_address and PROXY in r.service_data, 20.0
    )
    assert report.service_data[PROXY] == b"\x00" + top.net_key.network_id
    assert not child.is_provisioner
    await asyncio.sleep(15.0)
    assert child.is_provisioner
    assert child.advertiser.current is None
