"""The firmware's tree: children, sub-shares, how many boards a share serves; pure.

Source: the fast_prov_server demo of ESP-IDF (ble_mesh_fast_prov_server_model.c): a provisioner
gives its children the first addresses of its range and splits the rest among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

# CONFIG_BLE_MESH_MAX_PROV_NODES of the demo: children of one provisioner.
MAX_CHILDREN: Final = 6


@dataclass(frozen=True, slots=True)
class Share:
    """The addresses a provisioner hands out: `first`..`last` inclusive, for all below it."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return self.last - self.first + 1

    @property
    def children(self) -> range:
        """Addresses of its own children, in the order they are given."""
        return range(self.first, self.first + min(MAX_CHILDREN, self.size))

    @property
    def capacity(self) -> int:
        """How many boards it serves at most, at all levels, when no address is lost."""
        return _capacity(self.size)

    def sub_shares(self) -> list[Share]:
        """Return what its children get, in the order of their AppKey Status.

        A child for which none is left becomes a plain node; the firmware never hands out a share
        that begins at the last address.
        """
        limit = len(self.children)
        cursor = self.first + limit
        step = (self.last - cursor) // limit if self.last > cursor else 0
        shares = []
        for _ in range(limit):
            if cursor >= self.last:
                break
            high = self.last if cursor + step >= self.last else cursor + step
            shares.append(Share(cursor, high))
            cursor = high + 1
        return shares


@cache
def _capacity(size: int) -> int:
    share = Share(1, size)
    return len(share.children) + sum(_capacity(sub.size) for sub in share.sub_shares())


def smallest_share(boards: int) -> int:
    """Return the smallest size that serves `boards` boards."""
    size = max(1, boards)
    while _capacity(size) < boards:
        size += 1
    return size


def largest_share(most: int, boards: int) -> int:
    """Return the largest size up to `most`, which is enough, that serves `boards` boards.

    One address more may serve fewer boards: 42 addresses serve 42, and 46 serve 41.
    """
    enough = range(smallest_share(boards), most + 1)
    return next(size for size in reversed(enough) if _capacity(size) >= boards)
