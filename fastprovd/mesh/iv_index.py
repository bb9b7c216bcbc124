"""IV Index, IV Update flag, and which IV Index an IVI bit means (Mesh Profile v1.0.1 §3.10.5)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IvIndex:
    """The current IV Index (0..2**32-1) and whether an IV Update is in progress."""

    value: int = 0
    update_in_progress: bool = False

    @property
    def transmit(self) -> int:
        """The IV Index to send with: the previous one while an update is in progress."""
        return self.value - 1 if self.update_in_progress and self.value > 0 else self.value

    def for_ivi(self, ivi: int) -> int | None:
        """Return the IV Index whose least significant bit is `ivi`: current or previous."""
        if self.value & 1 == ivi:
            return self.value
        return self.value - 1 if self.value > 0 else None
