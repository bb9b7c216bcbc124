"""Signals count from the owner of org.bluez, for us and for bleak; others end nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.bluez_owner import BluezOwner
from fastprovd.emulator.private_bus import PrivateBus
from tests.support.doors import bench

HCI0 = "/org/bluez/hci0"
BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


def signal(path: str, interface: str, member: str, signature: str, *body: Any) -> Message:
    return Message(
        message_type=MessageType.SIGNAL,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=list(body),
    )


def properties(path: str, interface: str, **values: Variant) -> Message:
    body = (interface, values, [])
    return signal(path, f"{BUS}.Properties", "PropertiesChanged", "sa{sv}as", *body)


def removed(path: str, interface: str) -> Message:
    return signal("/", f"{BUS}.ObjectManager", "InterfacesRemoved", "oas", path, [interface])


def changed(old: str, new: str) -> Message:
    return signal(BUS_PATH, BUS, "NameOwnerChanged", "sss", "org.bluez", old, new)


def said_by(sender: str, message: Message) -> Message:
    message.sender = sender
    return message


def test_the_owner_is_followed() -> None:
    """Through what the bus says of this name, and through nothing that somebody else says."""
    owner = BluezOwner()
    powered = properties(HCI0, "org.bluez.Adapter1", Powered=Variant("b", False))
    assert not owner.is_said(said_by(":1.7", powered))
    assert not owner.is_known
    assert owner.is_said(said_by(BUS, changed("", ":1.7")))
    assert owner.is_said(said_by(":1.7", powered))
    assert not owner.is_said(said_by(":1.8", changed(":1.7", ":1.8")))
    assert not owner.is_said(said_by(":1.7", changed(":1.7", "")))
    assert not owner.is_said(said_by(BUS, removed(HCI0, "org.bluez.Adapter1")))
    assert owner.is_said(said_by(":1.7", powered))
    assert owner.is_said(said_by(BUS, changed(":1.7", "")))
    assert not owner.is_said(said_by(":1.7", powered))
    assert owner.is_known


def strange(device: str) -> dict[str, Message]:
    """Return what a stranger may say."""
    return {
        "powered": properties(HCI0, "org.bluez.Adapter1", Powered=Variant("b", False)),
        "powered?": properties(HCI0, "org.bluez.Adapter1", Powered=Variant("s", "no")),
        "disconnected": properties(device, "org.bluez.Device1", Connected=Variant("b", False)),
        "unresolved": properties(device, "org.bluez.Device1", ServicesResolved=Variant("b", False)),
        "owner": changed(":1.0", ""),
        "no owner": signal("/x", "x.y", "NameOwnerChanged", "s", "org.bluez"),
        "adapter": removed(HCI0, "org.bluez.Adapter1"),
        "device": removed(device, "org.bluez.Device1"),
        "text": signal("/", "x.y", "InterfacesRemoved", "s", "/org/bluez/hci0"),
        "empty": signal("/", f"{BUS}.ObjectManager", "InterfacesAdded", ""),
        "wrong types": signal(
            "/", "x.y", "InterfacesAdded", "sa{ss}", "/x", {"org.bluez.GattCharacteristic1": "x"}
        ),
        "short path": signal(
            "/",
            f"{BUS}.ObjectManager",
            "InterfacesAdded",
            "oa{sa{sv}}",
            "/x",
            {"org.bluez.GattCharacteristic1": {"UUID": Variant("s", "2ade")}},
        ),
    }


@pytest.mark.parametrize("kind", strange("/x"))
async def test_what_a_stranger_signals_is_not_believed(
    private_bus: PrivateBus, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Sent to everybody and to each name on the bus: the link stays, and the next one opens."""
    async with bench(private_bus) as b, BleakBearer() as bearer:
        async with bearer.scan() as scan, asyncio.timeout(10):
            address = (await anext(scan)).device_address
        message = strange(f"{HCI0}/dev_{address.replace(':', '_')}")[kind]
        async with bearer.provisioning_link(address) as link:
            await tell_everybody(private_bus, message, b.bluetoothd._bus)
            await asyncio.sleep(1)
            assert link.is_connected
        async with bearer.scan() as scan, asyncio.timeout(10):
            await anext(scan)
        async with bearer.provisioning_link(address) as link:
            assert link.is_connected
        assert b.board.log.count("connected") == 2
    assert "exception" not in caplog.text


async def tell_everybody(
    private_bus: PrivateBus, message: Message, bluetoothd: MessageBus | None
) -> None:
    stranger = await MessageBus(bus_address=private_bus.address).connect()
    ask = Message(destination=BUS, path=BUS_PATH, interface=BUS, member="ListNames")
    reply = await stranger.call(ask)
    assert reply is not None
    assert bluetoothd is not None
    others = {name for name in reply.body[0] if name.startswith(":")}
    for name in (None, *(others - {stranger.unique_name, bluetoothd.unique_name})):
        message.destination = name
        message.serial = 0
        await stranger.send(message)
    stranger.disconnect()
    await stranger.wait_for_disconnect()  # type: ignore[no-untyped-call]
