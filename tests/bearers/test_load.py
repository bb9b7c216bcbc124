"""The bearer and adapters that bear 1 to 20 links, and refuse more in one way or another."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.bearers.adapter import FULL_S, BleakBearer
from fastprovd.bearers.slots import PATIENCE_S
from fastprovd.emulator.link_limit import Refusal
from fastprovd.errors import DeviceNotFound, NoFreeLink
from tests.support.fake_air import FakeBoard
from tests.support.fake_bench import BearerBench, now


def bench_of(boards: int, links: int | None, refusal: Refusal = Refusal.SILENCE) -> BearerBench:
    """Place boards behind an adapter that bears so many links."""
    bench = BearerBench(*(FakeBoard(f"24:0A:C4:5E:00:{n:02X}") for n in range(1, boards + 1)))
    bench.adapter.max_links = links
    bench.adapter.refusal = refusal
    return bench


async def hear_all(bench: BearerBench, bearer: BleakBearer) -> list[str]:
    """Scan until all boards were heard."""
    heard: set[str] = set()
    async with bearer.scan() as scan:
        async for advertisement in scan:
            heard.add(advertisement.device_address)
            if len(heard) == len(bench.boards):
                return sorted(heard)
    raise AssertionError


async def visit_all(
    bearer: BleakBearer, addresses: list[str], workers: int, hold_s: float = 0.3
) -> list[str]:
    """Hold a link to each board for a while, side by side; returns those that failed."""
    left, failed = list(reversed(addresses)), []

    async def work() -> None:
        while left:
            address = left.pop()
            try:
                async with bearer.provisioning_link(address):
                    await asyncio.sleep(hold_s)
            except NoFreeLink:
                failed.append(address)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return failed


@pytest.mark.parametrize("refusal", Refusal)
@pytest.mark.parametrize("bears", [1, 3, 5, 7, 10, 20])
async def test_the_bearer_finds_out_what_the_adapter_bears(bears: int, refusal: Refusal) -> None:
    """It gets to the very number, loses no board on the way, and goes no further than it must."""
    bench = bench_of(40, bears, refusal)
    async with bench.bearer() as bearer:
        addresses = await hear_all(bench, bearer)
        assert bearer.links.found == "learning"
        assert await visit_all(bearer, addresses, bearer.links.most, hold_s=3.0) == []
        links = bearer.links
    assert (links.now, links.most) == (bears, bears)
    assert links.found.startswith(f"learnt: link {bears + 1} was refused (")
    assert 1 <= bench.adapter.refused <= 8
    assert all(board.log.count("connected") == 1 for board in bench.boards)
    assert bench.is_quiet()


async def test_silence_over_a_loss_of_bluetooth_is_no_refusal() -> None:
    """A connect that bluetoothd's end left without an answer teaches no limit."""
    bench = bench_of(2, 1)
    async with bench.bearer() as bearer:
        first, second = await hear_all(bench, bearer)
        async with bearer.provisioning_link(first) as link:
            connecting = asyncio.create_task(visit_all(bearer, [second], 1))
            await asyncio.sleep(1)
            bearer._bluetooth_lost("bluetoothd ended")
            assert not link.is_connected
        bench.adapter.max_links = None
        assert await connecting == []
        assert bearer.links.found == "learning"


async def test_a_learnt_limit_is_kept_to() -> None:
    """Once it is known, nothing is refused any more, and a second round takes no attempt longer."""
    bench = bench_of(20, 7)
    async with bench.bearer() as bearer:
        addresses = await hear_all(bench, bearer)
        await visit_all(bearer, addresses, 20)
        refused = bench.adapter.refused
        await hear_all(bench, bearer)
        begun = now()
        await visit_all(bearer, addresses, 20)
        assert now() - begun < 3 * 3.5
    assert bench.adapter.refused == refused


@pytest.mark.parametrize("refusal", Refusal)
async def test_an_adapter_that_gets_tight(refusal: Refusal) -> None:
    """A limit that shrinks in mid-run costs no board, and is learnt."""
    bench = bench_of(60, 10, refusal)
    async with bench.bearer() as bearer:
        addresses = await hear_all(bench, bearer)
        await visit_all(bearer, addresses[:30], 20, hold_s=1.0)
        assert bearer.links.now == 10
        bench.adapter.max_links = 4
        await hear_all(bench, bearer)
        assert await visit_all(bearer, addresses[30:], 20, hold_s=1.0) == []
        assert bearer.links.now == 4
    assert bench.is_quiet()


