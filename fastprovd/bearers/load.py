"""What an adapter has to bear, and what is learnt from the links that it refuses."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Final

import structlog

from fastprovd.bearers.adapter_memory import AdapterMemory, LinkMemory
from fastprovd.bearers.bluez import adapter_in_use
from fastprovd.bearers.errors import describe
from fastprovd.bearers.link_limit import LinkLimit
from fastprovd.bearers.slots import Attempt, LinkSlots
from fastprovd.errors import BluetoothUnavailable, NoFreeLink
from fastprovd.records import AdapterLinks

# What was being opened beside a link that was refused is open by then, or was refused as well.
_SETTLE_S: Final = 1.5
# Links of a direct run end faster than that, and then fewer are open than when one was refused.
_DOUBT_S: Final = 5.0
# The links of other programs are counted anew no more often than this.
_OTHERS_S: Final = 5.0

log = structlog.get_logger(__name__)


class Refused(Exception):
    """The adapter bears no more than `links` of ours; not `is_certain` when nobody answered."""

    def __init__(self, links: int, answer: str, *, is_certain: bool) -> None:
        super().__init__(answer)
        self.links = links
        self.answer = answer
        self.is_certain = is_certain


class AdapterLoad:
    """Slots for links of one adapter after the other, each with the limit that is known of it.

    `in_use` returns the name of the adapter, empty while there is none that BlueZ could be asked
    about, and the boards to which links of ours are open or being opened. `elsewhere` are the
    BD_ADDRs to which other programs were seen to have links a short while ago.
    """

    def __init__(
        self,
        configured: int | None,
        memory: LinkMemory | None,
        in_use: Callable[[], tuple[str, Collection[str]]],
    ) -> None:
        self._in_use = in_use
        self._configured = configured
        self._memory = AdapterMemory(memory)
        self.slots = LinkSlots(LinkLimit(configured))
        self._meeting = asyncio.Lock()
        self._met_s = -math.inf
        self._discovers = False
        self.elsewhere: frozenset[str] = frozenset()

    @property
    def links(self) -> AdapterLinks:
        """How many links may be open at once."""
        return self.slots.limit.links()

    async def meet_first(self) -> None:
        """See which adapter it is, if that was not done yet, to know what was learnt of it."""
        if self._met_s == -math.inf:
            await self.meet()

    async def meet(self, *, anew: bool = False) -> None:
        """See which adapter it is and count the links of others; `anew` also if just done."""
        async with self._meeting:
            if anew or _now() >= self._met_s + _OTHERS_S:
                await self._meet()

    async def _meet(self) -> None:
        adapter, before = self._in_use()
        if not adapter:
            self.elsewhere = frozenset()
            return
        try:
            address, connected, self._discovers = await adapter_in_use(adapter)
        except BluetoothUnavailable as error:  # whoever connects is told
            log.debug("adapter_not_met", error=describe(error))
            return
        self._met_s = _now()
        if address != self._memory.address:
            kept = await self._memory.load(address)
            self.slots.limit = LinkLimit(self._configured, kept, _now())
            log.info("adapter_links", adapter_address=address, **_shown(self.links))
        # A link of ours may have ended while BlueZ was asked.
        _, ours = self._in_use()
        self.elsewhere = connected - {*before, *ours}
        self.slots.limit.others = len(self.elsewhere)
        self.slots.share_out()

    async def acquire(self, refused: Refused | None = None) -> None:
        """Wait for a slot; who was `refused` comes first. Raises NoFreeLink."""
        if refused is not None and not refused.is_certain:
            try:
                await self.slots.acquire(first=True, patience_s=_DOUBT_S)
            except NoFreeLink:  # the links that are open stay; then it must go with them
                self.denied()
            else:
                return
        await self.slots.acquire(first=refused is not None)

    def begin(self) -> Attempt:
        """Begin an attempt to open a link."""
        return self.slots.begin()

    def opened(self, attempt: Attempt) -> None:
        """The link is open."""
        if self.slots.opened(attempt):
            self._tell()

    def end(self, attempt: Attempt) -> None:
        """BlueZ has hung it up, or it did not come about."""
        self.slots.end(attempt)

    def doubt(self, attempt: Attempt) -> Refused | None:
        """Return whether an attempt that was not answered may have been refused.

        Until it is clear no more links are tried.
        """
        links = self.slots.most_open(attempt)
        if not links:
            return None
        self.slots.limit.hold(links)
        return Refused(links, "no answer", is_certain=False)

    def denied(self) -> None:
        """The board does not answer with fewer links either."""
        self.slots.limit.denied()
        self.slots.share_out()

    async def refused(self, attempt: Attempt, answer: str) -> Refused:
        """BlueZ says that the adapter refuses; learns from it."""
        self.slots.limit.hold(self.slots.taken - 1)
        try:
            await asyncio.sleep(_SETTLE_S)
            refused = Refused(self.slots.most_open(attempt), answer, is_certain=True)
            await self.learn(refused)
        except BaseException:
            self.denied()
            raise
        return refused

    async def learn(self, refused: Refused) -> None:
        """Take a refusal that is beyond doubt."""
        await self.meet(anew=True)  # other programs may have taken links
        if self._discovers and not refused.is_certain:
            # We do not scan while we connect: beside another program's scan a connection may wait
            # for 10.24 s, which looks like a refusal.
            self.denied()
            return
        if not refused.links and not self.slots.limit.others:
            self.denied()  # whose links they are is unknown, and how many
            return
        certain = refused.is_certain
        if self.slots.limit.refused(refused.links, refused.answer, _now(), certain=certain):
            self._tell()
        self.slots.share_out()

    def _tell(self) -> None:
        log.info("adapter_links", **_shown(self.links))
        self._memory.save(self.slots.limit.learnt)


def _shown(links: AdapterLinks) -> dict[str, object]:
    return {"links": links.now, "most": links.most, "found": links.found}


def _now() -> float:
    return asyncio.get_running_loop().time()
