"""A conversation over one GATT proxy link: requests, answers, timers, SEQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar, cast

import structlog

from fastprovd.campaign.ports import Link, Store
from fastprovd.campaign.tasks import background
from fastprovd.clock import Clock
from fastprovd.errors import ConnectionLost, LocalProtocolError, ResponseTimeout
from fastprovd.mesh.access import AcknowledgedMessage, Message, UnknownMessage, encode_message
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.events import (
    Event,
    FilterStatusReceived,
    IvIndexChanged,
    MessageReceived,
    MessageRejected,
    PduOverheard,
)
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.proxy import FilterType, ProxyConfiguration, SetFilterType
from fastprovd.mesh.proxy_client import ProxyClient

log = structlog.get_logger()

# A power cut wastes at most this many of 16.7 million numbers.
SEQ_BLOCK: Final = 256
# The longest message and its repetitions fit; below this a new block is reserved first.
SEQ_LOW: Final = 192

StatusT = TypeVar("StatusT", bound=Message)


class TopProvisioner:
    """Our side of the mesh over all links of a daemon: one stack, one SEQ, one replay list."""

    def __init__(self, client: ProxyClient, store: Store) -> None:
        self.client = client
        self._store = store
        self._lock = asyncio.Lock()
        # The SEQ at hand were reserved under this one, the store's.
        self._iv_index = client.stack.iv_index

    async def reserve_seq(self) -> None:
        """See that enough SEQ are reserved, durably, under the IV Index to send with.

        A new IV Index is stored first. Send or receive right after it, without another await.
        """
        stack = self.client.stack
        async with self._lock:
            # A beacon may move the IV Index at any await, so both are looked at after each.
            while stack.iv_index != self._iv_index or stack.sequence.remaining < SEQ_LOW:
                if stack.iv_index != self._iv_index:
                    await self._take_iv_index(stack.iv_index)
                else:
                    block = await asyncio.to_thread(self._store.reserve_seq_block, SEQ_BLOCK)
                    stack.sequence.extend(block)

    async def _take_iv_index(self, iv_index: IvIndex) -> None:
        await asyncio.to_thread(self._store.set_iv_index, iv_index)
        block = await asyncio.to_thread(self._store.reserve_seq_block, SEQ_BLOCK)
        self.client.stack.sequence.restart(block)
        self._iv_index = iv_index
        log.info("iv_index_changed", iv_index=iv_index.value)


class ProxySession:
    """Sends requests and matches answers; use it through `proxy_session`.

    One request per node and Status at a time. `overheard` gets the PDUs between others that the
    proxy lets through, `observer` every event; `server_address` is the proxy's unicast address,
    once it told it. All sessions of a TopProvisioner share its stack: have one open at a time.
    """

    def __init__(self, link: Link, top: TopProvisioner, clock: Clock) -> None:
        self._link = link
        self._top = top
        self._client = top.client
        self._clock = clock
        self._pending: dict[tuple[int, int], asyncio.Future[Message]] = {}
        self._wait: asyncio.Timeout | None = None
        self._sending = asyncio.Lock()
        self.lost = asyncio.Event()
        self.overheard: Callable[[PduOverheard], None] | None = None
        self.observer: Callable[[Event], None] | None = None
        self.server_address: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def send(
        self, message: Message, *, dst: int, key: AppKey | DevKey, ttl: int | None = None
    ) -> int:
        """Send without waiting for an answer; raises ConnectionLost.

        Returns the number that the transfer events of a segmented message will carry.
        """
        await self._top.reserve_seq()
        transfer_id = self._client.stack.send(
            encode_message(message), dst=dst, key=key, ttl=ttl, now=self._clock.monotonic()
        )
        await self._flush()
        return transfer_id

    async def configure(self, message: ProxyConfiguration) -> None:
        """Send a proxy configuration message; raises ConnectionLost."""
        await self._top.reserve_seq()
        self._client.configure(message)
        await self._flush()

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
            ConnectionLost: the link went away.
        """
        slot = (dst, message.STATUS.OPCODE)
        if slot in self._pending:
            raise LocalProtocolError(f"a request to {format_address(dst)} is already under way")
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[slot] = future
        try:
            for _ in range(attempts):
                self.check()
                await self.send(message, dst=dst, key=key, ttl=ttl)
                await asyncio.wait([future], timeout=timeout_s)
                if future.done():
                    # _answer matched opcode and source, so it is the Status class.
                    return cast(StatusT, future.result())
        finally:
            del self._pending[slot]
            if future.done() and not future.cancelled():
                future.exception()  # seen, whether or not anybody still waits
        raise ResponseTimeout(
            f"{type(message).__name__} to {format_address(dst)} had no answer in {attempts} "
            f"attempts of {timeout_s} s"
        )

    def check(self) -> None:
        """Raise ConnectionLost when the link is gone."""
        if self.lost.is_set():
            raise ConnectionLost("the proxy link is gone")

    async def work(self) -> None:
        """Receive and keep the stack's timers until the link is gone."""
        try:
            while True:
                await self._top.reserve_seq()
                now = self._clock.monotonic()
                try:
                    async with asyncio.timeout_at(self._client.next_deadline()) as self._wait:
                        pdu_type, payload = await self._link.receive()
                except TimeoutError:
                    events = self._client.handle_deadline(self._clock.monotonic())
                else:
                    now = self._clock.monotonic()
                    events = self._client.receive(pdu_type, payload, now)
                finally:
                    self._wait = None
                await self._handle(events)
                await self._flush()
        except ConnectionLost as error:
            log.debug("proxy_link_lost", reason=str(error))
        finally:
            self.lost.set()
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ConnectionLost("the proxy link is gone"))

    async def _handle(self, events: list[Event]) -> None:
        for event in events:
            if self.observer is not None:
                self.observer(event)
            match event:
                case MessageReceived():
                    self._answer(event)
                case PduOverheard():
                    if self.overheard is not None:
                        self.overheard(event)
                case IvIndexChanged():
                    await self._top.reserve_seq()
                case MessageRejected():
                    log.debug("pdu_rejected", reason=event.reason, src=event.src)
                case FilterStatusReceived() if not self.server_address.done():
                    self.server_address.set_result(event.src)
                case _:
                    pass

    def _answer(self, event: MessageReceived) -> None:
        if isinstance(event.message, UnknownMessage):
            return
        future = self._pending.get((event.src, event.message.OPCODE))
        if future is not None and not future.done():
            future.set_result(event.message)

    async def _flush(self) -> None:
        # The deadline of a transfer that was just begun may be nearer than what work() waits for.
        async with self._sending:
            for pdu_type, payload in self._client.pdus_to_send():
                await self._link.send(pdu_type, payload)
        deadline = self._client.next_deadline()
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(deadline)


@asynccontextmanager
async def proxy_session(
    link: Link, top: TopProvisioner, clock: Clock
) -> AsyncIterator[ProxySession]:
    """Run a session over an open proxy link; its filter lets everything through.

    Raises:
        ConnectionLost: the link was gone before the filter was set.
    """
    session = ProxySession(link, top, clock)
    async with background(session.work(), "proxy_session"):
        await session.configure(SetFilterType(FilterType.REJECT_LIST))
        yield session
