"""A real `fastprovd provision`, killed at a journalled step; the next one goes on.

bleak's own BlueZ backend, D-Bus and the disk are real; the boards are not. They go at the speed
of real ones, so most of the time of a test is waiting.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.records import RunState, StepKind
from fastprovd.store.state import StateStore
from tests.support.crash_matrix import world_violations
from tests.support.process_world import Provisioning, boards_on

BOARDS = 3
# A direct run takes 8 s here, a fast one 60 s; the machine may have other things to do.
_TIMEOUT_S = {"direct": 90.0, "fast": 240.0}

FEW = [("direct", StepKind.ADDRESS_OFFERED)]
ALL = [
    *FEW,
    ("direct", StepKind.PLAN),
    ("direct", StepKind.PROVISIONED),
    ("direct", StepKind.CONFIGURED),
    ("fast", StepKind.ADDRESS_OFFERED),
    ("fast", StepKind.APP_KEY_ADD),
    ("fast", StepKind.INFO_SET),
    ("fast", StepKind.PROXY_LINK),
    ("fast", StepKind.STOP_SENT),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    whole = metafunc.config.getoption("--crash-matrix")
    metafunc.parametrize(("method", "kind"), ALL if whole else FEW)


@pytest.mark.waits
def test_the_next_process_goes_on(
    private_bus: PrivateBus, tmp_path: Path, method: str, kind: StepKind
) -> None:
    """It resumes the run to a true end, with nothing that must never be."""
    timeout_s = _TIMEOUT_S[method]
    provisioning = Provisioning(tmp_path, private_bus.address, BOARDS, method)
    with boards_on(private_bus.address, BOARDS) as boards:
        provisioning.run_until(kind, timeout_s)
        assert provisioning.run(timeout_s) == 0, (tmp_path / "log").read_text()
    with StateStore(provisioning.state) as store:
        (run,) = store.runs()
        assert store.steps(run.run_id)[-1].kind is StepKind.ENDED
    assert run.state is RunState.DONE
    assert StepKind.RESUMED.value in provisioning.journal()
    assert world_violations(boards.air, provisioning.state, run) == []
