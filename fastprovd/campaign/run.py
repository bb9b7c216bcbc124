"""The run: drives the pure machines over a Bearer, from the first advertisement to the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Final

import structlog

from fastprovd.campaign.air_picture import MAX_BOARDS, AirPicture, HeardBoard, quietest_first
from fastprovd.campaign.closing import LEFT_OPEN, NO_PROVISIONER, NOT_TOLD, Closing
from fastprovd.campaign.collecting import Collecting
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.direct import Direct
from fastprovd.campaign.founding import Founding
from fastprovd.campaign.free_boards import hear_free_boards
from fastprovd.campaign.hearing import Hearing
from fastprovd.campaign.ladder import LADDERS, Rung, Symptom
from fastprovd.campaign.nothing_heard import why_nothing_heard
from fastprovd.campaign.planner import edge_primaries, is_direct
from fastprovd.campaign.ports import Audience, Bearer, Store
from fastprovd.campaign.primaries import Primaries
from fastprovd.campaign.proxy_session import TopProvisioner
from fastprovd.campaign.recovery import Recovery
from fastprovd.campaign.resuming import hear_again
from fastprovd.campaign.resumption import Resumption, settings_to_json
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.states import WAITS, RunEnd, Trigger, next_state
from fastprovd.campaign.strangers import Strangers
from fastprovd.campaign.tasks import result_of
from fastprovd.campaign.verdict import (
    FORMER,
    bounded,
    done_though,
    former_addresses,
    missing_boards,
    summary,
)
from fastprovd.campaign.watch import Watch
from fastprovd.clock import Clock
from fastprovd.edges import guarded
from fastprovd.errors import BearerError, CopiedStore, StoreError
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.beacons import RSSI_UNKNOWN
from fastprovd.mesh.keys import AppKey
from fastprovd.records import MissingBoard, Run, RunState, StepKind, Window

log = structlog.get_logger()

BoardsHeard = Callable[[Iterable[HeardBoard], str], Awaitable[None]]
"""Take the boards that are on the air unprovisioned, and the run that takes them on."""

# Boards of ours that a run tries to provision where more are heard than it remembers.
_MOST_TRIED: Final = 2 * MAX_BOARDS
CROWD: Final = (
    f"a board was heard beyond the {MAX_BOARDS} that a run remembers: something advertises made-up "
    "Device UUIDs, or [mesh] match is too short; boards that go on advertising are preferred"
)


class Campaign:
    """One fast-provisioning run; `execute` returns its end, which always has a name.

    Call `stop` to have it end as stopped, what was won stays; `stop_asked` is set from then on.
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
        boards_heard: BoardsHeard,
        resumption: Resumption | None = None,
    ) -> None:
        """`boards_heard` is told which boards are on the air; an unfinished run is resumed."""
        self._settings = settings
        self._boards_heard = boards_heard
        self._resumption = resumption
        self._clock = clock
        run = Run(
            run_id,
            RunState.SCANNING,
            clock.utc_now(),
            expected=settings.expected,
            group=settings.group,
            match=settings.match,
        )
        if resumption is not None:
            run = resumption.run
        nodes = () if resumption is None else resumption.nodes
        self._log = log = RunLog(run, store, audience, clock, nodes, top.stack.replay)
        self._picture = picture = AirPicture(
            settings.inventory,
            next(iter(top.stack.net_keys.values())),
            max(MAX_BOARDS, settings.expected or 0),
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
        self._hearing = Hearing(self._context)
        self._direct = Direct(self._context)
        self._primaries = Primaries(self._context)
        self._quiet_since: float | None = None
        self._all_tried_s: float | None = None
        self._taken_on: set[bytes] | None = None
        self._found = 0
        self._is_crowd_told = False
        self._task: asyncio.Task[None] | None = None
        self.stop_asked = asyncio.Event()
        # Called by signals as well as by requests.
        self.stop = guarded(self._stop)

    @property
    def run(self) -> Run:
        """The run as it stands."""
        return self._log.run

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier process began it."""
        return self._resumption is not None

    def _stop(self) -> None:
        self.stop_asked.set()
        if self._task is not None:
            self._task.cancel()

    @property
    def not_kept(self) -> str | None:
        """Why the end could not be stored yet."""
        return self._log.not_kept

    async def keep_end(self) -> bool:
        """Return whether the end is stored; tries once more if it is not."""
        return await self._log.keep_end()

    async def execute(self) -> Run:
        """Run to the end and return it; raises CancelledError after noting the interruption."""
        self._task = asyncio.create_task(self._drive(), name=f"run[{self.run.run_id}]")
        if self.stop_asked.is_set():
            self._task.cancel()
        try:
            async with asyncio.timeout(self._settings.run_s):
                await result_of(self._task)
        except TimeoutError:
            await self._finish(
                Trigger.DEADLINE, f"the run took over {self._settings.run_s:g} s in all"
            )
        except RunEnd as end:
            await self._finish(end.trigger, end.reason)
        except CopiedStore as error:
            await self._finish(Trigger.CONFLICT, str(error))
        except StoreError as error:
            await self._finish(Trigger.NOT_KEPT, str(error))
        except Exception as error:  # noqa: BLE001 - the edge of a run: it ends, the daemon goes on
            self._log.broken(error)
            await self._finish(Trigger.BROKEN, f"internal error: {type(error).__name__}; see log")
        except asyncio.CancelledError:
            if not self.stop_asked.is_set():
                try:
                    await self._finish(Trigger.INTERRUPT, "the daemon ended during the run")
                except Exception as error:  # noqa: BLE001 - the next process goes on with it
                    self._log.broken(error)
                raise
            await self._finish(Trigger.STOP, "stopped on request")
        return self.run

    async def _drive(self) -> None:
        await self._log.change()
        if self._resumption is not None:
            await self._resume(self._resumption)
            return
        await self._log.step(StepKind.BEGUN, detail=settings_to_json(self._settings))
        self._log.event("run_started", expected=self._settings.expected)
        await self._begin()

    async def _begin(self) -> None:
        await self._hear_boards()
        founding = Founding(self._context, self._primaries, self._direct)
        if is_direct(self._context.planned, len(self._picture.boards)):
            await self._provision_heard()
            await self._reach_out(founding)
        else:
            self._strangers.check()
            await founding.found()
            await self._collect()
        await self._take_what_is_left()
        raise self._verdict()

    # Going on where an earlier process was killed

    async def _resume(self, left: Resumption) -> None:
        """Do what is left, and nothing twice: no address is offered, no Primary started again."""
        await self._log.resume(left.begun)
        founding = Founding(self._context, self._primaries, self._direct)
        if left.told:
            for plan, offer in left.primaries:
                if offer.is_taken:
                    self._primaries.add(plan, offer.board)
            self._primaries.were_told = True
            await self._log.move(Trigger.STARTED_BEFORE)
            await self._collect()
            if left.ours:
                await hear_again(self._context, self._direct, left)
                await self._provision_ourselves([])
        elif left.is_direct:
            await self._provision_ourselves(await hear_again(self._context, self._direct, left))
        elif left.offers:
            await self._log.move(Trigger.PRIMARY_OFFERED)
            await founding.go_on(left.primaries)
            await hear_again(self._context, self._direct, left)
            if self._primaries.nodes:
                if left.ours:
                    await self._provision_ourselves([])
                await self._log.move(Trigger.PRIMARY_MADE)
                await founding.start_made()
            else:
                self._strangers.check()
                await founding.found()
            await self._collect()
        else:
            await self._log.move(Trigger.NOTHING_OFFERED)
            await self._begin()
        await self._take_what_is_left()
        raise self._verdict()

    async def _reach_out(self, founding: Founding) -> None:
        """Have nodes of ours provision the boards that are expected and that we do not hear."""
        unheard = (self._settings.expected or 0) - len(self._picture.boards)
        proxies = self._direct.proxies
        count = edge_primaries(self._context.planned, len(proxies))
        edge = quietest_first(board for _, board in proxies)[:count]
        nodes = sorted((p for p in proxies if p[1] in edge), key=lambda proxy: proxy[0])
        if self._settings.method is Method.DIRECT or unheard <= 0 or not nodes:
            return
        self._log.recovery(Symptom.BOARDS_UNHEARD, Rung.FURTHER_PRIMARY)
        try:
            self._strangers.check()
            await founding.reach_out(nodes, unheard)
        except RunEnd as end:
            self._log.event("warning", about="Primary Provisioner", reason=end.reason)
        else:
            await self._collect()

    def _is_anybody_unproven(self) -> bool:
        proven = sum(node.proven for node in self._log.nodes.values())
        return proven < self._context.boards

    async def _provision_heard(self) -> None:
        """Provision every board ourselves, also those that are heard while we are at it."""
        boards = self._picture.boards
        taken: set[bytes] = set()
        while new := self._worth_a_try(boards.values(), taken):
            taken.update(board.uuid for board in new)
            self._taken_on = taken
            try:
                await self._provision_ourselves(new)
            finally:
                self._taken_on = None
            await self._hearing.hear_another()
        await self._boards_heard(boards.values(), self.run.run_id)

    def _worth_a_try(
        self, boards: Iterable[HeardBoard], tried: Collection[bytes]
    ) -> list[HeardBoard]:
        """Return boards that were not tried yet, in a bounded number of rounds.

        In an air that somebody fills with boards that are none only those that go on advertising.
        """
        is_crowded = self._picture.overlooked > 0 and bool(tried)
        if is_crowded and len(tried) >= _MOST_TRIED:
            return []
        new = [board for board in boards if board.uuid not in tried]
        return [board for board in new if board.reports > 1 or not is_crowded]

    async def _provision_ourselves(self, boards: Sequence[HeardBoard]) -> None:
        await self._direct.reserve(len(boards))
        await self._log.move(Trigger.BY_OURSELVES)
        if self._log.since_info_set is None:
            self._log.mark_info_set(self._clock.monotonic())
            await self._log.change(t_provisioned_s=0.0, t_known_s=0.0)
        await self._direct.provision(boards)
        self._all_tried_s = self._log.since_info_set
        await self._log.move(Trigger.ALL_TRIED)

    async def _take_what_is_left(self) -> None:
        """Provision what is still on the air ourselves, in waves, until nothing new is left."""
        tried = set(self._direct.failed)
        is_ours = self._settings.close != "leave_open" or not self._primaries.were_told
        while is_ours and (self._is_anybody_unproven() or self._settings.expected is None):
            free = await hear_free_boards(
                self._context, lambda free: len(self._left(free, tried)) >= self._lacking(free)
            )
            left = self._left(free, tried)
            if not left or not await self._direct.try_reserve(len(left)):
                return
            tried.update(board.uuid for board in left)
            self._log.recovery(Symptom.BOARDS_LEFT, Rung.PROVISION_DIRECTLY)
            await self._provision_ourselves(left)

    def _left(self, free: Iterable[HeardBoard], tried: set[bytes]) -> list[HeardBoard]:
        """Return free boards that were not tried yet, at most as many as do not answer.

        One that restarted may have an address that answers nothing any more.
        """
        left = self._worth_a_try(free, tried)
        return sorted(left, key=lambda board: -board.last_seen_s)[: self._lacking(left)]

    def _lacking(self, free: Iterable[HeardBoard]) -> int:
        """Return how many boards do not answer; one that answered and is free does not any more."""
        uuids = {board.uuid for board in free}
        nodes = self._log.nodes.values()
        proven = sum(node.proven and node.device_uuid not in uuids for node in nodes)
        return max(0, self._context.with_strangers - proven)

    # Hearing the boards

    def _board_heard(self, board: HeardBoard) -> None:
        if not board.is_ours:
            self._strangers.heard(board)
            return
        if self._found < MAX_BOARDS:
            self._found += 1
            rssi_dbm = None if board.rssi_dbm == RSSI_UNKNOWN else board.rssi_dbm
            self._log.event(
                "device_found",
                uuid=board.uuid.hex(),
                address=board.device_address,
                rssi_dbm=rssi_dbm,
            )
        if self._picture.overlooked and not self._is_crowd_told:
            self._is_crowd_told = True
            self._log.event("warning", about="Device UUIDs", reason=CROWD)
        if self._taken_on is not None and not self._picture.overlooked:
            self._taken_on.add(board.uuid)
            self._direct.add(board)

    def _scan_restarted(self, reason: str) -> None:
        self._log.event("scan_restarted", reason=reason)

    async def _hear_boards(self) -> None:
        await self._hearing.hear()
        if not self._picture.boards and self._watch.last_error is not None:
            raise RunEnd(Trigger.NOTHING_HEARD, f"scanning fails: {self._watch.last_error}")
        if not self._picture.boards:
            given = await asyncio.to_thread(self._context.store.reserved_addresses)
            reason = await asyncio.to_thread(
                why_nothing_heard, self._picture, self._settings, self._context.net_key, given
            )
            raise RunEnd(Trigger.NOTHING_HEARD, reason)
        await self._boards_heard(self._picture.boards.values(), self.run.run_id)
        await self._log.move(Trigger.BOARDS_HEARD, heard=len(self._picture.boards))

    # Collecting and proving

    async def _collect(self) -> None:
        collecting = Collecting(self._context, self._primaries)
        closing = Closing(self._context, collecting)
        recovery = Recovery(self._context, self._primaries, self._direct)
        await asyncio.sleep(WAITS["quiet_after_start"].seconds)
        silent_since = self._clock.monotonic()
        way = await recovery.way_in(silent_since)
        while True:
            try:
                await collecting.over_link(way.device_address, way.primary, closing.close)
                break
            except BearerError as error:
                log.info("proxy_link_failed", reason=str(error))
                recovery.lost(way, error)
                if self.run.state is RunState.PROVISIONING:  # it never came up
                    way = await recovery.way_in(silent_since)
                    continue
                if way.primary is not None:
                    await self._log.doubt(way.primary)
                silent_since = self._clock.monotonic()
                await self._log.move(Trigger.LINK_LOST)
                way = await recovery.next_way() or await recovery.way_in(silent_since)
        self._quiet_since = await collecting.identify_silent()

    def _verdict(self) -> RunEnd:
        missing = self._missing()
        if not missing and not self._is_perhaps_open():
            return RunEnd(Trigger.ALL_PROVEN, done_though(self._former()))
        if not missing:
            return RunEnd(Trigger.WINDOW_OPEN, "every board answered")
        total = max(self._context.boards, len(self._log.nodes))
        return RunEnd(Trigger.SOME_MISSING, summary(missing, total))

    # The end

    def _ask_operator(self, missing: Sequence[MissingBoard]) -> None:
        """Tell the last rung of each ladder that `missing` boards were left by."""
        is_any_unheard = (self._settings.expected or 0) > len(self._picture.boards)
        left = {_symptom(board, is_any_unheard) for board in missing}
        for symptom in Symptom:
            if symptom in left and Rung.ASK_OPERATOR in LADDERS[symptom]:
                self._log.recovery(symptom, Rung.ASK_OPERATOR)

    def _missing(self) -> tuple[MissingBoard, ...]:
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
            is_complete=self._quiet_since is not None or self._is_only_direct(),
            failed=failed,
            fell_silent=self._log.fell_silent,
            namesakes=[
                (board, self._others_with(board))
                for board in self._picture.namesakes_on_air(now, gone_s)
            ],
            made_by=self._context.top.stack.address,
        )

    def _others_with(self, namesake: HeardBoard) -> str:
        """Return the device addresses of the other boards with its Device UUID."""
        nodes = self._log.nodes.values()
        others = {node.device_address for node in nodes if node.device_uuid == namesake.uuid}
        board = self._picture.boards.get(namesake.uuid)
        if board is not None:
            others.add(board.device_address)
        return ", ".join(sorted(a for a in others - {namesake.device_address} if a is not None))

    def _former(self) -> tuple[int, ...]:
        return former_addresses(
            self._log.nodes.values(),
            self._settings.expected,
            self._context.with_strangers,
            self._context.top.stack.address,
        )

    def _is_perhaps_open(self) -> bool:
        """Whether boards may still take others, and should not."""
        is_closed = self.run.window is Window.CLOSED or self._settings.close == "leave_open"
        return self._primaries.were_told and not is_closed

    def _is_only_direct(self) -> bool:
        """Whether no board was told to provision others."""
        return self._log.since_info_set is not None and not self._primaries.were_told

    def _window_at_last(self) -> dict[str, Any]:
        """Return what there is to say of the join window where no closing says it."""
        if self._is_only_direct():
            # From the moment on in which we take no more boards ourselves.
            closed_s = self._all_tried_s or self._log.since_info_set
            return {
                "window": Window.CLOSED,
                "window_evidence": NO_PROVISIONER,
                "t_closed_s": closed_s,
            }
        if not self._primaries.were_told or self.run.window is not None:
            return {}
        left_open = self._settings.close == "leave_open"
        evidence = LEFT_OPEN if left_open else NOT_TOLD
        return {"window": Window.OPEN, "window_evidence": evidence}

    async def _finish(self, trigger: Trigger, reason: str) -> None:
        missing: tuple[MissingBoard, ...] = ()
        changes: dict[str, Any] = {
            "heard": max(self.run.heard, len(self._picture.boards)),
            "strangers": self._strangers.named(),
            **self._window_at_last(),
        }
        if next_state(self.run.state, trigger) is RunState.PARTIAL and self._is_perhaps_open():
            reason += "; boards may still take others that match"
        if self._picture.overlooked:
            reason += f"; {self._picture.overlooked} times {CROWD}"
        changes["reason"] = reason.removeprefix("; ") or None
        if trigger is not Trigger.ALL_PROVEN and self.run.unicast_min is not None:
            missing = self._missing()
            changes["missing"] = bounded(missing)
        if next_state(self.run.state, trigger) is RunState.PARTIAL:
            self._ask_operator(missing)
        for address in self._former():
            self._log.event("warning", about=format_address(address), reason=FORMER)
        await self._log.move(trigger, **changes)
        self._log.publish_nodes()
        self._log.event("run_finished", state=self.run.state.value, reason=reason or None)


def _symptom(board: MissingBoard, is_any_unheard: bool) -> Symptom:
    """Return what is observed of a board that is missing."""
    if board.address is not None:
        return Symptom.NODES_SILENT
    if board.device_uuid is not None:
        return Symptom.BOARDS_LEFT
    return Symptom.BOARDS_UNHEARD if is_any_unheard else Symptom.ADDRESSES_MISSING
