"""What a run says that hears no board it could provision."""

from __future__ import annotations

import pytest

from fastprovd.campaign.air_picture import AirPicture
from fastprovd.campaign.nothing_heard import why_nothing_heard
from fastprovd.campaign.settings import RunSettings
from fastprovd.mesh.beacons import (
    Advertisement,
    NetworkIdentity,
    NodeIdentity,
    ServiceData,
    UnprovisionedDevice,
)
from fastprovd.mesh.keys import NetKey
from fastprovd.records import AddressRange

NET_KEY = NetKey(bytes(range(16)))
GIVEN = [AddressRange(0x0002, 0x0010, "r-1", "direct provisioning")]
OURS = NetworkIdentity(NET_KEY.network_id)
FOREIGN = NetworkIdentity(bytes(8))
STRANGER = UnprovisionedDevice(b"\xaa" * 16)


def identity(net_key: NetKey, address: int) -> NodeIdentity:
    random = bytes(7) + bytes([address])
    return NodeIdentity(net_key.node_identity_hash(random, address), random)


def why(*heard: ServiceData) -> str:
    settings = RunSettings(scan_s=30.0)
    picture = AirPicture(settings.inventory, NET_KEY)
    for number, data in enumerate(heard):
        picture.receive(Advertisement(f"A{number}", data, -50, 1.0))
    return why_nothing_heard(picture, settings, NET_KEY, GIVEN)


@pytest.mark.parametrize(
    ("heard", "said", "advice"),
    [
        ([], "no board with UUID prefix dddd in 30 s; 0 others seen", "power the boards on"),
        ([STRANGER], "1 others seen", "correct [mesh] match"),
        ([FOREIGN], "1 proxy of another network is on the air (A0)", "power-cycle or reset them"),
        ([OURS, FOREIGN, FOREIGN], "2 proxies of another network are on the air (A1, A2)", "reset"),
        ([identity(NetKey(bytes(16)), 5)], "1 proxy of another network is", "power-cycle"),
        ([OURS], "1 proxy of our own network is on the air (A0)", "to provision them anew"),
        ([identity(NET_KEY, 5)], "1 proxy of our own network is", "nodes already"),
        ([FOREIGN] * 7, "(A0, A1, A2, A3, A4 and 2 more)", "run again"),
    ],
)
def test_the_reason_is_what_was_heard(heard: list[ServiceData], said: str, advice: str) -> None:
    """Boards that are nodes already, of whatever network, need other advice than none at all."""
    reason = why(*heard)
    assert said in reason
    assert advice in reason
