"""What a fast run says of its boards' own times."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from fastprovd.emulator.hosts import Flaws, Host
from tests.support.scene import scene

RunVirtual = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.parametrize("kind", DuplicateFilter)
@pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
@pytest.mark.parametrize("boards", [3, 7, 12])
def test_t_provisioned_is_that_of_the_boards(
    run_virtual: RunVirtual, boards: int, host: Host, kind: DuplicateFilter
) -> None:
    """Within a second, whatever the controller filters, and not after the last address."""

    async def main() -> None:
        settings = RunSettings(expected=boards, method=Method.FAST)
        async with scene(boards, 1, host=host, flaws=Flaws.none(), settings=settings) as s:
            s.adapter.quirks = replace(s.adapter.quirks, duplicate_filter=kind)
            run = await s.campaign.execute()
            assert run.t_provisioned_s is not None
            assert run.t_known_s is not None
            assert run.t_provisioned_s == pytest.approx(s.t_provisioned_s(), abs=1.0)
            assert run.t_provisioned_s <= run.t_known_s

    run_virtual(main())
