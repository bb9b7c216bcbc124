"""The table of contract tests and doors, as tests/README.md has it: `python -m` prints it."""

from __future__ import annotations

import inspect

from tests.support.contract import DoorContract
from tests.support.door import Door
from tests.support.doors import DbusDoor, InProcessDoor
from tests.system.guest_door import GuestDoor

NUMBER = "①②③④⑤⑥⑦⑧⑨"
DOORS: dict[str, type[Door]] = {
    "In process": InProcessDoor,
    "D-Bus": DbusDoor,
    "bluetoothd in the guest": GuestDoor,
}


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


def main() -> None:
    """Print the table of all doors."""
    print("\n".join(table(DOORS)))  # noqa: T201 - that is what it is for


def _cell(reason: str | None, reasons: list[str]) -> str:
    if reason is None:
        return "yes"
    if reason not in reasons:
        reasons.append(reason)
    return NUMBER[reasons.index(reason)]


if __name__ == "__main__":
    main()
