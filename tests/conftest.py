"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from hypothesis import settings

# Before they are imported: what an assertion in there compared is shown too.
pytest.register_assert_rewrite("tests.support")

from fastprovd.emulator import virtual_time
from fastprovd.emulator.private_bus import PrivateBus
from tests.support import fault_table, paced, stall_table
from tests.support.crash_matrix import CrashTable
from tests.support.outcome_table import OutcomeTable
from tests.support.stop_matrix import StopTable

T = TypeVar("T")
RunVirtual = Callable[[Coroutine[Any, Any, T]], T]

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
# For long runs: `pytest --hypothesis-profile=fuzz`.
settings.register_profile("fuzz", max_examples=20_000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the matrices be run as a whole."""
    parser.addoption("--fault-matrix", action="store_true", help="run every fault in every phase")
    parser.addoption("--crash-matrix", action="store_true", help="kill at every step and instant")
    parser.addoption("--crash-table", metavar="FILE", help="write what came of the deaths")
    parser.addoption("--fault-table", metavar="FILE", help="write the outcome of each cell")
    parser.addoption("--stall-matrix", action="store_true", help="run every stall with every loss")
    parser.addoption("--stall-table", metavar="FILE", help="write the outcomes of the stalls")
    parser.addoption("--stop-matrix", action="store_true", help="tell 500 programs to end")
    parser.addoption("--stop-seed", type=int, default=1, metavar="N", help="of the first chain")
    parser.addoption("--stop-table", metavar="FILE", help="write how the programs ended")


def pytest_configure(config: pytest.Config) -> None:
    """Collect the outcomes of the matrices where all reports arrive."""
    for matrix, lines in (("fault", fault_table.lines), ("stall", stall_table.lines)):
        path = config.getoption(f"--{matrix}-table")
        if path is not None and not hasattr(config, "workerinput"):
            config.pluginmanager.register(OutcomeTable(Path(path), f"{matrix}s", lines))
    for option, table in (("--crash-table", CrashTable), ("--stop-table", StopTable)):
        path = config.getoption(option)
        if path is not None and not hasattr(config, "workerinput"):
            config.pluginmanager.register(table(Path(path)))


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits: begun last it would keep everybody waiting, with nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)


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


async def _guarded(coroutine: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(LIMIT_S):
        result = await coroutine
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    return result


@pytest.hookimpl(tryfirst=True)  # pytest itself refuses coroutines without a plugin's mark
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in virtual time; with a private bus, on a clock that waits for it.

    Fails when the test is stuck for good, and when it leaves a task behind. A test that waits for
    a real socket, thread or process is marked `asyncio`, and has the real clock.
    """
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test) or pyfuncitem.get_closest_marker("asyncio"):
        return None
    fixtures = pyfuncitem.funcargs
    coroutine = test(**{name: fixtures[name] for name in inspect.signature(test).parameters})
    bus = fixtures.get("private_bus")
    if bus is None:
        virtual_time.run(_guarded(coroutine))
    else:
        paced.run(coroutine, bus.address)
    return True


@pytest.fixture
def run_virtual() -> RunVirtual[Any]:
    """Run coroutines in virtual time: for a plain test that runs several, or with examples."""
    return lambda coroutine: virtual_time.run(_guarded(coroutine))


@pytest.fixture
def private_bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateBus]:
    """Make a message bus of the test's own the system bus for bleak; skip where there is none."""
    missing = PrivateBus.missing()
    if missing is not None:
        pytest.skip(missing)
    with PrivateBus() as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        yield bus


@pytest.fixture
def run_paced(private_bus: PrivateBus) -> RunVirtual[Any]:
    """Run coroutines as `run_virtual` does, on a clock that waits for the private bus."""
    return lambda coroutine: paced.run(coroutine, private_bus.address)
