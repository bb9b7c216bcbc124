"""How long things take before the real bluetoothd, as a table for people."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.door import run_on_door
from tests.support.door_figures import Figure, figures, table
from tests.system.guest_door import GuestDoor

# Uptime when guest-init.sh began with the tests.
STAMPS = Path("/run/control/stamps")


def booted_s() -> float:
    """Return how long the guest took to begin with the tests."""
    return float(dict(line.split() for line in STAMPS.read_text().splitlines())["command"])


@pytest.mark.slow
@run_on_door
async def test_figures(door: GuestDoor, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that is measured happens, and its times are printed."""
    await door.end_bluetoothd(signal.SIGTERM)
    started_s = time.perf_counter()
    await door.start_bluetoothd()
    elapsed_s = time.perf_counter() - started_s
    taken = [
        Figure("boot until the tests start", booted_s(), booted_s()),
        Figure("start bluetoothd again", elapsed_s, elapsed_s),
        *await figures(door),
    ]
    with capsys.disabled():
        print("\n" + table("door of the real bluetoothd", taken))  # noqa: T201
