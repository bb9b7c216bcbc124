"""The emulated boards against the recordings: `python -m tests.bench.recordings [SEEDS]`.

Each recorded group run is done again over emulated boards, which boot when the recorded ones did,
once with each seed. The table holds what the recordings count against the mean of the emulated
runs, their standard deviation, and their least and most. A recording is one draw of what an
emulated run is many of: look at the deviation before the difference.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator

from fastprovd.emulator import virtual_time
from tests.support.tally import SESSIONS, emulated, recorded

SEEDS = 20


def rows(seeds: int) -> Iterator[tuple[str, float, list[float]]]:
    """Yield name, sum over the recordings, and the sums over the emulated runs of each seed."""
    counted = [recorded(name) for name in SESSIONS]
    runs = [
        [virtual_time.run(emulated(name, seed)) for name in SESSIONS]
        for seed in range(1, seeds + 1)
    ]
    for what in sorted({what for count in counted for what in count}):
        yield (
            what,
            sum(count.get(what, 0) for count in counted),
            [sum(count.get(what, 0) for count in run) for run in runs],
        )


def table(seeds: int) -> str:
    """Return the table as Markdown."""
    lines = [
        "| summed | recorded | emulated, mean | | s | least..most |",
        "|---|---|---|---|---|---|",
    ]
    for what, was, sums in rows(seeds):
        mean = statistics.mean(sums)
        cells = [
            what,
            f"{was:.0f}",
            f"{mean:.1f}",
            f"{mean / was - 1:+.0%}" if was else "",
            f"{statistics.pstdev(sums):.1f}",
            f"{min(sums):.0f}..{max(sums):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seeds", nargs="?", type=int, default=SEEDS)
    sys.stdout.write(table(parser.parse_args().seeds) + "\n")


if __name__ == "__main__":
    _main()
