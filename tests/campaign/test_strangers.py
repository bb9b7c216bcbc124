"""How boards that are not ours are told; whole runs among them are in tests/end_to_end."""

from __future__ import annotations

from datetime import UTC, datetime

from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.verdict import MOST_NAMED
from fastprovd.clock import SystemClock
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice
from fastprovd.records import Run, RunState
from tests.support.context import context_of


async def test_strangers_are_named_up_to_a_number() -> None:
    """Anybody can advertise any number of them; the rest is counted."""
    clock = SystemClock()
    settings = RunSettings(deny=("ddddff",), allow_strangers=True)
    run = Run("r-1", RunState.CONNECTING, datetime.now(UTC), match=settings.match)
    context = context_of(run, settings)
    await context.strangers.look_again()
    for number in range(MOST_NAMED + 7):
        uuid = b"\xdd\xdd\xff" + number.to_bytes(13, "big")
        data = UnprovisionedDevice(uuid)
        context.picture.receive(Advertisement(f"A{number}", data, -50, clock.monotonic()))
    named = context.strangers.named()
    assert len(named) == MOST_NAMED + 1
    assert named[-1].reason == "and 7 more that are not named"
