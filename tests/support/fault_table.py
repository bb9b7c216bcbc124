"""The outcomes of the fault matrix as one table of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from fastprovd.records import Run, RunState
from tests.support.faults import FAULTS, PHASES
from tests.support.outcome_table import Cell

LEGEND = (
    "D done; d all but the boards that the firmware itself left without AppKey; P partial, "
    "F failed, each with a true reason; X the test failed; . not run, or there is no link to lose"
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


def lines(outcomes: Mapping[Cell, str]) -> list[str]:
    """Return the table: a letter for each host in each cell, then every end that is not done."""
    phases = [phase.name for phase in PHASES]
    hosts = sorted({host for _, _, host in outcomes})
    width = max(len(fault.name) for fault in FAULTS)
    told = [f"Each cell: {', '.join(hosts)}. {LEGEND}.", ""]
    told += [f"{number:2} {phase}" for number, phase in enumerate(phases, 1)]
    told += ["", " " * width + "".join(f"{n:>4}" for n in range(1, len(phases) + 1))]
    for fault in FAULTS:
        row = ""
        for phase in phases:
            row += f"{''.join(outcomes.get((fault.name, phase, h), '.')[0] for h in hosts):>4}"
        told.append(fault.name.ljust(width) + row)
    told.append("")
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for (fault_name, phase, host), outcome in sorted(outcomes.items()):
        if len(outcome) > 1:
            by_reason[outcome].append(f"{fault_name} / {phase} / {host}")
    for outcome, where in sorted(by_reason.items()):
        told += [outcome, *(f"    {cell}" for cell in where)]
    return told
