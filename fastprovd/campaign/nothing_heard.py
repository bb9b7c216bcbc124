"""Why a run hears no board that it could provision, and what helps; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from fastprovd.campaign.air_picture import AirPicture
from fastprovd.campaign.settings import RunSettings
from fastprovd.mesh.beacons import NodeIdentity
from fastprovd.mesh.keys import NetKey
from fastprovd.records import AddressRange

_NAMED: Final = 5  # proxies in a sentence; the rest is counted


def why_nothing_heard(
    picture: AirPicture, settings: RunSettings, net_key: NetKey, given: Iterable[AddressRange]
) -> str:
    """Return the reason; `given` are the addresses that nodes of ours may have.

    It compares each Node Identity with each of them, which may take a second.
    """
    addresses = [address for r in given for address in range(r.first, r.last + 1)]
    ours, foreign = picture.proxies_since(-math.inf), list[str]()
    for device_address, data in picture.foreign.items():
        is_ours = isinstance(data, NodeIdentity) and any(
            data.matches(net_key, address) for address in addresses
        )
        (ours if is_ours else foreign).append(device_address)
    looked_for = (
        f"with UUID prefix {settings.match.hex()}"
        f"{' that [mesh] allow and deny let in' * settings.inventory.is_selective} "
        f"in {settings.scan_s:g} s"
    )
    if foreign:
        return (
            f"no unprovisioned board {looked_for}, but {_of('another', foreign)}: if these are "
            "your boards, they are nodes already; power-cycle or reset them, and run again"
        )
    if ours:
        return (
            f"no unprovisioned board {looked_for}, but {_of('our own', ours)}: these boards are "
            "nodes already; to provision them anew power-cycle or reset them, and run again"
        )
    return (
        f"no board {looked_for}; {len(picture.strangers)} others seen: power the boards on, or "
        "correct [mesh] match"
    )


def _of(whose: str, proxies: Sequence[str]) -> str:
    more = f" and {len(proxies) - _NAMED} more" if len(proxies) > _NAMED else ""
    number = "1 proxy" if len(proxies) == 1 else f"{len(proxies)} proxies"
    verb = "is" if len(proxies) == 1 else "are"
    named = ", ".join(proxies[:_NAMED])
    return f"{number} of {whose} network {verb} on the air ({named}{more})"
