"""No core file holds keys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, resource, sys
from fastprovd import core_files
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
if len(sys.argv) > 1:
    core_files.forbid()
os.abort()
"""


def test_a_process_that_is_killed_leaves_none(tmp_path: Path) -> None:
    """Nor is a program started that would keep one; without it there may be one."""
    for words in ([], ["forbid"]):
        subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=tmp_path, check=False)
        if words:
            assert list(tmp_path.iterdir()) == []
        for core in tmp_path.iterdir():
            core.unlink()


def test_the_limit_is_set_or_was_lower() -> None:
    """One octet is less than any core has."""
    program = "import resource; from fastprovd import core_files; core_files.forbid();"
    program += "print(max(resource.getrlimit(resource.RLIMIT_CORE)))"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) in (0, 1)


def test_no_debugger_of_the_same_user_reads_the_keys() -> None:
    """Nor does a program that gets cores whatever the limit is; its children may be looked into."""
    program = "import ctypes, subprocess, sys; from fastprovd import core_files; "
    program += "core_files.forbid(); tell = 'import ctypes; print(ctypes.CDLL(None).prctl(3))'; "
    program += "print(ctypes.CDLL(None).prctl(3), flush=True); "
    program += "subprocess.run([sys.executable, '-c', tell])"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["0", "1"]
