"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import structlog
from hypothesis import settings

from fastprovd.emulator import virtual_time

T = TypeVar("T")
RunVirtual = Callable[[Coroutine[Any, Any, T]], T]

# For long runs: `pytest --hypothesis-profile=fuzz`.
settings.register_profile("fuzz", max_examples=20_000, deadline=None)

# Emulated seconds: no test means to take a day, so a deadlock fails at once instead of hanging.
LIMIT_S = 86_400.0


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Leave structlog and logging as they were."""
    root, ours = logging.getLogger(), logging.getLogger("fastprovd")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    structlog.reset_defaults()


@pytest.fixture
def run_virtual() -> RunVirtual[Any]:
    """Run a coroutine in virtual time: `run_virtual(main())`, from a plain (not async) test.

    Fails when the coroutine is stuck for good, and when it leaves a task behind.
    """

    async def guarded(coroutine: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(LIMIT_S):
            result = await coroutine
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        return result

    return lambda coroutine: virtual_time.run(guarded(coroutine))
