"""Finding a way into a network whose Primary Provisioners stay silent, rung by rung."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from fastprovd.campaign.context import RunContext
from fastprovd.campaign.direct import Direct
from fastprovd.campaign.inviting import who_is_unprovisioned
from fastprovd.campaign.ladder import LADDERS, Rung, Symptom
from fastprovd.campaign.primaries import Primaries
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.campaign.states import WAITS, RunEnd, Trigger
from fastprovd.errors import BearerError, ProxySilent
from fastprovd.mesh.beacons import Advertisement
from fastprovd.mesh.models.fast_provisioning import NodeAddr

log = structlog.get_logger()

# Proxies to try, the most heard first; each that is gone costs 16 s.
_PROXIES_TRIED: Final = 4
_REPETITIONS: Final = 3
# What arrives at a Primary with less than 3 came straight from us; through a proxy it needs more.
_TTL: Final = 7


@dataclass(frozen=True, slots=True)
class Way:
    """A proxy of our network: of the Primary `primary`, or of a node that is none."""

    device_address: str
    primary: int | None


class Recovery:
    """Waits for a Primary, and climbs the ladder of a silent one when that takes too long."""

    def __init__(self, context: RunContext, primaries: Primaries, direct: Direct) -> None:
        self._context = context
        self._settings = context.settings
        self._log = context.log
        self._picture = context.picture
        self._watch = context.watch
        self._clock = context.clock
        self._primaries = primaries
        self._direct = direct
        self._dead: set[str] = set()
        self._rungs: Mapping[Rung, Callable[[], Awaitable[Way | None]]] = {
            Rung.ANOTHER_PROXY: self._another_proxy,
            Rung.SPARE_PROXY: self._spare_proxy,
        }

    async def way_in(self, silent_since: float) -> Way:
        """Return a way into the network; raises RunEnd when there is none."""
        seconds = self._settings.primary_return_s
        left_s = silent_since + seconds - self._clock.monotonic()
        way = await self._primary(max(0.0, left_s))
        if way is not None:
            return way
        for rung in LADDERS[Symptom.PRIMARY_SILENT]:
            climb = self._rungs.get(rung)
            if climb is None:
                continue  # done over the way that an earlier one finds
            self._log.recovery(Symptom.PRIMARY_SILENT, rung)
            way = await climb()
            if way is not None:
                return way
        if self._watch.last_error is None:
            await self._doubt_unheard(silent_since)
        raise RunEnd(Trigger.PRIMARY_SILENT, self._reason(seconds))

    async def _doubt_unheard(self, since: float) -> None:
        """Take back that nodes are proven whose proxy stays on the air, and is not there."""
        heard = set(self._picture.proxies_since(since)) - self._dead
        for node in list(self._log.nodes.values()):
            if node.proven and node.gatt_proxy and node.device_address not in heard:
                await self._log.doubt(node.address)

    def lost(self, way: Way, error: BearerError) -> None:
        """Take note that a way in failed; a proxy that kept its link and fell silent is dead."""
        if isinstance(error, ProxySilent):
            self._dead.add(way.device_address)

    async def next_way(self) -> Way | None:
        """Return a proxy that is on the air now, a Primary's before others, `None` without one."""
        begun = self._clock.monotonic()
        way = await self._primary(WAITS["quiet_air"].seconds)
        if way is None:
            self._log.recovery(Symptom.PRIMARY_SILENT, Rung.ANOTHER_PROXY)
            way = await self._other(begun)
        return way

    def _reason(self, seconds: float) -> str:
        if self._are_all_restarted():
            return (
                "the Primary Provisioner restarted and forgot the network, and no other proxy is "
                "on the air; power-cycle all boards and run again"
            )
        return (
            f"the Primary Provisioner's proxy could not be reached for {seconds:g} s, and no other "
            "is on the air; power-cycle all boards and run again"
        )

    def _are_all_restarted(self) -> bool:
        return self._primaries.forgotten.issuperset(self._primaries.nodes)

    async def _primary(self, seconds: float) -> Way | None:
        """Wait for any Primary; not for those that restarted.

        That one advertises itself as unprovisioned is asked of itself, once: anybody can say so,
        and BlueZ repeats what it was.
        """
        end = self._clock.monotonic() + seconds
        cleared: set[int] = set()
        suspects: set[int] = set()

        def is_end(heard: Advertisement) -> bool:
            restarted = self._primaries.restarted(heard)
            if restarted is not None:
                suspects.add(restarted)
                suspects.difference_update(cleared | self._primaries.forgotten)
            return bool(suspects) or self._advertised(heard) is not None

        while not self._are_all_restarted():
            found = await self._watch.until(is_end, max(0.0, end - self._clock.monotonic()))
            if found is None:
                return None
            address = self._advertised(found)
            if address is not None:
                return Way(found.device_address, address)
            for suspect in sorted(suspects):
                is_free = await self._is_unprovisioned(suspect)
                (self._primaries.forgotten if is_free else cleared).add(suspect)
            suspects.clear()
        return None

    async def _is_unprovisioned(self, primary: int) -> bool:
        context = self._context
        device_address = self._primaries.nodes[primary].board.device_address
        free = await who_is_unprovisioned(
            context.bearer, [device_address], context.clock, context.entropy
        )
        return bool(free)

    def _advertised(self, heard: Advertisement) -> int | None:
        """Return which living Primary advertises its proxy here: BlueZ repeats what a dead one did.

        One that restarted says so.
        """
        is_dead = heard.device_address in self._dead
        return None if is_dead else self._primaries.advertised(heard)

    # The rungs

    async def _another_proxy(self) -> Way | None:
        """Try the proxies on the air that are no Primary's, and wake a Primary through them."""
        begun = self._clock.monotonic()
        await self._watch.listen(WAITS["quiet_air"].seconds)
        return await self._other(begun)

    async def _other(self, begun: float) -> Way | None:
        """Try the proxies that were heard since then."""
        heard = [p for p in self._picture.proxies_since(begun) if p not in self._dead]
        for device_address in heard[:_PROXIES_TRIED]:
            way = await self._through(device_address)
            if way is not None:
                return way
        return None

    async def _spare_proxy(self) -> Way | None:
        """Provision a board that nobody took, and go on through its proxy."""
        now = self._clock.monotonic()
        free = self._picture.unprovisioned(now, WAITS["board_gone"].seconds)
        spare = max(free, key=lambda board: board.rank, default=None)
        if spare is None or not await self._direct.try_reserve(1):
            return None
        await self._direct.provision([spare])
        if spare.uuid in self._direct.failed:
            return None
        return await self._through(spare.device_address)

    async def _through(self, device_address: str) -> Way | None:
        try:
            async with (
                self._context.bearer.proxy_link(device_address) as link,
                proxy_session(link, self._context.top, self._clock) as session,
            ):
                async with asyncio.timeout(WAITS["configuration"].seconds):
                    address = await session.server_address
                return await self._wake(session, address) or Way(device_address, None)
        except (BearerError, TimeoutError) as error:
            log.info("proxy_not_usable", address=device_address, reason=str(error))
            return None

    async def _wake(self, session: ProxySession, known: int) -> Way | None:
        """Start the timers of the Primaries; what NODE_ADDR carries gets into their lists."""
        asleep = [
            address
            for address, node in self._primaries.nodes.items()
            if address not in self._primaries.forgotten
            and node.board.device_address not in self._dead
        ]
        if not asleep:
            return None
        self._log.recovery(Symptom.PRIMARY_SILENT, Rung.WAKE_PRIMARY)
        for _ in range(_REPETITIONS):
            for address in asleep:
                await session.send(
                    NodeAddr((known,)), dst=address, key=self._context.app_key, ttl=_TTL
                )
            await asyncio.sleep(WAITS["stop_repetition"].seconds)
        return await self._primary(WAITS["wake"].seconds)
