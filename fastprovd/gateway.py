"""The mesh side of one process: store, stack and radio joined; one run at a time.

`run`, `provision`, `onoff` and `demo` are made of the same parts here; mypy checks that bearers
and store fit the ports of the campaign.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from fastprovd import unfinished
from fastprovd.audiences import Audiences
from fastprovd.campaign import control
from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.census import Asked, Census
from fastprovd.campaign.inviting import who_is_unprovisioned
from fastprovd.campaign.planner import SAFE_LIST_ENTRIES
from fastprovd.campaign.proxy_session import TopProvisioner
from fastprovd.campaign.resumption import Resumption
from fastprovd.campaign.run import Campaign
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.states import WAITS, Trigger
from fastprovd.campaign.tasks import note_end
from fastprovd.campaign.verdict import bounded, missing_boards, target
from fastprovd.campaign.watch import Watch
from fastprovd.clock import Clock, SystemClock
from fastprovd.config import Config
from fastprovd.controls import Controls, OpenSession
from fastprovd.ends import Broken, Ends
from fastprovd.errors import (
    BearerError,
    FastprovdError,
    NoRun,
    RunInProgress,
    StoreError,
    StoreInUse,
)
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.iv_updates import IvUpdates
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from fastprovd.radio import Radio, adapter_problem, bluetooth, bluetooth_ready, problem_now
from fastprovd.records import AdapterLinks, Network, Node, Run, newest_list
from fastprovd.returns import Returns
from fastprovd.run_settings import run_settings
from fastprovd.store.state import StateStore

log = structlog.get_logger(__name__)

_IN_USE_PAUSE_S: Final = 1.0

Entropy = Callable[[int], bytes]
"""Return so many random octets."""


class Gateway:
    """Our network, and the only way to its boards; use it through `open_gateway`.

    A run has the radio to itself. Requests outside of a run wait for each other and open a link
    of their own, so that nothing is held while nothing is asked.
    """

    def __init__(
        self,
        config: Config,
        store: StateStore,
        network: Network,
        *,
        radio: Radio,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self.config = config
        self.network = network
        self.audiences = Audiences()
        self._store = store
        self._radio = radio
        self._clock = clock
        self._entropy = entropy
        stack = Stack(
            address=network.address,
            net_keys=[network.net_key],
            iv_index=network.iv_index,
            sequence=SequenceNumbers(),
            replay=ReplayProtectionList(heard=store.replay_list()),
            iv_updates=_iv_updates(store, clock),
        )
        stack.app_keys[network.app_key.index] = network.app_key
        self._top = TopProvisioner(stack, store, clock)
        self._run_ids = {run.run_id for run in store.runs()}
        self._left = unfinished.load(store)
        self._campaign: Campaign | None = None
        self._ends = Ends()
        self._returns = Returns(store, self.audiences)
        self._radio_use = asyncio.Lock()
        self.controls = Controls(
            store,
            network,
            self.audiences,
            clock,
            way_in=self._way_in,
            check_free=self._check_no_run,
            dev_keys=stack.dev_keys,
            first_tid=entropy(1)[0],
            keep_heard=self._save_replay_list,
        )

    @property
    def links(self) -> AdapterLinks:
        """How many links the adapter bears, as far as that is known."""
        return self._radio.links

    async def close_left_links(self) -> None:
        """Hang up what a process before us left behind, if Bluetooth can be used now."""
        async with self._radio_use:
            try:
                async with self._radio:
                    await self._radio.close_left_links()
            except BearerError as error:
                log.info("left_links_not_closed", reason=str(error))

    def hurry(self) -> None:
        """Wait no longer for a Bluetooth that does not answer; call it when the program has to end.

        Whoever uses the radio ends within seconds.
        """
        self._radio.hurry()

    # Runs

    @property
    def current_run(self) -> Run | None:
        """The run that is going on."""
        return None if self._campaign is None else self._campaign.run

    def settings(self, **overrides: Any) -> RunSettings:
        """Return the configured settings of a run with overrides; raises as `run_settings`."""
        return run_settings(self.config, **overrides)

    def prepare_run(self, settings: RunSettings) -> Campaign:
        """Make the next run, which from now on is the current one; then `execute` it.

        Raises:
            RunInProgress: there is one.
            CopiedStore: somebody else was heard to send with our address.
        """
        return self._prepare(self._new_run_id(), settings)

    def prepare_resumption(self) -> Campaign | None:
        """Make the run that an earlier process left unfinished the current one, if there is one.

        Raises:
            RunInProgress, CopiedStore: as `prepare_run`.
        """
        left, self._left = self._left, None
        if left is None:
            return None
        for address in left.offers:
            dev_key = self._store.dev_key(address)
            if dev_key is not None:
                self._top.stack.dev_keys[address] = dev_key
        return self._prepare(left.run.run_id, left.settings(self.settings()), left)

    def _prepare(
        self, run_id: str, settings: RunSettings, left: Resumption | None = None
    ) -> Campaign:
        self._check_no_run()
        self._top.check()
        self._campaign = Campaign(
            run_id,
            settings,
            bearer=self._radio,
            store=self._store,
            audience=self.audiences,
            clock=self._clock,
            entropy=self._entropy,
            top=self._top,
            app_key=self.network.app_key,
            boards_heard=self._returns.run_begins,
            resumption=left,
        )
        return self._campaign

    async def execute(self, campaign: Campaign) -> Run:
        """Drive the prepared run to its end, which is told and returned however it ends.

        What the disk does not take of it is stored as soon as it does, and no run goes on before.
        """
        try:
            async with self._radio_use:
                self.audiences.run_changed(campaign.run)
                not_kept = await self._ends.settle()
                if not_kept is not None:
                    return await self._end(campaign.run, Trigger.NOT_KEPT, not_kept)
                end = await self._end_before(campaign)
                if end is not None:
                    return end
                async with self._radio:
                    run = await campaign.execute()
                    # The next may be asked for now; it waits until all links are hung up.
                    self._campaign = None
                if await self._ends.keep(campaign):
                    await self._after(run)
                return run
        except Exception as error:  # noqa: BLE001 - at the edge: every run ends, the daemon goes on
            return await self._end_broken(campaign, error)
        finally:
            if self._campaign is campaign:
                self._campaign = None

    async def _after(self, run: Run) -> None:
        """Keep what else a run has brought; its end is stored and told already."""
        try:
            await self._save_replay_list()
            await self._returns.run_ended(run)
            self.audiences.groups_changed(await self.controls.groups())
        except StoreError as error:
            log.error("not_stored_after_run", run_id=run.run_id, reason=str(error))

    async def _end_broken(self, campaign: Campaign, error: Exception) -> Run:
        """End a run whose end, or what comes before or after it, has failed in its turn."""
        run = campaign.run
        log.error("run_end_broken", run_id=run.run_id, exc_info=error)
        ended = campaign if run.state.is_end else Broken(run, error, self._store, self._clock)
        self.audiences.run_changed(ended.run)
        if not run.state.is_end:
            facts = {"state": ended.run.state.value, "reason": ended.run.reason}
            self.audiences.event("run_finished", facts, run.run_id)
        await self._ends.keep(ended)
        return ended.run

    async def _end_before(self, campaign: Campaign) -> Run | None:
        """See that Bluetooth can be used; return the run if it ends before it began, or goes on.

        Whoever asks for a new one is told soon. One that is resumed waits for Bluetooth however
        long that takes; when we end meanwhile it is left for the next process.
        """
        run = campaign.run
        stopped = asyncio.ensure_future(campaign.stop_asked.wait())
        looking = asyncio.ensure_future(self._problem_of(campaign))
        try:
            await asyncio.wait({stopped, looking}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not campaign.is_resumed:
                await self._end(run, Trigger.INTERRUPT, "the daemon ended before it")
            raise
        finally:
            stopped.cancel()
            looking.cancel()
            looking.add_done_callback(note_end)
            await asyncio.wait({stopped, looking})
        if campaign.stop_asked.is_set():
            return await self._end(run, Trigger.STOP, "stopped on request")
        problem = looking.result()
        return None if problem is None else await self._end(run, Trigger.NOTHING_HEARD, problem)

    async def _problem_of(self, campaign: Campaign) -> str | None:
        if not campaign.is_resumed:
            return await adapter_problem(self._radio)
        run_id = campaign.run.run_id
        await bluetooth_ready(
            lambda: problem_now(self._radio), lambda reason: self._bluetooth_awaited(reason, run_id)
        )
        return None

    def _bluetooth_awaited(self, reason: str, run_id: str | None = None) -> None:
        facts = {"about": "Bluetooth", "reason": f"waiting for Bluetooth: {reason}"}
        self.audiences.event("warning", facts, run_id)

    def stop_run(self) -> Run:
        """Ask the current run to end as stopped; raises NoRun."""
        if self._campaign is None:
            raise NoRun("no run is going on")
        self._campaign.stop()
        return self._campaign.run

    def _check_no_run(self) -> None:
        if self._campaign is not None:
            raise RunInProgress(self._campaign.run.run_id)

    def _new_run_id(self) -> str:
        stem = self._clock.utc_now().strftime("r-%Y%m%d-%H%M%S")
        run_id, number = stem, 1
        while run_id in self._run_ids:
            number += 1
            run_id = f"{stem}-{number}"
        self._run_ids.add(run_id)
        return run_id

    async def _end(self, run: Run, trigger: Trigger, reason: str) -> Run:
        """End a run that was announced and has not begun, or not begun again."""
        try:
            known = await asyncio.to_thread(self._store.nodes)
        except StoreError as error:
            log.error("nodes_not_read", reason=str(error))
            known = []
        made = [node for node in known if node.run_id == run.run_id]
        run_log = RunLog(run, self._store, self.audiences, self._clock, made)
        run_log.event("run_started", expected=run.expected)
        missing = bounded(missing_boards(made, (), run.expected, run.heard, is_complete=False))
        await run_log.move(trigger, reason=reason, missing=missing if run.heard else ())
        run_log.event("run_finished", state=run_log.run.state.value, reason=reason)
        await self._ends.keep(run_log)
        return run_log.run

    # Boards that lost their power

    async def look_for_returned(self) -> int:
        """Listen for boards that were nodes, forget those nodes, and return how many boards.

        Bluetooth is waited for, however long that takes, and is free for others meanwhile.

        Raises:
            RunInProgress: a run has the radio; it looks by itself, if it gets to that.
            StoreError: the state can not be kept.
        """
        self._check_no_run()
        if not await asyncio.to_thread(self._store.nodes):
            return 0
        heard = None
        while heard is None:
            await bluetooth_ready(self._problem_between, self._bluetooth_awaited)
            heard = await self._listen()
        return await self._compare(heard)

    async def _compare(self, heard: Collection[HeardBoard]) -> int:
        """Ask the nodes whose boards seem to be back, and forget who does not answer."""
        async with self._radio_use:
            self._check_no_run()
            try:
                async with self._radio:
                    return await self._returns.at_start(
                        heard, self._who_answers, self._who_is_unprovisioned
                    )
            except BearerError as error:
                log.info("returned_not_asked_for", reason=str(error))
                return 0

    async def _problem_between(self) -> str | None:
        """Return why Bluetooth can not be used, between others who use it; raises RunInProgress."""
        async with self._radio_use:
            self._check_no_run()
            return await problem_now(self._radio)

    async def _listen(self) -> list[HeardBoard] | None:
        """Return which boards are on the air; `None` when Bluetooth did not bear it."""
        picture = AirPicture(self.settings().inventory, self.network.net_key)
        watch = Watch(self._radio, picture, lambda _: None, lambda _: None)
        async with self._radio_use:
            self._check_no_run()
            try:
                async with self._radio:
                    await watch.listen(WAITS["boards_settle"].seconds)
            except BearerError as error:
                log.info("returned_not_looked_for", reason=str(error))
                return None
        return picture.all_of_ours() if watch.last_error is None else None

    async def _who_answers(self, addresses: Collection[int]) -> Asked:
        """Ask nodes by name, over the radio that is in use."""
        nodes = await asyncio.to_thread(self._store.nodes)
        found = {a: await asyncio.to_thread(self._store.dev_key, a) for a in addresses}
        dev_keys = {address: key for address, key in found.items() if key is not None}
        app_key = self.network.app_key
        census = Census(self._radio, self._top, self._clock, app_key, nodes, dev_keys)
        return await census.ask(addresses)

    async def _who_is_unprovisioned(self, device_addresses: Collection[str]) -> set[str]:
        """Invite devices, over the radio that is in use."""
        return await who_is_unprovisioned(self._radio, device_addresses, self._clock, self._entropy)

    async def restore_groups(self) -> None:
        """Put boards that are nodes again into the groups that they were in, by Device UUID."""
        for group, addresses in (await self._returns.lost_groups()).items():
            try:
                await self.controls.change_group(group, addresses, add=True)
            except FastprovdError as error:
                log.warning("group_not_restored", group=group, reason=str(error))

    # What is known

    async def last_run(self) -> tuple[Run | None, list[Node]]:
        """Return the newest run and the nodes it made."""
        runs = await asyncio.to_thread(self._store.runs)
        if not runs:
            return None, []
        nodes = await asyncio.to_thread(self._store.nodes)
        return runs[0], [node for node in nodes if node.run_id == runs[0].run_id]

    async def address_list(self) -> tuple[Run | None, list[Node]]:
        """Return the newest run of which there are nodes, and these; `None` without any."""
        runs = await asyncio.to_thread(self._store.runs)
        return newest_list(runs, await asyncio.to_thread(self._store.nodes))

    # The mesh outside of a run: `controls`, and

    async def refresh_nodes(self) -> tuple[Run, list[Node], bool]:
        """Ask the Primary Provisioner of the last run for its list, and keep what is new.

        Returns the run, its nodes, and whether the Primary was asked: a list that may be long is
        not read, since that kills boards, and a direct run has no Primary.

        Raises:
            RunInProgress: a run has the radio.
            NoRun: no run has made a node yet.
            BearerError: the Primary could not be reached.
            ResponseTimeout: it did not answer.
        """
        self._check_no_run()
        run, nodes = await self.address_list()
        if run is None:
            raise NoRun("no run has made a node yet")
        known = {node.address: node for node in nodes}
        primary = None if run.primary is None else known.get(run.primary)
        could_be_listed = max(target(run.expected, run.heard), len(nodes))
        if primary is None or could_be_listed > SAFE_LIST_ENTRIES:
            return run, nodes, False
        async with (
            self._way_in() as open_session,
            open_session(device_address=primary.device_address) as session,
        ):
            listed = await control.get_node_list(session, self.network.app_key, primary.address)
        newest, nodes = await self.address_list()
        if newest is not None and newest.run_id != run.run_id:
            return newest, nodes, False  # another run ended while we waited for the radio
        known = {node.address: node for node in nodes}
        given = await asyncio.to_thread(self._store.reserved_addresses)
        ours = [r for r in given if r.run_id == run.run_id]
        now, new = self._clock.utc_now(), []
        for address in sorted(set(listed) - known.keys()):
            if any(r.first <= address <= r.last for r in ours):
                new.append(Node(address, run.run_id, listed=True, first_seen=now))
            else:
                log.warning("list_entry_ignored", address=format_address(address))
        await asyncio.to_thread(self._store.save_nodes, new)
        nodes = sorted([*known.values(), *new], key=lambda node: node.address)
        self.audiences.nodes_changed(nodes, run)
        return run, nodes, True

    @asynccontextmanager
    async def _way_in(self) -> AsyncIterator[OpenSession]:
        """Take the radio for one request, which may need more than one proxy."""
        self._check_no_run()
        async with self._radio_use:
            self._check_no_run()  # one may have been prepared while we waited for our turn
            nodes = await asyncio.to_thread(self._store.nodes)
            async with self._radio:
                await self._radio.close_left_links()
                yield partial(
                    control.network_session, self._radio, self._top, self._clock, nodes=nodes
                )
            await self._save_replay_list()

    # The end

    async def _save_replay_list(self) -> None:
        replay = self._top.stack.replay
        heard = replay.unsaved()
        await asyncio.to_thread(self._store.save_replay_list, heard)
        replay.saved(heard)

    async def check_store(self) -> None:
        """Ask the database something; raises StoreError."""
        await asyncio.to_thread(self._store.run, "")

    async def close(self) -> None:
        """Keep the replay list and give back the SEQ that were reserved and not used.

        Ends of runs that the disk did not take are tried once more.
        """
        for keep in (
            self._ends.close,
            self._top.keep_conflict,
            self._save_replay_list,
            self._release_seq,
        ):
            try:
                await keep()
            except StoreError as error:  # the next start goes on behind all that was reserved
                log.error("end_not_stored", reason=str(error))
            except Exception as error:
                log.error("end_not_stored", exc_info=error)

    async def _release_seq(self) -> None:
        next_seq = self._top.stack.sequence.next
        if next_seq is not None:
            await asyncio.to_thread(self._store.release_seq, next_seq)


def _iv_updates(store: StateStore, clock: Clock) -> IvUpdates:
    """Return when the IV Index moved; a time that lies ahead, after the clock went back, is now."""
    utc_now, now = clock.utc_now(), clock.monotonic()
    return IvUpdates(
        *(
            -math.inf if at is None else now - max(0.0, (utc_now - at).total_seconds())
            for at in store.iv_index_times()
        )
    )


@asynccontextmanager
async def open_gateway(
    config: Config,
    *,
    radio: Radio | None = None,
    clock: Clock | None = None,
    entropy: Entropy = secrets.token_bytes,
    wait_s: float = 0.0,
    open_store: Callable[[Path, Entropy], StateStore] = StateStore,
) -> AsyncIterator[Gateway]:
    """Open the state directory and join the parts; runs of an earlier process are interrupted.

    Another process is given `wait_s` to free the directory.

    Raises:
        StoreError: the state directory can not be used as it is.
    """
    clock = clock or SystemClock()
    mesh = config.mesh
    store = await _when_free(lambda: open_store(config.state.directory, entropy), wait_s)
    try:
        network = await asyncio.to_thread(
            store.network,
            address=mesh.provisioner_address,
            net_key_index=mesh.net_key_index,
            app_key_index=mesh.app_key_index,
        )
        if store.is_new:
            log.info(
                "network_begun",
                directory=str(config.state.directory),
                advice="boards of an earlier network have to be power-cycled; if there was a state "
                "directory, see what became of it",
            )
        await unfinished.interrupt(store, clock, resume=config.run.resume)
        gateway = Gateway(
            config,
            store,
            network,
            radio=radio or bluetooth(config, store),
            clock=clock,
            entropy=entropy,
        )
        try:
            yield gateway
        finally:
            await gateway.close()
    finally:
        store.close()


async def _when_free(open_store: Callable[[], StateStore], wait_s: float) -> StateStore:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        try:
            return await asyncio.to_thread(open_store)
        except StoreInUse as error:
            if loop.time() >= deadline:
                raise
            log.info("state_in_use", reason=str(error))
        await asyncio.sleep(_IN_USE_PAUSE_S)
