"""Configuration Server and Generic OnOff Server of the boards."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws
from fastprovd.mesh.access import Message
from fastprovd.mesh.beacons import decode_service_data
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.configuration import (
    AppKeyAdd,
    AppKeyStatus,
    CompositionDataGet,
    FoundationStatus,
)
from fastprovd.mesh.models.configuration_states import (
    GattProxyGet,
    GattProxySet,
    GattProxyStatus,
    NodeIdentityGet,
    NodeIdentitySet,
    NodeIdentityStatus,
    SigModelSubscriptionGet,
    SigModelSubscriptionList,
)
from fastprovd.mesh.models.configuration_subscriptions import (
    ModelSubscriptionAdd,
    ModelSubscriptionDelete,
    ModelSubscriptionStatus,
)
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet, OnOffStatus
from tests.emulator.top import PROXY, Top, address_of, payload_of


async def prepared() -> Top:
    air = Air(1)
    air.add_board(address_of(1), flaws=Flaws.none())
    top = Top(air)
    await top.prepare()
    await asyncio.sleep(0.1)
    return top


async def ask(top: Top, message: Message) -> object:
    answer = await top.request(message, dst=5, key=top.stack.dev_keys[5])
    assert answer[0].ttl == 7
    return answer[0].message


async def test_app_key_add_has_the_measured_statuses() -> None:
    """Same key 00, other key 06, unknown NetKey 04, second index 00, table full 05."""
    top = await prepared()
    other = bytes(16)
    cases = [
        (AppKey(top.app_key.octets), 0x00),
        (AppKey(other), 0x06),
        (AppKey(other, 1, 1), 0x04),
        (AppKey(other, 1), 0x00),
        (AppKey(other, 2), 0x00),
        (AppKey(other, 3), 0x05),
    ]
    for key, status in cases:
        expected = AppKeyStatus(FoundationStatus(status), key.bound_net_key_index, key.index)
        assert await ask(top, AppKeyAdd(key)) == expected


async def test_composition_is_page_0_whatever_is_asked() -> None:
    """28 octets as measured, for other page numbers too."""
    top = await prepared()
    for page in (0, 1, 255):
        answer = await ask(top, CompositionDataGet(page))
        assert payload_of(answer).hex() == (  # type: ignore[arg-type]
            "0200e502000000003c00030000000302000001000010e5020100e5020000"
        )


async def test_states_that_do_not_exist() -> None:
    """An unknown NetKey, element or model is named in the status."""
    top = await prepared()
    assert await ask(top, NodeIdentityGet(1)) == NodeIdentityStatus(
        FoundationStatus.INVALID_NET_KEY_INDEX, 1, 0
    )
    assert await ask(top, SigModelSubscriptionGet(6, 0x1000)) == SigModelSubscriptionList(
        FoundationStatus.INVALID_ADDRESS, 6, 0x1000, ()
    )
    assert await ask(top, SigModelSubscriptionGet(5, 0x1001)) == SigModelSubscriptionList(
        FoundationStatus.INVALID_MODEL, 5, 0x1001, ()
    )


async def advertised(top: Top, seconds: float = 1.2) -> set[str]:
    """Listen, and return which kinds of proxy advertisement were heard."""
    heard: set[str] = set()
    stop = top.port.observe(
        lambda report: heard.update(
            type(decode_service_data(PROXY, data)).__name__
            for uuid, data in report.service_data.items()
            if uuid == PROXY
        )
    )
    await asyncio.sleep(seconds)
    stop()
    return heard


async def test_gatt_proxy_off_keeps_the_link_and_node_identity() -> None:
    """The Status comes on the link, which stays; after the minute nothing is advertised."""
    top = await prepared()
    assert await ask(top, GattProxySet(1)) == GattProxyStatus(1)
    begun = top.loop.time()
    assert await ask(top, GattProxySet(0)) == GattProxyStatus(0)
    assert top.loop.time() - begun < 0.1
    assert await ask(top, GattProxyGet()) == GattProxyStatus(0)
    await top.request(OnOffGet(), dst=5, ttl=0)
    assert await advertised(top) == {"NodeIdentity"}
    assert top.disconnections == []
    top.disconnect()
    assert await advertised(top) == {"NodeIdentity"}
    await asyncio.sleep(60.0)
    assert await advertised(top, 30.0) == set()
    assert not top.air.boards[0].is_silent


async def test_a_network_id_stays_until_the_hang_up() -> None:
    """Node Identity Set 0, then GATT Proxy Set 0: off the air from the hang-up on, not before."""
    top = await prepared()
    await ask(top, NodeIdentitySet(0, 0))
    assert await ask(top, GattProxySet(0)) == GattProxyStatus(0)
    await asyncio.sleep(2.0)
    assert await advertised(top) == {"NetworkIdentity"}
    await top.request(OnOffGet(), dst=5, ttl=0)
    top.disconnect()
    assert await advertised(top, 75.0) == set()


async def test_node_identity_is_stopped_with_the_proxy_off() -> None:
    """Accepted in this order too; the board leaves the air at once."""
    top = await prepared()
    await ask(top, GattProxySet(0))
    answer = await ask(top, NodeIdentitySet(0, 0))
    assert answer == NodeIdentityStatus(FoundationStatus.SUCCESS, 0, 0)
    assert await advertised(top, 5.0) == set()
    assert top.disconnections == []


async def test_gatt_proxy_is_set_back() -> None:
    """The state is only stored: Network ID is advertised from the next start of advertising on."""
    top = await prepared()
    await ask(top, NodeIdentitySet(0, 0))
    await ask(top, GattProxySet(0))
    await ask(top, NodeIdentitySet(0, 0))
    assert await ask(top, GattProxySet(1)) == GattProxyStatus(1)
    assert await advertised(top) == set()
    top.disconnect()
    assert await advertised(top) == {"NetworkIdentity"}


async def test_node_identity_is_stopped_and_started() -> None:
    """Without it the board advertises its Network ID instead, at once and on the open link."""
    top = await prepared()
    board = top.air.boards[0]
    begun = top.loop.time()
    top.send(NodeIdentitySet(0, 0), dst=5, key=top.stack.dev_keys[5])
    network_id = b"\x00" + top.net_key.network_id
    report = await top.find(lambda r: r.service_data.get(PROXY) == network_id, 1.0)
    assert report.device_address == board.device_address
    assert top.loop.time() - begun < 0.06
    await asyncio.sleep(0.1)
    for on, kind in ((0, "NetworkIdentity"), (1, "NodeIdentity")):
        answer = await ask(top, NodeIdentitySet(0, on))
        assert answer == NodeIdentityStatus(FoundationStatus.SUCCESS, 0, on)
        assert await advertised(top) == {kind}
    assert await ask(top, NodeIdentitySet(1, 0)) == NodeIdentityStatus(
        FoundationStatus.INVALID_NET_KEY_INDEX, 1, 0
    )


async def test_subscriptions_are_added_and_deleted() -> None:
    """Three groups fit, again is no error, a fourth is; no group and no model are refused."""
    top = await prepared()

    async def change(message: Message) -> FoundationStatus:
        answer = await ask(top, message)
        assert isinstance(answer, ModelSubscriptionStatus)
        return answer.status

    (board,) = top.air.boards
    for group in (0xC010, 0xC011, 0xC012, 0xC010):
        assert await change(ModelSubscriptionAdd(5, group, 0x1000)) is FoundationStatus.SUCCESS
    full = FoundationStatus.INSUFFICIENT_RESOURCES
    assert await change(ModelSubscriptionAdd(5, 0xC013, 0x1000)) is full
    assert board.groups == {0xC010, 0xC011, 0xC012}
    for _ in range(2):
        gone = await change(ModelSubscriptionDelete(5, 0xC010, 0x1000))
        assert gone is FoundationStatus.SUCCESS
    assert board.groups == {0xC011, 0xC012}
    no_address, no_model = FoundationStatus.INVALID_ADDRESS, FoundationStatus.INVALID_MODEL
    assert await change(ModelSubscriptionAdd(5, 0x0006, 0x1000)) is no_address
    assert await change(ModelSubscriptionAdd(5, 0xFFFF, 0x1000)) is no_address
    assert await change(ModelSubscriptionAdd(6, 0xC013, 0x1000)) is no_address
    assert await change(ModelSubscriptionAdd(5, 0xC013, 0x1001)) is no_model


async def test_a_repeated_set_changes_nothing() -> None:
    """The same TID within 6 s is a repeat and still answered; later it is a new Set."""
    top = await prepared()

    async def say(message: Message) -> object:
        return (await top.request(message, dst=5))[0].message

    assert await say(OnOffSet(True, 1)) == OnOffStatus(True)
    assert await say(OnOffSet(False, 1)) == OnOffStatus(True)
    assert await say(OnOffSet(False, 2)) == OnOffStatus(False)
    await asyncio.sleep(6.1)
    assert await say(OnOffSet(True, 2)) == OnOffStatus(True)
    assert await say(OnOffGet()) == OnOffStatus(True)


async def test_what_is_not_understood_is_not_answered() -> None:
    """Unknown opcodes and malformed messages are dropped without a word."""
    top = await prepared()
    for payload in ("8099", "800801ff", "00"):
        with pytest.raises(TimeoutError):
            await top.request(
                bytes.fromhex(payload), dst=5, key=top.stack.dev_keys[5], timeout_s=0.5
            )
    with pytest.raises(TimeoutError):
        await top.request(bytes.fromhex("820405"), dst=5, timeout_s=0.5)
    await top.request(OnOffGet(), dst=5)
