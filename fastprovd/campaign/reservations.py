"""Taking unicast addresses, before the first of them is offered to anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from fastprovd.campaign.context import RunContext
from fastprovd.campaign.planner import (
    RunPlan,
    plan_direct,
    plan_run,
    plan_share,
)
from fastprovd.campaign.shares import Share
from fastprovd.campaign.states import RunEnd, Trigger
from fastprovd.errors import LocalProtocolError
from fastprovd.records import AddressRange, StepKind

Choose = Callable[[int, int, Sequence[AddressRange]], tuple[int, int]]


class Reservations:
    """What a run takes of [mesh] unicast_min..unicast_max; the Run has the lowest and highest."""

    def __init__(self, context: RunContext) -> None:
        self._settings = context.settings
        self._store = context.store
        self._log = context.log

    async def plan(self, boards: int, primaries: int) -> RunPlan:
        """Take addresses for so many Primaries and what they hand out; raises RunEnd."""
        plans: list[RunPlan] = []

        def choose(low: int, high: int, taken: Sequence[AddressRange]) -> tuple[int, int]:
            plans.append(plan_run(boards, low, high, taken, primaries=primaries))
            return plans[-1].reserved

        await self._take(choose, "fast provisioning")
        for plan in plans[-1].plans:
            await self._log.plan(plan)
        return plans[-1]

    async def direct(self, boards: int) -> range:
        """Take addresses for so many boards that we provision ourselves; raises RunEnd."""
        first, last = await self._take(
            lambda low, high, taken: plan_direct(boards, low, high, taken),
            "direct provisioning",
        )
        await self._log.step(StepKind.PLAN, first=first, last=last)
        return range(first, last + 1)

    async def check_room(self, boards: int) -> None:
        """See that there are addresses in a row for so many boards; raises RunEnd."""
        await self._choose(lambda low, high, taken: plan_direct(boards, low, high, taken))

    async def share(self, boards: int, primary: int) -> Share:
        """Take what node `primary` hands out to so many boards, above its own; raises RunEnd."""
        shares: list[Share] = []

        def choose(low: int, high: int, taken: Sequence[AddressRange]) -> tuple[int, int]:
            shares.append(plan_share(boards, primary, low, high, taken))
            return shares[-1].first, shares[-1].last

        await self._take(choose, "fast provisioning")
        return shares[-1]

    async def _take(self, choose: Choose, purpose: str) -> tuple[int, int]:
        run = self._log.run
        first, last = await self._choose(choose)
        await asyncio.to_thread(
            self._store.reserve_addresses, AddressRange(first, last, run.run_id, purpose)
        )
        await self._log.change(
            unicast_min=min(first, run.unicast_min or first),
            unicast_max=max(last, run.unicast_max or last),
        )
        return first, last

    async def _choose(self, choose: Choose) -> tuple[int, int]:
        taken = await asyncio.to_thread(self._store.reserved_addresses)
        try:
            return choose(self._settings.unicast_min, self._settings.unicast_max, taken)
        except LocalProtocolError as error:
            raise RunEnd(Trigger.NO_ADDRESS_LEFT, str(error)) from error
