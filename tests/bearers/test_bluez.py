"""Adapters are found by their address."""

from __future__ import annotations

import asyncio

import pytest
from dbus_fast import Variant

from fastprovd.bearers.bluez import adapter_name, find_adapter
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


def test_without_a_bus_bluetooth_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without D-Bus is told so in one sentence."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(BluetoothUnavailable, match="could not be asked"):
        asyncio.run(find_adapter("00:1A:7D:DA:71:13"))
