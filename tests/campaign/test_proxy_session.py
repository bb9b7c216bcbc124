"""A conversation over one proxy link: answers, losses, SEQ and IV Index."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.campaign.proxy_session import SEQ_LOW
from fastprovd.campaign.states import WAITS
from fastprovd.clock import SystemClock
from fastprovd.errors import (
    ConnectionLost,
    CopiedStore,
    LocalProtocolError,
    ProxySilent,
    ResponseTimeout,
    StoreError,
)
from fastprovd.mesh.access import encode_message
from fastprovd.mesh.events import OwnAddressHeard, PduOverheard
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.models.configuration import AppKeyAdd
from fastprovd.mesh.models.fast_provisioning import NodeAddrGet, NodeAddrStatus
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet, OnOffStatus
from fastprovd.mesh.network import NetworkPdu, encode_network_pdu
from fastprovd.mesh.proxy import FilterStatus, FilterType, ProxyPduType
from tests.support.fake_link import LATENCY_S, alter, drop, hang_up, hang_up_after, precede
from tests.support.fake_mesh import (
    APP_KEY,
    DEV_KEY,
    IV_INDEX,
    NET_KEY,
    PRIMARY,
    TOP,
    FakeMesh,
    FakeNode,
    FakeStore,
    Talk,
    talk,
    two_links,
)

CHILD, OTHER = 0x0010, 0x0011
CLOCK = SystemClock()


def _ask(t: Talk, address: int, **more: Any) -> Any:
    more = {"timeout_s": 2.0, **more}
    return t.session.request(OnOffGet(), dst=address, key=APP_KEY, ttl=3, **more)


def _node(address: int, onoff: bool, after_s: float = 0.0) -> FakeNode:
    return FakeNode(address, after_s, {OnOffGet: lambda _: OnOffStatus(onoff)})


async def test_the_filter_lets_everything_through() -> None:
    """Before anything else an empty reject list is set; its status tells who the proxy is."""
    async with talk() as t:
        assert await t.session.server_address == PRIMARY
        assert t.mesh.filter_types == [b"\x00\x01"]
        assert t.link.sent[0][1][0] is ProxyPduType.PROXY_CONFIGURATION


async def test_a_second_filter_status_is_ignored() -> None:
    """The proxy's address is told once, and a repeated status ends nothing."""
    async with talk(_node(PRIMARY, True)) as t:
        for _ in range(2):
            t.link.say(*t.mesh.filter_status())
        assert await t.session.server_address == PRIMARY
        assert (await _ask(t, PRIMARY)).present is True


async def test_a_proxy_is_asked_whether_it_is_there() -> None:
    """It answers its filter message again; one that does not is a lost link, after 2 s."""
    async with talk() as t:
        await t.session.server_address
        await t.session.check_proxy()
        assert t.mesh.filter_types == [b"\x00\x01"] * 2
        t.mesh.tells_filter = False
        begun = CLOCK.monotonic()
        with pytest.raises(ConnectionLost, match="does not answer any more"):
            await t.session.check_proxy()
        assert CLOCK.monotonic() - begun == WAITS["configuration"].seconds
        assert t.session.lost.is_set()


async def test_answers_reach_those_who_asked() -> None:
    """Three requests at once, answered in another order: each gets the Status of its node."""
    nodes = (_node(PRIMARY, True, 0.3), _node(CHILD, False, 0.2), _node(OTHER, True, 0.1))
    async with talk(*nodes) as t:
        answers = await asyncio.gather(*(_ask(t, node.address) for node in nodes))
        assert [answer.present for answer in answers] == [True, False, True]


async def test_two_requests_of_different_status_share_a_node() -> None:
    """The Status class tells the answers of one node apart."""
    node = _node(PRIMARY, True)
    node.answers[NodeAddrGet] = lambda _: NodeAddrStatus((CHILD,))
    async with talk(node) as t:
        onoff, listed = await asyncio.gather(
            _ask(t, PRIMARY),
            t.session.request(NodeAddrGet(), dst=PRIMARY, key=APP_KEY, timeout_s=2.0),
        )
        assert onoff == OnOffStatus(True)
        assert listed == NodeAddrStatus((CHILD,))


