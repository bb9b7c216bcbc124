"""Who answers: at which pace, how many at once, in which order, and when the link goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from fastprovd.campaign.roll_call import CONCURRENCY, TTL_BY_ATTEMPT, Pace, RollCall
from fastprovd.campaign.search import AddressSearch
from fastprovd.campaign.shares import Share
from fastprovd.campaign.states import WAITS
from fastprovd.clock import SystemClock
from fastprovd.errors import ConnectionLost, StoreError
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffStatus
from fastprovd.mesh.network import decode_network_pdu
from fastprovd.mesh.proxy import ProxyPduType
from tests.support.fake_link import LATENCY_S
from tests.support.fake_mesh import APP_KEY, IV_INDEX, NET_KEY, PRIMARY, FakeNode, Talk, talk

CLOCK = SystemClock()
ANSWER_S = WAITS["answer"].seconds
SHARE = Share(0x0010, 0x00FF)


class Roll:
    """A roll-call over a link, and what came of it."""

    def __init__(self, t: Talk) -> None:
        self.talk = t
        self.answers: dict[int, bool] = {}
        self.calmed: list[float] = []
        self.calm_s = 0.0
        self.fails_on: int | None = None
        self.call = RollCall(t.session, APP_KEY, CLOCK, answered=self._answered, calm=self._calm)

    async def _answered(self, address: int, onoff: bool) -> None:
        if address == self.fails_on:
            raise StoreError("the disk is full")
        self.answers[address] = onoff

    async def _calm(self) -> None:
        self.calmed.append(CLOCK.monotonic())
        await asyncio.sleep(self.calm_s)

    def questions(self) -> list[tuple[float, int, int]]:
        """Return when which address was asked with which TTL."""
        found = []
        for at, (pdu_type, payload) in self.talk.link.sent:
            if pdu_type is ProxyPduType.NETWORK_PDU:
                pdu = decode_network_pdu(payload, [NET_KEY], IV_INDEX)
                assert pdu is not None
                found.append((at, pdu.dst, pdu.ttl))
        return found

    def asked(self) -> list[int]:
        """Return the addresses in the order they were asked."""
        return [address for _, address, _ in self.questions()]


def _node(address: int, after_s: float, unanswered: int) -> FakeNode:
    """Return a node that ignores so many questions; at odd addresses they are switched on."""
    replies = iter([None] * unanswered + [OnOffStatus(address % 2 == 1)] * 99)
    return FakeNode(address, after_s, {OnOffGet: lambda _: next(replies)})


@asynccontextmanager
async def _roll(
    addresses: Iterable[int], after_s: float = 0.0, *, silent: Mapping[int, int] | None = None
) -> AsyncIterator[Roll]:
    """Open a link to a proxy with nodes behind it; `silent` says how many questions are ignored."""
    silent = silent or {}
    nodes = [_node(address, after_s, silent.get(address, 0)) for address in addresses]
    async with talk(FakeNode(PRIMARY), *nodes) as t:
        await t.session.server_address
        yield Roll(t)


def _gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


async def _turns(pace: Pace, count: int) -> list[float]:
    times = []
    for _ in range(count):
        await pace.wait()
        times.append(CLOCK.monotonic())
    return times


async def test_turns_are_0_19_s_apart() -> None:
    """The first comes at once; time that passed unused is not made up for."""
    pace = Pace(CLOCK)
    assert await _turns(pace, 4) == pytest.approx([0.0, 0.19, 0.38, 0.57])
    await asyncio.sleep(9.43)
    assert await _turns(pace, 3) == pytest.approx([10.0, 10.19, 10.38])


async def test_turns_are_for_one_at_a_time() -> None:
    """Who waits together goes one after another."""
    pace = Pace(CLOCK)
    times = await asyncio.gather(*(_turns(pace, 1) for _ in range(4)))
    assert [at for (at,) in times] == pytest.approx([0.0, 0.19, 0.38, 0.57])


@pytest.mark.parametrize(
    ("answers", "interval_s"),
    [
        pytest.param([], 0.19, id="none yet"),
        pytest.param([0.1] * 10, 0.19, id="quick, never below the shortest"),
        pytest.param([1.5], 0.285, id="slow"),
        pytest.param([1.5, 1.5], 0.4275, id="slow twice"),
        pytest.param([1.5] * 20, 3.0, id="never above the longest"),
        pytest.param([1.5, 1.5, 0.7, 1.0], 0.4275, id="neither slow nor quick"),
        pytest.param([1.5, 1.5, 0.4], 0.342, id="quick again"),
        pytest.param([1.5, 0.4, 0.4], 0.19, id="back to the shortest"),
    ],
)
async def test_slow_answers_slow_down(answers: list[float], interval_s: float) -> None:
    """Slow ones mean full queues; quick ones shorten the interval again."""
    pace = Pace(CLOCK)
    for after_s in answers:
        pace.answered(after_s)
    assert _gaps(await _turns(pace, 4)) == pytest.approx([interval_s] * 3)


async def test_everybody_is_asked_once_in_order() -> None:
    """Nodes that answer at once: one question each, at the shortest pace, with a near TTL."""
    addresses = range(0x0010, 0x001A)
    async with _roll(addresses) as roll:
        await roll.call.prove(reversed(addresses))
        assert roll.asked() == list(addresses)
        assert roll.answers == {address: address % 2 == 1 for address in addresses}
        assert _gaps([at for at, _, _ in roll.questions()]) == pytest.approx([0.19] * 9)
        assert {ttl for _, _, ttl in roll.questions()} == {3}
        assert len(roll.calmed) == 1
        assert roll.calmed[0] <= roll.questions()[0][0]


async def test_nobody_to_ask_asks_nobody() -> None:
    """Not even the mesh to be calm."""
    async with _roll([]) as roll:
        await roll.call.prove([])
        assert (roll.questions(), roll.calmed) == ([], [])


async def test_four_questions_are_under_way_at_most() -> None:
    """However slow the answers, no more wait for one than the Primary's buffers bear."""
    slow_s = 0.9
    async with _roll(range(0x0010, 0x0024), slow_s) as roll:
        await roll.call.prove(range(0x0010, 0x0024))
        times = [at for at, _, _ in roll.questions()]
        under_way = [
            sum(at <= now < at + 2 * LATENCY_S + slow_s - 0.001 for at in times) for now in times
        ]
        assert max(under_way) == CONCURRENCY == 4
        assert len(times) == 20


