"""How many strangers get in: `make bench-strangers`, or `python -m tests.bench.strangers`.

Each seed is a small run with an inventory, loss up to 30 %, and one or two boards that are not
ours and are switched on at any time from before the scan to beyond INFO_SET. The first line of the
table must be 0; the firmware takes whoever comes after INFO_SET, or in the 0.3 s that it takes to
hear a board and to send INFO_SET, so those must all be named.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter

import structlog

from fastprovd.emulator import virtual_time
from tests.support.strangers import run_among_strangers


def main() -> None:
    """Run the seeds and print the table."""
    parser = argparse.ArgumentParser(description="How many strangers get in.")
    parser.add_argument("--seeds", type=int, default=1000, metavar="N")
    parser.add_argument("--first", type=int, default=1, metavar="N")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    counts: Counter[str] = Counter()
    for seed in range(options.first, options.first + options.seeds):
        outcome = virtual_time.run(run_among_strangers(seed))
        counts["taken_in_time"] += len(outcome.taken_in_time)
        counts["taken_late"] += len(outcome.taken_late)
        counts["named"] += len(outcome.taken_late & outcome.named)
        counts["refused"] += outcome.is_refused
        counts[f"state {outcome.run.state}"] += 1
        if outcome.taken_in_time:
            sys.stdout.write(f"seed {seed}: {outcome.taken_in_time} taken\n")
    sys.stdout.write(f"{options.seeds} runs among strangers\n")
    sys.stdout.write(f"  on the air before the start, provisioned  {counts['taken_in_time']}\n")
    sys.stdout.write(f"  on the air after the start, provisioned   {counts['taken_late']}\n")
    sys.stdout.write(f"    of them named in the result             {counts['named']}\n")
    sys.stdout.write(f"  runs refused because of a stranger        {counts['refused']}\n")
    for name in sorted(counts):
        if name.startswith("state "):
            sys.stdout.write(
                f"  runs that ended {name.removeprefix('state '):<25} {counts[name]}\n"
            )


if __name__ == "__main__":
    main()