async def test_what_nobody_asked_for_answers_nobody() -> None:
    """Neither another node's Status, nor another Status or unknown message of the node."""
    asked, other = FakeNode(PRIMARY, answers={}), FakeNode(CHILD)
    async with talk(asked, other) as t:
        asking = asyncio.create_task(_ask(t, PRIMARY))
        await asyncio.sleep(0.5)
        for pdu in [
            *other.say(OnOffStatus(True), 0.0),
            *asked.say(NodeAddrStatus(()), 0.0),
            *asked.say(bytes.fromhex("c0ffff01"), 0.0),
        ]:
            t.link.say(*pdu)
        with pytest.raises(ResponseTimeout):
            await asking


async def test_a_second_request_to_a_node_is_refused() -> None:
    """Two requests for the same Status of a node would share an answer; the first one goes on."""
    async with talk(_node(PRIMARY, True)) as t:
        first = asyncio.create_task(_ask(t, PRIMARY))
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="0x0005 is already under way"):
            await t.session.request(OnOffSet(False, 1), dst=PRIMARY, key=APP_KEY, timeout_s=1.0)
        assert (await first).present is True
        assert (await _ask(t, PRIMARY)).present is True


async def test_a_request_is_repeated_as_often_as_told() -> None:
    """Lost questions cost one time limit each; when all are lost the request says so."""
    async with talk(_node(PRIMARY, True), to_board={1: drop, 2: drop}) as t:
        begun = CLOCK.monotonic()
        assert (await _ask(t, PRIMARY, attempts=3)).present is True
        assert CLOCK.monotonic() - begun == pytest.approx(4.0 + 2 * LATENCY_S)
        begun = CLOCK.monotonic()
        with pytest.raises(ResponseTimeout, match=r"OnOffGet to 0x0077 .* 2 attempts of 2.0 s"):
            await _ask(t, 0x0077, attempts=2)
        assert CLOCK.monotonic() - begun == pytest.approx(4.0)
        assert len(t.link.sent) == 1 + 3 + 2


async def test_a_late_answer_is_nobodys() -> None:
    """It comes after its request gave up, changes nothing, and the session goes on."""
    node = _node(PRIMARY, True, after_s=3.0)
    async with talk(node) as t:
        with pytest.raises(ResponseTimeout):
            await _ask(t, PRIMARY)
        await asyncio.sleep(2.0)
        node.after_s, node.answers[OnOffGet] = 0.0, lambda _: OnOffStatus(False)
        assert (await _ask(t, PRIMARY)).present is False


async def test_an_answer_that_comes_twice_counts_once() -> None:
    """A second Status in the same instant finds its request answered."""
    node = FakeNode(PRIMARY, answers={})
    async with talk(node) as t:
        asking = asyncio.create_task(_ask(t, PRIMARY))
        await asyncio.sleep(0.5)
        for pdu in [*node.say(OnOffStatus(True), 0.0), *node.say(OnOffStatus(False), 0.0)]:
            t.link.say(*pdu)
        assert (await asking).present is True


async def test_a_lost_link_ends_every_wait() -> None:
    """Requests under way raise ConnectionLost at once, later ones too, and `lost` is set."""
    async with talk(FakeNode(PRIMARY, answers={}), FakeNode(CHILD, answers={})) as t:
        asking = [asyncio.create_task(_ask(t, address)) for address in (PRIMARY, CHILD)]
        await asyncio.sleep(0.5)
        t.link.hang_up()
        begun = CLOCK.monotonic()
        for task in asking:
            with pytest.raises(ConnectionLost):
                await task
        assert CLOCK.monotonic() == begun
        assert t.session.lost.is_set()
        with pytest.raises(ConnectionLost):
            await _ask(t, PRIMARY)
        with pytest.raises(ConnectionLost):
            t.session.check()


