"""RECOVERY.md: the ladders and the causes as tables, out of the code.

`python -m tests.support.recovery_table > RECOVERY.md` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastprovd.campaign.ladder import LADDERS
from fastprovd.campaign.states import WAITS
from tests.support.causes import CAUSES, Cause
from tests.support.ladders import COSTS, TOLD

HEAD = """\
# What can go wrong in a run, and what is done then

Written by `python -m tests.support.recovery_table` out of the ladders that the code climbs
(`fastprovd/campaign/ladder.py`) and the tables of `tests/support`; do not edit it. How to act on
the end of a run is in the [README](README.md#when-a-run-does-not-get-on).

A run never knows the cause of what it sees. It sees a symptom, and climbs its ladder rung by rung
until the symptom is gone or no rung is left. Every wait has a deadline, and `run_timeout_s` bounds
the whole run.
"""
CAUSES_HEAD = """\
## Causes

FP is the reference of the protocol, read in the firmware's source; OB is what the unmodified
firmware was measured to do. A cause that we keep away shows no symptom. The scenario is the test
that runs into the cause and holds the end against the emulated boards. `make stall-matrix` repeats
most of them with loss, in runs of 1 to 100 boards.
"""
KINDS = {
    "S": "Stalls of the firmware",
    "Q": "Quirks of the firmware",
    "H": "Seen with the NimBLE host, the Bluedroid host, or both",
}


def document() -> Iterator[str]:
    """Yield the lines of RECOVERY.md."""
    yield HEAD
    yield "## Ladders"
    for symptom, rungs in LADDERS.items():
        ladder = TOLD[symptom]
        yield ""
        seen_as = f"{ladder.seen_as}, after {_wait(ladder.wait)}"
        yield f"**{_capital(symptom.value)}.** Seen as: {seen_as}."
        yield ""
        for number, rung in enumerate(rungs, 1):
            yield f"{number}. {_capital(rung.value)} ({COSTS[rung]})."
        yield ""
        yield f"End: {ladder.end}."
    yield ""
    yield CAUSES_HEAD.rstrip("\n")
    for kind, title in KINDS.items():
        yield ""
        yield f"### {title}"
        yield ""
        yield "| | What happens | Kept away by | Shows as | Costs | Ends | Scenario |"
        yield "|---|---|---|---|---|---|---|"
        for name, cause in CAUSES.items():
            if name.startswith(kind):
                yield _row(name, cause)


def _row(name: str, cause: Cause) -> str:
    shows = cost = "-"
    if cause.symptom is not None:
        after = f"after {_wait(cause.wait)}"
        shows = f"*{cause.symptom.value}*: {cause.seen_as}, {after}"
        cost = cause.cost
    end = cause.ends.value + (f": {cause.end}" if cause.end else "")
    test = cause.scenario.rpartition("::")[2]
    what = f"{_capital(cause.what)} ({cause.source})"
    cells = [name, what, cause.prevented or "-", shows, cost, end, f"`{test}`"]
    return f"| {' | '.join(cells)} |"


def _wait(name: str) -> str:
    if name in WAITS:
        return f"{WAITS[name].seconds:g} s"
    return f"`{name.removeprefix('[run] ')}`"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def main() -> None:
    """Print the document."""
    print("\n".join(document()))  # noqa: T201 - that is what it is for


if __name__ == "__main__":
    main()
