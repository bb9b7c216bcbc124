"""Standard output that goes away disturbs nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastprovd.lasting import lasting

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
