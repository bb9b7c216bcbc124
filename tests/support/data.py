"""The test data: the specification's sample data and the recordings of the real firmware."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fastprovd.emulator.hosts import Host

_TESTS = Path(__file__).parent.parent
RECORDING_NAMES = sorted(path.stem for path in (_TESTS / "recordings").glob("*.jsonl"))


@cache
def vectors(group: str) -> list[dict[str, Any]]:
    """Return one group of the sample data."""
    document = json.loads((_TESTS / "vectors" / "mesh-sample-data.json").read_text())
    entries: list[dict[str, Any]] = document[group]
    return entries


class Recording:
    """One session of a Top Provisioner with boards that ran the real firmware."""

    def __init__(self, name: str) -> None:
        with (_TESTS / "recordings" / f"{name}.jsonl").open() as lines:
            self.header: dict[str, Any] = json.loads(next(lines))
            self.events: list[dict[str, Any]] = [json.loads(line) for line in lines]

    @property
    def host(self) -> Host:
        """The Bluetooth host of the boards."""
        return {"NimBLE": Host.NIMBLE, "Bluedroid": Host.BLUEDROID}[self.header["firmware"]["host"]]

    def of(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """Yield the events of these kinds, in order of time."""
        return (event for event in self.events if event["ev"] in kinds)


@cache
def recording(name: str) -> Recording:
    """Return a recording by its name."""
    return Recording(name)
