"""Who answers an Invite is unprovisioned."""

from __future__ import annotations

from pathlib import Path

from fastprovd.campaign.inviting import who_is_unprovisioned
from fastprovd.campaign.states import WAITS
from fastprovd.clock import SystemClock
from fastprovd.errors import DeviceNotFound
from fastprovd.gateway import open_gateway
from tests.support.emulated import config, entropy, world
from tests.support.fake_bearer import FakeBearer


async def test_only_who_is_unprovisioned_answers(tmp_path: Path) -> None:
    """Not a node, and not who is not there; nobody becomes a node by it, and can still become one.

    More devices than links are invited, one after the other.
    """
    here = world(8)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        for board in here.air.boards[1:]:
            board.power_off()
        settings = gateway.settings(expected=1, method="direct")
        await gateway.execute(gateway.prepare_run(settings))
        for board in here.air.boards[1:]:
            board.power_on()
        taken = gateway._store.reserved_addresses()
        everybody = {board.device_address for board in here.air.boards}
        async with gateway._radio:
            found = await who_is_unprovisioned(
                gateway._radio, everybody | {"24:0A:C4:5E:00:99"}, SystemClock(), entropy()
            )
        assert found == everybody - {here.air.boards[0].device_address}
        assert [b.unicast_address for b in here.air.boards[1:]] == [None] * 7
        assert gateway._store.reserved_addresses() == taken
        settings = gateway.settings(expected=7, method="direct")
        run = await gateway.execute(gateway.prepare_run(settings))
        assert run.proven == 7


async def test_devices_that_are_not_there_cost_bounded_time() -> None:
    """However many somebody advertises; who is left counts as one that did not answer."""
    bearer, clock = FakeBearer(), SystemClock()
    bearer.refuses = lambda address: (20.0, DeviceNotFound(address))
    begun = clock.monotonic()
    devices = [f"A{number}" for number in range(100)]
    assert await who_is_unprovisioned(bearer, devices, clock, entropy()) == set()
    assert clock.monotonic() - begun == WAITS["invites"].seconds
