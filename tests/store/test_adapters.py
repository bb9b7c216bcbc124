"""How many links each adapter bears, kept by its address."""

from __future__ import annotations

from pathlib import Path

from fastprovd.store.state import StateStore


def test_a_number_is_kept_for_one_adapter_and_one_system(tmp_path: Path) -> None:
    """It survives the process, and goes with a new BlueZ or kernel."""
    tmp_path.chmod(0o700)
    with StateStore(tmp_path) as store:
        assert store.adapter_links("00:1A", "5.66, Linux 6.1") is None
        store.save_adapter_links("00:1A", "5.66, Linux 6.1", 7)
        store.save_adapter_links("00:1A", "5.66, Linux 6.1", 10)
    with StateStore(tmp_path) as store:
        assert store.adapter_links("00:1A", "5.66, Linux 6.1") == 10
        assert store.adapter_links("00:1B", "5.66, Linux 6.1") is None
        assert store.adapter_links("00:1A", "5.82, Linux 6.12") is None
        assert store.adapter_links("00:1A", "5.66, Linux 6.1") is None, "it is forgotten"
        store.save_adapter_links("00:1B", "5.82, Linux 6.12", 3)
        store.save_adapter_links("00:1B", "5.82, Linux 6.12", None)
        assert store.adapter_links("00:1B", "5.82, Linux 6.12") is None
