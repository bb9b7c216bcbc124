"""Nodes that join and leave groups, and the proof that they did.

Where we know the DevKey, the node's Configuration Server does it and says so. To the boards that
other boards provisioned only NODE_GROUP_ADD and NODE_GROUP_DELETE can be sent, which nobody
answers. So they are sent twice: to all nodes at once, which is quick, and to each node by name in
a segmented message, which its transport layer acknowledges. A group that is small enough is
then asked who is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

import structlog

from fastprovd.campaign.calm import Calm, pause
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.roll_call import Pace, Rounds
from fastprovd.campaign.states import WAITS
from fastprovd.campaign.ways import Ways, Witness
from fastprovd.clock import Clock
from fastprovd.errors import ResponseTimeout
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.mesh.events import Event, MessageReceived, TransferCompleted, TransferFailed
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.models.configuration import FoundationStatus
from fastprovd.mesh.models.configuration_subscriptions import (
    ModelSubscriptionAdd,
    ModelSubscriptionDelete,
)
from fastprovd.mesh.models.fast_provisioning import NodeGroupAdd, NodeGroupDelete
from fastprovd.mesh.models.generic_onoff import GENERIC_ONOFF_SERVER, OnOffGet, OnOffStatus
from fastprovd.records import Proof

log = structlog.get_logger()

# With opcode and group, what 11 octets of an unsegmented message hold.
ADDRESSES_PER_MESSAGE: Final = 3
# One address more makes two segments. The node looks for its own and stops at the first.
_SEGMENTED_ADDRESSES: Final = ADDRESSES_PER_MESSAGE + 1
# All answers to a group Get come at once, two notifications each: a dozen kill a NimBLE Primary.
MAX_ASKED_TOGETHER: Final = 8
_ASKED_TOGETHER_TIMES: Final = 5
# Two segments and their acknowledgment, each relayed once by every node in 90 ms.
_DELIVERY_PACE_S: Final = 0.29
# Five rounds of at most 0.55 s each; then the stack gives up by itself.
_DELIVERY_S: Final = 4.0
# As for lights: 7 reaches behind relays too, and in an idle mesh costs no more than 3.
_TTL: Final = 7
# Everybody named in a message is asked by name afterwards, so these limits are only for the case
# that hardly anybody answers.
_PROVE_S: Final = 20.0
_PROVE_PER_NODE_S: Final = 1.2

Proven = Callable[[int, Proof], Awaitable[None]]


def split(addresses: Collection[int]) -> list[tuple[int, ...]]:
    """Return the addresses in as many messages as they need, all unsegmented."""
    ordered = sorted(addresses)
    step = ADDRESSES_PER_MESSAGE
    return [tuple(ordered[at : at + step]) for at in range(0, len(ordered), step)]


class GroupChange:
    """One change; `waiting` are those who gave no proof yet.

    `run` may be called again over another session when the link was lost, or when its proxy
    forwards nothing: it goes on where it was. `answering` are the nodes that are known to hold the
    AppKey: without it a transport layer acknowledges what the node can not read. `others` are in
    the group besides.
    """

    def __init__(
        self,
        group: int,
        addresses: Collection[int],
        *,
        add: bool,
        others: Collection[int],
        answering: Collection[int],
        dev_keys: Mapping[int, DevKey],
        app_key: AppKey,
        clock: Clock,
        proven: Proven,
    ) -> None:
        self._group = group
        self._add = add
        # Who is asked in the group has to answer: a full list takes the command all the same.
        self._asks_together = add and len({*others, *addresses}) <= MAX_ASKED_TOGETHER
        self._answering = answering
        self._dev_keys = dev_keys
        self._app_key = app_key
        self._clock = clock
        self._proven = proven
        self.waiting = set(addresses)

    async def run(self, session: ProxySession, ways: Ways) -> None:
        """Tell those who wait, and collect their proofs.

        Raises:
            ConnectionLost: the link went away.
            ForwardsNothing: nobody but the proxy answers.
        """
        evidence = _Evidence(self._app_key)
        session.observer = evidence.take
        calm = Calm(self._clock)
        session.overheard = calm.heard
        configured = self.waiting & set(self._dev_keys)
        unanswered = self.waiting - configured
        pace = Pace(self._clock, _DELIVERY_PACE_S)
        witness = Witness(session, ways)

        async def tell(address: int, _: int) -> bool:
            await pace.wait()
            if address in self._dev_keys:
                answered = await self._configure(session, address)
            else:
                answered = await self._deliver(session, evidence, address)
            return witness.saw(address, answered=answered)

        try:
            async with asyncio.timeout(_PROVE_S + _PROVE_PER_NODE_S * len(self.waiting)):
                await Rounds(tell, _at_once).through(configured)
                if len(unanswered) > ADDRESSES_PER_MESSAGE:
                    await self._announce(session, unanswered)
                await Rounds(tell, lambda: calm.wait(session)).through(unanswered)
                if self._asks_together:
                    await calm.wait(session)
                    await self._ask_together(session, evidence)
        except TimeoutError:
            log.warning("proving_groups_took_too_long", unproven=len(self.waiting))

    def _message(self, addresses: tuple[int, ...]) -> NodeGroupAdd | NodeGroupDelete:
        return (NodeGroupAdd if self._add else NodeGroupDelete)(self._group, addresses)

    async def _take(self, address: int, proof: Proof) -> None:
        self.waiting.discard(address)
        await self._proven(address, proof)

    async def _configure(self, session: ProxySession, address: int) -> bool:
        request = ModelSubscriptionAdd if self._add else ModelSubscriptionDelete
        try:
            answer = await session.request(
                request(address, self._group, GENERIC_ONOFF_SERVER),
                dst=address,
                key=self._dev_keys[address],
                ttl=_TTL,
                timeout_s=WAITS["answer"].seconds,
            )
        except ResponseTimeout:
            return False
        if answer.status is FoundationStatus.SUCCESS:
            await self._take(address, Proof.STATUS)
        else:
            log.warning("group_refused", address=address, status=answer.status.name)
        return True

    async def _announce(self, session: ProxySession, addresses: Collection[int]) -> None:
        pace = Pace(self._clock)
        for part in split(addresses):
            await pace.wait()
            session.check()
            await session.send(self._message(part), dst=ALL_NODES, key=self._app_key, ttl=_TTL)

    async def _deliver(self, session: ProxySession, evidence: _Evidence, address: int) -> bool:
        session.check()
        message = self._message((address,) * _SEGMENTED_ADDRESSES)
        transfer_id = await session.send(message, dst=address, key=self._app_key, ttl=_TTL)
        arrived = evidence.arrived(transfer_id)
        await asyncio.wait([arrived], timeout=_DELIVERY_S)
        session.check()
        if not (arrived.done() and arrived.result()):
            return False
        if address in self._answering and not self._asks_together:
            await self._take(address, Proof.ACKNOWLEDGMENT)
        return True

    async def _ask_together(self, session: ProxySession, evidence: _Evidence) -> None:
        for _ in range(_ASKED_TOGETHER_TIMES):
            if not self.waiting:
                return
            session.check()
            await session.send(OnOffGet(), dst=self._group, key=self._app_key, ttl=_TTL)
            await pause(session, WAITS["calm"].seconds)
            for address in sorted(self.waiting & evidence.answered):
                await self._take(address, Proof.ANSWER)


async def _at_once() -> None:
    """A Configuration Server answers once; nothing that was sent to many is still on its way."""


class _Evidence:
    """What the events of a session show: whose light was told, which messages arrived."""

    def __init__(self, app_key: AppKey) -> None:
        self._app_key = app_key
        self.answered: set[int] = set()
        self._arrived: dict[int, asyncio.Future[bool]] = {}

    def take(self, event: Event) -> None:
        match event:
            case MessageReceived(message=OnOffStatus()) if self._app_key.is_same(event.key):
                self.answered.add(event.src)
            case TransferCompleted() | TransferFailed():
                arrived = self.arrived(event.transfer_id)
                if not arrived.done():
                    arrived.set_result(isinstance(event, TransferCompleted))
            case _:
                pass

    def arrived(self, transfer_id: int) -> asyncio.Future[bool]:
        """Return whether the message was acknowledged; the event may come before the question."""
        if transfer_id not in self._arrived:
            self._arrived[transfer_id] = asyncio.get_running_loop().create_future()
        return self._arrived[transfer_id]
