"""The two hosts and the switches of their flaws."""

from __future__ import annotations

from dataclasses import fields

from fastprovd.emulator.hosts import Flaws, Host


def test_the_uuid_has_the_hosts_octet_order() -> None:
    """Bluedroid spells the BD_ADDR as displayed, NimBLE from its end."""
    address = "24:0A:C4:5E:00:01"
    assert Host.BLUEDROID.device_uuid(address).hex() == "dddd240ac45e00010000000000000000"
    assert Host.NIMBLE.device_uuid(address).hex() == "dddd01005ec40a240000000000000000"


def test_flaws_are_on_until_switched_off() -> None:
    """Every switch is on by default, and off in `none`."""
    names = [field.name for field in fields(Flaws)]
    assert names
    assert all(getattr(Flaws(), name) is True for name in names)
    assert all(getattr(Flaws.none(), name) is False for name in names)
