"""Ending Node Identity before it ends by itself.

A board with the Bluedroid host dies most of the time when its 60 s of Node Identity are over, with
a link or without (observed.md §18); one that was told to end it goes on with our Network ID.
"""

from __future__ import annotations

from typing import Final

from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.states import WAITS
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.models.configuration_states import NodeIdentitySet

_ATTEMPTS: Final = 3


async def end_node_identity(
    session: ProxySession, address: int, dev_key: DevKey, net_key_index: int
) -> None:
    """Have the node at the other end of the link advertise our Network ID from now on.

    Raises:
        ResponseTimeout, ConnectionLost: no answer.
    """
    await session.request(
        NodeIdentitySet(net_key_index, 0),
        dst=address,
        key=dev_key,
        ttl=0,
        timeout_s=WAITS["onoff"].seconds,
        attempts=_ATTEMPTS,
    )