async def test_slow_nodes_are_asked_more_slowly() -> None:
    """The answers of the mesh set the pace."""
    async with _roll(range(0x0010, 0x0020), 1.2) as roll:
        await roll.call.prove(range(0x0010, 0x0020))
        gaps = _gaps([at for at, _, _ in roll.questions()])
        assert gaps[:3] == pytest.approx([0.19] * 3)
        assert max(gaps[8:]) > 0.4
        assert len(roll.answers) == 16


async def test_silent_nodes_are_asked_again_after_all_others() -> None:
    """Each attempt reaches further, begins with calm, and asks only those that were silent."""
    addresses = range(0x0010, 0x0016)
    async with _roll(addresses, silent={0x0011: 2}) as roll:
        roll.calm_s = 0.5
        await roll.call.prove(addresses)
        assert roll.asked() == [*addresses, 0x0011, 0x0011]
        assert [ttl for _, address, ttl in roll.questions() if address == 0x0011] == [3, 3, 7]
        assert len(roll.calmed) == 3
        again = [at for at, address, _ in roll.questions() if address == 0x0011][1:]
        assert again == pytest.approx([at + 0.5 for at in roll.calmed[1:]])
        assert len(roll.answers) == 6


async def test_a_node_that_is_gone_is_given_up() -> None:
    """One question per attempt, with the TTL of each; then the roll-call ends."""
    async with _roll([0x0010]) as roll:
        await roll.call.prove([0x0010, 0x0077])
        asked = [ttl for _, address, ttl in roll.questions() if address == 0x0077]
        assert tuple(asked) == TTL_BY_ATTEMPT
        assert list(roll.answers) == [0x0010]


@pytest.mark.parametrize(
    ("silent", "calms"),
    [
        pytest.param([], 0, id="nobody is silent"),
        pytest.param([0x0010, 0x0011], 0, id="two"),
        pytest.param([0x0010, 0x0011, 0x0012], 1, id="three"),
        pytest.param([0x0010, 0x0011, 0x0012, 0x0014, 0x0015], 1, id="five"),
        pytest.param([0x0010, 0x0011, 0x0012, 0x0014, 0x0015, 0x0016], 2, id="six"),
    ],
)
async def test_three_misses_in_a_row_ask_for_calm(silent: list[int], calms: int) -> None:
    """Known nodes that are silent one after the other mean that the mesh is too busy."""
    # 0x0013 answers long before the first miss is noticed, so it ends no row.
    addresses = range(0x0010, 0x0017)
    async with _roll(addresses, silent=dict.fromkeys(silent, 1)) as roll:
        await roll.call.prove(addresses)
        assert len(roll.answers) == 7
        assert len(roll.calmed) == 1 + calms + bool(silent)


