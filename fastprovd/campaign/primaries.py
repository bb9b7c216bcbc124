"""The Primary Provisioners of a run: who they are, and whether they took INFO_SET."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.ladder import Rung, Symptom
from fastprovd.campaign.planner import Plan
from fastprovd.campaign.primary import Start, start_fast_provisioning
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.errors import AccessError
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.beacons import Advertisement
from fastprovd.records import StepKind


@dataclass(slots=True)
class PrimaryNode:
    """`is_started` once it said that it provisions others; a lost link proves nothing."""

    plan: Plan
    board: HeardBoard
    is_started: bool = False


class Primaries:
    """Those that were made, by unicast address; their shares are disjoint.

    `forgotten` are the addresses of those that restarted: nobody has them any more.
    """

    def __init__(self, context: RunContext) -> None:
        self._settings = context.settings
        self._log = context.log
        self._picture = context.picture
        self._clock = context.clock
        self._app_key = context.app_key
        self._nodes: dict[int, PrimaryNode] = {}
        self.were_told = False
        self.forgotten: set[int] = set()

    @property
    def nodes(self) -> Mapping[int, PrimaryNode]:
        """Each Primary by its unicast address."""
        return MappingProxyType(self._nodes)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """What each was asked, in the order in which they were made."""
        return tuple(node.plan for node in self._nodes.values())

    def add(self, plan: Plan, board: HeardBoard) -> None:
        """The board is node `plan.primary` now and shall become a Primary Provisioner."""
        self._nodes[plan.primary] = PrimaryNode(plan, board)

    def remove(self, address: int) -> None:
        """The node could not be made a Primary Provisioner; it stays a node."""
        del self._nodes[address]

    async def start(self, address: int, session: ProxySession) -> Start:
        """Send INFO_SET and return how we know that it took it.

        Raises:
            StatusError: it refuses.
            ResponseTimeout: it neither starts nor hangs up.
            ConnectionLost: the link was gone before anything was sent.
        """
        node = self._nodes[address]
        await self._log.step(StepKind.INFO_SET, address=address)
        sent_s = self._clock.monotonic()
        self.were_told = True
        start = await start_fast_provisioning(
            session,
            node.plan,
            self._app_key,
            self._settings.group,
            self._log.run.match,
            self._send_again,
        )
        await self._log.step(StepKind.INFO_SET_CONFIRMED, address=address, detail=start.value)
        is_first = not any(other.is_started for other in self._nodes.values())
        is_new = start is not Start.ALREADY_STARTED
        if (is_first and is_new) or self._log.since_info_set is None:
            self._log.mark_info_set(sent_s)
        node.is_started = start is not Start.HUNG_UP
        if node.is_started:
            self._picture.mark_stale()
        self._log.event(
            "fast_provisioning_started", addr=format_address(address), proof=start.value
        )
        return start

    async def confirm_start(self, address: int, session: ProxySession) -> None:
        """Send INFO_SET again if the link was lost before the answer, whoever lost it.

        Raises:
            ConnectionLost: it starts only now and hangs up, or the link went away.
        """
        if self._nodes[address].is_started:
            return
        self._send_again()
        try:
            await self.start(address, session)
        except AccessError as error:
            self._log.event("warning", about="INFO_SET", reason=str(error))
        else:
            session.check()

    def _send_again(self) -> None:
        self._log.recovery(Symptom.START_UNCONFIRMED, Rung.SEND_AGAIN)

    def advertised(self, heard: Advertisement) -> int | None:
        """Return which of them advertises its proxy here."""
        for address, node in self._nodes.items():
            if self._picture.is_proxy(heard, address, node.board.device_address):
                return address
        return None

    def restarted(self, heard: Advertisement) -> int | None:
        """Return which of them advertises itself as unprovisioned: it forgot the network."""
        nodes = self._nodes.items()
        return next((a for a, node in nodes if self._picture.restarted(heard, node.board)), None)
