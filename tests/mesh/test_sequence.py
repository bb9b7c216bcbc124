"""SEQ blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import LocalProtocolError, SequenceExhausted
from fastprovd.mesh.sequence import SequenceNumbers


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_numbers_come_once_and_in_order(steps: list[tuple[int, int]]) -> None:
    """All numbers of all blocks come out, each once, growing; then none."""
    sequence = SequenceNumbers()
    start = 0
    reserved: list[int] = []
    for gap, size in steps:
        block = range(start + gap, start + gap + size)
        start = block.stop
        sequence.extend(block)
        reserved += block
    assert sequence.remaining == len(reserved)
    assert [sequence.take() for _ in reserved] == reserved
    with pytest.raises(SequenceExhausted):
        sequence.take()


def test_next_tells_without_taking() -> None:
    """`next` is what `take` gives, `None` when nothing is reserved."""
    sequence = SequenceNumbers(range(5, 7))
    assert [sequence.next, sequence.take(), sequence.next] == [5, 5, 6]
    sequence.take()
    assert sequence.next is None


def test_block_must_not_go_backwards() -> None:
    """A block that overlaps an earlier one is refused."""
    sequence = SequenceNumbers(range(10, 20))
    with pytest.raises(LocalProtocolError):
        sequence.extend(range(15, 30))


def test_restart_forgets_what_was_left() -> None:
    """With a new IV Index the numbers begin with the new block."""
    sequence = SequenceNumbers(range(10, 20))
    sequence.restart(range(0, 4))
    assert sequence.take() == 0
    assert sequence.remaining == 3
