"""The bench: which boards there are, and what happens where there is none."""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

NO_BENCH = "no bench: pass --bench FILE or set FASTPROVD_BENCH"


@dataclass(frozen=True, slots=True)
class Bench:
    """A gateway with real boards in reach; the fields are explained in bench.example.toml."""

    name: str
    boards: int
    config: Path
    command: tuple[str, ...]
    reset_command: tuple[str, ...]
    run_timeout_s: float


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench")
    group.addoption("--bench", metavar="FILE", help="bench.toml, see hw-tests/bench.example.toml")
    group.addoption(
        "--require-bench",
        action="store_true",
        help="fail where a test would be skipped because the bench is missing or too small",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hw: needs real radios and real firmware")
    config.addinivalue_line("markers", "nodes(n): needs a bench of at least n boards")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.hw)


@pytest.fixture(scope="session")
def bench_or_none(request: pytest.FixtureRequest) -> Bench | None:
    """The bench of --bench or FASTPROVD_BENCH; a bench file that is wrong is an error."""
    named = request.config.getoption("--bench") or os.environ.get("FASTPROVD_BENCH")
    if not named:
        return None
    path = Path(named)
    values = tomllib.loads(path.read_text("utf-8"))
    return Bench(
        name=values["name"],
        boards=values["boards"],
        config=path.parent / values["config"],
        command=tuple(values.get("command") or (sys.executable, "-m", "fastprovd")),
        reset_command=tuple(values.get("reset_command", ())),
        run_timeout_s=values["run_timeout_s"],
    )


@pytest.fixture
def bench(request: pytest.FixtureRequest, bench_or_none: Bench | None) -> Bench:
    """The bench, if there is one that is large enough for the test."""
    if bench_or_none is None:
        _give_up(request, NO_BENCH)
    marker = request.node.get_closest_marker("nodes")
    needed = marker.args[0] if marker else 1
    if bench_or_none.boards < needed:
        _give_up(
            request,
            f"bench '{bench_or_none.name}' has {bench_or_none.boards} boards, test needs {needed}",
        )
    request.node.user_properties.append(("bench", bench_or_none.name))
    return bench_or_none


def _give_up(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    if request.config.getoption("--require-bench"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
