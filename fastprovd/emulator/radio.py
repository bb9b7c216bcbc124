"""Advertising channels that are shared: which transmissions collide, and how strong boards are.

The model is the one that the firmware was measured under (OB 19): an advertising event is lost at
a receiver when another one overlaps it on its channel, unless it is stronger by the capture
margin; path loss is drawn once per pair; who sends does not hear.

Overlaps are not looked up event by event. Every board on the air sends its events with a random
delay, as the Core specification demands, so that those of others come to a receiver as good as
independently: what matters is how many boards are loud enough there, and how often each of them
sends. That changes only when a board begins or ends something, and the rest is one draw for each
transmission and receiver.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from math import exp
from operator import or_
from random import Random
from typing import Final

from fastprovd.emulator import firmware

MAX_PATH_LOSS_DB: Final = 30.0
CAPTURE_DB: Final = 8.0
# 31 octets of advertising data, with preamble, access address, header, AdvA and CRC, at 1 Mbit/s.
EVENT_S: Final = 376e-6
CHANNELS: Final = 3
# Within this much time a second event overlaps the first, before or after it.
_VULNERABLE_S: Final = 2 * EVENT_S
# The same for a receiver's own event, which keeps it from hearing on all channels.
_DEAF_S: Final = (CHANNELS + 1) * EVENT_S


def events_per_second(interval_s: float) -> float:
    """Return how often advertising at that interval is sent: 0 to 10 ms are added to each."""
    return 1 / (interval_s + firmware.ADVERTISING_DELAY_S / 2)


class Radio:
    """Where every sender is heard how well; boards are numbered, adapters only listen.

    `octets_for` gives octets that depend on the seed and a name.
    """

    def __init__(self, octets_for: Callable[[str, int], bytes], random: Random) -> None:
        self._octets_for = octets_for
        self._random = random
        self._names: list[str] = []
        self._rows: dict[str, list[int]] = {}
        self._rows_of_boards: list[list[int]] = []
        # Bit masks of boards: what is sent each 20 ms, queue or advertising, and each 500 ms.
        self._fast = 0
        self._slow = 0
        self._clear_of_fast: list[float] = []
        self._clear_of_slow: list[float] = []
        self._hears_when_fast = exp(-_DEAF_S * events_per_second(firmware.FAST_INTERVAL_S))
        self._hears_when_slow = exp(-_DEAF_S * events_per_second(firmware.SLOW_INTERVAL_S))

    def add_board(self, name: str) -> None:
        """Place the next board."""
        self._names.append(name)
        self._rows.clear()
        self._rows_of_boards.clear()
        others = range(len(self._names) + 1)
        self._clear_of_fast = [_clear(count, firmware.FAST_INTERVAL_S) for count in others]
        self._clear_of_slow = [_clear(count, firmware.SLOW_INTERVAL_S) for count in others]

    def set_interval(self, board: int, interval_s: float | None) -> None:
        """Tell how often that board sends from now on; `None`: not at all."""
        bit = 1 << board
        self._fast &= ~bit
        self._slow &= ~bit
        if interval_s is not None:
            if interval_s < firmware.SLOW_INTERVAL_S:
                self._fast |= bit
            else:
                self._slow |= bit

    def path_loss_db(self, one: str, other: str) -> float:
        """Return how much weaker the one is at the other, and the reverse; it does not change."""
        low, high = sorted((one, other))
        octets = self._octets_for(f"path loss/{low}/{high}", 2)
        return MAX_PATH_LOSS_DB * int.from_bytes(octets, "big") / 0x10000

    def clear(self, sender: int, receiver: str) -> float:
        """Return the probability that one event of that board gets through to an adapter."""
        harmful = self._row(receiver)[sender]
        return (
            self._clear_of_fast[(harmful & self._fast).bit_count()]
            * self._clear_of_slow[(harmful & self._slow).bit_count()]
        )

    def hears(self, sender: int, receiver: str, events: int) -> bool:
        """Draw whether an adapter hears one of `events` events of that board."""
        return self._random.random() >= (1 - self.clear(sender, receiver)) ** events

    def survivors(self, sender: int, receivers: int) -> int:
        """Draw which of `receivers`, a bit mask of boards, hear one event of `sender`."""
        rows = self._rows_of_boards
        if not rows:
            rows += [self._row(name) for name in self._names]
        fast, slow, uniform = self._fast, self._slow, self._random.random
        clear_of_fast, clear_of_slow = self._clear_of_fast, self._clear_of_slow
        heard = 0
        while receivers:
            bit = receivers & -receivers
            receivers ^= bit
            harmful = rows[bit.bit_length() - 1][sender]
            clear = clear_of_fast[(harmful & fast).bit_count()]
            if slow:
                clear *= clear_of_slow[(harmful & slow).bit_count()]
            if fast & bit:
                clear *= self._hears_when_fast
            elif slow & bit:
                clear *= self._hears_when_slow
            if uniform() < clear:
                heard |= bit
        return heard

    def _row(self, receiver: str) -> list[int]:
        """Return, for each board as sender, whom `receiver` hears too loud beside it."""
        row = self._rows.get(receiver)
        if row is None:
            losses = [self.path_loss_db(name, receiver) for name in self._names]
            order = sorted(range(len(losses)), key=losses.__getitem__)
            ascending = [losses[board] for board in order]
            # louder[n]: the n loudest boards.
            louder = list(accumulate((1 << board for board in order), or_, initial=0))
            own = 0
            if receiver in self._names:
                own = 1 << self._names.index(receiver)
            row = self._rows[receiver] = [
                louder[bisect_left(ascending, loss + CAPTURE_DB)] & ~own & ~(1 << board)
                for board, loss in enumerate(losses)
            ]
        return row


def _clear(count: int, interval_s: float) -> float:
    """Return the probability that none of `count` boards sends within an event."""
    return exp(-_VULNERABLE_S * events_per_second(interval_s) * count)
