"""Notices that the state directory is gone or fails, also while nobody asks for anything."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from fastprovd.errors import StoreError
from fastprovd.gateway import Gateway

log = structlog.get_logger(__name__)

# Somebody who deletes or moves it has a moment in which that can be undone.
PAUSE_S: Final = 10.0


async def watch_store(gateway: Gateway) -> None:
    """Say once when the state can not be used any more, and once when it can again.

    Runs and requests are refused meanwhile with the same reason. The process goes on: it has the
    only keys of the network, and after a restart an empty directory would begin another one.
    """
    is_failing = False
    while True:
        await asyncio.sleep(PAUSE_S)
        try:
            await gateway.check_store()
        except StoreError as error:
            if not is_failing:
                log.error("state_failing", reason=str(error))
                facts = {"about": "state directory", "reason": str(error)}
                gateway.audiences.event("warning", facts, None)
            is_failing = True
        else:
            if is_failing:
                log.info("state_works_again")
            is_failing = False