async def test_a_link_lost_before_the_filter_opens_no_session() -> None:
    """Set Filter Type meets a link that goes: the body is never entered."""
    with pytest.raises(ConnectionLost):
        async with talk(to_board={0: hang_up}):
            raise AssertionError("there is no link")


async def test_an_answer_before_the_hang_up_counts() -> None:
    """What came before the link went is heard, as a board that hangs up after its answer needs."""
    async with talk(_node(PRIMARY, True), to_top={1: hang_up_after}) as t:
        assert (await _ask(t, PRIMARY)).present is True
        await asyncio.sleep(0)
        assert t.session.lost.is_set()


async def test_malformed_pdus_are_survived() -> None:
    """Cut, altered and foreign PDUs of every type are rejected, and the answer still comes."""
    garbage = [
        (pdu_type, payload)
        for pdu_type in ProxyPduType
        for payload in (b"", b"\x01", bytes(18), b"\xff" * 70)
    ]
    faults = {1: alter(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])), 2: precede(*garbage)}
    node = _node(PRIMARY, True)
    async with talk(node, to_top=faults) as t:
        with capture_logs() as logs:
            # A message of ours that is cut: opened by its keys, and refused above them.
            for pdu in node.say(bytes.fromhex("8204"), 0.0):
                t.link.say(*pdu)
            assert (await _ask(t, PRIMARY, attempts=2)).present is True
        rejected = [entry for entry in logs if entry["event"] == "pdu_rejected"]
        assert PRIMARY in [entry["src"] for entry in rejected]
        assert len(rejected) > 5


async def test_pdus_of_others_are_overheard() -> None:
    """What nodes say to each other goes to `overheard`, and nowhere when nobody listens."""
    async with talk(FakeNode(PRIMARY), FakeNode(CHILD)) as t:
        await t.session.server_address
        t.link.say(*t.mesh.overheard(CHILD, OTHER, device_key=True))
        await asyncio.sleep(0.1)
        heard: list[PduOverheard] = []
        t.session.overheard = heard.append
        t.link.say(*t.mesh.overheard(CHILD, PRIMARY, device_key=True))
        t.link.say(*t.mesh.overheard(CHILD, OTHER, device_key=False))
        assert (await _ask(t, PRIMARY)).present is False
        assert heard == [
            PduOverheard(CHILD, PRIMARY, device_key=True),
            PduOverheard(CHILD, OTHER, device_key=False),
        ]


async def test_segments_are_repeated_while_nothing_comes() -> None:
    """A segmented request is sent again by its own timer, not by the time limit of the request."""
    async with talk(FakeNode(PRIMARY), to_board={1: drop, 2: drop}) as t:
        await t.session.server_address
        with pytest.raises(ResponseTimeout):
            await t.session.request(
                AppKeyAdd(APP_KEY), dst=PRIMARY, key=DEV_KEY, ttl=0, timeout_s=3.0
            )
        begun = t.link.sent[1][0]
        # Two segments at once, both once more after 0.2 s at TTL 0; the node then has them.
        assert [round(at - begun, 6) for at, _ in t.link.sent[1:]] == [0.0, 0.0, 0.2, 0.2]
        (heard,) = t.mesh.proxy.heard
        assert heard.message.app_key.octets == APP_KEY.octets


async def test_a_deadline_moves_nearer_while_the_session_waits() -> None:
    """A board that is deaf gets all five rounds, though nothing ever wakes the receiver."""
    deaf = dict.fromkeys(range(1, 20), drop)
    async with talk(FakeNode(PRIMARY), to_board=deaf) as t:
        await asyncio.sleep(1.0)
        await t.session.send(AppKeyAdd(APP_KEY), dst=PRIMARY, key=DEV_KEY, ttl=0)
        begun = CLOCK.monotonic()
        await asyncio.sleep(5.0)
        times = sorted({round(at - begun, 6) for at, _ in t.link.sent[1:]})
        assert times == [0.0, 0.2, 0.4, 0.6, 0.8]


