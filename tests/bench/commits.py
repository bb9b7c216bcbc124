"""What it costs a run to keep its facts: `python -m tests.bench.commits [BOARDS]`.

A direct run in virtual time, with disks on which each commit takes so long, one after the other.
Told are the commits, the messages about the run and the address lists, how many of those equal the
one before, and when the last board was proven, in seconds and against a disk that takes no time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from unittest import mock

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.emulator import virtual_time
from fastprovd.records import Node, Run
from fastprovd.store.database import Database
from tests.support.scene import Listener, scene

_T = TypeVar("_T")

COSTS_S: Final = (0.0, 0.005, 0.02, 0.05)
BOARDS: Final = 100
SEED: Final = 1
LINKS: Final = 5


class SlowDisk:
    """Counts what is committed, and lets each commit take `commit_s` of the loop's time."""

    def __init__(self, commit_s: float) -> None:
        self.commits = 0
        self._commit_s = commit_s
        self._writing = asyncio.Lock()
        self._thread = threading.local()

    @contextmanager
    def spinning(self) -> Iterator[None]:
        """Take the place of the disk of every store."""
        transaction, to_thread = Database.transaction, asyncio.to_thread

        @contextmanager
        def counted(database: Database) -> Iterator[Any]:
            with transaction(database) as connection:
                before = connection.total_changes
                yield connection
                self._thread.commits = self._mine + (connection.total_changes != before)

        async def slowed(call: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
            result, commits = await to_thread(self._call, partial(call, *args, **kwargs))
            self.commits += commits
            if commits and self._commit_s:
                async with self._writing:
                    await asyncio.sleep(commits * self._commit_s)
            return result

        with (
            mock.patch.object(Database, "transaction", counted),
            mock.patch.object(asyncio, "to_thread", slowed),
        ):
            yield

    @property
    def _mine(self) -> int:
        return getattr(self._thread, "commits", 0)

    def _call(self, call: Callable[[], _T]) -> tuple[_T, int]:
        before = self._mine
        return call(), self._mine - before


@dataclass
class Told(Listener):
    """A listener that counts."""

    lists: list[tuple[list[Node], Run | None]] = field(default_factory=list)

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """One more list."""
        super().nodes_changed(nodes, run)
        self.lists.append((list(nodes), run))

    @property
    def same_lists(self) -> int:
        """How many lists have the nodes of the one before."""
        return sum(
            before[0] == after[0] for before, after in zip(self.lists, self.lists[1:], strict=False)
        )


@dataclass(frozen=True)
class Cost:
    """What a run came to."""

    commits: int
    runs_told: int
    lists: int
    same_lists: int
    proven_s: float


async def measured(boards: int, commit_s: float, seed: int = SEED, links: int = LINKS) -> Cost:
    """Do a direct run; raises AssertionError if it is not done."""
    disk, told = SlowDisk(commit_s), Told()
    settings = RunSettings(expected=boards, method=Method.DIRECT)
    async with scene(boards, seed, settings=settings, links=links, listener=told) as the:
        with disk.spinning():
            run = await the.campaign.execute()
    assert run.state.value == "done", run
    assert run.t_proven_s is not None
    return Cost(disk.commits, len(told.runs), len(told.lists), told.same_lists, run.t_proven_s)


def main() -> int:
    """Print a line per disk."""
    parser = argparse.ArgumentParser(description="What it costs a run to keep its facts.")
    parser.add_argument("boards", type=int, nargs="?", default=BOARDS, metavar="BOARDS")
    parser.add_argument("--links", type=int, default=LINKS, metavar="N")
    options = parser.parse_args()
    first: float | None = None
    sys.stdout.write("commit  commits  run told  lists (as before)  proven after\n")
    for commit_s in COSTS_S:
        cost = virtual_time.run(measured(options.boards, commit_s, links=options.links))
        first = first or cost.proven_s
        sys.stdout.write(
            f"{commit_s * 1000:3.0f} ms  {cost.commits:7} {cost.runs_told:9}"
            f"  {cost.lists:5} ({cost.same_lists})"
            f"  {cost.proven_s:14.1f} s ({cost.proven_s / first - 1:+.1%})\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
