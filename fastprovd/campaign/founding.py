"""Founding the network: one board becomes a node, then the Primary Provisioner."""

from __future__ import annotations

import asyncio
from typing import Final

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.planner import Plan, plan_run
from fastprovd.campaign.primary import (
    Outcome,
    Start,
    add_app_key,
    provision,
    read_composition,
    start_fast_provisioning,
)
from fastprovd.campaign.proxy_session import ProxySession, proxy_session
from fastprovd.campaign.states import WAITS, RunEnd, Trigger
from fastprovd.campaign.verdict import target
from fastprovd.errors import AccessError, BearerError, LocalProtocolError
from fastprovd.mesh.beacons import Advertisement
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.records import AddressRange, NodeRole, RunState

# Boards to try as Primary Provisioner, and sessions with each, before the run fails.
_BOARDS_TRIED: Final = 3
_SESSIONS_EACH: Final = 2


class Founding:
    """Makes one Primary Provisioner and starts it; `plan` and `board` are known once it did.

    It does not recover a Primary that stays silent.
    """

    def __init__(self, context: RunContext) -> None:
        self._settings = context.settings
        self._log = context.log
        self._picture = context.picture
        self._watch = context.watch
        self._bearer = context.bearer
        self._store = context.store
        self._clock = context.clock
        self._entropy = context.entropy
        self._top = context.top
        self._app_key = context.app_key
        self._strangers = context.strangers
        self._net_key = context.net_key
        self._is_started = False
        self.plan: Plan | None = None
        self.board: HeardBoard | None = None

    async def make(self) -> None:
        """Provision the loudest board that can be; raises RunEnd."""
        passed_over: set[bytes] = set()
        reason = ""
        for _ in range(_BOARDS_TRIED):
            board = await self._strongest(passed_over)
            if board is None:
                break
            for _ in range(_SESSIONS_EACH):
                await self._reserve()
                reason = await self._provision(board)
                if not reason:
                    return
                self._log.event("warning", about=board.device_address, reason=reason)
            passed_over.add(board.uuid)
        raise RunEnd(
            Trigger.NO_BOARD_LEFT,
            f"no board could be made the Primary Provisioner: {reason}",
        )

    async def _strongest(self, passed_over: set[bytes]) -> HeardBoard | None:
        """Return the loudest board that is not passed over; listen again when none is fresh."""
        for seconds in (WAITS["boards_settle"].seconds, 0.0):
            now, within_s = self._clock.monotonic(), self._settings.scan_s
            board = self._picture.strongest(passed_over, now, within_s)
            if board is not None:
                return board
            await self._watch.listen(seconds)
        return None

    async def _reserve(self) -> None:
        if self.plan is not None:
            return
        boards = target(self._settings.expected, len(self._picture.boards))
        taken = await asyncio.to_thread(self._store.reserved_addresses)
        try:
            planned = plan_run(
                boards, self._settings.unicast_min, self._settings.unicast_max, taken
            )
        except LocalProtocolError as error:
            raise RunEnd(Trigger.NO_BOARD_LEFT, str(error)) from error
        plan, (first, last) = planned.plans[0], planned.reserved
        await asyncio.to_thread(
            self._store.reserve_addresses,
            AddressRange(first, last, self._log.run.run_id, "fast provisioning"),
        )
        self.plan = plan
        await self._log.change(
            primary=first, unicast_min=plan.share.first, unicast_max=plan.share.last
        )

    async def _provision(self, board: HeardBoard) -> str:
        """Provision `board`; return why not, or nothing."""
        plan = checked(self.plan)
        try:
            async with self._bearer.provisioning_link(board.device_address) as link:
                await self._log.move(Trigger.LINK_OPEN)
                outcome, reason = await provision(
                    link,
                    ProvisioningData(self._net_key, plan.primary, self._top.stack.iv_index),
                    self._entropy,
                    self._clock,
                    lambda dev_key: self._top.keep_dev_key(plan.primary, board.uuid, dev_key),
                )
        except BearerError as error:
            if self._log.run.state is RunState.CONNECTING:
                return str(error)
            outcome, reason = Outcome.DATA_SENT, str(error)
        if outcome is Outcome.DATA_SENT and await self._find(
            plan.primary, WAITS["identity"].seconds
        ):
            # Provisioning Complete was lost; the board advertises the address we gave it.
            outcome = Outcome.COMPLETED
        if outcome is not Outcome.COMPLETED:
            if outcome is Outcome.DATA_SENT:
                self.plan = None
            await self._log.move(Trigger.SESSION_FAILED)
            return reason
        self.board = board
        await self._log.move(Trigger.NODE_MADE)
        await self._log.node(
            plan.primary,
            role=NodeRole.PRIMARY_PROVISIONER,
            device_uuid=board.uuid,
            device_address=board.device_address,
            provisioned_by=self._top.stack.address,
        )
        return ""

    async def start(self) -> None:
        """Give it the AppKey and INFO_SET; raises RunEnd."""
        plan = checked(self.plan)
        reason = ""
        for _ in range(_SESSIONS_EACH):
            found = await self._find(plan.primary, WAITS["identity"].seconds)
            if found is None:
                reason = "the board was not found again after provisioning"
                continue
            try:
                async with (
                    self._bearer.proxy_link(found) as link,
                    proxy_session(link, self._top, self._clock) as session,
                ):
                    dev_key = self._top.stack.dev_keys[plan.primary]
                    await add_app_key(session, plan.primary, dev_key, self._app_key)
                    composition = await read_composition(session, plan.primary, dev_key)
                    if composition is not None:
                        await self._log.node(plan.primary, elements=len(composition.elements))
                    await self._strangers.look_again()
                    start = await self._send_info_set(session)
            except (AccessError, BearerError) as error:
                reason = str(error)
            else:
                self._log.event("fast_provisioning_started", proof=start.value)
                await self._log.move(Trigger.STARTED, t_provisioned_s=0.0, t_known_s=0.0)
                return
        raise RunEnd(Trigger.REFUSED, reason)

    async def _send_info_set(self, session: ProxySession) -> Start:
        plan = checked(self.plan)
        sent_s = self._clock.monotonic()
        start = await start_fast_provisioning(
            session, plan, self._app_key, self._settings.group, self._log.run.match
        )
        if start is not Start.ALREADY_STARTED or self._log.since_info_set is None:
            self._log.mark_info_set(sent_s)
        self._is_started = start is not Start.HUNG_UP
        if self._is_started:
            self._picture.mark_stale()
        return start

    async def confirm_start(self, session: ProxySession) -> None:
        """Send INFO_SET again if the link was lost before the answer, whoever lost it."""
        if self._is_started:
            return
        try:
            start = await self._send_info_set(session)
        except AccessError as error:
            self._log.event("warning", about="INFO_SET", reason=str(error))
        else:
            self._log.event("fast_provisioning_started", proof=start.value)
            session.check()

    async def _find(self, address: int, seconds: float) -> str | None:
        """Return the device address that advertises node `address`, freshly."""
        found = await self._watch.until(lambda heard: self.is_node(heard, address), seconds)
        return None if found is None else found.device_address

    def is_node(self, heard: Advertisement, address: int) -> bool:
        """Whether it is the node by its identity, or by our Network ID from its device address."""
        return self._picture.is_identity(heard, address) or (
            self.board is not None
            and heard.device_address == self.board.device_address
            and self._picture.is_network(heard)
        )


def checked(plan: Plan | None) -> Plan:
    """Return the plan that must have been made by now."""
    if plan is None:
        raise LocalProtocolError("no plan was made")
    return plan
