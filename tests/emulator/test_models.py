"""Which model of a board gets a message."""

from __future__ import annotations

import asyncio

from fastprovd.emulator.air import Air
from fastprovd.mesh.access import encode_message
from fastprovd.mesh.models.configuration import AppKeyAdd, CompositionDataGet
from fastprovd.mesh.models.fast_provisioning import InfoSet, NodeAddrGet
from fastprovd.mesh.models.generic_onoff import OnOffGet
from tests.emulator.top import Top, address_of


async def test_app_traffic_before_the_bind_is_dropped() -> None:
    """The AppKey is usable some milliseconds after its Status was made."""
    air = Air(1)
    board = air.add_board(address_of(1))
    top = Top(air)
    await top.connect(await top.find_unprovisioned())
    dev_key = await top.provision(5)
    node = board.node
    assert node is not None
    add, get = AppKeyAdd(top.app_key), OnOffGet()
    for message, key in ((add, dev_key), (get, top.app_key)):
        top.stack.send(encode_message(message), dst=5, key=key, ttl=7, now=top.loop.time())
    node.proxy.open(board._links[0], is_fresh=False)
    before = node.stack.sequence.next
    for out in top.stack.pdus_to_send():
        node.receive_from_gatt(out.pdu)
    sent = (node.stack.sequence.next or 0) - (before or 0)
    assert sent == 2  # Segment Ack and AppKey Status, no OnOff Status


async def test_only_the_light_listens_to_groups() -> None:
    """OnOff messages to a subscribed group are taken, vendor messages only to node or FFFF."""
    air = Air(1)
    air.add_board(address_of(1))
    top = Top(air)
    await top.prepare()
    await asyncio.sleep(0.1)
    await top.request(InfoSet(group_addr=0xC000), dst=5)

    async def answers(message: OnOffGet | NodeAddrGet, dst: int) -> int:
        before = len(top.received)
        top.send(message, dst=dst)
        await asyncio.sleep(0.5)
        return len(top.received) - before

    assert await answers(OnOffGet(), 0xC000) == 1
    assert await answers(NodeAddrGet(), 0xC000) == 0
    assert await answers(NodeAddrGet(), 0xFFFF) == 1
    assert await answers(OnOffGet(), 0xC001) == 0


async def test_config_needs_the_dev_key() -> None:
    """A Config message under the AppKey is not answered."""
    air = Air(1)
    air.add_board(address_of(1))
    top = Top(air)
    await top.prepare()
    await asyncio.sleep(0.1)
    before = len(top.received)
    top.send(CompositionDataGet(), dst=5)
    await asyncio.sleep(0.5)
    assert len(top.received) == before
    await top.request(CompositionDataGet(), dst=5, key=top.stack.dev_keys[5])