async def test_seq_are_reserved_before_they_are_used() -> None:
    """Blocks are in the store before a PDU of theirs leaves, and none is used twice."""
    async with talk(_node(PRIMARY, True)) as t:
        assert t.store.journal[0] == ("seq", 100, range(256))
        for _ in range(300):
            await _ask(t, PRIMARY)
        assert len(t.nonces.used) == 301
        assert t.top.stack.sequence.remaining >= SEQ_LOW - 1
        blocks = [entry[2] for entry in t.store.journal if entry[0] == "seq"]
        assert blocks == [range(0, 256), range(256, 512)]


async def test_nothing_leaves_when_no_seq_can_be_reserved() -> None:
    """A store that fails comes out as it is, before the first PDU."""
    store = FakeStore()
    store.fails.add("reserve_seq_block")
    with pytest.raises(StoreError):
        async with talk(store=store):
            raise AssertionError("there is no SEQ to open a session with")
    assert store.journal == []


async def test_a_store_that_fails_between_is_the_reason() -> None:
    """No lost link: whoever uses the session next is told why, and so is a second one."""

    async def use() -> None:
        async with talk(_node(PRIMARY, True)) as t:
            t.store.fails.add("set_iv_index")
            t.link.say(*t.mesh.move_iv_index(IvIndex(101)))
            await t.session.lost.wait()
            for _ in range(2):
                with pytest.raises(StoreError, match="the disk is full"):
                    t.session.check()
            raise AssertionError("what the body raises comes out as it is")

    with pytest.raises(AssertionError):
        await use()


async def test_a_conflict_that_was_not_stored_is_stored_later() -> None:
    """Nothing is sent any more at once, and once the disk takes it nothing after a restart."""
    async with talk(_node(PRIMARY, True)) as t:
        t.store.fails.add("note_conflict")
        await t.top.refuse(OwnAddressHeard(0, 9000, 300))
        with pytest.raises(CopiedStore):
            t.session.check()
        assert "conflict" not in [entry[0] for entry in t.store.journal]
        t.store.fails.clear()
        for _ in range(2):
            await t.top.keep_conflict()
        assert [entry[0] for entry in t.store.journal].count("conflict") == 1


async def test_a_new_iv_index_is_stored_before_it_is_used() -> None:
    """A beacon moves the IV Index: stored, SEQ begins again, and the mesh understands us."""
    async with talk(_node(PRIMARY, True)) as t:
        assert (await _ask(t, PRIMARY)).present is True
        t.link.say(*t.mesh.move_iv_index(IvIndex(101)))
        await asyncio.sleep(0.1)
        assert (await _ask(t, PRIMARY)).present is True
        assert t.store.journal[-2:] == [("iv_index", IvIndex(101)), ("seq", 101, range(256))]
        assert t.nonces.used[-1] == (101, 0)


async def test_an_iv_update_in_progress_goes_on_with_the_old_one() -> None:
    """We send under the old IV Index until the update is over, with numbers never used before."""
    async with talk(_node(PRIMARY, True)) as t:
        t.link.say(*t.mesh.move_iv_index(IvIndex(101, update_in_progress=True)))
        await asyncio.sleep(0.1)
        assert (await _ask(t, PRIMARY)).present is True
        assert t.nonces.used[-1] == (100, 256)
        t.link.say(*t.mesh.move_iv_index(IvIndex(101)))
        await asyncio.sleep(0.1)
        assert (await _ask(t, PRIMARY)).present is True
        assert t.nonces.used[-1] == (101, 0)


