"""The phone app's way, to compare with: one Primary Provisioner, count 100, and hope.

As the protocol reference describes Espressif's app (FP 8): each message once, no retry, no time
limit on the wait for the Primary; its button for the address list is pressed again and again here,
which is more than the app does by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from fastprovd.campaign.primary import Outcome, add_app_key, provision, read_composition
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.clock import SystemClock
from fastprovd.errors import AccessError, BearerError, ConnectionLost
from fastprovd.mesh.beacons import Advertisement, NodeIdentity, UnprovisionedDevice
from fastprovd.mesh.keys import DevKey, NetKey
from fastprovd.mesh.models.fast_provisioning import ENTER_AS_PRIMARY, InfoSet, NodeAddrGet
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from tests.support.scene import Scene

PRIMARY: Final = 0x0002
# What the app fills in when nothing is typed.
NODE_ADDR_CNT: Final = 100
UNICAST_MIN: Final = 0x0400
log = structlog.get_logger()

# Between a list that is not complete and the next press of the button.
PATIENCE_S: Final = 5.0


@dataclass(frozen=True)
class Moments:
    """Loop times of one session with the app; `known_s`: when it knew all addresses."""

    info_set_s: float
    known_s: float


async def phone(s: Scene, boards: int) -> Moments:
    """Provision `boards` boards; returns when the app knows all addresses, else never.

    That of the Primary it knows once it is provisioned.

    Raises:
        AccessError, BearerError: it gave up before that, and would have to be started again.
    """
    first = await _heard(s, lambda heard: isinstance(heard.data, UnprovisionedDevice))
    net_key = next(iter(s.top.stack.net_keys.values()))
    made = await _found(s, first.device_address, net_key)
    if boards == 1:
        return made
    while True:
        found = await _heard(
            s,
            lambda heard: (
                isinstance(heard.data, NodeIdentity) and heard.data.matches(net_key, PRIMARY)
            ),
        )
        try:
            async with (
                s.bearer.proxy_link(found.device_address) as link,
                proxy_session(link, s.top, SystemClock(), overhears=False) as session,
            ):
                if await _listed(s, session) >= boards - 1:
                    return replace(made, known_s=_now())
        except (AccessError, BearerError) as error:
            log.info("button_in_vain", reason=str(error))
        await asyncio.sleep(PATIENCE_S)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _heard(s: Scene, wanted: object) -> Advertisement:
    async with s.bearer.scan() as scan:
        async for heard in scan:
            if callable(wanted) and wanted(heard):
                return heard
    raise AssertionError("a scan without an end has ended")


async def _found(s: Scene, device_address: str, net_key: NetKey) -> Moments:
    keys = s.top.stack.dev_keys

    async def keep(dev_key: DevKey) -> None:
        keys[PRIMARY] = dev_key

    app_key = s.top.stack.app_keys[0]
    async with s.bearer.provisioning_link(device_address) as link:
        data = ProvisioningData(net_key, PRIMARY, s.top.stack.iv_index)
        outcome, reason = await provision(link, data, s.entropy, SystemClock(), keep)
        if outcome is not Outcome.COMPLETED:
            raise ConnectionLost(reason)
        known_s = _now()
        async with (
            s.bearer.kept_proxy_link(device_address) as proxy,
            proxy_session(proxy, s.top, SystemClock(), overhears=False) as session,
        ):
            await add_app_key(session, PRIMARY, keys[PRIMARY], app_key)
            await read_composition(session, PRIMARY, keys[PRIMARY])
            made = Moments(_now(), known_s)
            # The board hangs up after its answer.
            with suppress(BearerError):
                await session.request(
                    InfoSet(
                        node_addr_cnt=NODE_ADDR_CNT,
                        unicast_min=UNICAST_MIN,
                        group_addr=0xC000,
                        match_val=b"\xdd\xdd",
                        action=ENTER_AS_PRIMARY,
                    ),
                    dst=PRIMARY,
                    key=app_key,
                    ttl=0,
                    timeout_s=2.0,
                )
            return made


async def _listed(s: Scene, session: ProxySession) -> int:
    status = await session.request(
        NodeAddrGet(), dst=PRIMARY, key=s.top.stack.app_keys[0], ttl=0, timeout_s=5.0
    )
    return len(status.addresses)
