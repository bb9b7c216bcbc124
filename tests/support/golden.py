"""Golden runs: what runs journal, tell and come to, as text that a later version is held against.

`python -m tests.support.golden` writes `tests/golden/*.txt` anew. What changes there is a change
of what users see or of what is stored, and has to be meant.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator import virtual_time
from fastprovd.emulator.hosts import Host
from fastprovd.gateway import Gateway
from fastprovd.publish.messages import encode, node_to_json, run_to_json
from fastprovd.records import Node, Run, Step
from tests.support.crash import Life, crash_world, live, run_or_resume
from tests.support.scene import Listener, Scene, device_address, scene

DIRECTORY: Final = Path(__file__).parents[1] / "golden"
SEED: Final = 7
# Of the wall clock, or of the machine: not what a run comes to.
_VOLATILE: Final = frozenset({"run_id", "started", "finished", "first_seen", "last_seen", "ts"})


@dataclass
class Witness(Listener):
    """Writes down each state that the run comes to and each event, when it hears of it."""

    lines: list[str] = field(default_factory=list)
    _state: str = ""

    def run_changed(self, run: Run) -> None:
        """A state that is new."""
        super().run_changed(run)
        if run.state.value != self._state:
            self._state = run.state.value
            self._note(f"state {self._state}")

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """An event."""
        super().event(kind, data, run_id)
        facts = " ".join(f"{name}={value}" for name, value in data.items())
        self._note(f"event {kind} {facts}".rstrip())

    def _note(self, line: str) -> None:
        self.lines.append(f"{asyncio.get_running_loop().time():7.2f} {line}")


def _told(facts: Mapping[str, Any]) -> str:
    return encode({k: v for k, v in facts.items() if k not in _VOLATILE}).decode()


def _journal(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        facts = {
            "address": step.address,
            "device_address": step.device_address,
            "first": step.first,
            "last": step.last,
            "node_addr_cnt": step.node_addr_cnt,
            "detail": step.detail,
        }
        given = " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
        yield f"{step.kind.value} {given}".rstrip()


def _end(run: Run, nodes: Sequence[Node]) -> Iterator[str]:
    yield _told(run_to_json(run))
    for node in sorted(nodes, key=lambda node: node.address):
        yield _told(node_to_json(node))


def _lines(
    told: Sequence[str], steps: Sequence[Step], run: Run, nodes: Sequence[Node]
) -> list[str]:
    return [
        "# Told",
        *told,
        "# Journal",
        *_journal(steps),
        "# In the end",
        *_end(run, nodes),
    ]


async def _run(
    boards: int,
    method: Method,
    host: Host = Host.NIMBLE,
    arrange: Callable[[Scene], None] = lambda _: None,
) -> list[str]:
    witness = Witness()
    settings = RunSettings(expected=boards, method=method)
    async with scene(boards, SEED, host=host, settings=settings, listener=witness) as the:
        arrange(the)
        run = await the.campaign.execute()
        steps = await asyncio.to_thread(the.store.steps, run.run_id)
        nodes = await asyncio.to_thread(the.store.nodes)
    return _lines(witness.lines, steps, run, nodes)


def _two_are_far(the: Scene) -> None:
    """Let the last two boards be heard by the others only."""
    for number in (11, 12):
        the.air.set_reach(device_address(number), "hci0", None)


async def _killed(boards: int, method: Method, dies_at: int) -> list[str]:
    """Kill the gateway when so many steps are in its journal, and begin it anew."""
    async with crash_world(boards, SEED, host=Host.BLUEDROID, method=method.value) as world:
        assert await live(world, Life(1, dies_at), run_or_resume) is None, "it outlived its run"
        told: list[str] = []

        async def resume(gateway: Gateway) -> tuple[Run, list[Step], list[Node]]:
            witness = Witness(lines=told)
            gateway.audiences.members.append(witness)
            run = await run_or_resume(gateway)
            assert run is not None
            _, nodes = await gateway.address_list()
            return run, gateway._store.steps(run.run_id), nodes

        run, steps, nodes = await live(world, Life(2), resume)
        assert not world.violations
    return _lines(told, steps, run, nodes)


RUNS: Final[dict[str, Callable[[], Awaitable[list[str]]]]] = {
    "fast-1": lambda: _run(1, Method.FAST),
    "fast-3": lambda: _run(3, Method.FAST, Host.BLUEDROID),
    "fast-20": lambda: _run(20, Method.FAST),
    "fast-100": lambda: _run(100, Method.FAST),
    "direct-20": lambda: _run(20, Method.DIRECT, Host.BLUEDROID),
    "direct-100": lambda: _run(100, Method.DIRECT),
    "direct-7-killed": lambda: _killed(7, Method.DIRECT, 11),
    "fast-7-killed-before-start": lambda: _killed(7, Method.FAST, 8),
    "fast-7-killed-after-start": lambda: _killed(7, Method.FAST, 13),
    "auto-12-unheard": lambda: _run(12, Method.AUTO, Host.NIMBLE, _two_are_far),
}


async def lines_of(name: str) -> list[str]:
    """Do a run and return what it came to."""
    return await RUNS[name]()


def main() -> int:
    """Write all of them anew, or those that are named."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    DIRECTORY.mkdir(exist_ok=True)
    for name in sys.argv[1:] or RUNS:
        lines = virtual_time.run(lines_of(name))
        (DIRECTORY / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
