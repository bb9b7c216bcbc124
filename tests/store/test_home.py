"""A state directory that was copied, put back or written over is refused, and nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastprovd.errors import CopiedStore, CorruptStore
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.store import counters, home
from fastprovd.store.state import StateStore


def use(directory: Path, *, adopt: bool = False) -> range:
    """Open, have a network, reserve SEQ, close."""
    with StateStore(directory, adopt=adopt) as store:
        store.network()
        return store.reserve_seq_block(256)


def copied(directory: Path) -> Path:
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    return copy


def put_back(directory: Path) -> Path:
    backup = copied(directory)
    use(directory)
    shutil.rmtree(directory)
    shutil.copytree(backup, directory)
    return directory


def written_over(directory: Path) -> Path:
    """As `cp -a` does, which keeps the file and its inode."""
    backup = copied(directory)
    use(directory)
    for path in backup.iterdir():
        shutil.copy(path, directory / path.name)
    return directory


def only_the_database_put_back(directory: Path) -> Path:
    old = (directory / "state.db").read_bytes()
    use(directory)
    (directory / "state.db").write_bytes(old)
    return directory


COPIES = pytest.mark.parametrize(
    "copy", [copied, put_back, written_over, only_the_database_put_back]
)


@COPIES
def test_a_copy_is_refused_with_what_to_do(directory: Path, copy: Callable[[Path], Path]) -> None:
    """The reason names the directory, the way out and when not to take it; it stays refused."""
    use(directory)
    other = copy(directory)
    for _ in range(2):
        with pytest.raises(CopiedStore, match=f"{other} may be a copy.*fastprovd state adopt"):
            StateStore(other)


@COPIES
def test_an_adopted_copy_leaves_seq_out(directory: Path, copy: Callable[[Path], Path]) -> None:
    """SEQ goes on beyond all that the original can have used, and later starts are as usual."""
    first = use(directory)
    other = copy(directory)
    adopted = use(other, adopt=True)
    assert adopted.start >= first.stop + counters.ADOPTION_GAP
    assert use(other).start == adopted.stop


def test_an_adopted_copy_leaves_seq_out_under_a_new_iv_index(directory: Path) -> None:
    """The network may have had an IV Update since the copy was made."""
    use(directory)
    other = copied(directory)
    with StateStore(other, adopt=True) as store:
        store.set_iv_index(IvIndex(1))
        assert store.reserve_seq_block(256).start == counters.ADOPTION_GAP


def renamed(directory: Path) -> Path:
    return directory.rename(directory.with_name("renamed"))


def another_mode(directory: Path) -> Path:
    for path in directory.iterdir():
        path.chmod(0o644)
        os.utime(path)
    return directory


def linked(directory: Path) -> Path:
    link = directory.with_name("link")
    link.symlink_to(directory)
    return link


def left_alone(directory: Path) -> Path:
    return directory


@pytest.mark.parametrize("change", [renamed, another_mode, linked, left_alone])
def test_what_is_no_copy_is_not_refused(directory: Path, change: Callable[[Path], Path]) -> None:
    """Other names, modes and times, at every start again."""
    use(directory)
    changed = change(directory)
    for _ in range(2):
        use(changed)


def test_another_machine_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same file under another machine-id; without one, or in a container, it is used."""
    machine_id = tmp_path / "machine-id"
    monkeypatch.setattr(home, "_MACHINE_ID", machine_id)
    monkeypatch.setattr(home, "_CONTAINER_SIGNS", (tmp_path / "container",))
    monkeypatch.delenv("container", raising=False)
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    use(directory)
    assert b"0123456789abcdef" not in (directory / "state.db").read_bytes()
    machine_id.write_text("f" * 32)
    with pytest.raises(CopiedStore, match="another machine"):
        StateStore(directory)
    (tmp_path / "container").touch()
    use(directory)
    (tmp_path / "container").unlink()
    machine_id.unlink()
    use(directory)


@pytest.mark.parametrize(
    "content", ["uninitialized\n", "", "0" * 32, "not an id\n"], ids=["first", "empty", "0", "text"]
)
def test_what_is_no_machine_id_tells_no_copy(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """At the first boot, or on a read-only root, it is none yet; later there is one."""
    _machine_id(tmp_path, monkeypatch, content)
    use(directory)
    _machine_id(tmp_path, monkeypatch, "0123456789abcdef" * 2)
    use(directory)


def test_an_id_of_this_boot_only_tells_no_copy(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd keeps a transient one in /run too, and mounts it over /etc/machine-id."""
    transient = tmp_path / "run" / "machine-id"
    transient.parent.mkdir()
    monkeypatch.setattr(home, "_TRANSIENT_ID", transient)
    for octet in ("a", "b"):
        _machine_id(tmp_path, monkeypatch, octet * 32)
        transient.write_text(octet * 32)
        use(directory)
    transient.unlink()
    _machine_id(tmp_path, monkeypatch, "c" * 32)
    use(directory)
    _machine_id(tmp_path, monkeypatch, "d" * 32)
    with pytest.raises(CopiedStore, match="another machine"):
        use(directory)


def _machine_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    path = tmp_path / "machine-id"
    path.write_text(content)
    monkeypatch.setattr(home, "_MACHINE_ID", path)
    monkeypatch.setattr(home, "_CONTAINER_SIGNS", ())
    monkeypatch.delenv("container", raising=False)


def killed_without_its_journal(directory: Path) -> None:
    """Use it in a process that is killed, and lose what was not yet in the database itself."""
    program = (
        "import os, pathlib, sys; from fastprovd.store.state import StateStore;"
        "store = StateStore(pathlib.Path(sys.argv[1])); store.network();"
        "store.reserve_seq_block(256); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True)
    (directory / "state.db-wal").unlink()


def test_a_database_whose_network_got_lost_is_not_begun_anew(directory: Path) -> None:
    """It is refused, and there is nothing to adopt."""
    killed_without_its_journal(directory)
    with sqlite3.connect(directory / "state.db", isolation_level=None) as database:
        database.execute("delete from network")
    database.close()
    with pytest.raises(CopiedStore):
        StateStore(directory)
    with pytest.raises(CorruptStore, match="nothing to adopt"):
        StateStore(directory, adopt=True)


def test_one_marker_is_kept(directory: Path) -> None:
    """Each start replaces the marker of the one before."""
    for _ in range(3):
        use(directory)
    assert [path.name for path in directory.glob("opened.*")] == ["opened.3"]


def test_a_crash_before_the_marker_is_no_copy(directory: Path) -> None:
    """The database counts first: a marker that is missing, or of the start before, says nothing."""
    use(directory)
    use(directory)
    (directory / "opened.2").rename(directory / "opened.1")
    use(directory)
    (directory / "opened.3").unlink()
    use(directory)


def test_a_conflict_on_the_air_is_kept(directory: Path) -> None:
    """Every later start is refused with its reason until the directory is adopted."""
    use(directory)
    with StateStore(directory) as store:
        store.note_conflict("somebody else sends")
    for _ in range(2):
        with pytest.raises(CopiedStore, match="somebody else sends"):
            StateStore(directory)
    use(directory, adopt=True)
    use(directory)
