"""IV Index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.mesh.iv_index import IvIndex


@pytest.mark.parametrize(
    ("iv_index", "transmit"),
    [
        (IvIndex(), 0),
        (IvIndex(7), 7),
        (IvIndex(7, update_in_progress=True), 6),
        (IvIndex(0, update_in_progress=True), 0),
        (IvIndex(0xFFFFFFFF, update_in_progress=True), 0xFFFFFFFE),
    ],
)
def test_during_an_update_the_previous_index_is_sent_with(iv_index: IvIndex, transmit: int) -> None:
    """While the update is in progress a node transmits with the IV Index before."""
    assert iv_index.transmit == transmit


@given(st.integers(1, 0xFFFFFFFF), st.integers(0, 1))
def test_an_ivi_means_the_current_or_the_previous_index(value: int, ivi: int) -> None:
    """The IV Index meant has this least significant bit and is at most one behind."""
    meant = IvIndex(value).for_ivi(ivi)
    assert meant in (value, value - 1)
    assert meant & 1 == ivi


def test_before_index_0_there_is_none() -> None:
    """IVI 1 under IV Index 0 means nothing."""
    assert IvIndex(0).for_ivi(0) == 0
    assert IvIndex(0).for_ivi(1) is None
