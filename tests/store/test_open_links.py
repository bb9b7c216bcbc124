"""Which links are ours is kept beyond the process."""

from __future__ import annotations

from pathlib import Path

from fastprovd.store.state import StateStore


def test_links_are_kept_until_they_have_ended(tmp_path: Path) -> None:
    """Noting one twice, or dropping one that is not kept, changes nothing."""
    tmp_path.chmod(0o700)
    with StateStore(tmp_path) as store:
        assert store.open_links() == []
        for address in ("24:0A:02", "24:0A:01", "24:0A:02"):
            store.note_open_link(address)
    with StateStore(tmp_path) as store:
        assert store.open_links() == ["24:0A:01", "24:0A:02"]
        store.drop_open_links(["24:0A:02", "24:0A:03"])
        assert store.open_links() == ["24:0A:01"]
