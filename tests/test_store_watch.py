"""A state directory that is gone or fails is noticed, also while nobody asks for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from fastprovd.audiences import SilentAudience
from fastprovd.campaign.tasks import background
from fastprovd.gateway import open_gateway
from fastprovd.store_watch import PAUSE_S, watch_store
from tests.support.emulated import config, entropy, world


async def test_a_deleted_state_is_said_once_and_when_it_is_back(tmp_path: Path) -> None:
    """In the log and as an event; the task goes on, whatever the database does."""

    class Ears(SilentAudience):
        heard: list[Any] = []  # noqa: RUF012

        def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
            self.heard.append((kind, data["about"]))

    async with open_gateway(config(tmp_path), radio=world(1).radio, entropy=entropy()) as gateway:
        gateway.audiences.members.append(Ears())
        with capture_logs() as logs:
            async with background(watch_store(gateway), "watch_store"):
                await asyncio.sleep(2.5 * PAUSE_S)
                assert logs == []
                moved = (tmp_path / "state").rename(tmp_path / "gone")
                await asyncio.sleep(3 * PAUSE_S)
                assert [entry["event"] for entry in logs] == ["state_failing"]
                assert "deleted or replaced" in logs[0]["reason"]
                moved.rename(tmp_path / "state")
                await asyncio.sleep(2 * PAUSE_S)
        assert [entry["event"] for entry in logs] == ["state_failing", "state_works_again"]
        assert Ears.heard == [("warning", "state directory")]
