"""Which beacons may move the IV Index, by time."""

from __future__ import annotations

import pytest

from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.iv_updates import MAX_STEP, RECOVERY_S, UPDATE_S, IvUpdates, is_recovery

OURS = IvIndex(100)
BEGUN = IvIndex(101, update_in_progress=True)
ENDED = IvIndex(101)


@pytest.mark.parametrize(
    ("ours", "theirs", "recovers"),
    [
        (OURS, BEGUN, False),
        (BEGUN, ENDED, False),
        (OURS, ENDED, True),
        (BEGUN, IvIndex(102, update_in_progress=True), True),
        (OURS, IvIndex(102), True),
    ],
)
def test_a_recovery_leaves_out_a_state(ours: IvIndex, theirs: IvIndex, recovers: bool) -> None:
    """An update has two steps, its begin and its end; all else goes round one of them."""
    assert is_recovery(ours, theirs) is recovers


def test_one_recovery_in_192_hours() -> None:
    """The first is believed at once, whatever we missed; the next one not before."""
    updates = IvUpdates()
    far = IvIndex(100 + MAX_STEP)
    assert updates.allow(OURS, far, 0.0)
    updates.moved(OURS, far, 0.0)
    further = IvIndex(far.value + 2)
    assert not updates.allow(far, further, RECOVERY_S - 1.0)
    assert updates.allow(far, further, RECOVERY_S)


def test_an_update_begins_96_hours_after_the_last_change() -> None:
    """Its end is believed at once: we may have learnt late that it began."""
    updates = IvUpdates(changed_s=0.0)
    assert not updates.allow(OURS, BEGUN, UPDATE_S - 1.0)
    assert updates.allow(OURS, BEGUN, UPDATE_S)
    updates.moved(OURS, BEGUN, UPDATE_S)
    assert updates.allow(BEGUN, ENDED, UPDATE_S)
    updates.moved(BEGUN, ENDED, UPDATE_S)
    assert not updates.allow(ENDED, IvIndex(102, update_in_progress=True), UPDATE_S + 1.0)


def test_after_a_recovery_the_update_goes_on_at_once() -> None:
    """Its 96 hours began before we came."""
    updates = IvUpdates()
    updates.moved(OURS, IvIndex(105), 0.0)
    assert updates.allow(IvIndex(105), IvIndex(106, update_in_progress=True), 1.0)


@pytest.mark.parametrize("theirs", [IvIndex(99), IvIndex(100 + MAX_STEP + 1), OURS])
def test_what_can_not_be_is_not_followed(theirs: IvIndex) -> None:
    """Backwards, more than 42 ahead, or nothing new."""
    assert not IvUpdates().allow(OURS, theirs, 0.0)


def test_beacons_without_end_take_us_42_ahead_at_the_most() -> None:
    """Whoever has the NetKey alone sends as many as it likes within an hour."""
    updates, ours = IvUpdates(), OURS
    for second in range(3600):
        for step, update in ((MAX_STEP, False), (1, True), (1, False), (0, False)):
            theirs = IvIndex(ours.value + step, update)
            if updates.allow(ours, theirs, float(second)):
                updates.moved(ours, theirs, float(second))
                ours = theirs
    assert ours.value <= OURS.value + MAX_STEP + 1
