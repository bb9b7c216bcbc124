"""Adapters are found by their address or their power, links that we left by our record."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dbus_fast import Variant

from fastprovd.bearers.bluez import adapter_name, find_adapter, first_adapter, linked_boards
from fastprovd.errors import BluetoothUnavailable

OBJECTS = {
    "/org/bluez": {"org.bluez.AgentManager1": {}},
    "/org/bluez/hci1": {"org.bluez.Adapter1": {"Address": Variant("s", "00:1A:7D:DA:71:13")}},
    "/org/bluez/hci1/dev_24_0A": {
        "org.bluez.Device1": {"Address": Variant("s", "24:0A:C4:5E:00:01")}
    },
}


def test_an_adapter_is_found_by_its_address() -> None:
    """The name that bleak wants is the end of the object's path; case does not matter."""
    assert adapter_name(OBJECTS, "00:1a:7d:da:71:13") == "hci1"


def test_a_missing_adapter_is_named_with_those_there_are() -> None:
    """A device is no adapter; the sentence lists what could have been meant."""
    with pytest.raises(BluetoothUnavailable, match="00:1A:7D:DA:71:13"):
        adapter_name(OBJECTS, "24:0A:C4:5E:00:01")
    with pytest.raises(BluetoothUnavailable, match="none"):
        adapter_name({}, "24:0A:C4:5E:00:01")


def adapter(*, powered: bool = True, roles: tuple[str, ...] = ("central",)) -> dict[str, Any]:
    return {
        "org.bluez.Adapter1": {"Powered": Variant("b", powered), "Roles": Variant("as", [*roles])}
    }


def blocked() -> dict[str, Any]:
    found = adapter(powered=False)
    found["org.bluez.Adapter1"]["PowerState"] = Variant("s", "off-blocked")
    return found


@pytest.mark.parametrize(
    ("adapters", "name"),
    [
        ({"hci0": adapter()}, "hci0"),
        ({"hci10": adapter(), "hci2": adapter()}, "hci2"),
        ({"hci0": adapter(powered=False), "hci1": adapter()}, "hci1"),
        ({"hci0": adapter(roles=("peripheral",)), "hci1": adapter()}, "hci1"),
    ],
)
def test_the_first_usable_adapter_is_taken(adapters: dict[str, Any], name: str) -> None:
    """It is on, has LE, and the lowest number of those."""
    assert first_adapter({f"/org/bluez/{n}": found for n, found in adapters.items()}) == name


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ({}, "plug one in"),
        ({"hci0": adapter(roles=())}, "no LE on hci0"),
        ({"hci0": adapter(powered=False)}, "hci0 is off; switch it on .*rfkill unblock"),
        ({"hci0": blocked()}, "hci0 is off; rfkill blocks it"),
        ({"hci0": {"org.bluez.Adapter1": {}}}, "no LE on hci0"),
    ],
)
def test_without_a_usable_adapter_it_is_said_why(adapters: dict[str, Any], said: str) -> None:
    """Each reason has its advice."""
    with pytest.raises(BluetoothUnavailable, match=said):
        first_adapter({f"/org/bluez/{n}": found for n, found in adapters.items()})


HCI0, HCI1 = "/org/bluez/hci0", "/org/bluez/hci1"


def device(adapter_path: str, address: str, *, connected: bool = True) -> Any:
    return {
        "org.bluez.Device1": {
            "Address": Variant("s", address),
            "Adapter": Variant("o", adapter_path),
            "Connected": Variant("b", connected),
        }
    }


def test_only_links_that_are_ours_are_found() -> None:
    """Those of other programs, at another adapter, or ended long ago are left alone."""
    objects = {
        f"{HCI0}/dev_ours": device(HCI0, "24:0A:C4:5E:00:01"),
        f"{HCI0}/dev_others": device(HCI0, "24:0A:C4:5E:00:02"),
        f"{HCI0}/dev_ended": device(HCI0, "24:0A:C4:5E:00:03", connected=False),
        f"{HCI1}/dev_elsewhere": device(HCI1, "24:0A:C4:5E:00:04"),
        f"{HCI0}/dev_new": {"org.bluez.Device1": {}},
    }
    ours = {f"24:0A:C4:5E:00:0{n}" for n in (1, 3, 4)}
    assert linked_boards(objects, "hci0", ours) == {f"{HCI0}/dev_ours": "24:0A:C4:5E:00:01"}
    assert linked_boards(objects, "hci0") == {}


@pytest.mark.parametrize(
    ("address", "advice"),
    [("unix:path=/nonexistent/bus", "start dbus"), ("nonsense", "correct DBUS_SYSTEM")],
)
def test_without_a_bus_bluetooth_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, address: str, advice: str
) -> None:
    """A machine without D-Bus is told so in one sentence."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    with pytest.raises(BluetoothUnavailable, match=rf"could not be asked .*{advice}"):
        asyncio.run(find_adapter("00:1A:7D:DA:71:13"))
