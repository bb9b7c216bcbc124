"""What an unfinished run left is read with care: the process before may have died of its disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastprovd import unfinished
from fastprovd.errors import CorruptStore
from fastprovd.mesh.keys import DevKey
from fastprovd.records import Run, RunState, Step, StepKind
from fastprovd.store.state import StateStore

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
UUID = bytes(range(16))
OFFERED = Step("r-1", StepKind.ADDRESS_OFFERED, NOON, 2, UUID, "24:0A:C4:5E:00:01")


def left(directory: Path, *steps: Step, dev_key: int | None = None) -> StateStore:
    store = StateStore(directory)
    store.save_run(Run("r-1", RunState.PROVISIONING, NOON))
    for step in steps:
        store.save_step(step)
    if dev_key is not None:
        store.save_dev_key(dev_key, UUID, DevKey(bytes(16)))
    return store


@pytest.mark.parametrize(
    "settings",
    [
        "x",
        "[1]",
        '"fast"',
        '{"method": "slow"}',
        '{"method": 5}',
        '{"match": "zz"}',
        '{"allow": "a"}',
        '{"allow": [1]}',
        '{"scan_s": "30"}',
        '{"expected": 2.5}',
        '{"expected": true}',
        '{"close": "never"}',
    ],
)
def test_settings_that_were_never_written_are_damage(tmp_path: Path, settings: str) -> None:
    """They are told at the start, not by a run that breaks."""
    with (
        left(tmp_path / "state", Step("r-1", StepKind.BEGUN, NOON, detail=settings)) as store,
        pytest.raises(CorruptStore, match=r"journal of run r-1 is damaged.*restore"),
    ):
        unfinished.load(store)


@pytest.mark.parametrize(("dev_key", "is_whole"), [(None, False), (3, False), (2, True)])
def test_an_offer_without_its_device_key_is_damage(
    tmp_path: Path, dev_key: int | None, is_whole: bool
) -> None:
    """Both are written in one commit."""
    with left(tmp_path / "state", OFFERED, dev_key=dev_key) as store:
        if is_whole:
            found = unfinished.load(store)
            assert found is not None
            assert list(found.offers) == [2]
        else:
            with pytest.raises(CorruptStore, match="0x0002 was offered without"):
                unfinished.load(store)
