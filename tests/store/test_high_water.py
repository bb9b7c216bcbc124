"""A second record of how far SEQ were reserved."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastprovd.store import high_water


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """The newest, and nothing is left beside it."""
    assert high_water.load(tmp_path) == (0, 0)
    high_water.save(tmp_path, 5, 256)
    high_water.save(tmp_path, 6, 512)
    assert high_water.load(tmp_path) == (6, 512)
    assert [path.name for path in tmp_path.iterdir()] == [high_water.FILE_NAME]
    assert (tmp_path / high_water.FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "5", "five 256", "1 2 3"])
def test_what_is_none_of_ours_tells_nothing(tmp_path: Path, content: str) -> None:
    """It locks nobody out."""
    (tmp_path / high_water.FILE_NAME).write_text(content)
    assert high_water.load(tmp_path) == (0, 0)
