"""Mesh addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.mesh.addresses import (
    format_address,
    is_group,
    is_unicast,
    parse_address,
)


@pytest.mark.parametrize(
    ("address", "kinds"),
    [
        (0x0000, (False, False)),
        (0x0001, (True, False)),
        (0x7FFF, (True, False)),
        (0x8000, (False, False)),
        (0xBFFF, (False, False)),
        (0xC000, (False, True)),
        (0xFF00, (False, True)),
        (0xFFFF, (False, True)),
        (0x10000, (False, False)),
        (-1, (False, False)),
    ],
)
def test_the_bounds_of_each_kind(address: int, kinds: tuple[bool, bool]) -> None:
    """Unassigned and virtual addresses are neither unicast nor group."""
    assert (is_unicast(address), is_group(address)) == kinds


@given(st.integers(0, 0xFFFF))
def test_every_address_is_spelled_and_read(address: int) -> None:
    """Four hex digits, leading zeros kept, read back to the same number."""
    text = format_address(address)
    assert len(text) == 6
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["0x10000", "-1", "", "0xG", "c000", "5.0"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Numbers outside 16 bits and other words raise ValueError."""
    with pytest.raises(ValueError, match=r"outside|invalid literal"):
        parse_address(text)
