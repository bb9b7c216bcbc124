"""Founding the network: boards become nodes, then Primary Provisioners, all started together."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import structlog

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.direct import Direct
from fastprovd.campaign.ladder import Rung, Symptom
from fastprovd.campaign.node_identity import end_node_identity
from fastprovd.campaign.planner import (
    Plan,
    choose_node_addr_cnt,
    primaries_of,
    wants_spare,
)
from fastprovd.campaign.ports import Link
from fastprovd.campaign.primaries import Primaries
from fastprovd.campaign.primary import Outcome, add_app_key, provision, read_composition
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.campaign.reservations import Reservations
from fastprovd.campaign.resumption import Offer
from fastprovd.campaign.states import WAITS, RunEnd, Trigger
from fastprovd.campaign.tasks import background
from fastprovd.errors import AccessError, BearerError
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.records import NodeRole, StepKind

log = structlog.get_logger()

# Boards to try as Primary Provisioner, and sessions with each, before the run fails.
_BOARDS_TRIED: Final = 3
_SESSIONS_EACH: Final = 2
# Boards that no link could be opened to: anybody can advertise some, loudly. Each costs 20 s.
_BOARDS_UNREACHED: Final = 12


class Founding:
    """Makes the Primaries of a run and starts them.

    All are nodes before the first gets INFO_SET: once provisioners run, they are always faster
    than we are over PB-GATT.
    """

    def __init__(self, context: RunContext, primaries: Primaries, direct: Direct) -> None:
        self._context = context
        self._settings = context.settings
        self._log = context.log
        self._picture = context.picture
        self._watch = context.watch
        self._bearer = context.bearer
        self._clock = context.clock
        self._top = context.top
        self._primaries = primaries
        self._direct = direct
        self._reservations = Reservations(context)
        self._sessions: Counter[bytes] = Counter()
        self._unreached: set[bytes] = set()
        self._reason = "none is on the air"
        self._ready: dict[int, ProxySession] = {}
        self._made_s: dict[int, float] = {}

    async def found(self) -> None:
        """Make the Primaries, give them the AppKey, and start them; raises RunEnd."""
        boards = self._context.boards_planned_for
        settings = self._context.planned
        primaries = min(primaries_of(settings, boards), len(self._picture.boards))
        plan = await self._reservations.plan(boards, primaries)
        await self._log.change(primary=plan.plans[0].primary)
        plans = deque(plan.plans)
        async with AsyncExitStack() as links, AsyncExitStack() as waiting:
            await waiting.enter_async_context(background(self._outlast(), "node_identities"))
            while plans and (board := await self._next_board()) is not None:
                self._sessions[board.uuid] += 1
                outcome, self._reason = await self._provision(plans[0], board, links)
                if outcome is Outcome.COMPLETED:
                    plans.popleft()
                    continue
                self._log.event("warning", about=board.device_address, reason=self._reason)
                if outcome is Outcome.DATA_SENT:
                    try:
                        plans[0] = await self._another(plans[0])
                    except RunEnd:
                        if not self._primaries.nodes:
                            raise
                        break
            self._check_made(plans)
            if wants_spare(boards, primaries, self._bearer.links.now):
                await self._make_spare()
            await self._context.strangers.look_again()
            await waiting.aclose()
            await self._start_all(links)
        await self._log.move(Trigger.STARTED, t_provisioned_s=0.0, t_known_s=0.0)

    async def go_on(self, offered: Iterable[tuple[Plan, Offer]]) -> None:
        """Find the boards to which an earlier process offered addresses; raises nothing.

        Who took one is a Primary to be. What nobody is found to have stays burnt.
        """
        for plan, offer in offered:
            if offer.is_taken or await self._find(plan.primary, offer.board) is not None:
                await self._note_node(plan, offer.board)

    async def start_made(self) -> None:
        """Start the Primaries that an earlier process made; raises RunEnd."""
        async with AsyncExitStack() as links:
            await self._context.strangers.look_again()
            await self._start_all(links)
        await self._log.move(Trigger.STARTED, t_provisioned_s=0.0, t_known_s=0.0)

    async def reach_out(self, nodes: Sequence[tuple[int, HeardBoard]], boards: int) -> None:
        """Have nodes of ours provision so many boards that we do not hear; raises RunEnd."""
        part = -(-boards // len(nodes))
        shares = [await self._reservations.share(part, address) for address, _ in nodes]
        for (address, board), share in zip(nodes, shares, strict=True):
            plan = Plan(address, share, choose_node_addr_cnt())
            await self._log.plan(plan)
            self._primaries.add(plan, board)
            await self._log.node(address, role=NodeRole.PRIMARY_PROVISIONER)
        async with AsyncExitStack() as links:
            await self._context.strangers.look_again()
            await self._start_all(links)
        await self._log.move(Trigger.STARTED, primary=next(iter(self._primaries.nodes)))

    async def _make_spare(self) -> None:
        """Provision a board as a plain node: a way in that does not hang on one Primary."""
        board = await self._next_board()
        if board is not None and await self._direct.try_reserve(1):
            await self._direct.provision([board])

    # One node

    def _check_made(self, left: Collection[Plan]) -> None:
        reason = f"no board could be made the Primary Provisioner: {self._reason}"
        if not self._primaries.nodes:
            raise RunEnd(Trigger.NO_BOARD_LEFT, reason)
        if left:
            self._log.event("warning", about="Primary Provisioner", reason=reason)

    async def _another(self, plan: Plan) -> Plan:
        """Take another address and share in place of those that were offered in vain."""
        boards = self._context.boards_planned_for
        another = (await self._reservations.plan(boards, 1)).plans[0]
        if plan.primary == self._log.run.primary:
            await self._log.change(primary=another.primary)
        return another

    async def _next_board(self) -> HeardBoard | None:
        """Return the loudest board that may be tried; listen again when none is fresh.

        Once one could not be reached, those come first that are on the air for longest.
        """
        made = {node.device_uuid for node in self._log.nodes.values() if node.device_uuid}
        failed = {uuid for uuid, count in self._sessions.items() if count >= _SESSIONS_EACH}
        unreached = self._unreached - made
        is_enough = len(failed - made - unreached) >= _BOARDS_TRIED
        if is_enough or len(unreached) >= _BOARDS_UNREACHED:
            return None
        if unreached:
            await self._watch.listen(WAITS["last_look"].seconds)
            now, within_s = self._clock.monotonic(), WAITS["board_quiet"].seconds
            lasting = self._picture.most_lasting(failed | made | unreached, now, within_s)
            if lasting is not None:
                return lasting
        for seconds in (WAITS["boards_settle"].seconds, 0.0):
            now, within_s = self._clock.monotonic(), self._settings.scan_s
            board = self._picture.strongest(failed | made, now, within_s)
            if board is not None:
                return board
            await self._watch.listen(seconds)
        return None

    async def _provision(
        self, plan: Plan, board: HeardBoard, links: AsyncExitStack
    ) -> tuple[Outcome, str]:
        """Provision `board` and make it ready, if it works on the same link; return why not."""
        async with AsyncExitStack() as own:
            try:
                link = await own.enter_async_context(
                    self._bearer.provisioning_link(board.device_address)
                )
            except BearerError as error:
                self._unreached.add(board.uuid)
                return Outcome.NOTHING_SENT, str(error)
            self._unreached.discard(board.uuid)
            await self._move(Trigger.LINK_OPEN)
            outcome, reason = await provision(
                link,
                ProvisioningData(self._context.net_key, plan.primary, self._top.stack.iv_index),
                self._context.entropy,
                self._clock,
                lambda dev_key: self._top.keep_dev_key(
                    plan.primary, board.uuid, dev_key, self._log.offer(plan.primary, board)
                ),
            )
            if outcome is Outcome.COMPLETED:
                self._made_s[plan.primary] = self._clock.monotonic()
                await self._note_node(plan, board)
                try:
                    kept = self._bearer.kept_proxy_link(board.device_address)
                    await self._make_ready(plan.primary, await own.enter_async_context(kept), own)
                except (AccessError, BearerError) as error:
                    log.info("primary_not_ready", reason=str(error))
                else:
                    await links.enter_async_context(own.pop_all())
                return outcome, reason
        if outcome is Outcome.DATA_SENT and await self._find(plan.primary, board) is not None:
            # Provisioning Complete was lost; the board advertises the address we gave it.
            await self._note_node(plan, board)
            return Outcome.COMPLETED, ""
        await self._move(Trigger.SESSION_FAILED)
        return outcome, reason

    async def _move(self, trigger: Trigger) -> None:
        """Follow the states with the first Primary; the others are made meanwhile."""
        if not self._primaries.nodes:
            await self._log.move(trigger)

    async def _note_node(self, plan: Plan, board: HeardBoard) -> None:
        await self._move(Trigger.NODE_MADE)
        self._primaries.add(plan, board)
        await self._log.made_primary(plan.primary, board, self._top.stack.address)

    async def _find(self, address: int, board: HeardBoard) -> str | None:
        """Return the device address that advertises node `address`, freshly."""
        found = await self._watch.until(
            lambda heard: self._picture.is_proxy(heard, address, board.device_address),
            WAITS["identity"].seconds,
        )
        return None if found is None else found.device_address

    # Ready, and off

    async def _make_ready(self, address: int, link: Link, own: AsyncExitStack) -> ProxySession:
        """Give it the AppKey over an open proxy link; raises AccessError or BearerError classes."""
        session = await own.enter_async_context(proxy_session(link, self._top, self._clock))
        dev_key = self._top.stack.dev_keys[address]
        await self._log.step(StepKind.APP_KEY_ADD, address=address)
        await add_app_key(session, address, dev_key, self._context.app_key)
        composition = await read_composition(session, address, dev_key)
        if composition is not None:
            await self._log.node(address, elements=len(composition.elements))
        self._ready[address] = session
        return session

    async def _start_all(self, links: AsyncExitStack) -> None:
        """Start those that are ready at once, the others one by one."""
        ready = [address for address in self._primaries.nodes if address in self._ready]
        reasons = dict(
            zip(ready, await asyncio.gather(*map(self._start_ready, ready)), strict=True)
        )
        for address in list(self._primaries.nodes):
            for _ in range(_SESSIONS_EACH):
                if reasons.get(address) == "":
                    break
                if address in reasons:  # it got INFO_SET over the link before
                    self._log.recovery(Symptom.START_UNCONFIRMED, Rung.LINK_AGAIN)
                reasons[address] = await self._start_anew(address, links)
        refused = {address: reason for address, reason in reasons.items() if reason}
        for address, reason in refused.items():
            board = self._primaries.nodes[address].board
            self._primaries.remove(address)
            await self._log.node(address, role=NodeRole.NODE)
            self._log.event("warning", about="Primary Provisioner", reason=reason)
            # It is a node all the same: as one it is to answer, and to outlast its Node Identity.
            self._direct.go_on([Offer(address, board, is_taken=True)], ())
        if not self._primaries.nodes:
            raise RunEnd(Trigger.REFUSED, next(iter(refused.values())))
        if refused:
            await self._direct.provision([])

    async def _start_ready(self, address: int) -> str:
        try:
            await self._primaries.start(address, self._ready[address])
        except (AccessError, BearerError) as error:
            return str(error)
        return ""

    async def _outlast(self) -> None:
        while True:
            await asyncio.sleep(WAITS["poll"].seconds)
            await self._outlast_node_identities()

    async def _outlast_node_identities(self) -> None:
        """End Node Identity of nodes that wait long for the start.

        INFO_SET ends it as well. Up to there it is the better advertisement: its Random tells a
        fresh one from what BlueZ repeats while the board is off the air.
        """
        oldest_s = self._clock.monotonic() - WAITS["identity_ends"].seconds
        for address in [a for a, made_s in self._made_s.items() if made_s < oldest_s]:
            del self._made_s[address]
            session = self._ready.get(address)
            if session is None:
                continue
            dev_key = self._top.stack.dev_keys[address]
            try:
                await end_node_identity(session, address, dev_key, self._context.net_key.index)
            except (AccessError, BearerError) as error:
                log.info("node_identity_not_ended", reason=str(error))

    async def _start_anew(self, address: int, links: AsyncExitStack) -> str:
        board = self._primaries.nodes[address].board
        found = await self._find(address, board)
        if found is None:
            return "the board was not found again after provisioning"
        try:
            link = await links.enter_async_context(self._bearer.proxy_link(found))
            await self._make_ready(address, link, links)
        except (AccessError, BearerError) as error:
            return str(error)
        return await self._start_ready(address)
