"""The run: drives the pure machines over a Bearer, from the first advertisement to the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

import structlog

from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.collecting import Collecting
from fastprovd.campaign.planner import Plan, plan_run
from fastprovd.campaign.ports import Audience, Bearer, Store
from fastprovd.campaign.primary import (
    Outcome,
    Start,
    add_app_key,
    provision,
    start_fast_provisioning,
)
from fastprovd.campaign.proxy_session import ProxySession, TopProvisioner, proxy_session
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.states import WAITS, Trigger
from fastprovd.campaign.verdict import missing_boards, summary, target
from fastprovd.campaign.watch import Watch
from fastprovd.clock import Clock
from fastprovd.errors import (
    AccessError,
    BearerError,
    LocalProtocolError,
)
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.records import AddressRange, NodeRole, Run, RunState

log = structlog.get_logger()

# Boards to try as Primary Provisioner, and sessions with each, before the run fails.
_BOARDS_TRIED: Final = 3
_SESSIONS_EACH: Final = 2


class _End(Exception):
    """The run ends here, with this trigger and reason."""

    def __init__(self, trigger: Trigger, reason: str) -> None:
        super().__init__(reason)
        self.trigger = trigger
        self.reason = reason


class Campaign:
    """One fast-provisioning run; `execute` returns its end, which always has a name.

    It makes one Primary Provisioner, does not recover a Primary that stays silent, and does not
    close the join window.
    """

    def __init__(
        self,
        run_id: str,
        settings: RunSettings,
        *,
        bearer: Bearer,
        store: Store,
        audience: Audience,
        clock: Clock,
        entropy: Callable[[int], bytes],
        top: TopProvisioner,
        app_key: AppKey,
    ) -> None:
        self._settings = settings
        self._bearer = bearer
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._top = top
        self._app_key = app_key
        self._net_key = next(iter(top.client.stack.net_keys.values()))
        run = Run(
            run_id,
            RunState.SCANNING,
            clock.utc_now(),
            expected=settings.expected,
            group=settings.group,
            match=settings.match,
        )
        self._log = RunLog(run, store, audience, clock)
        self._picture = AirPicture(settings.match, self._net_key)
        self._watch = Watch(bearer, self._picture, self._board_heard, self._scan_restarted)
        self._plan: Plan | None = None
        self._board: HeardBoard | None = None
        self._is_started = False
        self._quiet_since: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def run(self) -> Run:
        """The run as it stands."""
        return self._log.run

    def stop(self) -> None:
        """End the run as stopped; what was won stays."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()

    async def execute(self) -> Run:
        """Run to the end and return it; raises CancelledError after noting the interruption."""
        await self._log.change()
        self._log.event("run_started", expected=self._settings.expected)
        self._task = asyncio.create_task(self._drive(), name=f"run[{self.run.run_id}]")
        if self._stopping:
            self._task.cancel()
        try:
            async with asyncio.timeout(self._settings.run_s):
                await self._task
        except TimeoutError:
            await self._finish(
                Trigger.DEADLINE, f"the run took over {self._settings.run_s:g} s in all"
            )
        except _End as end:
            await self._finish(end.trigger, end.reason)
        except Exception as error:  # noqa: BLE001 - the edge of a run: it ends, the daemon goes on
            self._log.broken(error)
            await self._finish(Trigger.BROKEN, f"internal error: {type(error).__name__}; see log")
        except asyncio.CancelledError:
            if not self._stopping:
                await self._finish(Trigger.INTERRUPT, "the daemon ended during the run")
                raise
            await self._finish(Trigger.STOP, "stopped on request")
        return self.run

    async def _drive(self) -> None:
        await self._hear_boards()
        await self._make_primary()
        await self._start_primary()
        await self._collect()

    # Hearing the boards

    def _board_heard(self, board: HeardBoard) -> None:
        self._log.event(
            "device_found",
            uuid=board.uuid.hex(),
            address=board.device_address,
            rssi_dbm=board.rssi_dbm,
        )

    def _scan_restarted(self, reason: str) -> None:
        self._log.event("scan_restarted", reason=reason)

    async def _hear_boards(self) -> None:
        expected, boards = self._settings.expected, self._picture.boards

        def is_last(advertisement: Advertisement) -> bool:
            # The board of this advertisement itself is not in the picture yet.
            data = advertisement.data
            return (
                len(boards) + 1 == expected
                and isinstance(data, UnprovisionedDevice)
                and data.uuid not in boards
                and data.uuid.startswith(self._settings.match)
            )

        deadline = self._clock.monotonic() + self._settings.scan_s
        while (left_s := deadline + self._watch.deaf_s - self._clock.monotonic()) > 0:
            before = len(boards)
            await self._watch.until(is_last, min(left_s, WAITS["boards_settle"].seconds))
            if len(boards) >= (expected or math.inf):
                break
            if expected is None and len(boards) == before > 0:
                break
        if not self._picture.boards and self._watch.last_error is not None:
            raise _End(Trigger.NOTHING_HEARD, f"scanning fails: {self._watch.last_error}")
        if not self._picture.boards:
            others = len(self._picture.strangers)
            raise _End(
                Trigger.NOTHING_HEARD,
                f"no board with UUID prefix {self._settings.match.hex()} in "
                f"{self._settings.scan_s:g} s; {others} others seen: power the boards on, or "
                "correct [mesh] match",
            )
        await self._log.move(Trigger.BOARDS_HEARD, heard=len(self._picture.boards))

    # The Primary Provisioner

    async def _make_primary(self) -> None:
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
        raise _End(
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
        if self._plan is not None:
            return
        boards = target(self._settings.expected, len(self._picture.boards))
        taken = await asyncio.to_thread(self._store.reserved_addresses)
        try:
            plan = plan_run(boards, self._settings.unicast_min, self._settings.unicast_max, taken)
        except LocalProtocolError as error:
            raise _End(Trigger.NO_BOARD_LEFT, str(error)) from error
        first, last = plan.reserved
        await asyncio.to_thread(
            self._store.reserve_addresses,
            AddressRange(first, last, self.run.run_id, "fast provisioning"),
        )
        self._plan = plan
        await self._log.change(
            primary=first, unicast_min=plan.share.first, unicast_max=plan.share.last
        )

    async def _provision(self, board: HeardBoard) -> str:
        """Provision `board`; return why not, or nothing."""
        plan = self._checked_plan()
        try:
            async with self._bearer.provisioning_link(board.device_address) as link:
                await self._log.move(Trigger.LINK_OPEN)
                outcome, reason = await provision(
                    link,
                    ProvisioningData(self._net_key, plan.primary, self._top.client.stack.iv_index),
                    self._entropy,
                    self._clock,
                    lambda dev_key: self._persist(plan.primary, board.uuid, dev_key),
                )
        except BearerError as error:
            if self.run.state is RunState.CONNECTING:
                return str(error)
            outcome, reason = Outcome.DATA_SENT, str(error)
        if outcome is Outcome.DATA_SENT and await self._find(
            plan.primary, WAITS["identity"].seconds
        ):
            # Provisioning Complete was lost; the board advertises the address we gave it.
            outcome = Outcome.COMPLETED
        if outcome is not Outcome.COMPLETED:
            if outcome is Outcome.DATA_SENT:
                self._plan = None
            await self._log.move(Trigger.SESSION_FAILED)
            return reason
        self._board = board
        await self._log.move(Trigger.NODE_MADE)
        await self._log.node(
            plan.primary,
            role=NodeRole.PRIMARY_PROVISIONER,
            device_uuid=board.uuid,
            device_address=board.device_address,
            provisioned_by=self._top.client.stack.address,
        )
        return ""

    async def _persist(self, address: int, uuid: bytes, dev_key: DevKey) -> None:
        await asyncio.to_thread(self._store.save_dev_key, address, uuid, dev_key)
        self._top.client.stack.dev_keys[address] = dev_key

    async def _start_primary(self) -> None:
        plan = self._checked_plan()
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
                    composition = await add_app_key(
                        session,
                        plan.primary,
                        self._top.client.stack.dev_keys[plan.primary],
                        self._app_key,
                    )
                    if composition is not None:
                        await self._log.node(plan.primary, elements=len(composition.elements))
                    start = await self._send_info_set(session)
            except (AccessError, BearerError) as error:
                reason = str(error)
            else:
                self._log.event("fast_provisioning_started", proof=start.value)
                await self._log.move(Trigger.STARTED, t_provisioned_s=0.0, t_known_s=0.0)
                return
        raise _End(Trigger.REFUSED, reason)

    async def _send_info_set(self, session: ProxySession) -> Start:
        plan = self._checked_plan()
        sent_s = self._clock.monotonic()
        start = await start_fast_provisioning(
            session, plan, self._app_key, self._settings.group, self._settings.match
        )
        if start is not Start.ALREADY_STARTED or self._log.since_info_set is None:
            self._log.mark_info_set(sent_s)
        self._is_started = start is not Start.HUNG_UP
        if self._is_started:
            self._picture.mark_stale()
        return start

    async def _confirm_start(self, session: ProxySession) -> None:
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
        found = await self._watch.until(lambda heard: self._is_node(heard, address), seconds)
        return None if found is None else found.device_address

    def _is_node(self, heard: Advertisement, address: int) -> bool:
        """Whether it is the node by its identity, or by our Network ID from its device address."""
        return self._picture.is_identity(heard, address) or (
            self._board is not None
            and heard.device_address == self._board.device_address
            and self._picture.is_network(heard)
        )

    # Collecting and proving

    async def _collect(self) -> None:
        plan = self._checked_plan()
        collecting = Collecting(
            plan,
            self._settings,
            log=self._log,
            picture=self._picture,
            watch=self._watch,
            bearer=self._bearer,
            top=self._top,
            app_key=self._app_key,
            clock=self._clock,
            confirm=self._confirm_start,
        )
        await asyncio.sleep(WAITS["quiet_after_start"].seconds)
        silent_since = self._clock.monotonic()
        while True:
            device_address = await self._wait_for_primary(plan, silent_since)
            try:
                await collecting.over_link(device_address)
                break
            except BearerError as error:
                log.info("primary_link_failed", reason=str(error))
                if self.run.state is not RunState.PROVISIONING:
                    silent_since = self._clock.monotonic()
                    await self._log.move(Trigger.LINK_LOST)
        self._quiet_since = await collecting.identify_silent()
        raise self._verdict()

    def _verdict(self) -> _End:
        missing = self._missing()
        if not missing:
            return _End(Trigger.ALL_PROVEN, "")
        total = target(self._settings.expected, len(self._picture.boards))
        return _End(Trigger.SOME_MISSING, summary(missing, max(total, len(self._log.nodes))))

    async def _wait_for_primary(self, plan: Plan, silent_since: float) -> str:
        restarted = False

        def is_end(heard: Advertisement) -> bool:
            nonlocal restarted
            restarted = (
                isinstance(heard.data, UnprovisionedDevice)
                and self._board is not None
                and heard.data.uuid == self._board.uuid
            )
            return restarted or self._is_node(heard, plan.primary)

        seconds = self._settings.primary_return_s
        left_s = silent_since + seconds - self._clock.monotonic()
        found = await self._watch.until(is_end, max(0.0, left_s))
        if found is None:
            raise _End(
                Trigger.PRIMARY_SILENT,
                f"the Primary Provisioner's proxy could not be reached for {seconds:g} s; "
                "power-cycle all boards and run again",
            )
        if restarted:
            raise _End(
                Trigger.PRIMARY_RESTARTED,
                "the Primary Provisioner restarted and forgot the network; power-cycle all boards "
                "and run again",
            )
        return found.device_address

    # The end

    def _missing(self) -> tuple[Any, ...]:
        now = self._clock.monotonic()
        gone_s = WAITS["board_gone"].seconds
        within_s = gone_s if self._quiet_since is None else now - self._quiet_since
        left = self._picture.unprovisioned(now, within_s)
        return missing_boards(
            self._log.nodes.values(), left, self._settings.expected, len(self._picture.boards)
        )

    async def _finish(self, trigger: Trigger, reason: str) -> None:
        changes: dict[str, Any] = {"reason": reason or None, "heard": len(self._picture.boards)}
        if trigger is not Trigger.ALL_PROVEN and self._plan is not None:
            changes["missing"] = self._missing()
        await self._log.move(trigger, **changes)
        self._log.publish_nodes()
        self._log.event("run_finished", state=self.run.state.value, reason=reason or None)

    def _checked_plan(self) -> Plan:
        if self._plan is None:
            raise LocalProtocolError("no plan was made")
        return self._plan
