"""A second record of what must never go back."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastprovd.store import high_water
from fastprovd.store.high_water import DamagedRecord, HighWater

SOME = HighWater(7, 1, 512, ((1, 1), (2, 300)))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """The newest, readable to us alone, and nothing is left beside it."""
    assert high_water.load(tmp_path) is None
    high_water.save(tmp_path, HighWater())
    assert high_water.load(tmp_path) == HighWater()
    high_water.save(tmp_path, SOME)
    assert high_water.load(tmp_path) == SOME
    assert [path.name for path in tmp_path.iterdir()] == [high_water.FILE_NAME]
    assert (tmp_path / high_water.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_the_count_alone_is_moved(tmp_path: Path) -> None:
    """In its place; where there is no file yet, none is made."""
    high_water.count_commit(tmp_path, 8)
    assert high_water.load(tmp_path) is None
    high_water.save(tmp_path, SOME)
    high_water.count_commit(tmp_path, 8)
    assert high_water.load(tmp_path) == HighWater(8, 1, 512, SOME.addresses)


@pytest.mark.parametrize(
    "content", [b"", b"5", b"five\n0 256", b"1\n2\n3 4", b"\xff\n", b"1\n2 3\n4"]
)
def test_what_is_none_of_ours_is_damage(tmp_path: Path, content: bytes) -> None:
    """Cut off, zeroed or written over: it is not taken for a record that says nothing."""
    (tmp_path / high_water.FILE_NAME).write_bytes(content)
    with pytest.raises(DamagedRecord):
        high_water.load(tmp_path)


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], ()),
        ([(5, 6), (1, 1)], ((1, 1), (5, 6))),
        ([(1, 1), (2, 3)], ((1, 3),)),
        ([(1, 9), (2, 3), (11, 11)], ((1, 9), (11, 11))),
    ],
)
def test_ranges_that_touch_are_one(
    ranges: list[tuple[int, int]], merged: tuple[tuple[int, int], ...]
) -> None:
    """In order, so that the record of many runs stays short."""
    assert high_water.merged(ranges) == merged
