"""The run: drives the pure machines over a Bearer, from the first advertisement to the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import structlog

from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.closing import LEFT_OPEN, NO_PROVISIONER, NOT_TOLD, Closing
from fastprovd.campaign.collecting import Collecting
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.direct import Direct
from fastprovd.campaign.founding import Founding, checked
from fastprovd.campaign.planner import Plan, we_are_faster
from fastprovd.campaign.ports import Audience, Bearer, Store
from fastprovd.campaign.proxy_session import TopProvisioner
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.states import WAITS, RunEnd, Trigger, next_state
from fastprovd.campaign.strangers import Strangers
from fastprovd.campaign.verdict import (
    done_though,
    former_addresses,
    missing_boards,
    summary,
    target,
)
from fastprovd.campaign.watch import Watch
from fastprovd.clock import Clock
from fastprovd.errors import BearerError
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice
from fastprovd.mesh.keys import AppKey
from fastprovd.records import Run, RunState, Window

log = structlog.get_logger()


class Campaign:
    """One fast-provisioning run; `execute` returns its end, which always has a name.

    It does not recover a Primary that stays silent.
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
        self._clock = clock
        run = Run(
            run_id,
            RunState.SCANNING,
            clock.utc_now(),
            expected=settings.expected,
            group=settings.group,
            match=settings.match,
        )
        self._log = log = RunLog(run, store, audience, clock)
        self._picture = picture = AirPicture(
            settings.inventory, next(iter(top.stack.net_keys.values()))
        )
        self._watch = watch = Watch(bearer, picture, self._board_heard, self._scan_restarted)
        self._strangers = Strangers(settings, log=log, picture=picture, watch=watch, clock=clock)
        self._context = RunContext(
            settings=settings,
            log=log,
            picture=picture,
            watch=watch,
            strangers=self._strangers,
            bearer=bearer,
            store=store,
            clock=clock,
            entropy=entropy,
            top=top,
            app_key=app_key,
        )
        self._founding = Founding(self._context)
        self._direct = Direct(self._context)
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
        except RunEnd as end:
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
        if self._is_direct():
            await self._direct.provision_all()
            raise self._verdict()
        self._strangers.check()
        await self._founding.make()
        await self._founding.start()
        await self._collect()

    def _is_direct(self) -> bool:
        settings, boards = self._settings, len(self._picture.boards)
        if settings.method is not Method.AUTO:
            return settings.method is Method.DIRECT
        # Boards that we do not hear can only be reached by other boards.
        all_heard = boards >= (settings.expected or 0)
        return all_heard and we_are_faster(boards, settings.links)

    # Hearing the boards

    def _board_heard(self, board: HeardBoard) -> None:
        if not board.is_ours:
            self._strangers.heard(board)
            return
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
                and self._settings.inventory.is_ours(data.uuid)
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
            raise RunEnd(Trigger.NOTHING_HEARD, f"scanning fails: {self._watch.last_error}")
        if not self._picture.boards:
            others = len(self._picture.strangers)
            raise RunEnd(
                Trigger.NOTHING_HEARD,
                f"no board with UUID prefix {self._settings.match.hex()}"
                f"{' that [mesh] allow and deny let in' * self._settings.inventory.is_selective} "
                f"in {self._settings.scan_s:g} s; {others} others seen: power the boards on, or "
                "correct [mesh] match",
            )
        await self._log.move(Trigger.BOARDS_HEARD, heard=len(self._picture.boards))

    # Collecting and proving

    async def _collect(self) -> None:
        plan = checked(self._founding.plan)
        collecting = Collecting(self._context, plan, self._founding.confirm_start)
        closing = Closing(self._context, collecting, plan.primary)
        await asyncio.sleep(WAITS["quiet_after_start"].seconds)
        silent_since = self._clock.monotonic()
        while True:
            device_address = await self._wait_for_primary(plan, silent_since)
            try:
                await collecting.over_link(device_address, closing.close)
                break
            except BearerError as error:
                log.info("primary_link_failed", reason=str(error))
                if self.run.state is not RunState.PROVISIONING:
                    silent_since = self._clock.monotonic()
                    await self._log.move(Trigger.LINK_LOST)
        self._quiet_since = await collecting.identify_silent()
        raise self._verdict()

    def _verdict(self) -> RunEnd:
        missing = self._missing()
        if not missing and not self._is_perhaps_open():
            return RunEnd(Trigger.ALL_PROVEN, done_though(self._former()))
        if not missing:
            return RunEnd(Trigger.WINDOW_OPEN, "every board answered")
        total = target(self._settings.expected, len(self._picture.boards))
        return RunEnd(Trigger.SOME_MISSING, summary(missing, max(total, len(self._log.nodes))))

    async def _wait_for_primary(self, plan: Plan, silent_since: float) -> str:
        founding, restarted = self._founding, False

        def is_end(heard: Advertisement) -> bool:
            nonlocal restarted
            restarted = (
                isinstance(heard.data, UnprovisionedDevice)
                and founding.board is not None
                and heard.data.uuid == founding.board.uuid
            )
            return restarted or founding.is_node(heard, plan.primary)

        seconds = self._settings.primary_return_s
        left_s = silent_since + seconds - self._clock.monotonic()
        found = await self._watch.until(is_end, max(0.0, left_s))
        if found is None:
            raise RunEnd(
                Trigger.PRIMARY_SILENT,
                f"the Primary Provisioner's proxy could not be reached for {seconds:g} s; "
                "power-cycle all boards and run again",
            )
        if restarted:
            raise RunEnd(
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
        failed = self._direct.failed
        left = self._picture.unprovisioned(now, math.inf if failed else within_s)
        return missing_boards(
            self._log.nodes.values(),
            left,
            self._settings.expected,
            len(self._picture.boards),
            strangers=len(self._strangers.taken()),
            is_complete=self._quiet_since is not None or self._direct.is_complete,
            failed=failed,
        )

    def _former(self) -> tuple[int, ...]:
        total = target(self._settings.expected, len(self._picture.boards))
        return former_addresses(
            self._log.nodes.values(),
            self._settings.expected,
            total + len(self._strangers.taken()),
        )

    def _is_perhaps_open(self) -> bool:
        """Whether boards may still take others, and should not."""
        is_closed = self.run.window is Window.CLOSED or self._settings.close == "leave_open"
        return self._boards_were_started() and not is_closed

    def _boards_were_started(self) -> bool:
        return self._log.since_info_set is not None and not self._direct.has_begun

    def _window_at_last(self) -> dict[str, Any]:
        """Return what there is to say of the join window where no closing says it."""
        if self._direct.has_begun:
            return {"window": Window.CLOSED, "window_evidence": NO_PROVISIONER}
        if not self._boards_were_started() or self.run.window is not None:
            return {}
        left_open = self._settings.close == "leave_open"
        evidence = LEFT_OPEN if left_open else NOT_TOLD
        return {"window": Window.OPEN, "window_evidence": evidence}

    async def _finish(self, trigger: Trigger, reason: str) -> None:
        changes: dict[str, Any] = {
            "heard": len(self._picture.boards),
            "strangers": self._strangers.named(),
            **self._window_at_last(),
        }
        if next_state(self.run.state, trigger) is RunState.PARTIAL and self._is_perhaps_open():
            reason += "; boards may still take others that match"
        changes["reason"] = reason or None
        has_begun = self._founding.plan is not None or self._direct.has_begun
        if trigger is not Trigger.ALL_PROVEN and has_begun:
            changes["missing"] = self._missing()
        await self._log.move(trigger, **changes)
        self._log.publish_nodes()
        self._log.event("run_finished", state=self.run.state.value, reason=reason or None)