async def test_a_beacon_during_a_reservation_misuses_no_seq() -> None:
    """Who waits for SEQ of the old IV Index sends under the new one only with new numbers."""
    async with talk(_node(PRIMARY, True)) as t:
        await t.session.server_address
        while t.top.stack.sequence.remaining >= SEQ_LOW:
            await t.session.send(OnOffGet(), dst=OTHER, key=APP_KEY)
        t.store.gate.clear()
        t.store.reserving.clear()
        asking = asyncio.create_task(_ask(t, PRIMARY))
        await t.store.reserving.wait()
        t.link.say(*t.mesh.move_iv_index(IvIndex(101)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert t.top.stack.iv_index == IvIndex(101), "the beacon came meanwhile"
        t.store.gate.set()
        assert (await asking).present is True
        assert t.nonces.used[-1] == (101, 0)


async def test_seq_that_are_being_reserved_at_a_stop_are_not_lost() -> None:
    """Who asked is cancelled; the block is known all the same, and given back at the end."""
    async with talk(_node(PRIMARY, True)) as t:
        await t.session.server_address
        while t.top.stack.sequence.remaining >= SEQ_LOW:
            await t.session.send(OnOffGet(), dst=OTHER, key=APP_KEY)
        left = t.top.stack.sequence.remaining
        t.store.gate.clear()
        t.store.reserving.clear()
        asking = asyncio.create_task(_ask(t, PRIMARY))
        await t.store.reserving.wait()
        asking.cancel()
        await asyncio.sleep(0)
        t.store.gate.set()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert t.top.stack.sequence.remaining == left + 256


async def test_an_iv_index_that_was_not_stored_is_stored_next_time() -> None:
    """A session that breaks while it stores a new IV Index leaves no SEQ of the old one behind."""

    async def break_it() -> None:
        async with talk(_node(PRIMARY, True)) as t:
            broken.append(t)
            t.store.fails.add("set_iv_index")
            t.link.say(*t.mesh.move_iv_index(IvIndex(101)))
            await t.session.lost.wait()

    broken: list[Talk] = []
    with pytest.raises(StoreError):
        await break_it()
    (t,) = broken
    with pytest.raises(StoreError):
        await t.top.reserve_seq()
    t.store.fails.clear()
    await t.top.reserve_seq()
    assert t.top.stack.sequence.next == 0
    assert t.store.journal[-2:] == [("iv_index", IvIndex(101)), ("seq", 101, range(256))]


async def test_a_beacon_that_says_nothing_new_stores_nothing() -> None:
    """The beacon of every new link costs no SEQ."""
    async with talk(_node(PRIMARY, True)) as t:
        t.link.say(*t.mesh.move_iv_index(IV_INDEX))
        await asyncio.sleep(0.1)
        assert t.store.journal == [("seq", 100, range(256))]


async def test_each_proxy_is_spoken_to_over_its_own_link() -> None:
    """With two links at once each request, segments included, goes where it was asked for."""
    nodes = (_node(PRIMARY, True), _node(OTHER, False))
    for node in nodes:
        node.answers[NodeAddrGet] = lambda _: NodeAddrStatus(tuple(range(0x10, 0x20)))
    async with two_links(FakeMesh(nodes[0]), FakeMesh(nodes[1])) as (one, two):
        answers = await asyncio.gather(
            _ask(one, PRIMARY),
            _ask(two, OTHER),
            *(
                t.session.request(NodeAddrGet(), dst=a, key=APP_KEY, ttl=0, timeout_s=2.0)
                for t, a in ((one, PRIMARY), (two, OTHER))
            ),
        )
        assert [answer.present for answer in answers[:2]] == [True, False]
        # The segments of the list were acknowledged to the one that sent them.
        await asyncio.sleep(5.0)
        assert [len(node.messages(NodeAddrGet)) for node in nodes] == [1, 1]
        assert not any(node.stack.next_deadline() for node in nodes)


async def test_an_answer_may_come_over_another_link() -> None:
    """A node that heard us over one proxy is relayed to us by the other one, too."""
    far = _node(CHILD, True, 0.5)
    mesh, deaf = FakeMesh(FakeNode(PRIMARY), far), FakeMesh(FakeNode(OTHER))
    async with two_links(mesh, deaf) as (one, two):
        asking = asyncio.create_task(_ask(one, CHILD))
        await asyncio.sleep(0.2)
        # The very PDU that its own proxy is about to bring.
        (said,) = far.say(OnOffStatus(True), 0.0)
        two.link.say(*said)
        await asyncio.sleep(0.1)
        assert asking.done()
        assert (await asking).present is True
        await asyncio.sleep(1.0)
        assert (await _ask(one, CHILD)).present is True


async def test_a_lost_link_ends_its_own_requests_only() -> None:
    """What is asked over the other link is answered, and what comes later takes that way."""
    nodes = [_node(PRIMARY, True, 1.0), _node(OTHER, False, 1.0)]
    far = _node(CHILD, True)
    first = FakeMesh(nodes[0])
    async with two_links(first, FakeMesh(nodes[1], far)) as (one, two):
        lost, kept = (
            asyncio.create_task(_ask(t, node.address))
            for t, node in zip((one, two), nodes, strict=True)
        )
        await asyncio.sleep(0.5)
        one.link.hang_up()
        assert (await kept).present is False
        with pytest.raises(ConnectionLost):
            await lost
        with pytest.raises(ConnectionLost):
            await _ask(one, CHILD)
        assert (await _ask(two, CHILD)).present is True


# Under which key


@pytest.mark.parametrize(
    ("asked_with", "answered_with"), [(DEV_KEY, APP_KEY), (APP_KEY, DEV_KEY)], ids=["app", "dev"]
)
async def test_a_status_under_another_key_answers_nobody(
    asked_with: Any, answered_with: Any
) -> None:
    """Whoever has the AppKey can speak in a node's name, not as its Configuration Server."""
    node = FakeNode(PRIMARY, answers={})
    async with talk(node) as t:
        t.top.stack.dev_keys[PRIMARY] = DEV_KEY
        asking = asyncio.create_task(
            t.session.request(OnOffGet(), dst=PRIMARY, key=asked_with, timeout_s=2.0)
        )
        await asyncio.sleep(0.5)
        node.stack.send(encode_message(OnOffStatus(True)), dst=TOP, key=answered_with, now=0.0)
        for pdu in node.take_pdus():
            t.link.say(*pdu)
        with pytest.raises(ResponseTimeout):
            await asking


async def test_our_own_address_is_no_proxys() -> None:
    """A Filter Status from it is nobody's: anybody with the NetKey can make one."""
    async with talk() as t:
        await t.session.server_address
        ours = PRIMARY
        t.session.server_address = asyncio.get_running_loop().create_future()
        status = FilterStatus(FilterType.REJECT_LIST, 0).encode()
        for src in (TOP, ours):
            pdu = NetworkPdu(1, 0, 500, src, 0, status, IV_INDEX.transmit)
            raw = encode_network_pdu(pdu, NET_KEY, proxy_configuration=True)
            t.link.say(ProxyPduType.PROXY_CONFIGURATION, raw)
        assert await t.session.server_address == ours
        assert t.top.stack.replay.entries() == []


async def test_a_proxy_that_became_another_node_is_given_up() -> None:
    """A board that restarted and was taken again answers, but it is not whom we wanted."""
    async with talk() as t:
        t.session.expected = PRIMARY
        await t.session.check_proxy()
        t.session.expected = CHILD
        with pytest.raises(ProxySilent, match="0x0005 now"):
            await t.session.check_proxy()


async def test_an_acknowledgment_waits_for_seq_of_the_new_iv_index() -> None:
    """A beacon over one link takes the old SEQ from what another link has to acknowledge."""
    near, far = FakeMesh(FakeNode(PRIMARY)), FakeMesh(FakeNode(CHILD))
    async with two_links(near, far) as (t, other):
        await _ask(t, PRIMARY)
        *first, last = far.nodes[CHILD].say(NodeAddrStatus(tuple(range(16, 32))), 0.0)
        for pdu in first:
            other.link.say(*pdu)
        await asyncio.sleep(0.05)
        t.store.gate.clear()
        t.store.reserving.clear()
        beacon = near.move_iv_index(IvIndex(101))
        far.move_iv_index(IvIndex(101))
        t.link.say(*beacon)
        await t.store.reserving.wait()
        before = len(other.link.sent)
        other.link.say(*last)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(other.link.sent) == before, "nothing can be sent now"
        t.store.gate.set()
        await asyncio.sleep(1.0)
        await _ask(t, PRIMARY)
        assert [seq for iv, seq in t.nonces.used if iv == 101] == [0]