async def test_an_adapter_that_gets_roomy() -> None:
    """After a while more is tried again, and what opens is used."""
    bench = bench_of(30, 3)
    async with bench.bearer() as bearer:
        addresses = await hear_all(bench, bearer)
        await visit_all(bearer, addresses, 10)
        assert bearer.links.now == 3
        bench.adapter.max_links = 12
        await asyncio.sleep(120)
        await hear_all(bench, bearer)
        assert await visit_all(bearer, addresses, 30, hold_s=3.0) == []
        assert bearer.links.now == 12


async def test_a_wrong_number_costs_time_and_no_board() -> None:
    """Ten links were configured for an adapter that bears three."""
    bench = bench_of(12, 3)
    async with bench.bearer(max_links=10) as bearer:
        assert bearer.links.found == "configured"
        addresses = await hear_all(bench, bearer)
        assert await visit_all(bearer, addresses, 10) == []
        assert bearer.links.now == 3


async def test_an_absent_board_is_no_refusal() -> None:
    """A board that left while others are connected is not found, and the limit stays open."""
    bench = bench_of(4, None)
    async with bench.bearer(max_links=6) as bearer:
        addresses = await hear_all(bench, bearer)
        bench.boards[-1].advertising = False
        async with bearer.provisioning_link(addresses[0]):
            with pytest.raises(DeviceNotFound, match="could not connect"):
                async with bearer.provisioning_link(addresses[-1]):
                    pytest.fail("the link opened")
        assert (bearer.links.now, bearer.links.found) == (6, "configured")


async def test_a_link_that_nobody_gives_back() -> None:
    """Who waits for the only link is told after a minute, and not before."""
    bench = bench_of(2, None)
    async with bench.bearer(max_links=1) as bearer:
        first, second = await hear_all(bench, bearer)
        async with bearer.provisioning_link(first):
            begun = now()
            with pytest.raises(NoFreeLink, match="bears 1 links"):
                async with bearer.provisioning_link(second):
                    pytest.fail("the link opened")
            assert now() - begun == pytest.approx(PATIENCE_S, abs=1)
        async with bearer.provisioning_link(second):
            pass


async def test_who_gives_up_waiting_leaves_the_slot() -> None:
    """A cancelled one takes nothing with it, whether it waits or has just got its turn."""
    bench = bench_of(3, None)
    async with bench.bearer(max_links=1) as bearer:
        addresses = await hear_all(bench, bearer)

        async def visit(address: str) -> None:
            async with bearer.provisioning_link(address):
                pass

        async with bearer.provisioning_link(addresses[0]):
            waiting = asyncio.create_task(visit(addresses[1]))
            await asyncio.sleep(1)
            waiting.cancel()
        async with asyncio.timeout(10):
            await visit(addresses[2])
    assert bench.boards[1].log == []


@pytest.mark.parametrize("refusal", [Refusal.SILENCE, Refusal.LIMIT])
@pytest.mark.parametrize("after_s", [1.0, 5.5, 6.5])
async def test_a_board_that_is_given_up_holds_nobody_back(refusal: Refusal, after_s: float) -> None:
    """A connect that is cancelled while it is not clear whether it was refused changes nothing."""
    bench = bench_of(4, 1, refusal)
    async with bench.bearer() as bearer:
        addresses = await hear_all(bench, bearer)
        async with bearer.provisioning_link(addresses[0]):

            async def second() -> None:
                async with bearer.provisioning_link(addresses[1]):
                    pytest.fail("the link opened")

            connecting = asyncio.create_task(second())
            await asyncio.sleep(after_s)
            connecting.cancel()
            await asyncio.wait({connecting})
            bench.adapter.max_links = None
            known = bearer.links.found != "learning"
            if not known:
                async with asyncio.timeout(4), bearer.provisioning_link(addresses[2]):
                    pass
        assert known is (refusal is Refusal.LIMIT and after_s > 2)


async def test_an_adapter_that_refuses_every_link() -> None:
    """It is full of links that nobody knows of: that is said after a minute, and not learnt."""
    bench = bench_of(1, 0, Refusal.LIMIT)
    async with bench.bearer() as bearer:
        (address,) = await hear_all(bench, bearer)
        begun = now()
        with pytest.raises(NoFreeLink, match="le-connection-concurrent-connection-limit"):
            async with bearer.provisioning_link(address):
                pytest.fail("the link opened")
        assert FULL_S <= now() - begun < FULL_S + 5
        assert bearer.links.found == "learning"
        bench.adapter.max_links = None
        await hear_all(bench, bearer)
        async with bearer.provisioning_link(address):
            pass