async def test_an_answer_ends_a_row_of_misses() -> None:
    """Two silent ones, an answer, two silent ones: the mesh is not too busy."""
    addresses = range(0x0010, 0x0015)
    silent = {address: 1 for address in addresses if address != 0x0012}
    # The answer comes after the misses of 0x0010 and 0x0011, before those of the others.
    async with _roll(addresses, after_s=ANSWER_S - 0.2, silent=silent) as roll:
        await roll.call.prove(addresses)
        assert len(roll.answers) == 5
        assert len(roll.calmed) == 2, "one for each attempt"


async def test_a_lost_link_comes_out_as_it_is() -> None:
    """ConnectionLost, not a group of them, and no worker is left."""
    async with _roll(range(0x0010, 0x0020), 0.9) as roll:
        before = asyncio.all_tasks()
        asking = asyncio.create_task(roll.call.prove(range(0x0010, 0x0020)))
        await asyncio.sleep(0.5)
        assert len(asyncio.all_tasks() - before) > 1
        roll.talk.link.hang_up()
        with pytest.raises(ConnectionLost):
            await asking
        # The session has ended with its link.
        assert asyncio.all_tasks() < before


async def test_a_lost_link_ends_the_search_too() -> None:
    """Those who wait for candidates and those who wait for answers end alike."""
    async with _roll([]) as roll:
        before = asyncio.all_tasks()
        seeking = asyncio.create_task(roll.call.search(AddressSearch(SHARE), lambda: False))
        await asyncio.sleep(1.0)
        roll.talk.link.hang_up()
        with pytest.raises(ConnectionLost):
            await seeking
        assert asyncio.all_tasks() < before


async def test_an_answer_that_can_not_be_kept_ends_the_roll_call() -> None:
    """The store's exception comes out as it is, and nobody else is asked."""
    async with _roll(range(0x0010, 0x0020)) as roll:
        roll.fails_on = 0x0012
        with pytest.raises(StoreError):
            await roll.call.prove(range(0x0010, 0x0020))
        asked = len(roll.asked())
        assert asked < 16
        await asyncio.sleep(10.0)
        assert len(roll.asked()) == asked


async def test_a_cancelled_roll_call_leaves_no_worker() -> None:
    """A stopped run asks nobody any more."""
    async with _roll(range(0x0010, 0x0020), 0.9) as roll:
        before = asyncio.all_tasks()
        asking = asyncio.create_task(roll.call.prove(range(0x0010, 0x0020)))
        await asyncio.sleep(0.5)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert asyncio.all_tasks() == before


async def test_a_search_ends_with_enough() -> None:
    """What is under way then is waited for; no further question leaves."""
    async with _roll(range(0x0010, 0x0016), 0.3) as roll:
        enough_since: list[float] = []

        def enough() -> bool:
            if len(roll.answers) >= 2 and not enough_since:
                enough_since.append(CLOCK.monotonic())
            return bool(enough_since)

        await roll.call.search(AddressSearch(SHARE), enough)
        assert set(roll.answers) >= {0x0010, 0x0011}
        late = [at for at, _, _ in roll.questions() if at > enough_since[0]]
        # Workers that were waiting for their turn already.
        assert len(late) < CONCURRENCY
        assert len(roll.calmed) == 1


async def test_nothing_is_searched_when_it_is_enough() -> None:
    """Not a single question."""
    async with _roll([]) as roll:
        await roll.call.search(AddressSearch(SHARE), lambda: True)
        assert roll.questions() == []


async def test_a_search_finds_the_whole_tree() -> None:
    """Children of the Primary, then theirs, around a silent address; no answer is asked twice."""
    first_sub_share = SHARE.sub_shares()[0]
    tree = [*SHARE.children, first_sub_share.first, first_sub_share.first + 2]
    tree.remove(0x0012)
    async with _roll(tree) as roll:
        await roll.call.search(AddressSearch(SHARE), lambda: set(roll.answers) == set(tree))
        asked = roll.asked()
        assert set(roll.answers) == set(tree)
        assert all(asked.count(address) == 1 for address in tree)
        assert asked.count(0x0012) >= 1
        assert len(roll.calmed) == 2, "one for each pass"


async def test_a_search_that_finds_nothing_ends() -> None:
    """Four passes with their gaps: 1, 2, 6 and 6 children of the only share there is."""
    async with _roll([]) as roll:
        await roll.call.search(AddressSearch(SHARE), lambda: False)
        children = list(SHARE.children)
        assert roll.asked() == [*children[:1], *children[:2], *children, *children]
        assert len(roll.calmed) == 4


async def test_a_search_goes_on_where_the_link_was_lost() -> None:
    """What was tried in a pass is not tried again in it, over whichever link."""
    search = AddressSearch(SHARE)
    async with _roll([]) as roll:
        await roll.call.search(search, lambda: False)
    async with _roll([]) as roll:
        await roll.call.search(search, lambda: False)
        assert roll.questions() == []
