"""Deaths of a gateway, one after the other: where, with what outcome, and what must never be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from fastprovd.emulator import virtual_time
from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.records import AddressRange, Run, RunState, StepKind
from fastprovd.store.state import StateStore
from tests.support.crash import Death, Life, World, crash_world, live, run_or_resume

HOSTS: Final = {host.name: host for host in (Host.BLUEDROID, Host.NIMBLE)}
METHODS: Final = ("fast", "direct")
BOARDS: Final = range(3, 8)
# systemd starts the daemon again after 5 s; an operator may be quicker, a gateway boots slower.
_RESTART_S: Final = (0.2, 30.0)
# How long the quickest run takes: so much, and so much more for each board.
_RUN_S: Final = {"fast": (28.0, 3.0), "direct": (2.0, 0.3)}


@dataclass(frozen=True)
class Case:
    """A run, and where it dies: with a step, with a PDU, or at an instant; perhaps once more."""

    method: str
    host: str
    boards: int
    seed: int
    dies_at: int | None = None
    dies_at_pdu: int | None = None
    dies_after_s: float | None = None
    dies_again_s: float | None = None
    death: Death = Death.LINKS_STAY
    flaws: bool = False
    resume: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of a case; `died` counts the lives that did not end by themselves."""

    end: str
    died: int
    steps: int
    pdus: int
    was_resumed: bool
    offered: int
    seqs: int
    violations: tuple[str, ...]

    @property
    def json(self) -> dict[str, Any]:
        """What goes into the table."""
        return {**vars(self), "violations": len(self.violations)}


def random_case(number: int) -> Case:
    """Return the n-th of the random instants."""
    random = Random(f"instant {number}")
    method = random.choice(METHODS)
    boards = random.choice(BOARDS)
    base_s, board_s = _RUN_S[method]
    run_s = base_s + board_s * boards
    return Case(
        method,
        random.choice(list(HOSTS)),
        boards,
        number,
        dies_after_s=random.uniform(0.0, run_s),
        dies_again_s=random.uniform(0.0, 2 * run_s) if random.random() < 0.3 else None,
        death=random.choice(list(Death)),
        flaws=random.random() < 0.5,
        resume=random.random() < 0.9,
    )


def step_cases(method: str, host: str, boards: int, seed: int = 1) -> Iterator[Case]:
    """Yield a case for every step that the run journals when nobody disturbs it."""
    undisturbed = run_case(Case(method, host, boards, seed))
    for number in range(1, undisturbed.steps + 1):
        yield Case(method, host, boards, seed, dies_at=number, death=_death(number))


def pdu_cases(
    method: str, host: str, boards: int, seed: int = 1, *, every_death: bool = False
) -> Iterator[Case]:
    """Yield a case for every Proxy PDU that leaves when nobody disturbs the run."""
    undisturbed = run_case(Case(method, host, boards, seed))
    for number in range(1, undisturbed.pdus + 1):
        for death in Death if every_death else (_death(number),):
            yield Case(method, host, boards, seed, dies_at_pdu=number, death=death)


def _death(number: int) -> Death:
    return list(Death)[number % len(Death)]


def run_case(case: Case) -> Outcome:
    """Run it, in virtual time."""
    return virtual_time.run(_run(case))


async def _run(case: Case) -> Outcome:
    flaws = None if case.flaws else Flaws.none()
    host = HOSTS[case.host]
    settings: dict[str, Any] = {"method": case.method, "resume": case.resume}
    settings |= {"host": host, "flaws": flaws, "death": case.death}
    async with crash_world(case.boards, case.seed, **settings) as world:
        first = Life(1, case.dies_at, case.dies_at_pdu)
        run = await live(world, first, run_or_resume, case.dies_after_s)
        died = 0
        for number, dies_after_s in ((2, case.dies_again_s), (3, None)):
            if run is None:
                died += 1
                await asyncio.sleep(world.random.uniform(*_RESTART_S))
                run = await live(world, Life(number), run_or_resume, dies_after_s)
        assert run is not None
        with StateStore(world.directory) as store:
            steps = store.steps(run.run_id)
        kinds = Counter(step.kind for step in steps)
        return Outcome(
            run.state.value,
            died,
            first.steps,
            first.pdus,
            kinds[StepKind.RESUMED] > 0,
            kinds[StepKind.ADDRESS_OFFERED],
            world.seqs_sent,
            tuple(violations(world, run)),
        )


