"""Output that goes away, or that nobody reads, disturbs nothing."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastprovd.lasting import MOST_OCTETS, lasting

PROGRAM = """
import sys
from fastprovd.lasting import lasting
out = lasting(sys.stdout)
for number in range(100_000):
    out.write(f"{number}\\n")
out.flush()
sys.exit(7)
"""


def test_what_is_written_arrives() -> None:
    """As long as somebody takes it."""
    stream = io.StringIO()
    out = lasting(stream)
    assert out.write("one\n") == 4
    out.flush()
    assert stream.getvalue() == "one\n"
    assert not out.isatty()


def test_a_stream_that_was_never_there_takes_all() -> None:
    """Python has none where standard output was closed before the start."""
    out = lasting(None)
    assert out.write("one\n") == 4
    out.flush()
    assert not out.isatty()


@pytest.mark.parametrize("gone", ["pipe", "full", "closed"])
def test_the_exit_code_is_that_of_the_work(gone: str) -> None:
    """Whoever went away, and whatever became of the output, the program goes on to its end."""
    if gone == "full":
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run([sys.executable, "-c", PROGRAM], stdout=full, check=False)
        assert ended.returncode == 7
        return
    if gone == "closed":
        command = f"exec {sys.executable} -c '{PROGRAM}' >&-"
        assert subprocess.run(["bash", "-c", command], check=False).returncode == 7
        return
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    _, complaint = child.communicate(timeout=30)
    assert (child.returncode, complaint) == (7, "")


# Writes more than there is memory for, tells how long that took, and ends with a code of its own.
FLOOD = """
import sys, time
from fastprovd import lasting
lasting.PATIENCE_S = 0.2
out = lasting.lasting(sys.stdout, lambda lines: f"{lines} missing")
begun = time.monotonic()
for number in range(300_000):
    out.write(f"line {number}\\n")
out.flush()
sys.stderr.write(f"{time.monotonic() - begun:.1f} s, {out._octets} octets\\n")
sys.exit(7)
"""


def full_pipe() -> tuple[int, int]:
    """Return a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    return reader, writer


@pytest.mark.parametrize("is_blocking", [True, False], ids=["blocking", "made non-blocking"])
def test_nobody_reads(is_blocking: bool) -> None:
    """A full pipe holds nobody up, fills no memory, and changes no exit code."""
    reader, writer = full_pipe()
    os.set_blocking(writer, is_blocking)
    ended = subprocess.run(
        [sys.executable, "-c", FLOOD],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(reader)
    os.close(writer)
    took, unread = ended.stderr.splitlines()
    assert ended.returncode == 7
    assert int(took.split()[2]) <= MOST_OCTETS
    assert unread.startswith("fastprovd: nobody read the last ")


def test_what_is_missing_is_told_where_it_is_missing() -> None:
    """Whoever begins to read late gets what was kept, in order, and how many lines were not."""
    child = subprocess.Popen(
        [sys.executable, "-c", FLOOD.replace("0.2", "30.0")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stderr.readline()  # all is written, or dropped
    lines = child.stdout.read().splitlines()
    child.communicate()
    assert child.returncode == 7
    expected = 0
    for line in lines:
        if line.endswith("missing"):
            expected += int(line.split()[0])
        else:
            assert line == f"line {expected}"
            expected += 1
    assert expected == 300_000
    assert len(lines) < 300_000


def test_asked_again_it_is_the_same_with_another_notice() -> None:
    """Two writers of one file would mix their lines."""
    once = lasting(io.StringIO())
    assert lasting(once, str) is once
