"""The table of contract tests and doors, as tests/README.md has it."""

from __future__ import annotations

import inspect

from tests.support.contract import DoorContract
from tests.support.door import Door

NUMBER = "①②③④⑤⑥⑦⑧⑨"


def table(doors: dict[str, type[Door]]) -> list[str]:
    """Return a line for each test, saying where it runs, and below the reasons why not."""
    lines = [f"| Contract | {' | '.join(doors)} |", "|---" * (len(doors) + 1) + "|"]
    reasons: list[str] = []
    for topic in reversed(DoorContract.__bases__):
        lines.append(f"| **{inspect.getdoc(topic)}**{' |' * len(doors)} |")
        for name, test in vars(topic).items():
            if name.startswith("test_"):
                item = name.removeprefix("test_").replace("_", " ").capitalize()
                holds = (inspect.getdoc(test) or "").partition("\n")[0]
                cells = [_cell(door.lacks.get(test.need), reasons) for door in doors.values()]
                lines.append(f"| {item}: {holds} | {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {NUMBER[index]} {reason}" for index, reason in enumerate(reasons)]
    return lines


def _cell(reason: str | None, reasons: list[str]) -> str:
    if reason is None:
        return "yes"
    if reason not in reasons:
        reasons.append(reason)
    return NUMBER[reasons.index(reason)]
