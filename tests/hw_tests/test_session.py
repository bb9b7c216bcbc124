"""The suite as people start it: skipped without a bench, failing where one is required."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hwbench import rehearsal

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "hw-tests" / "bench.example.toml"
NO_BENCH = "no bench: pass --bench FILE or set FASTPROVD_BENCH"
# A run with three boards takes half a minute at the speed of real ones; this is for a loaded
# machine.
LIMIT_S = 240.0

needs_rehearsal = pytest.mark.skipif(
    rehearsal.missing() is not None, reason=str(rehearsal.missing())
)


def run_suite(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: os.environ[name] for name in os.environ if name != "FASTPROVD_BENCH"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "hw-tests", "-qrs"),
            f"--root-logdir={os.path.relpath(tmp_path, ROOT)}",  # as the default is
            *arguments,
        ],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def test_without_a_bench_it_skips_with_the_reason(tmp_path: Path) -> None:
    """No bench is no failure, the way to name one is in the output, and nothing is left behind."""
    result = run_suite(tmp_path)
    assert result.returncode == 0, result.stdout
    assert NO_BENCH in result.stdout
    assert "12 skipped" in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_required_bench_that_is_missing_fails(tmp_path: Path) -> None:
    """With --require-bench nobody mistakes a skip for a pass."""
    result = run_suite(tmp_path, "--require-bench")
    assert result.returncode == 1
    assert NO_BENCH in result.stdout
    assert "skipped" not in result.stdout


def test_a_wrong_bench_is_named(tmp_path: Path) -> None:
    """Before any test, with file and key."""
    path = tmp_path / "bench.toml"
    path.write_text(EXAMPLE.read_text("utf-8").replace('chip = "esp32"', "chip = 32"))
    result = run_suite(tmp_path, f"--bench={path}")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{path}: board[3].chip: expected text, got int 32" in result.stderr


def test_a_bench_whose_boards_are_not_there_fails(tmp_path: Path) -> None:
    """A bench that was named must work; JUnit says which one it was."""
    path = tmp_path / "bench.toml"
    text = EXAMPLE.read_text("utf-8")
    path.write_text(text.replace('"/dev/serial/by-path', f'"{tmp_path}/none'))
    result = run_suite(tmp_path, f"--bench={path}", "-k", "run_of_3")
    assert result.returncode == 1
    assert "could not open port" in result.stdout
    (junit,) = tmp_path.glob("desk-1-*/junit.xml")
    (bench,) = ElementTree.parse(junit).iter("property")  # noqa: S314 - pytest wrote it
    assert (bench.get("name"), bench.get("value")) == ("bench", "desk-1")


def test_missing_firmware_skips_with_the_reason(tmp_path: Path) -> None:
    """Binaries are not committed; without them nothing is flashed, and nothing is tested."""
    path = tmp_path / "bench.toml"
    text = EXAMPLE.read_text("utf-8").replace("#[firmware]\n#manifest", "[firmware]\nmanifest")
    path.write_text(text.replace("#firmware =", "firmware ="))
    manifest = ROOT / "hw-tests" / "firmware" / "manifest.example.toml"
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "manifest.toml").write_text(manifest.read_text("utf-8"))
    result = run_suite(tmp_path, f"--bench={path}", "-k", "run_of_3")
    assert result.returncode == 0, result.stdout
    assert "fast_prov_server-esp32c3.bin is missing: build it, or pass" in result.stdout


@needs_rehearsal
def test_a_bench_that_is_too_small_is_named(tmp_path: Path) -> None:
    """The skip names the bench, its boards and what the test needs."""
    result = run_suite(tmp_path, "--rehearsal=1", "-k", "run_of_3")
    assert result.returncode == 0, result.stdout
    assert "bench 'rehearsal' has 1 boards, test needs 3" in result.stdout


@pytest.mark.waits
@needs_rehearsal
def test_a_rehearsal(tmp_path: Path) -> None:
    """A daemon of its own, three emulated boards with consoles, and the broker killed in mid-run:
    the run is done, every address is one that a board printed, and the session is on record."""
    options = ("--rehearsal=3", "--require-bench", "--roll-call-after=1")
    result = run_suite(tmp_path, *options, "-k", "broker")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
    (directory,) = tmp_path.iterdir()
    assert {path.name for path in directory.iterdir()} >= {
        *("daemon.jsonl", "junit.xml", "report.html", "runs.csv", "serial", "timeline.jsonl")
    }
    with (directory / "runs.csv").open(newline="") as file:
        (run,) = csv.DictReader(file)
    assert (run["state"], run["known"], run["proven"], run["problems"]) == ("done", "3", "3", "")
    assert (run["alive"], run["silent"]) == ("3", "")
    assert run["faults"] == "broker killed while provisioning"
    timeline = [
        json.loads(line) for line in (directory / "timeline.jsonl").read_text().splitlines()
    ]
    assert {line["from"] for line in timeline} == {"n01", "n02", "n03", "mqtt", "bench"}
    assert "unicast_addr: 0x0002" in "".join(
        path.read_text() for path in (directory / "serial").iterdir()
    )
    for line in (directory / "daemon.jsonl").read_text().splitlines():
        json.loads(line)
