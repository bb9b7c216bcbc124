"""The outcomes of the fault matrix as one table of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from fastprovd.records import Run, RunState

LEGEND = (
    "D done; d all but the boards that the firmware itself left without AppKey; P partial, "
    "F failed, each with a true reason; X the test failed; . not run"
)


def outcome_of(run: Run, without_app_key: set[int]) -> str:
    """Return a letter, and the reasons behind it."""
    if run.state is RunState.DONE:
        return "D"
    reasons: defaultdict[str, int] = defaultdict(int)
    for board in run.missing:
        reasons[board.reason] += 1
    if without_app_key == {board.address for board in run.missing}:
        return "d"
    said = "; ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items()))
    return f"{run.state.value[0].upper()} {run.reason}" + (f" [{said}]" if said else "")


def table(
    faults: Iterable[str],
    phases: Iterable[str],
    hosts: Iterable[str],
    outcomes: Mapping[tuple[str, str, str], str],
) -> list[str]:
    """Return lines: a letter for each host in each cell, then every end that is not done."""
    faults, phases, hosts = list(faults), list(phases), list(hosts)
    width = max(map(len, faults))
    lines = [f"Each cell: {', '.join(hosts)}. {LEGEND}.", ""]
    lines += [f"{number:2} {phase}" for number, phase in enumerate(phases, 1)]
    lines += ["", " " * width + "".join(f"{n:>4}" for n in range(1, len(phases) + 1))]
    for fault in faults:
        row = ""
        for phase in phases:
            letters = "".join(outcomes.get((fault, phase, host), ".")[0] for host in hosts)
            row += f"{letters:>4}"
        lines.append(fault.ljust(width) + row)
    lines.append("")
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for (fault, phase, host), outcome in outcomes.items():
        if len(outcome) > 1:
            by_reason[outcome].append(f"{fault} / {phase} / {host}")
    for outcome, where in sorted(by_reason.items()):
        lines += [outcome, *(f"    {cell}" for cell in where)]
    return lines
