"""Addresses are taken for good before they are offered, and a run knows which."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fastprovd.campaign.reservations import Reservations
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.campaign.states import RunEnd
from fastprovd.records import Run, RunState
from tests.support.context import context_of
from tests.support.fake_mesh import FakeStore


async def test_what_a_run_takes() -> None:
    """Nothing twice, a further Primary's share above its own address, all of it in the run."""
    store = FakeStore()
    run = Run("r-1", RunState.SCANNING, datetime(2026, 1, 1, tzinfo=UTC))
    context = context_of(run, RunSettings(unicast_min=0x0010, unicast_max=0x0400), store=store)
    reservations = Reservations(context)
    first = await reservations.direct(5)
    assert (first.start, len(first)) == (0x0010, 5)
    share = await reservations.share(7, first[2])
    assert share == Share(first.stop, first.stop + 255)
    plan = await reservations.plan(4, 1)
    assert plan.reserved[0] == share.last + 1
    taken = [(r.first, r.last) for r in store.reserved_addresses()]
    assert taken == [(first.start, first.stop - 1), (share.first, share.last), plan.reserved]
    assert (context.log.run.unicast_min, context.log.run.unicast_max) == (
        0x0010,
        plan.reserved[1],
    )


async def test_no_share_below_its_primary() -> None:
    """The firmware refuses a range that begins at or below the Primary's own address."""
    settings = RunSettings(unicast_min=0x0010, unicast_max=0x0030)
    run = Run("r-1", RunState.PROVING, datetime(2026, 1, 1, tzinfo=UTC))
    reservations = Reservations(context_of(run, settings))
    with pytest.raises(RunEnd, match="no 5 free addresses"):
        await reservations.share(5, 0x002F)
    assert (await reservations.share(5, 0x0020)).first == 0x0021
