"""What a run commits, and what that costs on a slow disk."""

from __future__ import annotations

from tests.bench.commits import measured
from tests.conftest import RunVirtual

BOARDS = 20


def test_a_direct_run_makes_few_commits(run_virtual: RunVirtual) -> None:
    """Three for each board, and some thirty in all; a disk as slow as an SD card hardly counts."""
    quick, slow = (run_virtual(measured(BOARDS, commit_s)) for commit_s in (0.0, 0.05))
    assert quick.commits <= 3 * BOARDS + 30
    assert quick.same_lists == slow.same_lists == 0
    assert slow.proven_s <= 1.15 * quick.proven_s
