"""Where the database lives: what a copy, or a file that was put back, can be told by.

A file that was copied has another inode, or the same number with another generation; one that was
written over, or a directory that was unpacked over itself, is older than the marker beside it; one
that was taken to another machine meets another machine-id. An image of a whole disk shows none of
that, nor does a file system that is rolled back: only the radio tells them.

None of these is taken for a copy: a reboot (device numbers may change, so they do not count), an
upgrade, new owners and modes, a directory that is renamed or bound to another path, a container
that is made anew around the same volume (inside of one the machine-id does not count).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import os
import re
import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastprovd.errors import CorruptStore, StoreError
from fastprovd.store import rows

MARKER_STEM: Final = "opened."

_MACHINE_ID: Final = Path("/etc/machine-id")
_TRANSIENT_ID: Final = Path("/run/machine-id")
_CONTAINER_SIGNS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
# _IOR('v', 1, long) of linux/fs.h; a file system that does not know it has no generations.
_FS_IOC_GETVERSION: Final = 0x8000_7601 | struct.calcsize("l") << 16


@dataclass(frozen=True, slots=True)
class Place:
    """A file on a machine; `None`: the system does not tell."""

    machine: str | None
    inode: str
    generation: int | None


def find_place(path: Path) -> Place:
    """Return where the file is; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        generation: int | None = None
        octets = array.array("i", [0, 0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _FS_IOC_GETVERSION, octets, True)
            generation = octets[0]
        return Place(_machine(), str(os.fstat(descriptor).st_ino), generation)
    finally:
        os.close(descriptor)


def _machine() -> str | None:
    if "container" in os.environ or any(sign.exists() for sign in _CONTAINER_SIGNS):
        return None
    try:
        machine_id = _MACHINE_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    is_id = re.fullmatch("[0-9a-f]{32}", machine_id) and machine_id.strip("0")
    if not is_id or _is_transient(machine_id):
        return None
    return _fingerprint(machine_id)


def _fingerprint(machine_id: str) -> str:
    # The id itself is confidential, see machine-id(5).
    return hashlib.sha256(b"fastprovd " + machine_id.encode()).hexdigest()


def _is_transient(machine_id: str) -> bool:
    """Whether the id is of this boot only: systemd mounts such a one from /run over a file."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if _TRANSIENT_ID.read_text("ascii").strip() == machine_id:
            return True
    with contextlib.suppress(OSError):
        real = _MACHINE_ID.resolve()
        is_mounted = real.stat().st_dev != real.parent.stat().st_dev
        return is_mounted or real.is_relative_to(_TRANSIENT_ID.parent)
    return False


def problem(connection: sqlite3.Connection, place: Place, directory: Path) -> str | None:
    """Return what shows that the database is not where it was left, or that another one is in use.

    `None` when nothing does.
    """
    row = _row(connection)
    if row["conflict"] is not None:
        return str(row["conflict"])
    if max((number for number, _ in _markers(directory)), default=0) > row["opened"]:
        return "an older database was put in place of the one that was in use last"
    if row["inode"] is None:
        return None
    machine = row["machine"] if row["machine"] != _fingerprint("uninitialized") else None
    if None not in (machine, place.machine) and machine != place.machine:
        return "it was used on another machine"
    if row["inode"] != place.inode or (
        None not in (row["generation"], place.generation) and row["generation"] != place.generation
    ):
        return "the database is not the file that was in use last"
    return None


def settle(connection: sqlite3.Connection, place: Place) -> int:
    """Note that the database is opened here, and return how often it was opened."""
    connection.execute(
        "update home set machine = ?, inode = ?, generation = ?, opened = opened + 1",
        (place.machine, place.inode, place.generation),
    )
    return int(_row(connection)["opened"])


def adopt(connection: sqlite3.Connection, directory: Path, seq_floor: int) -> None:
    """Forget what spoke against the database; SEQ begins at `seq_floor` under a new IV Index.

    Raises:
        CorruptStore: it has no network, and had one.
    """
    opened = max((number for number, _ in _markers(directory)), default=0)
    if opened and connection.execute("select count(*) from network").fetchone()[0] == 0:
        raise CorruptStore(
            "the database in use here had a network, and this one has none, so that there is "
            "nothing to adopt: restore the state directory from a backup, its state.db-wal too, or "
            "move it away to begin a new network and reset every board"
        )
    connection.execute(
        "update home set conflict = null, machine = null, inode = null, generation = null,"
        " seq_floor = max(seq_floor, ?), opened = max(opened, ?)",
        (seq_floor, opened),
    )


def mark(directory: Path, opened: int) -> None:
    """Leave a marker of this opening, which was committed, in place of the earlier ones.

    Raises:
        StoreError: the directory can not be written.
    """
    try:
        marker = directory / f"{MARKER_STEM}{opened}"
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for number, path in _markers(directory):
            if number < opened:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{error.filename or directory}: {error.strerror}") from error


def note_conflict(connection: sqlite3.Connection, reason: str) -> None:
    """Keep why nothing may be sent any more until the operator has looked."""
    connection.execute("update home set conflict = ?", (reason,))


def seq_floor(connection: sqlite3.Connection) -> int:
    """Return where SEQ begins under an IV Index that is new to us."""
    return int(_row(connection)["seq_floor"])


def commits(connection: sqlite3.Connection) -> int:
    """Return how often something was changed."""
    return int(_row(connection)["commits"])


def count_commit(connection: sqlite3.Connection) -> int:
    """Count what is about to be committed, and return the number."""
    connection.execute("update home set commits = commits + 1")
    return commits(connection)


def raise_commits(connection: sqlite3.Connection, number: int) -> None:
    """Go on counting from `number`, if that is more."""
    connection.execute("update home set commits = max(commits, ?)", (number,))


def _row(connection: sqlite3.Connection) -> sqlite3.Row:
    row: sqlite3.Row = rows.only(connection, "home")
    return row


def _markers(directory: Path) -> list[tuple[int, Path]]:
    found = []
    for path in directory.glob(f"{MARKER_STEM}*"):
        number = path.name.removeprefix(MARKER_STEM)
        if number.isascii() and number.isdigit():
            found.append((int(number), path))
    return found
