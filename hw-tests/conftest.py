"""The bench of a session: opened once, and skipped with the reason where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest

from fastprovd.errors import ConfigError
from hwbench import flashing
from hwbench.bench import ROLL_CALL_AFTER_S, Bench, RealSurroundings, Surroundings
from hwbench.config import BenchConfig, load
from hwbench.records import TestOutcome, write_csv
from hwbench.report import write_report

NO_BENCH = "no bench: pass --bench FILE or set FASTPROVD_BENCH"
MARKERS = (
    "hw: needs real radios and real firmware, or a rehearsal; every test here has it",
    "nodes(n): needs a bench of at least n boards",
    "power: cuts the power of boards",
    "slow: takes minutes",
    "destructive: kills programs of the gateway",
)


class BenchSession:
    """What one session at a bench is about, and what it leaves in its directory."""

    def __init__(self, config: pytest.Config) -> None:
        self.rehearsal: int | None = config.option.rehearsal
        self.bench_config = _bench_config(config)
        self.name = "rehearsal" if self.rehearsal else None
        if self.bench_config is not None:
            self.name = self.bench_config.name
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        # Absolute, since the state directory of a daemon lies in it.
        self.directory = Path(config.option.root_logdir).absolute() / f"{self.name}-{stamp}"
        self.bench: Bench | None = None
        self._begun = datetime.now().astimezone()
        self._outcomes: list[TestOutcome] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what became of each test; a fixture that fails counts as well."""
        if report.when != "call" and report.outcome == "passed":
            return
        reason = report.longreprtext
        if isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
        elif (crash := getattr(report.longrepr, "reprcrash", None)) is not None:
            reason = crash.message
        name = report.nodeid.rpartition("::")[2]
        self._outcomes.append(TestOutcome(name, report.outcome, report.duration, reason))

    def pytest_sessionfinish(self) -> None:
        """Write the table of runs and the report."""
        if self.bench is None:
            return
        write_csv(self.directory / "runs.csv", self.bench.runs)
        write_report(self.directory / "report.html", self.bench, self._outcomes, self._begun)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the report is."""
        if self.bench is not None:
            terminalreporter.write_line(f"report: {self.directory / 'report.html'}")


SESSION = pytest.StashKey[BenchSession]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Name options as pytest-embedded does, where it has them."""
    group = parser.getgroup("bench")
    group.addoption("--bench", metavar="FILE", help="bench.toml, see hw-tests/bench.example.toml")
    group.addoption(
        "--require-bench",
        action="store_true",
        help="fail where a test would be skipped because the bench is missing or unfit",
    )
    group.addoption("--rehearsal", metavar="N", type=int, help="an emulated bench of N boards")
    group.addoption("--seed", type=int, default=1, help="of the emulated boards (default: 1)")
    group.addoption(
        "--root-logdir", metavar="DIR", default="hw-logs", help="where each session puts its files"
    )
    group.addoption("--skip-autoflash", action="store_true", help="take the firmware as it is")
    group.addoption("--erase-nvs", action="store_true", help="erase NVS before flashing")
    group.addoption(
        "--roll-call-after",
        metavar="S",
        type=float,
        default=ROLL_CALL_AFTER_S,
        help="seconds from the end of a run until its nodes are asked again (default: 120)",
    )
    group.addoption("--soak-rounds", metavar="N", type=int, default=3, help="runs of the soak")


@pytest.hookimpl(tryfirst=True)  # before JUnit looks where to write
def pytest_configure(config: pytest.Config) -> None:
    """Read bench.toml, and let JUnit write into the session's directory unless told otherwise."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    session = config.stash[SESSION] = BenchSession(config)
    config.pluginmanager.register(session)
    if session.name is not None and config.option.xmlpath is None:
        config.option.xmlpath = str(session.directory / "junit.xml")


def _bench_config(config: pytest.Config) -> BenchConfig | None:
    named = config.option.bench or os.environ.get("FASTPROVD_BENCH")
    if config.option.rehearsal is not None or not named:
        return None
    try:
        return load(Path(named))
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test, and tell JUnit the bench."""
    name = config.stash[SESSION].name
    for item in items:
        item.add_marker(pytest.mark.hw)
        if name is not None:
            item.user_properties.append(("bench", name))


@pytest.fixture(scope="session")
def opened_bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """The bench of the session, flashed and with every console read."""
    config = request.config
    session = config.stash[SESSION]

    def give_up(reason: str) -> NoReturn:
        _give_up(config, reason)

    surroundings: Surroundings
    with ExitStack() as stack:
        if session.rehearsal is not None:
            from hwbench import rehearsal

            if (reason := rehearsal.missing()) is not None:
                give_up(reason)
            bench_config, surroundings = stack.enter_context(
                rehearsal.rehearsal(
                    session.rehearsal, config.option.seed, tmp_path_factory.mktemp("rehearsal")
                )
            )
        elif session.bench_config is not None:
            bench_config = session.bench_config
            if not config.option.skip_autoflash:
                _flash(config, bench_config, session.directory)
            surroundings = RealSurroundings(bench_config)
        else:
            give_up(NO_BENCH)
        bench = session.bench = Bench(
            bench_config,
            surroundings,
            session.directory,
            give_up,
            roll_call_after_s=config.option.roll_call_after,
        )
        yield stack.enter_context(bench)


def _flash(config: pytest.Config, bench: BenchConfig, directory: Path) -> None:
    if bench.manifest is None:
        return
    try:
        manifest = flashing.load_manifest(bench.manifest)
        plan = {
            board: flashing.images_for(board, manifest)
            for board in bench.boards
            if board.firmware is not None
        }
        directory.mkdir(parents=True)
        flashing.flash(plan, erase_nvs=config.option.erase_nvs, log_directory=directory)
    except flashing.FirmwareMissing as error:
        _give_up(config, str(error))


@pytest.fixture
def bench(request: pytest.FixtureRequest, opened_bench: Bench) -> Bench:
    """The bench, if it has what the test's markers ask for."""
    config = opened_bench.config
    nodes = request.node.get_closest_marker("nodes")
    if nodes is not None and len(config.boards) < nodes.args[0]:
        opened_bench.give_up(
            f"bench '{config.name}' has {len(config.boards)} boards, test needs {nodes.args[0]}"
        )
    if request.node.get_closest_marker("power") and opened_bench.power is None:
        opened_bench.give_up(f"bench '{config.name}' has no [power] backend")
    return opened_bench


def _give_up(config: pytest.Config, reason: str) -> NoReturn:
    if config.option.require_bench:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
