"""The proxy of the emulated boards: filter, forwarding, beacon."""

from __future__ import annotations

import asyncio

from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws
from fastprovd.mesh.beacons import SecureNetworkBeacon
from fastprovd.mesh.events import FilterStatusReceived
from fastprovd.mesh.models.configuration_states import GattProxySet
from fastprovd.mesh.models.fast_provisioning import NodeAddr
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet, OnOffSetUnacknowledged
from fastprovd.mesh.proxy import (
    AddAddresses,
    FilterStatus,
    FilterType,
    ProxyConfiguration,
    ProxyPduType,
    RemoveAddresses,
    SetFilterType,
)
from tests.emulator.top import PROXY, Top, address_of


async def prepared(air: Air | None = None) -> Top:
    air = air or Air()
    air.add_board(address_of(1), flaws=Flaws.none())
    top = Top(air)
    await top.prepare()
    await asyncio.sleep(0.1)
    return top


async def configure(top: Top, message: ProxyConfiguration) -> FilterStatus:
    top.client.configure(message)
    top.flush()
    await asyncio.sleep(0.2)
    event = top.events[-1][1]
    assert isinstance(event, FilterStatusReceived)
    return event.status


def beacons(top: Top) -> list[bytes]:
    return [raw for _, pdu_type, raw in top.proxy_pdus if pdu_type is ProxyPduType.MESH_BEACON]


async def test_the_filter_holds_four_addresses() -> None:
    """The Top's own address counts, duplicates count once, a fifth address is ignored."""
    top = await prepared()
    accept = FilterType.ACCEPT_LIST
    assert await configure(top, AddAddresses((0xC000,))) == FilterStatus(accept, 2)
    assert await configure(top, AddAddresses((0xC000, 0xC001))) == FilterStatus(accept, 3)
    added = AddAddresses((0xC002, 0xC003, 0xC004))
    assert await configure(top, added) == FilterStatus(accept, 4)
    assert await configure(top, RemoveAddresses((0xC000,))) == FilterStatus(accept, 3)
    assert await configure(top, SetFilterType(FilterType.REJECT_LIST)) == FilterStatus(
        FilterType.REJECT_LIST, 0
    )


async def test_only_a_fresh_link_gets_one_beacon() -> None:
    """The link that was kept over Complete gets none, a reconnect one within 0.11 s."""
    top = await prepared()
    await asyncio.sleep(1.0)
    assert beacons(top) == []
    top.disconnect()
    await top.connect(await top.find_proxy(5))
    begun = top.loop.time()
    top.subscribe(PROXY)
    await asyncio.sleep(5.0)
    assert len(beacons(top)) == 1
    beacon = SecureNetworkBeacon.decode(beacons(top)[0], [top.net_key])
    assert beacon is not None
    assert beacon.iv_index == top.stack.iv_index
    at = next(t for t, kind, _ in top.proxy_pdus[::-1] if kind is ProxyPduType.MESH_BEACON)
    assert 0.015 <= at - begun <= 0.11


async def test_without_ccc_nothing_is_forwarded() -> None:
    """PDUs are processed without the CCC write, but the Top's address is not learnt."""
    top = await prepared()
    top.disconnect()
    await top.connect(await top.find_proxy(5))
    assert top.link is not None
    handle = next(s for s in top.link.services() if s.uuid == PROXY)
    top._data_in = handle.characteristics[0].value_handle
    before = len(top.notified_values)
    top.send(NodeAddr((0x0123,)), dst=5)
    await asyncio.sleep(1.0)
    assert len(top.notified_values) == before
    assert top.air.board(address_of(1)).listed_addresses == (0x0123,)
    top.subscribe(PROXY)
    assert await top.list_addresses() == (0x0123,)


async def test_the_top_hears_its_own_all_nodes_message() -> None:
    """The proxy passes FFFF on to the link it came from, TTL one less."""
    top = await prepared()
    before = len(top.proxy_pdus)
    top.send(OnOffGet(), dst=0xFFFF)
    await asyncio.sleep(0.3)
    heard = [top.stack.decode(raw) for _, _, raw in top.proxy_pdus[before:]]
    assert {(pdu.src, pdu.ttl) for pdu in heard if pdu is not None} == {(1, 6), (5, 7)}


async def test_several_links_each_get_what_they_ask_for() -> None:
    """A board serves two links; an answer goes to each link that knows its destination."""
    top = await prepared()
    other = Top(top.air, adapter="hci1", first_seq=5000)
    other.stack.dev_keys.update(top.stack.dev_keys)
    await other.connect(address_of(1))
    other.subscribe(PROXY)
    await other.request(OnOffGet(), dst=5)
    await asyncio.sleep(0.2)
    before = len(top.received), len(other.received)
    other.send(OnOffGet(), dst=5)
    await asyncio.sleep(0.3)
    assert (len(top.received), len(other.received)) == (before[0] + 1, before[1] + 1)


async def test_a_board_with_its_proxy_off_answers_for_itself_alone() -> None:
    """A new link to it gets a beacon and its own answers; GATT and the air are not joined."""
    air = Air(1)
    other = air.add_board(address_of(2), flaws=Flaws.none())
    second = Top(air, adapter="hci1")
    await second.prepare(6)
    top = await prepared(air)
    await top.request(GattProxySet(0), dst=5, key=top.stack.dev_keys[5])
    top.disconnect()
    await top.connect(await top.find_proxy(5))
    top.subscribe(PROXY)
    await top.request(OnOffGet(), dst=5, ttl=0)
    assert len(beacons(top)) == 1
    await configure(top, SetFilterType(FilterType.REJECT_LIST))
    heard = len(top.proxy_pdus)
    top.send(OnOffSet(True, 1), dst=6)
    top.send(OnOffSetUnacknowledged(True, 2), dst=0xFFFF)
    second.send(OnOffSet(False, 3), dst=0x0100)
    await asyncio.sleep(2.0)
    assert not other.onoff
    assert len(top.proxy_pdus) == heard
    assert air.board(address_of(1)).onoff
