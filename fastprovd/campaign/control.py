"""The mesh outside of a run: reach any proxy of our network, ask and set single nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Final

import structlog

from fastprovd.campaign.ports import Bearer, Scan
from fastprovd.campaign.proxy_session import ProxySession, TopProvisioner, proxy_session
from fastprovd.campaign.states import WAITS, Wait
from fastprovd.campaign.watch import FRESH_S
from fastprovd.campaign.ways import Candidate, Judge, Proxies, Standing, Ways, standing_of
from fastprovd.clock import Clock
from fastprovd.errors import (
    BearerError,
    BluetoothUnavailable,
    DeviceNotFound,
    MessagesDropped,
    NoFreeLink,
)
from fastprovd.mesh.beacons import Advertisement
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.fast_provisioning import NodeAddrGet
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet
from fastprovd.records import Node

log = structlog.get_logger()

CONTROL_WAITS: Final[Mapping[str, Wait]] = MappingProxyType(
    {
        "proxy": Wait(
            12.0, "a node advertises every 0.5 s; BlueZ may withhold an unchanged one for 10.24 s"
        ),
        "better_than_unknown": Wait(
            1.5,
            "a scan that begins is told of everybody, and Network ID comes every 0.5 s; what the "
            "scan of another program may hide for 10.24 s takes longer than a try",
        ),
        "better_than_none": Wait(
            3.0, "six Network IDs; through one that forwards nothing only itself can be asked"
        ),
        "another_proxy": Wait(
            3.0, "the same; who does not answer through one proxy is most likely off"
        ),
        "dead_proxies": Wait(
            15.0,
            "one that says nothing costs 2 s and its connection 1 s; anybody may advertise our "
            "Network ID, and none of these stands in for those that have the key",
        ),
        "another_try": Wait(
            12.0, "a node that is off is told as silent within 20 s, however many proxies there are"
        ),
    }
)
# What to wait for a better proxy, counted from the begin of the scan.
_PATIENCE: Final[Mapping[Standing, Wait]] = MappingProxyType(
    {
        Standing.UNKNOWN: CONTROL_WAITS["better_than_unknown"],
        Standing.SILENT_LATELY: CONTROL_WAITS["better_than_none"],
        Standing.SWITCHED_OFF: CONTROL_WAITS["better_than_none"],
    }
)
# Proxies to try before a request fails; a board may have left the air just after it was heard.
_PROXIES_TRIED: Final = 3
ATTEMPTS: Final = 4
# Through a proxy of which nobody knows whether it forwards.
FEW_ATTEMPTS: Final = 2
# A node whose relay is off does not forward below 3; 7 reaches behind relays too.
_TTL: Final = 7


@asynccontextmanager
async def network_session(
    bearer: Bearer,
    top: TopProvisioner,
    clock: Clock,
    *,
    nodes: Collection[Node] = (),
    device_address: str | None = None,
    ways: Ways | None = None,
) -> AsyncIterator[ProxySession]:
    """Find a proxy of our network, connect, run a session.

    A proxy is known by our Network ID, or by the Node Identity of one of `nodes`; the best in
    reach is taken. With `device_address` only that board will do. With `ways` none that it passes
    over, unless it has nothing else to go back to.

    Raises:
        DeviceNotFound: no such proxy is on the air.
        MessagesDropped: there are some, and they drop what we send.
        BearerError: none could be reached, or none has our key, or Bluetooth can not be used.
    """
    async with AsyncExitStack() as stack:
        ways = ways or Ways(Proxies(clock))
        judge = standing_of(tuple(top.stack.net_keys.values()), nodes, ways.proxies)
        yield await _open(stack, bearer, top, clock, judge, device_address, ways)


async def get_onoff(
    session: ProxySession, app_key: AppKey, address: int, *, attempts: int = ATTEMPTS
) -> bool:
    """Ask one node for its state; raises ResponseTimeout, ConnectionLost."""
    status = await session.request(
        OnOffGet(),
        dst=address,
        key=app_key,
        ttl=_TTL,
        timeout_s=WAITS["answer"].seconds,
        attempts=attempts,
    )
    return status.present


async def set_onoff(
    session: ProxySession,
    app_key: AppKey,
    address: int,
    onoff: bool,
    tid: int,
    *,
    attempts: int = ATTEMPTS,
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
        attempts=attempts,
    )
    return status.present


async def get_node_list(
    session: ProxySession, app_key: AppKey, primary: int, *, attempts: int = ATTEMPTS
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
    judge: Judge,
    device_address: str | None,
    ways: Ways,
) -> ProxySession:
    loop = asyncio.get_running_loop()
    late_s = loop.time() + CONTROL_WAITS["dead_proxies"].seconds
    last: BearerError | MessagesDropped | None = None
    tries = 0
    while tries < _PROXIES_TRIED or (device_address is None and loop.time() < late_s):
        found = None
        if ways.tried < _PROXIES_TRIED and not ways.is_last:
            found = await _find(bearer, judge, device_address, ways)
        found = found or ways.go_back()
        if found is None:
            break
        try:
            async with AsyncExitStack() as attempt:
                link = await attempt.enter_async_context(bearer.proxy_link(found.device_address))
                session = await attempt.enter_async_context(proxy_session(link, top, clock))
                await session.check_key()
                await stack.enter_async_context(attempt.pop_all())
                ways.take(found)
                return session
        except (BluetoothUnavailable, NoFreeLink):
            raise
        except (BearerError, MessagesDropped) as error:
            log.info("proxy_not_reached", device_address=found.device_address, reason=str(error))
            # That our messages are dropped says more than any other reason.
            last = last if isinstance(last, MessagesDropped) else error
            if device_address is None:
                ways.not_reached(found)
            tries += 1
    if last is not None:
        raise last
    who = "proxy of our network" if device_address is None else f"proxy at {device_address}"
    raise DeviceNotFound(
        f"no {who} was heard in {CONTROL_WAITS['proxy'].seconds:g} s: the boards are off, out of "
        "reach, or forgot the network; run again after a power cycle"
    )


async def _find(
    bearer: Bearer, judge: Judge, device_address: str | None, ways: Ways
) -> Candidate | None:
    """Return the first proxy that forwards, or the best when there is no such one in time."""
    best: Candidate | None = None
    limit = CONTROL_WAITS["proxy" if ways.is_first else "another_proxy"]
    begun: float | None = None
    try:
        async with asyncio.timeout(limit.seconds) as timeout:
            while True:
                async with bearer.scan() as scan:
                    if begun is None:
                        begun = asyncio.get_running_loop().time()
                    async for advertisement in _for_a_while(scan):
                        heard = advertisement.device_address
                        if heard in ways.passed_over or device_address not in (None, heard):
                            continue
                        standing = judge(advertisement)
                        if standing is None or (best is not None and standing >= best.standing):
                            continue
                        best = Candidate(standing, heard)
                        if standing is Standing.FORWARDS or device_address is not None:
                            return best
                        timeout.reschedule(begun + _PATIENCE[standing].seconds)
    except TimeoutError:
        pass
    return best


async def _for_a_while(scan: Scan) -> AsyncIterator[Advertisement]:
    """Yield what a scan hears until a fresh one hears more, as in `Watch`."""
    end_s = asyncio.get_running_loop().time() + FRESH_S
    heard = aiter(scan)
    while True:
        try:
            async with asyncio.timeout_at(end_s):
                advertisement = await anext(heard)
        except (TimeoutError, StopAsyncIteration):
            return
        yield advertisement
