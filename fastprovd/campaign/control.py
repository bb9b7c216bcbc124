"""The mesh outside of a run: reach any proxy of our network, ask and set single nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Final

import structlog

from fastprovd.campaign.ports import Bearer
from fastprovd.campaign.proxy_session import ProxySession, TopProvisioner, proxy_session
from fastprovd.campaign.states import WAITS, Wait
from fastprovd.clock import Clock
from fastprovd.errors import BearerError, DeviceNotFound, LocalProtocolError
from fastprovd.mesh.addresses import format_address, is_unicast
from fastprovd.mesh.beacons import Advertisement, NetworkIdentity, NodeIdentity
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.fast_provisioning import NodeAddrGet
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet

log = structlog.get_logger()

CONTROL_WAITS: Final[Mapping[str, Wait]] = MappingProxyType(
    {
        "proxy": Wait(
            12.0, "a node advertises every 0.5 s; BlueZ may withhold an unchanged one for 10.24 s"
        ),
    }
)
# Proxies to try before a request fails; a board may have left the air just after it was heard.
_PROXIES_TRIED: Final = 3
_ATTEMPTS: Final = 4
# A node whose relay is off does not forward below 3; 7 reaches behind relays too.
_TTL: Final = 7


@asynccontextmanager
async def network_session(
    bearer: Bearer,
    top: TopProvisioner,
    clock: Clock,
    *,
    nodes: Collection[int] = (),
    device_address: str | None = None,
) -> AsyncIterator[ProxySession]:
    """Find a proxy of our network, connect, run a session.

    A proxy is known by our Network ID, or by the Node Identity of one of `nodes`. With
    `device_address` only that board will do.

    Raises:
        DeviceNotFound: no such proxy is on the air.
        BearerError: it could not be reached, or Bluetooth can not be used.
    """
    async with AsyncExitStack() as stack:
        yield await _open(stack, bearer, top, clock, nodes, device_address)


async def get_onoff(session: ProxySession, app_key: AppKey, address: int) -> bool:
    """Ask one node for its state; raises ResponseTimeout, ConnectionLost."""
    status = await session.request(
        OnOffGet(),
        dst=address,
        key=app_key,
        ttl=_TTL,
        timeout_s=WAITS["answer"].seconds,
        attempts=_ATTEMPTS,
    )
    return status.present


async def set_onoff(
    session: ProxySession, app_key: AppKey, address: int, onoff: bool, tid: int
) -> bool:
    """Set one node and return the state that it confirms; many are `switching`'s business.

    Side effect in the boards of the demo: the first OnOff Set that a node gets after it was
    provisioned makes it stop provisioning others 10 s later. Take a new `tid` for each call.

    Raises:
        ResponseTimeout: the node did not confirm.
        ConnectionLost: the link went away.
    """
    status = await session.request(
        OnOffSet(onoff, tid),
        dst=address,
        key=app_key,
        ttl=_TTL,
        timeout_s=WAITS["answer"].seconds,
        attempts=_ATTEMPTS,
    )
    return status.present


async def get_node_list(
    session: ProxySession, app_key: AppKey, primary: int, *, attempts: int = _ATTEMPTS
) -> tuple[int, ...]:
    """Read the Primary Provisioner's list; the session must be with the Primary itself.

    Ask only while the list is safely short (`planner.SAFE_LIST_ENTRIES`): a long one kills boards.

    Raises:
        ResponseTimeout: no answer; it is no Primary Provisioner any more.
        ConnectionLost: the link went away.
    """
    status = await session.request(
        NodeAddrGet(),
        dst=primary,
        key=app_key,
        ttl=0,
        timeout_s=WAITS["list"].seconds,
        attempts=attempts,
    )
    return status.addresses


async def _open(
    stack: AsyncExitStack,
    bearer: Bearer,
    top: TopProvisioner,
    clock: Clock,
    nodes: Collection[int],
    device_address: str | None,
) -> ProxySession:
    passed_over: set[str] = set()
    last: BearerError | None = None
    for _ in range(_PROXIES_TRIED):
        found = await _find(bearer, _is_proxy(top, nodes, device_address, passed_over))
        if found is None:
            break
        try:
            async with AsyncExitStack() as attempt:
                link = await attempt.enter_async_context(bearer.proxy_link(found))
                session = await attempt.enter_async_context(proxy_session(link, top, clock))
                await stack.enter_async_context(attempt.pop_all())
                return session
        except BearerError as error:
            log.info("proxy_not_reached", device_address=found, reason=str(error))
            last = error
            if device_address is None:
                passed_over.add(found)
    if last is not None:
        raise last
    who = "proxy of our network" if device_address is None else f"proxy at {device_address}"
    raise DeviceNotFound(
        f"no {who} was heard in {CONTROL_WAITS['proxy'].seconds:g} s: the boards are off, out of "
        "reach, or forgot the network; run again after a power cycle"
    )


def _is_proxy(
    top: TopProvisioner,
    nodes: Collection[int],
    device_address: str | None,
    passed_over: Collection[str],
) -> Callable[[Advertisement], bool]:
    net_keys = tuple(top.stack.net_keys.values())
    for address in nodes:
        if not is_unicast(address):
            raise LocalProtocolError(f"{format_address(address)} is no node's address")

    def is_proxy(advertisement: Advertisement) -> bool:
        data = advertisement.data
        if advertisement.device_address in passed_over:
            return False
        if device_address not in (None, advertisement.device_address):
            return False
        match data:
            case NetworkIdentity():
                return any(data.matches(net_key) for net_key in net_keys)
            case NodeIdentity():
                return any(data.matches(net_key, node) for net_key in net_keys for node in nodes)
            case _:
                return False

    return is_proxy


async def _find(bearer: Bearer, wanted: Callable[[Advertisement], bool]) -> str | None:
    try:
        async with asyncio.timeout(CONTROL_WAITS["proxy"].seconds), bearer.scan() as scan:
            async for advertisement in scan:
                if wanted(advertisement):
                    return advertisement.device_address
    except TimeoutError:
        return None
    return None
