"""SEQ out of reserved blocks (Mesh Profile v1.0.1 §3.8.3: a number is never used twice)."""

from __future__ import annotations

from collections import deque

from fastprovd.errors import LocalProtocolError, SequenceExhausted


class SequenceNumbers:
    """Hands out 24-bit SEQ from blocks that were reserved durably before.

    It reserves nothing itself: watch `remaining` and `extend` in time.
    """

    __slots__ = ("_blocks",)

    def __init__(self, block: range = range(0)) -> None:
        self._blocks: deque[range] = deque()
        self.extend(block)

    @property
    def remaining(self) -> int:
        """How many numbers are left in the blocks at hand."""
        return sum(len(block) for block in self._blocks)

    @property
    def next(self) -> int | None:
        """The number that `take` would give, `None` when a block is needed first."""
        return self._blocks[0].start if self._blocks else None

    def extend(self, block: range) -> None:
        """Append a reserved block; raises LocalProtocolError when it goes backwards."""
        if not block:
            return
        if block.step != 1 or (self._blocks and block.start < self._blocks[-1].stop):
            raise LocalProtocolError("a SEQ block must lie behind every earlier one")
        self._blocks.append(block)

    def restart(self, block: range) -> None:
        """Forget what is left and go on with `block`: the IV Index to send with has changed."""
        self._blocks.clear()
        self.extend(block)

    def take(self) -> int:
        """Return the next number.

        Raises:
            SequenceExhausted: no reserved number is left.
        """
        if not self._blocks:
            raise SequenceExhausted("no SEQ is reserved; reserve a block before sending")
        block = self._blocks[0]
        rest = block[1:]
        if rest:
            self._blocks[0] = rest
        else:
            self._blocks.popleft()
        return block.start
