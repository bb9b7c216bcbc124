"""What D-Bus tells of a loss, and what it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dbus_fast import Message, MessageType, Variant
from structlog.testing import capture_logs

from fastprovd.bearers.bluez_watch import BluezWatch, loss, shown_characteristic

HCI0, HCI1 = "/org/bluez/hci0", "/org/bluez/hci1"
ADAPTER = "org.bluez.Adapter1"
CHARACTERISTIC = "org.bluez.GattCharacteristic1"


def signal(path: str, member: str, *body: Any) -> Message:
    return Message(
        message_type=MessageType.SIGNAL,
        path=path,
        interface="org.example.Any",
        member=member,
        body=list(body),
    )


def powered(path: str, on: bool) -> Message:
    return signal(path, "PropertiesChanged", ADAPTER, {"Powered": Variant("b", on)}, [])


def added(path: str, **properties: Any) -> Message:
    return signal("/", "InterfacesAdded", path, {CHARACTERISTIC: properties})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (signal("/", "NameOwnerChanged", "org.bluez", ":1.7", ""), "bluetoothd ended"),
        (signal("/", "NameOwnerChanged", "org.bluez", ":1.7", ":1.8"), "bluetoothd ended"),
        (signal("/", "NameOwnerChanged", "org.bluez", "", ":1.8"), None),
        (signal("/", "NameOwnerChanged", "org.example", ":1.7", ""), None),
        (powered(HCI0, on=False), "the adapter hci0 was switched off"),
        (powered(HCI0, on=True), None),
        (powered(HCI1, on=False), None),
        (
            signal(HCI0, "PropertiesChanged", ADAPTER, {"Discovering": Variant("b", False)}, []),
            None,
        ),
        (signal(HCI0, "PropertiesChanged", "org.bluez.Device1", {}, []), None),
        (signal("/", "InterfacesRemoved", HCI0, [ADAPTER]), "the adapter hci0 is gone"),
        (signal("/", "InterfacesRemoved", HCI1, [ADAPTER]), None),
        (signal("/", "InterfacesRemoved", f"{HCI0}/dev_24", ["org.bluez.Device1"]), None),
        (signal("/", "Malformed"), None),
        (signal("/", "NameOwnerChanged", "org.bluez", 1, None), None),
        (signal(HCI0, "PropertiesChanged", ADAPTER, ["Powered"], []), None),
        (signal(HCI0, "PropertiesChanged", ADAPTER, {"Powered": False}, []), None),
        (signal(HCI0, "PropertiesChanged"), None),
        (signal("/", "InterfacesRemoved", HCI0), None),
        (signal("/", "InterfacesRemoved", [HCI0], ADAPTER), None),
    ],
)
def test_what_a_signal_says(message: Message, said: str | None) -> None:
    """The end of bluetoothd and of the adapter in use is a loss, all else is none."""
    assert loss(message, HCI0) == said


SHOWN = f"{HCI0}/dev_24_0A/service000a/char000b"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (added(SHOWN, UUID=Variant("s", "2ade")), (SHOWN, "2ade")),
        (added(SHOWN.replace(HCI0, HCI1), UUID=Variant("s", "2ade")), None),
        (added("/x", UUID=Variant("s", "2ade")), None),
        (added(SHOWN, UUID="2ade"), None),
        (added(SHOWN), None),
        (signal("/", "InterfacesAdded", SHOWN, {CHARACTERISTIC: "x"}), None),
        (signal("/", "InterfacesAdded", SHOWN), None),
    ],
)
def test_which_characteristic_is_shown(message: Message, shown: tuple[str, str] | None) -> None:
    """One of a device at our adapter; what is malformed shows none."""
    assert shown_characteristic(message, HCI0) == shown


def test_without_a_bus_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged once, and all else goes on."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")

    async def main() -> None:
        async with BluezWatch(lambda: "hci0", pytest.fail, pytest.fail):
            await asyncio.sleep(0)

    with capture_logs() as logs:
        asyncio.run(main())
    assert [entry["event"] for entry in logs] == ["bluez_not_watched"]
