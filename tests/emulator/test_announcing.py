"""What boards advertise for connections, flaws included."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator.advertising import QueuedPdu
from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.mesh.models.generic_onoff import OnOffGet
from tests.conftest import RunVirtual
from tests.emulator.top import PROXY, Top, address_of


def test_advertising_slows_down_after_60_s(run_virtual: RunVirtual[None]) -> None:
    """20 ms for the first minute, 500 ms afterwards, for the 0x1827 as for the 0x1828."""

    async def main() -> None:
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

    run_virtual(main())


def test_each_restart_has_its_own_random(run_virtual: RunVirtual[None]) -> None:
    """A queued PDU interrupts Node Identity; it goes on with another random."""

    async def main() -> None:
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

    run_virtual(main())


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


def test_bluedroid_falls_silent_after_node_identity(run_virtual: RunVirtual[None]) -> None:
    """60 s after Complete without a link the board is off the air, unless a link is held."""

    async def main(seed: int, flaws: Flaws, hold: bool) -> bool:
        air = Air(seed)
        board = air.add_board(address_of(1), flaws=flaws)
        top = Top(air)
        await top.prepare()
        if not hold:
            top.disconnect()
        await asyncio.sleep(62.0)
        if hold:
            await top.request(OnOffGet(), dst=5)
        return board.is_silent

    assert sum(run_virtual(main(seed, Flaws(), False)) for seed in range(10)) >= 7
    assert not any(run_virtual(main(seed, Flaws(), True)) for seed in range(5))
    assert not any(run_virtual(main(seed, Flaws.none(), False)) for seed in range(5))


def test_a_child_advertises_network_id_until_its_info_set(run_virtual: RunVirtual[None]) -> None:
    """A board provisioned over PB-ADV shows no Node Identity, and nothing once it provisions."""

    async def main() -> None:
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

    run_virtual(main())
