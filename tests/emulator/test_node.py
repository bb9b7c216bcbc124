"""The mesh node of a board: relay, TTL, replay list, network cache."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.frames import MeshFrame
from fastprovd.emulator.hosts import Flaws
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.models.fast_provisioning import NodeAddr, NodeGroupAdd
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSetUnacknowledged, OnOffStatus
from fastprovd.mesh.network import NetworkPdu, encode_network_pdu
from fastprovd.mesh.proxy import ProxyPduType
from tests.emulator.top import Top, address_of


class ListeningAir(Air):
    """Remembers every Network PDU on the advertising bearer in the clear."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sent: list[tuple[Board, NetworkPdu]] = []

    def send_mesh(self, sender: Board, frame: MeshFrame, times: list[float]) -> None:
        pdu = frame.network.decode(frame.raw, IvIndex())
        assert pdu is not None
        self.sent.append((sender, pdu))
        super().send_mesh(sender, frame, times)


async def network(boards: int = 3, seed: int = 1) -> tuple[ListeningAir, Top, Board]:
    """Return a network that is complete, the Top connected to its Primary."""
    air = ListeningAir(seed)
    for number in range(1, boards + 1):
        air.add_board(address_of(number), flaws=Flaws.none())
    top = Top(air)
    primary = air.board(await top.prepare())
    await top.start(count=1)
    await asyncio.sleep(40.0)
    await top.back()
    await asyncio.sleep(1.0)
    air.sent.clear()
    return air, top, primary


@pytest.mark.parametrize("ttl", [0, 2, 3, 4, 7])
async def test_only_ttl_3_gets_past_the_primary(ttl: int) -> None:
    """The Primary itself answers any TTL, a child is reached from TTL 3 on."""
    _, top, _ = await network()
    answer = await top.request(OnOffGet(), dst=5, ttl=ttl)
    assert answer[0].message == OnOffStatus(False)
    if ttl >= 3:
        answer = await top.request(OnOffGet(), dst=0x10, ttl=ttl)
        assert (answer[0].src, answer[0].ttl) == (0x10, 6)
    else:
        with pytest.raises(TimeoutError):
            await top.request(OnOffGet(), dst=0x10, ttl=ttl)


async def test_an_answer_takes_about_a_tenth_of_a_second() -> None:
    """Unicast OnOff Get one after the other: about 0.1 s per node, all answered at once."""
    _, top, _ = await network(7)
    nodes = sorted(
        board.unicast_address for board in top.air.boards if board.unicast_address is not None
    )
    begun = top.loop.time()
    for node in nodes:
        answer = await top.request(OnOffGet(), dst=node, timeout_s=0.5)
        assert answer[0].src == node
    assert 0.03 <= (top.loop.time() - begun) / len(nodes) <= 0.2


async def test_a_pdu_is_relayed_once_by_each() -> None:
    """The Primary passes it on with TTL 6, the others relay with TTL 5, nobody twice."""
    air, top, primary = await network(5)
    top.send(OnOffSetUnacknowledged(True, 1), dst=0xC000)
    await asyncio.sleep(2.0)
    ttls = sorted((pdu.ttl for _, pdu in air.sent if pdu.src == 1), reverse=True)
    assert ttls == [6, 5, 5, 5, 5]
    assert len({sender for sender, pdu in air.sent if pdu.src == 1}) == 5
    assert all(board.onoff for board in air.boards)
    assert primary.onoff


async def test_what_is_for_a_client_stays_off_the_air() -> None:
    """The Primary's answers to its client are not advertised, and it relays nothing by air."""
    air, top, primary = await network()
    await top.request(OnOffGet(), dst=5)
    await top.request(OnOffGet(), dst=0x10)
    assert all(pdu.src == 1 for sender, pdu in air.sent if sender is primary)
    assert any(pdu.dst == 1 for sender, pdu in air.sent if sender is not primary)


async def test_vendor_answers_have_ttl_0() -> None:
    """A child's NODE_ADDR_ACK does not reach the Top through the Primary."""
    air, top, _ = await network()
    before = len(top.received)
    top.send(NodeAddr((0x0010,)), dst=0x10)
    await asyncio.sleep(2.0)
    assert len(top.received) == before
    answers = [pdu for _, pdu in air.sent if pdu.src == 0x10]
    assert [(pdu.dst, pdu.ttl) for pdu in answers] == [(1, 0)]


async def test_a_61st_source_is_ignored() -> None:
    """The replay list has 60 sources; who is in it goes on being heard."""
    air = Air(1)
    board = air.add_board(address_of(1), flaws=Flaws.none())
    top = Top(air)
    await top.prepare()
    await asyncio.sleep(0.1)
    assert board.node is not None
    for source in range(0x0100, 0x0100 + 61):
        tap = Top(air, adapter=f"tap{source}")
        tap.stack.address = source
        tap.stack.send(bytes.fromhex("8201"), dst=5, key=top.app_key, ttl=0, now=air.loop.time())
        for out in tap.stack.pdus_to_send():
            board.node.receive_from_gatt(out.pdu)
    known = {src for src, _, _ in board.node.stack.replay.entries()}
    assert len(known) == 60
    assert 0x0100 + 60 not in known
    await top.request(OnOffGet(), dst=5)


async def test_a_replayed_message_is_ignored() -> None:
    """The same Network PDU again, and an older SEQ after a reconnect, are not answered."""
    _, top, _ = await network()
    await top.request(OnOffGet(), dst=5)
    seq = top.stack.sequence.next
    assert seq is not None
    before = len(top.received)
    pdu = NetworkPdu(0, 7, seq - 1, 1, 5, bytes(8))
    top.write(ProxyPduType.NETWORK_PDU, encode_network_pdu(pdu, top.net_key))
    old = Top(top.air, first_seq=1, adapter="hci1")
    old.stack.send(b"\x82\x01", dst=5, key=top.app_key, ttl=7, now=top.loop.time())
    for pdu_type, raw in old.client.pdus_to_send():
        top.write(pdu_type, raw)
    await asyncio.sleep(1.0)
    assert len(top.received) == before
    assert top.link is not None


async def test_the_network_cache_forgets_after_60() -> None:
    """An old PDU that is heard again after 60 others is relayed again."""
    air, top, primary = await network()
    child = next(board for board in air.boards if board is not primary)
    assert child.node is not None
    pdus = [NetworkPdu(0, 7, seq, 0x0700, 0x0701, bytes(8)) for seq in range(61)]
    frames = [child.node.network.frame(encode_network_pdu(pdu, top.net_key), pdu) for pdu in pdus]
    for frame in frames[:60]:
        air._deliver_mesh(primary, frame)
    assert all(frame.flood.heard >> child.bit & 1 for frame in frames[:60])
    air._deliver_mesh(primary, frames[60])
    assert not frames[0].flood.heard >> child.bit & 1
    assert frames[1].flood.heard >> child.bit & 1


async def test_groups_have_three_places() -> None:
    """A fourth group is not subscribed to, and nobody is told."""
    air, top, primary = await network()
    for group in (0xC010, 0xC011, 0xC012):
        top.send(NodeGroupAdd(group, (5, 0x10)), dst=0xFFFF)
        await asyncio.sleep(0.5)
    assert primary.groups == {0xC000, 0xC010, 0xC011}
    top.send(OnOffSetUnacknowledged(True, 1), dst=0xC010)
    await asyncio.sleep(1.0)
    assert {b.unicast_address for b in air.boards if b.onoff} == {5, 0x10}
