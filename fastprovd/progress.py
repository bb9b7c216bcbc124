"""A progress bar where the output is a terminal; needs `rich`, which the `demo` extra brings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from fastprovd.audiences import SilentAudience
from fastprovd.campaign.verdict import target
from fastprovd.console import PHASES, JsonLines, PlainLines, Reporter
from fastprovd.records import Node, Run

if TYPE_CHECKING:
    from rich.progress import Progress

_BAR_COLUMNS: Final = 40
_KNOWN: Final = "addresses known"
_PROVEN: Final = "boards proven"
_PROVISIONED: Final = "boards provisioned"


@contextmanager
def reporting(
    stream: TextIO, *, as_json: bool = False, provisioned: Callable[[], int] | None = None
) -> Iterator[Reporter]:
    """Report to `stream`: JSON lines, or a progress bar on a terminal, or plain lines.

    `provisioned` returns how many boards are nodes, where somebody can know that.
    """
    if as_json:
        yield JsonLines(stream)
    elif not stream.isatty() or importlib.util.find_spec("rich") is None:
        yield PlainLines(stream)
    else:
        with _progress(stream) as progress:
            yield ProgressBar(progress, PlainLines(stream), provisioned)


class ProgressBar(SilentAudience):
    """The phase in words, and a bar for each count; `plain` tells what stays."""

    def __init__(
        self, progress: Progress, plain: PlainLines, provisioned: Callable[[], int] | None
    ) -> None:
        self._progress = progress
        self._plain = plain
        self._provisioned = provisioned
        names = (_KNOWN, _PROVEN) if provisioned is None else (_PROVISIONED, _KNOWN, _PROVEN)
        self._bars = {name: progress.add_task(name, total=None) for name in names}
        self._phase = progress.add_task("", total=None)

    def run_changed(self, run: Run) -> None:
        """Move the bars and name the phase."""
        total = target(run.expected, run.heard) or None
        counts = {_KNOWN: run.known, _PROVEN: run.proven}
        if self._provisioned is not None:
            counts[_PROVISIONED] = self._provisioned()
        for name, bar in self._bars.items():
            self._progress.update(bar, total=total, completed=counts[name])
        words = f"{run.elapsed_s:6.1f} s  {PHASES[run.state]}"
        self._progress.update(self._phase, description=words)

    def tick(self) -> None:
        """Look again at what nobody reports."""
        if self._provisioned is not None:
            self._progress.update(self._bars[_PROVISIONED], completed=self._provisioned())

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Tell warnings only."""
        self._plain.event(kind, data, run_id)

    def finished(self, run: Run, nodes: Sequence[Node], **more: Any) -> None:
        """Leave the bars as they are and tell how it ended."""
        self._progress.stop()
        self._plain.finished(run, nodes, **more)


def _progress(stream: TextIO) -> Progress:
    # An extra, and slow to import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Bar(BarColumn):
        """A bar, and nothing beside the phase."""

        def render(self, task: Task) -> Any:
            return Text() if task.total is None else super().render(task)

    class Count(ProgressColumn):
        """`12/20`, and nothing beside the phase."""

        def render(self, task: Task) -> Text:
            if task.total is None:
                return Text()
            return Text(f"{task.completed:.0f}/{task.total:.0f}")

    return Progress(
        TextColumn("{task.description:<20}", markup=False),
        Bar(_BAR_COLUMNS),
        Count(),
        console=Console(file=stream),
    )
