"""Closing the join window: every provisioner is stopped, and what can be observed says so.

A provisioner stops 10 s after it was told, and later if it takes a board meanwhile; that board is
a provisioner that was never told. So the message is repeated until nobody joins any more. Only
the Primary Provisioner's answer reaches us; with OnOff every node answers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import structlog

from fastprovd.campaign.calm import pause
from fastprovd.campaign.collecting import Collecting
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.control import set_onoff
from fastprovd.campaign.ladder import Rung, Symptom
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.states import WAITS, Trigger
from fastprovd.errors import ConnectionLost, ResponseTimeout
from fastprovd.mesh.addresses import ALL_NODES, format_address
from fastprovd.mesh.models.fast_provisioning import Action, InfoSet
from fastprovd.records import StepKind, Window

log = structlog.get_logger()

# In this many rounds in a row nobody may join: whoever joined unseen before the first of them was
# told to stop in both, once it had been configured.
_QUIET_ROUNDS: Final = 2
_REPETITIONS: Final = 3
_ATTEMPTS: Final = 3
_TTL: Final = 7
_TIDS: Final = 256
_STOP: Final = InfoSet(action=Action.SUSPEND)

LEFT_OPEN: Final = "it is configured to be left open"
NO_PROVISIONER: Final = "no board was made a provisioner, we provisioned all ourselves"
NOT_TOLD: Final = "the run ended before the boards were told to stop"


class Closing:
    """Closes the window below the Primaries; survives the loss of links."""

    def __init__(self, context: RunContext, collecting: Collecting) -> None:
        self._settings = context.settings
        self._collecting = collecting
        self._log = context.log
        self._picture = context.picture
        self._app_key = context.app_key
        self._clock = context.clock
        self._tid = context.entropy(1)[0]
        self._begun: float | None = None
        self._accounted: set[bytes] = set()
        self._suspended: set[int] = set()
        self._switched: set[int] = set()
        self._rounds = 0
        self._joined = 0

    async def close(self, session: ProxySession) -> None:
        """Stop all provisioners and watch until it is sure, or took too long.

        Raises:
            ConnectionLost: the link went away; call again over the next.
        """
        if self._settings.close == "leave_open":
            return
        await self._log.move(Trigger.ASKED, window=Window.UNKNOWN)
        self._log.publish_nodes()  # nobody who waits for the answers has to wait for the window
        if self._begun is None:
            self._begun = self._clock.monotonic()
            if not self._collecting.unaccounted():
                self._accounted = self._heard()
        deadline = self._begun + WAITS["closing"].seconds
        quiet, joined = 0, False
        while quiet < _QUIET_ROUNDS:
            await self._log.change(window_evidence=self._unproven())
            if self._clock.monotonic() >= deadline:
                return
            if joined:
                self._log.recovery(Symptom.WINDOW_OPEN, Rung.STOP_AGAIN)
            self._rounds += 1
            told = await self._stop(session)
            joined = await self._watch(session)
            quiet = quiet + 1 if told and not joined else 0
            if quiet == _QUIET_ROUNDS and await self._collecting.ask_doubted(session):
                # Who is there again has not been told everything.
                quiet = 0
        await self._collecting.ask_unlinked(session)
        now = self._clock.monotonic()
        left = self._set_latecomers_aside(self._begun, now)
        untold = set(self._log.fell_silent)
        if left >= self._collecting.unaccounted():
            # Who restarted is free, or has another address by now.
            untold -= self._collecting.forgotten
        if untold:
            await self._log.change(window_evidence=f"{self._proof(left)}; {_silent(untold)}")
            return
        await self._log.change(
            window=Window.CLOSED,
            window_evidence=self._proof(left),
            t_closed_s=self._log.since(now),
        )

    # Telling

    @property
    def _is_by_light(self) -> bool:
        """Without a link to a Primary nobody can confirm a suspend, and every node its light."""
        return self._settings.close == "onoff" or not self._collecting.sessions

    async def _stop(self, session: ProxySession) -> bool:
        """Return whether it was confirmed, by whoever can."""
        await self._log.step(StepKind.STOP_SENT, detail=self._settings.close)
        if self._is_by_light:
            if self._settings.close == "suspend":  # for those that nobody knows of
                await session.send(_STOP, dst=ALL_NODES, key=self._app_key, ttl=_TTL)
            return await self._set_lights_to_what_they_are(session)
        for _ in range(_REPETITIONS):
            await session.send(_STOP, dst=ALL_NODES, key=self._app_key, ttl=_TTL)
            await asyncio.sleep(WAITS["stop_repetition"].seconds)
        confirmed = [
            await self._suspend(primary, way)
            for primary, way in list(self._collecting.sessions.items())
        ]
        session.check()
        return all(confirmed)

    async def _suspend(self, primary: int, way: ProxySession) -> bool:
        """Tell a Primary once more, over its own link; return whether it confirms."""
        try:
            status = await way.request(
                _STOP,
                dst=primary,
                key=self._app_key,
                ttl=0,
                timeout_s=WAITS["info_status"].seconds,
                attempts=_ATTEMPTS,
            )
            if status.stopping:
                self._suspended.add(primary)
            return status.stopping
        except ResponseTimeout as error:
            log.info("stop_unanswered", reason=str(error))
            with suppress(ConnectionLost):
                await way.check_proxy()
                return False
        except ConnectionLost as error:
            log.info("stop_unanswered", reason=str(error))
        await self._collecting.lose(primary)
        return False

    async def _set_lights_to_what_they_are(self, session: ProxySession) -> bool:
        nodes = [node for node in self._log.nodes.values() if node.proven]
        for node in sorted(nodes, key=lambda node: node.address):
            if node.address in self._switched or node.onoff is None:
                continue
            self._tid = (self._tid + 1) % _TIDS
            try:
                onoff = await set_onoff(session, self._app_key, node.address, node.onoff, self._tid)
            except ResponseTimeout as error:
                log.info("stop_unanswered", reason=str(error))
                await self._log.doubt(node.address)
                continue
            self._switched.add(node.address)
            await self._log.node(node.address, onoff=onoff)
        return self._switched.issuperset(node.address for node in nodes)

    # Watching

    async def _watch(self, session: ProxySession) -> bool:
        """Return whether a board joined, until all that were told should have stopped."""
        end = self._clock.monotonic() + WAITS["stop"].seconds
        joined = False
        while (left_s := end - self._clock.monotonic()) > 0:
            await pause(session, min(left_s, WAITS["poll"].seconds))
            joined |= await self._collecting.look(session)
        joined |= self._has_left()
        if joined:
            self._joined += 1
            await self._collecting.prove(session)
        return joined

    def _has_left(self) -> bool:
        """Whether a board does not advertise itself as unprovisioned any more.

        Each counts once: BlueZ tells old data again with whatever a node sends, as it does when
        it relays the message to stop.
        """
        since = self._clock.monotonic() - WAITS["board_quiet"].seconds
        left = self._heard(until=since) - self._accounted
        self._accounted |= left
        return bool(left)

    def _heard(self, until: float = math.inf) -> set[bytes]:
        heard = self._picture.beginning_with(self._log.run.match)
        return {board.uuid for board in heard if board.last_seen_s < until}

    # What is known

    def _set_latecomers_aside(self, begun: float, now: float) -> int:
        """Return how many free boards there are that nobody takes.

        Those that came after the first message to stop are none of the run's.
        """
        free = self._picture.unprovisioned(now, WAITS["board_gone"].seconds)
        free = sorted(free, key=lambda board: -board.last_seen_s)[: self._collecting.unaccounted()]
        for board in free:
            if board.first_seen_s > begun:
                self._picture.set_aside(board)
        return len(free)

    def _how(self) -> str:
        if self._is_by_light:
            nodes = {node.address for node in self._log.nodes.values() if node.proven}
            told = len(nodes & self._switched)
            who = f"each of {told} nodes" if told == len(nodes) else f"{told} of {len(nodes)} nodes"
            return f"{who} confirmed an OnOff Set to the light it had"
        primaries = sorted(self._collecting.sessions)
        title = "Primary Provisioner" if len(primaries) == 1 else "Primary Provisioners"
        who = " and ".join(map(format_address, primaries))
        confirmed = "confirmed" if self._suspended.issuperset(primaries) else "did not confirm"
        return (
            f"INFO_SET suspend went to all nodes {self._rounds} times, and the {title} {who} "
            f"{confirmed} it"
        )

    def _proof(self, left: int) -> str:
        quiet_s = _QUIET_ROUNDS * WAITS["stop"].seconds
        proof = (
            f"{self._how()}; for the last {quiet_s:g} s no address was added and no board left the "
            "air as an unprovisioned device"
        )
        return f"{proof}, though {left} could have been taken" if left else proof

    def _unproven(self) -> str:
        joined = f"boards joined in {self._joined} of {self._rounds} rounds"
        return f"{self._how()}, but {joined}" if self._rounds else NOT_TOLD


def _silent(untold: Collection[int]) -> str:
    who = ", ".join(map(format_address, sorted(untold)))
    return f"but {who} fell silent: its board may have restarted, and been taken again since"
