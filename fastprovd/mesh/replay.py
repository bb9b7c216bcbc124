"""Replay protection list: the highest (IV Index, SEQ) per SRC (Mesh Profile v1.0.1 §3.8.8)."""

from __future__ import annotations

from collections.abc import Iterable


class ReplayProtectionList:
    """Remembers what was heard; a full list refuses new sources, as the specification asks."""

    __slots__ = ("_capacity", "_heard", "_unsaved")

    def __init__(
        self, capacity: int | None = None, heard: Iterable[tuple[int, int, int]] = ()
    ) -> None:
        """`heard` has (SRC, IV Index, SEQ); `capacity` is a number of sources, `None` endless."""
        self._capacity = capacity
        self._heard: dict[int, tuple[int, int]] = {src: (iv, seq) for src, iv, seq in heard}
        self._unsaved: set[int] = set()

    def is_replay(self, src: int, iv_index: int, seq: int) -> bool:
        """Whether a PDU must be ignored: not newer than the last, or from one source too many."""
        last = self._heard.get(src)
        if last is None:
            return self._capacity is not None and len(self._heard) >= self._capacity
        return (iv_index, seq) <= last

    def record(self, src: int, iv_index: int, seq: int) -> None:
        """Remember a message that was taken; older ones change nothing."""
        if (iv_index, seq) > self._heard.get(src, (-1, -1)):
            self._heard[src] = (iv_index, seq)
            self._unsaved.add(src)

    def entries(self) -> list[tuple[int, int, int]]:
        """Return (SRC, IV Index, SEQ) of every source."""
        return [(src, iv, seq) for src, (iv, seq) in self._heard.items()]

    def unsaved(self) -> list[tuple[int, int, int]]:
        """Return the entries that are newer than what was `saved`; store them, then say so."""
        return [(src, *self._heard[src]) for src in sorted(self._unsaved)]

    def saved(self, entries: Iterable[tuple[int, int, int]]) -> None:
        """Take note that these are stored; a source that was heard again since is unsaved."""
        for src, iv_index, seq in entries:
            if self._heard[src] == (iv_index, seq):
                self._unsaved.discard(src)
