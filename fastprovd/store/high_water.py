"""A second, small record beside the database, of what must never go back.

SQLite drops the end of a journal that a crash or a bad disk has cut off, and says nothing. What it
forgets then may have been on the air: under the same SEQ two messages would share a nonce, and two
boards could get one address. So every commit is counted, in the database first: a record that is
ahead of it is proof of a loss, one that is behind says nothing.

What was reserved is written durably before it is used. Other commits only move the count, without
waiting for the disk: it may be some commits behind after a power cut.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE_NAME: Final = "high-water"

_COUNT_DIGITS: Final = 20  # of fixed width, so that it is overwritten in its place


class DamagedRecord(Exception):
    """The file is there, and its content is none that was ever written."""


@dataclass(frozen=True, slots=True)
class HighWater:
    """How often was committed, the newest IV Index with SEQ, where they end, and addresses taken.

    `reserved` is exclusive; `addresses` are ranges `first..last`, inclusive.
    """

    commits: int = 0
    iv_index: int = 0
    reserved: int = 0
    addresses: tuple[tuple[int, int], ...] = ()


def load(directory: Path) -> HighWater | None:
    """Return what was kept, `None` where there is no file.

    Raises:
        DamagedRecord: nothing can be told.
        OSError: the file can not be read.
    """
    try:
        count, seq, *taken = (directory / FILE_NAME).read_text("ascii").splitlines()
        iv_index, reserved = map(int, seq.split())
        addresses = tuple((int(first), int(last)) for first, last in map(str.split, taken))
        return HighWater(int(count), iv_index, reserved, addresses)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedRecord from error


def save(directory: Path, mark: HighWater) -> None:
    """Keep it durably in place of the one before; raises OSError."""
    ranges = "".join(f"{first} {last}\n" for first, last in mark.addresses)
    text = f"{_count(mark.commits)}{mark.iv_index} {mark.reserved}\n{ranges}"
    new = directory / f"{FILE_NAME}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(descriptor)
    new.rename(directory / FILE_NAME)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def count_commit(directory: Path, commits: int) -> None:
    """Move the count, which need not be durable yet; raises OSError."""
    try:
        descriptor = os.open(directory / FILE_NAME, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the next reservation makes it
    try:
        os.pwrite(descriptor, _count(commits).encode(), 0)
    finally:
        os.close(descriptor)


def forget(directory: Path) -> None:
    """Drop what tells nothing; raises OSError."""
    (directory / FILE_NAME).unlink(missing_ok=True)


def merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return inclusive ranges in order, those joined that touch each other."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def _count(commits: int) -> str:
    return f"{commits:0{_COUNT_DIGITS}}\n"
