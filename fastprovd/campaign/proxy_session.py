"""Conversations over GATT proxy links: requests, answers, timers, SEQ."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple, TypeVar, cast

import structlog

from fastprovd.campaign.ports import Link, Store
from fastprovd.campaign.states import WAITS
from fastprovd.campaign.tasks import background, undisturbed
from fastprovd.clock import Clock, SystemClock
from fastprovd.errors import (
    ConnectionLost,
    CopiedStore,
    LocalProtocolError,
    MessagesDropped,
    ProxySilent,
    ResponseTimeout,
    StoreError,
)
from fastprovd.mesh.access import AcknowledgedMessage, Message, UnknownMessage, encode_message
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.events import (
    BeaconReceived,
    Event,
    FilterStatusReceived,
    IvIndexChanged,
    IvIndexRefused,
    MessageReceived,
    MessageRejected,
    OwnAddressHeard,
    PduOverheard,
)
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.iv_updates import is_recovery
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.proxy import FilterType, ProxyConfiguration, ProxyPduType, SetFilterType
from fastprovd.mesh.proxy_client import ProxyClient
from fastprovd.mesh.stack import Stack
from fastprovd.records import Step

log = structlog.get_logger()

# A power cut wastes at most this many of 16.7 million numbers.
SEQ_BLOCK: Final = 256
# The longest message and its repetitions fit; below this a new block is reserved first.
SEQ_LOW: Final = 192

_DROPPED: Final = (
    "the proxy sends us its beacon and drops whatever we send, as a node does that has heard "
    "higher SEQ from our address: the state directory was most likely restored from an old "
    "backup; stop, and begin a new network or, if no newer state exists, run 'fastprovd state "
    "adopt'"
)

_SILENT: Final = "the proxy does not answer any more"

StatusT = TypeVar("StatusT", bound=Message)


class _Awaited(NamedTuple):
    key: AppKey | DevKey
    answer: asyncio.Future[Message]


class TopProvisioner:
    """Our side of the mesh over all links of a daemon: one stack, one SEQ, one replay list.

    A PDU goes over the link that its destination was last spoken to, or heard, through; without
    such a link over any that is open, and without an open link nowhere, as on the air.
    """

    def __init__(self, stack: Stack, store: Store, clock: Clock | None = None) -> None:
        """`clock` tells the time of day at which the IV Index moved."""
        self.stack = stack
        self._store = store
        self._clock = clock or SystemClock()
        self._refused: IvIndex | None = None
        self._reserving = asyncio.Lock()
        self._sending = asyncio.Lock()
        # The SEQ at hand were reserved under this one, the store's.
        self._iv_index = stack.iv_index
        self._sessions: list[ProxySession] = []
        self._ways: dict[int, ProxySession] = {}
        self._conflict: str | None = None
        self._is_conflict_kept = False
        self._pending: dict[tuple[int, int], _Awaited] = {}

    async def reserve_seq(self) -> None:
        """See that enough SEQ are reserved, durably, under the IV Index to send with.

        A new IV Index is stored first. Send or receive right after it, without another await.

        Raises:
            CopiedStore: somebody else sends with our address.
        """
        stack = self.stack
        self.check()
        async with self._reserving:
            # A beacon may move the IV Index at any await, so both are looked at after each.
            while stack.iv_index != self._iv_index or stack.sequence.remaining < SEQ_LOW:
                if stack.iv_index != self._iv_index:
                    await undisturbed(self._take_iv_index(stack.iv_index))
                else:
                    await undisturbed(self._reserve_seq())

    async def _reserve_seq(self) -> None:
        block = await asyncio.to_thread(self._store.reserve_seq_block, SEQ_BLOCK)
        if self.stack.iv_index == self._iv_index:
            self.stack.sequence.extend(block)

    def check(self) -> None:
        """Raise CopiedStore once somebody else was heard to send with our address."""
        if self._conflict is not None:
            raise CopiedStore(self._conflict)

    async def refuse(self, heard: OwnAddressHeard) -> None:
        """Send nothing any more, nor after a restart, until the operator has looked."""
        if self._conflict is not None:
            return
        self._conflict = (
            f"a PDU from our own address {format_address(self.stack.address)} was heard with SEQ "
            f"{heard.seq} under IV Index {heard.iv_index}, and ours goes on with {heard.next_seq}: "
            "another gateway uses a copy of the state directory, or ours is older than the network;"
            " nothing is sent any more. Stop the other one and run 'fastprovd state adopt', or "
            "begin a new network"
        )
        log.error("own_address_heard", seq=heard.seq, next_seq=heard.next_seq)
        try:
            await self.keep_conflict()
        except StoreError as error:  # this process sends nothing any more all the same
            log.error("conflict_not_stored", reason=str(error))

    async def keep_conflict(self) -> None:
        """Store that somebody else sends with our address, if that is not done yet.

        Raises:
            StoreError: it can not be stored.
        """
        if self._conflict is not None and not self._is_conflict_kept:
            await asyncio.to_thread(self._store.note_conflict, self._conflict)
            self._is_conflict_kept = True

    async def _take_iv_index(self, iv_index: IvIndex) -> None:
        recovers = is_recovery(self._iv_index, iv_index)
        now = self._clock.utc_now()
        await asyncio.to_thread(self._store.set_iv_index, iv_index, now, recovers=recovers)
        block = await asyncio.to_thread(self._store.reserve_seq_block, SEQ_BLOCK)
        self._iv_index = iv_index
        if self.stack.iv_index == iv_index:
            self.stack.sequence.restart(block)
        log.info("iv_index_changed", iv_index=iv_index.value)

    def refuse_iv_index(self, iv_index: IvIndex) -> None:
        """Say once that a beacon was not followed."""
        if iv_index != self._refused:
            self._refused = iv_index
            ours = self.stack.iv_index.value
            log.warning(
                "iv_index_refused",
                iv_index=iv_index.value,
                ours=ours,
                advice="nodes move 42 at the most, and once in 192 hours; if this is no attack, "
                "the network is ahead of us: it is followed when that time has passed",
            )

    async def keep_dev_key(
        self, address: int, device_uuid: bytes, dev_key: DevKey, step: Step | None = None
    ) -> None:
        """Store the DevKey of a board that is about to become node `address`, then use it."""
        await asyncio.to_thread(self._store.save_dev_key, address, device_uuid, dev_key, step)
        self.stack.dev_keys[address] = dev_key

    @contextmanager
    def awaiting(
        self, slot: tuple[int, int], key: AppKey | DevKey
    ) -> Iterator[asyncio.Future[Message]]:
        """Expect a Status: its source and opcode, under the key that the request has.

        Whichever link brings it first, ends the wait.
        """
        if slot in self._pending:
            raise LocalProtocolError(f"a request to {format_address(slot[0])} is already under way")
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[slot] = _Awaited(key, future)
        try:
            yield future
        finally:
            del self._pending[slot]

    def answer(self, event: MessageReceived) -> None:
        """Give a message to whoever awaits it; under another key nobody does."""
        if isinstance(event.message, UnknownMessage) or event.dst != self.stack.address:
            return
        awaited = self._pending.get((event.src, event.message.OPCODE))
        if awaited is None or awaited.answer.done():
            return
        if not awaited.key.is_same(event.key):
            log.warning("status_under_another_key", src=format_address(event.src))
            return
        awaited.answer.set_result(event.message)

    def open(self, session: ProxySession) -> None:
        """Take a session's link into use."""
        self._sessions.append(session)

    def close(self, session: ProxySession) -> None:
        """The session's link is gone."""
        self._sessions.remove(session)
        self._ways = {dst: way for dst, way in self._ways.items() if way is not session}

    def lead(self, address: int, session: ProxySession, *, known: bool = True) -> None:
        """Speak to `address` through this session from now on; not `known`: if no other way is."""
        if known or address not in self._ways:
            self._ways[address] = session

    async def flush(self) -> None:
        """Send what the stack has to send, and wake the sessions for the deadlines it made."""
        async with self._sending:
            for out in self.stack.pdus_to_send():
                session = self._ways.get(out.pdu.dst) or next(iter(self._sessions), None)
                if session is not None:
                    await session.carry(ProxyPduType.NETWORK_PDU, out.raw)
        deadline = self.stack.next_deadline()
        for session in self._sessions:
            session.wake_at(deadline)