class CrashTable:
    """A plugin of pytest that writes the table at the end of the session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, list[Mapping[str, Any]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcomes of a test."""
        told: dict[str, Any] = dict(report.user_properties)
        if report.when == "call" and "crash_row" in told:
            self._outcomes.setdefault(str(told["crash_row"]), []).extend(told["crash_outcomes"])

    def pytest_sessionfinish(self) -> None:
        """Write what there is."""
        self._path.write_text("\n".join(lines(self._outcomes)) + "\n")


def lines(outcomes: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a row for each kind of death, and their sum."""
    columns = ("instants", "deaths", "resumed", *(end.value for end in _ENDS))
    columns += ("addresses", "SEQ", "violations")
    rows = {row: list(outcomes[row]) for row in sorted(outcomes)}
    rows["all"] = [outcome for row in outcomes.values() for outcome in row]
    width = max(len(row) for row in rows)
    told = [" " * width + "".join(f"{name:>13}" for name in columns)]
    for row, found in rows.items():
        ends = Counter(outcome["end"] for outcome in found)
        figures = [
            len(found),
            sum(outcome["died"] for outcome in found),
            sum(outcome["was_resumed"] for outcome in found),
            *(ends[end.value] for end in _ENDS),
            *(sum(outcome[what] for outcome in found) for what in _SUMS),
        ]
        told.append(row.ljust(width) + "".join(f"{figure:>13}" for figure in figures))
    return told


_ENDS: Final = [state for state in RunState if state.is_end]
_SUMS: Final = ("offered", "seqs", "violations")


def violations(world: World, run: Run) -> list[str]:
    """Return what must never be, over all lives; empty when all is well."""
    found = world.violations + world_violations(world.air, world.directory, run)
    if world.adapter.linked or world.adapter.discovering:
        found.append(f"left links {world.adapter.linked}, scans {list(world.adapter._sessions)}")
    return found


def world_violations(air: Air, directory: Path, run: Run) -> list[str]:
    """Return what must never be of that which boards and store show in the end."""
    found: list[str] = []
    with StateStore(directory) as store:
        steps, nodes = store.steps(run.run_id), {n.address: n for n in store.nodes()}
        stored = store.run(run.run_id)
        reserved = store.reserved_addresses()
    offers = [step for step in steps if step.kind is StepKind.ADDRESS_OFFERED]
    found += _duplicates("offered", [step.address for step in offers])
    by_us = {
        (entry.address, entry.device_address)
        for entry in air.timeline
        if entry.what is Happening.PROVISIONED and not entry.detail
    }
    found += _duplicates("taken from us", [address for address, _ in by_us])
    for entry in by_us - {(step.address, step.device_address) for step in offers}:
        found.append(f"{entry} was not in the journal")
    truth = {b.unicast_address: b for b in air.boards if b.unicast_address is not None}
    found += _duplicates("held", [b.unicast_address for b in air.boards if b.node])
    planned = {step.address for step in steps if step.kind is StepKind.PLAN}
    primaries = {address for address, board in truth.items() if board.is_primary}
    found += [f"{address:#06x} is a Primary by mistake" for address in primaries - planned]
    if not run.state.is_end or stored != run:
        found.append(f"the run is {run.state}, stored as {stored and stored.state}")
    if (run.reason or "").startswith("internal error"):
        found.append(run.reason or "")
    found += [f"node {a:#06x} has no range" for a in nodes if not _is_in(a, reserved)]
    unknown = len(air.boards) - sum(node.proven for node in nodes.values())
    if len(run.missing) < unknown:
        found.append(f"{unknown} boards are not proven, {len(run.missing)} named as missing")
    if run.state is RunState.DONE and not set(truth) <= set(nodes):
        found.append(f"done without {set(truth) - set(nodes)}")
    proven = {address for address, node in nodes.items() if node.proven}
    if not proven <= set(truth):
        found.append(f"{proven - set(truth)} are proven and nobody has them")
    return found


def _duplicates(what: str, addresses: list[int | None]) -> list[str]:
    return [f"{a!r} was {what} {n} times" for a, n in Counter(addresses).items() if n > 1]


def _is_in(address: int, ranges: Sequence[AddressRange]) -> bool:
    return any(taken.first <= address <= taken.last for taken in ranges)
