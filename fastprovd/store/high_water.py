"""A second, tiny record of how far SEQ were reserved, beside the database.

SQLite drops the end of a journal that a crash or a bad disk has cut off, and says nothing. What it
forgets then may have been on the air: under the same SEQ two messages would share a nonce.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FILE_NAME: Final = "high-water"


def load(directory: Path) -> tuple[int, int]:
    """Return the highest IV Index and the SEQ reserved under it; (0, 0) where nothing tells.

    Raises:
        OSError: the file is there and can not be read.
    """
    try:
        words = (directory / FILE_NAME).read_text("ascii").split()
        iv_index, reserved = (int(word) for word in words)
    except (FileNotFoundError, ValueError):
        return 0, 0  # one of ours is whole: it is renamed into its place
    return iv_index, reserved


def save(directory: Path, iv_index: int, reserved: int) -> None:
    """Keep them durably; raises OSError."""
    new = directory / f"{FILE_NAME}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{iv_index} {reserved}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.rename(directory / FILE_NAME)
