"""The hardware suite tells the truth: skipped without a bench, and able to fail on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DONE = {"event": "run_finished", "state": "done", "addresses": ["0x0005", "0x0006"]}


def run_suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: os.environ[name] for name in os.environ if name != "FASTPROVD_BENCH"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "hw-tests", "-qrs", "-pno:cacheprovider", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def make_bench(tmp_path: Path, boards: int, last_line: object, status: int) -> str:
    """Write a bench whose fastprovd is a script that prints `last_line`; return its path."""
    script = tmp_path / "fastprovd.py"
    script.write_text(
        f"print('{{}}')\nprint({json.dumps(last_line)!r})\nraise SystemExit({status})"
    )
    bench = tmp_path / "bench.toml"
    example = (ROOT / "hw-tests" / "bench.example.toml").read_text("utf-8")
    bench.write_text(
        example.replace("boards = 3", f"boards = {boards}").replace(
            '#command = ["/usr/bin/fastprovd"]', f'command = ["{sys.executable}", "{script}"]'
        )
    )
    return f"--bench={bench}"


def test_without_a_bench_it_skips_with_the_reason() -> None:
    """No bench is no failure, and the way to name one is in the output."""
    result = run_suite()
    assert result.returncode == 0, result.stdout
    assert "no bench: pass --bench FILE or set FASTPROVD_BENCH" in result.stdout
    assert "1 skipped" in result.stdout


def test_a_required_bench_that_is_missing_fails() -> None:
    """With --require-bench nobody mistakes a skip for a pass."""
    result = run_suite("--require-bench")
    assert result.returncode == 1
    assert "no bench: pass --bench FILE" in result.stdout


def test_a_bench_that_is_too_small_is_named(tmp_path: Path) -> None:
    """The skip names the bench, its boards and what the test needs."""
    result = run_suite(make_bench(tmp_path, 1, DONE, 0))
    assert result.returncode == 0
    assert "bench 'desk-1' has 1 boards, test needs 2" in result.stdout


@pytest.mark.parametrize(
    ("last_line", "status", "verdict"),
    [
        (DONE, 0, 0),
        (DONE, 1, 1),
        ({**DONE, "addresses": ["0x0005", "0x0005"]}, 0, 1),
    ],
)
def test_the_verdict_on_a_run(tmp_path: Path, last_line: object, status: int, verdict: int) -> None:
    """Done with two different addresses and exit status 0 passes; nothing less does."""
    result = run_suite(make_bench(tmp_path, 2, last_line, status))
    assert result.returncode == verdict, result.stdout