class ProxySession:
    """Sends requests over one link and awaits answers; use it through `proxy_session`.

    One request per node and Status at a time, over all sessions. `overheard` gets the PDUs between
    others that the proxy lets through, `observer` every event of this link; `server_address` is the
    proxy's unicast address, once it told it, and `expected` the one that it should have, if the
    link is meant for one node.
    """

    def __init__(self, link: Link, top: TopProvisioner, clock: Clock) -> None:
        self._link = link
        self._top = top
        self._client = ProxyClient(top.stack)
        self._clock = clock
        self._wait: asyncio.Timeout | None = None
        self.lost = asyncio.Event()
        self.overheard: Callable[[PduOverheard], None] | None = None
        self.observer: Callable[[Event], None] | None = None
        self._configured_s = math.inf
        self._silent: ProxySilent | None = None
        self._not_kept: StoreError | None = None
        self._was_greeted = False
        self._was_heard = False
        self.server_address: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.expected: int | None = None
        self._filter = SetFilterType(FilterType.ACCEPT_LIST)
        self._filter_told = asyncio.Event()

    async def send(
        self, message: Message, *, dst: int, key: AppKey | DevKey, ttl: int | None = None
    ) -> int:
        """Send without waiting for an answer; raises ConnectionLost.

        Returns the number that the transfer events of a segmented message will carry.
        """
        await self._top.reserve_seq()
        self.check()
        self._top.lead(dst, self)
        transfer_id = self._top.stack.send(
            encode_message(message), dst=dst, key=key, ttl=ttl, now=self._clock.monotonic()
        )
        await self._top.flush()
        self.check()
        return transfer_id

    async def configure(self, message: ProxyConfiguration) -> None:
        """Send a proxy configuration message; raises ConnectionLost."""
        await self._top.reserve_seq()
        if isinstance(message, SetFilterType):
            self._filter = message
        self._configured_s = self._clock.monotonic()
        self._client.configure(message)
        for pdu_type, payload in self._client.configuration_to_send():
            await self._link.send(pdu_type, payload)

    async def request(
        self,
        message: AcknowledgedMessage[StatusT],
        *,
        dst: int,
        key: AppKey | DevKey,
        ttl: int | None = None,
        timeout_s: float,
        attempts: int = 1,
    ) -> StatusT:
        """Send until the Status comes, at most `attempts` times, `timeout_s` each.

        Raises:
            ResponseTimeout: no answer.
            MessagesDropped: the proxy does not take what we send.
            ConnectionLost: the link went away.
        """
        with self._top.awaiting((dst, message.STATUS.OPCODE), key) as answer:
            lost = asyncio.ensure_future(self.lost.wait())
            either: tuple[asyncio.Future[Any], ...] = (answer, lost)
            try:
                for _ in range(attempts):
                    await self.send(message, dst=dst, key=key, ttl=ttl)
                    await asyncio.wait(
                        either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if answer.done():
                        # What is awaited matches opcode and source, so it is the Status class.
                        return cast(StatusT, answer.result())
                    self.check()
            finally:
                lost.cancel()
        self.check_heard()
        raise ResponseTimeout(
            f"{type(message).__name__} to {format_address(dst)} had no answer in {attempts} "
            f"attempts of {timeout_s} s"
        )

    async def check_proxy(self) -> None:
        """See that the proxy itself still answers; for when nobody behind it does.

        Raises:
            ProxySilent: it does not; a board that died may keep its link, and one that restarted
                is another node now.
            ConnectionLost: the link is gone.
        """
        self._filter_told.clear()
        await self.configure(self._filter)
        if not await self._is_filter_told(WAITS["configuration"].seconds):
            self._lose(ProxySilent(_SILENT))
        elif self.expected not in (None, address := self.server_address.result()):
            self._lose(ProxySilent(f"the proxy is node {format_address(address)} now"))
        self.check()

    async def check_key(self) -> None:
        """See that the proxy confirms the filter that the session began with.

        Only who has our network key can do so, and everybody who has it does. It is told the
        filter twice: SEQ that are behind by a few pass on the way.

        Raises:
            MessagesDropped: it sends us its beacon, and does not take what we send.
            ProxySilent, ConnectionLost: as `check_proxy`.
        """
        half_s = WAITS["configuration"].seconds / 2
        if not await self._is_filter_told(half_s):
            self.check()
            await self.configure(self._filter)
            if not await self._is_filter_told(half_s):
                if self._was_greeted and not self._was_heard:
                    raise MessagesDropped(_DROPPED)
                self._lose(ProxySilent(_SILENT))
        self.check()

    async def _is_filter_told(self, seconds: float) -> bool:
        """Wait for a Filter Status, or for the end of the link."""
        told = asyncio.ensure_future(self._filter_told.wait())
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            await asyncio.wait({told, lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            lost.cancel()
        return self._filter_told.is_set()

    def check_heard(self) -> None:
        """Raise MessagesDropped when the proxy most likely drops what we send.

        It told us its beacon, and in time it has neither confirmed its filter, which takes no key
        but that of the beacon, nor let any message for us through.
        """
        quiet_s = self._clock.monotonic() - self._configured_s
        is_late = quiet_s > WAITS["configuration"].seconds
        if self._was_greeted and is_late and not self._was_heard:
            raise MessagesDropped(_DROPPED)

    def check(self) -> None:
        """Raise when the link is gone, or nothing may be sent.

        Raises:
            ProxySilent: we gave it up because the proxy did not answer.
            ConnectionLost: it is gone.
            CopiedStore: somebody else sends with our address.
            StoreError: what must be kept before anything is sent was not.
        """
        self._top.check()
        self.check_kept()
        if self._silent is not None:
            raise ProxySilent(str(self._silent))
        if self.lost.is_set():
            raise ConnectionLost("the proxy link is gone")

    def check_kept(self) -> None:
        """Raise StoreError when what must be kept before anything is sent was not."""
        if self._not_kept is not None:
            raise type(self._not_kept)(str(self._not_kept))

    async def carry(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Put one Proxy PDU on the link; a link that is gone swallows it."""
        try:
            await self._link.send(pdu_type, payload)
        except ConnectionLost as error:
            self._lose(error)

    def wake_at(self, deadline: float | None) -> None:
        """Look after the stack's timers at `deadline`; it may be nearer than what we wait for."""
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(deadline)

    async def work(self) -> None:
        """Receive and keep the stack's timers until the link is gone."""
        try:
            while not self.lost.is_set():
                await self._top.reserve_seq()
                try:
                    async with asyncio.timeout_at(self._client.next_deadline()) as self._wait:
                        pdu_type, payload = await self._link.receive()
                except TimeoutError:
                    events = self._client.handle_deadline(self._clock.monotonic())
                else:
                    events = self._client.receive(pdu_type, payload, self._clock.monotonic())
                finally:
                    self._wait = None
                await self._handle(events)
                await self._top.flush()
        except ConnectionLost as error:
            self._lose(error)
        except StoreError as error:  # whoever uses this session is told with its next step
            self._not_kept = error
        finally:
            self.lost.set()

    def _lose(self, error: ConnectionLost) -> None:
        if not self.lost.is_set():
            log.debug("proxy_link_lost", reason=str(error))
            self._silent = error if isinstance(error, ProxySilent) else None
            self.lost.set()

    async def _handle(self, events: list[Event]) -> None:
        for event in events:
            if self.observer is not None:
                self.observer(event)
            match event:
                case MessageReceived():
                    self._was_heard = True
                    self._top.lead(event.src, self, known=False)
                    self._top.answer(event)
                case PduOverheard():
                    if self.overheard is not None:
                        self.overheard(event)
                case OwnAddressHeard():
                    await self._top.refuse(event)
                case BeaconReceived():
                    self._was_greeted = True
                case IvIndexChanged():
                    await self._top.reserve_seq()
                case IvIndexRefused():
                    self._top.refuse_iv_index(event.iv_index)
                case MessageRejected():
                    log.debug("pdu_rejected", reason=event.reason, src=event.src)
                case FilterStatusReceived():
                    self._was_heard = True
                    self._filter_told.set()
                    if not self.server_address.done():
                        self._top.lead(event.src, self)
                        self.server_address.set_result(event.src)
                case _:
                    pass


@asynccontextmanager
async def proxy_session(
    link: Link, top: TopProvisioner, clock: Clock, *, overhears: bool = True
) -> AsyncIterator[ProxySession]:
    """Run a session over an open proxy link; its filter lets everything through, if it `overhears`.

    Without, the proxy learns our address from what we send and keeps answers to us to this link;
    with, it puts each of them on the air as well, where all nodes relay it.

    Raises:
        ConnectionLost: the link was gone before the filter was set.
    """
    session = ProxySession(link, top, clock)
    top.open(session)
    try:
        async with background(session.work(), "proxy_session"):
            if overhears:
                await session.configure(SetFilterType(FilterType.REJECT_LIST))
            yield session
            session.check_kept()
    finally:
        top.close(session)
