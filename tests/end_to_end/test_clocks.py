"""What a fast run says of its boards' own times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.emulator.hosts import Flaws, Host
from tests.support.scene import scene


@pytest.mark.parametrize("kind", DuplicateFilter)
@pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
@pytest.mark.parametrize("boards", [3, 7, 12])
async def test_t_provisioned_is_that_of_the_boards(
    boards: int, host: Host, kind: DuplicateFilter
) -> None:
    """Within a second, whatever the controller filters, and not after the last address."""
    settings = RunSettings(expected=boards, method=Method.FAST)
    async with scene(boards, 1, host=host, flaws=Flaws.none(), settings=settings) as s:
        s.adapter.quirks = replace(s.adapter.quirks, duplicate_filter=kind)
        run = await s.campaign.execute()
        assert run.t_provisioned_s is not None
        assert run.t_known_s is not None
        assert run.t_provisioned_s == pytest.approx(s.t_provisioned_s(), abs=1.0)
        assert run.t_provisioned_s <= run.t_known_s


@pytest.mark.parametrize("kind", DuplicateFilter)
@pytest.mark.parametrize("boards", [7, 12])
async def test_t_provisioned_is_right_or_unknown_beside_another_scan(
    boards: int, kind: DuplicateFilter
) -> None:
    """Another program's scan holds reports back for 10 s; no figure is told that this spoils."""
    for seed in (1, 2):
        settings = RunSettings(expected=boards, method=Method.FAST)
        async with scene(boards, seed, flaws=Flaws.none(), settings=settings) as s:
            s.adapter.quirks = replace(s.adapter.quirks, duplicate_filter=kind)
            await s.adapter.start_discovery(lambda _: None, duplicates=True, client="other")
            run = await s.campaign.execute()
            if run.t_provisioned_s is not None:
                assert run.t_provisioned_s == pytest.approx(s.t_provisioned_s(), abs=1.0)


async def test_t_provisioned_is_unknown_where_the_link_came_late() -> None:
    """The only child was a node seconds before its address could be read, and was not heard."""
    settings = RunSettings(expected=3, method=Method.FAST)
    async with scene(3, 3, flaws=Flaws.none(), settings=settings) as s:
        run = await s.campaign.execute()
        assert run.t_known_s is not None
        assert run.t_known_s - s.t_provisioned_s() > 1.0
        assert run.t_provisioned_s is None
