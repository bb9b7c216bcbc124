"""The arithmetic of the firmware's tree: addresses, sub-ranges, capacity, node_addr_cnt; pure.

Source: the fast_prov_server demo of ESP-IDF (ble_mesh_fast_prov_server_model.c): a provisioner
gives its children the first addresses of its range and splits the rest among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.addresses import UNICAST_MAX, is_unicast
from fastprovd.records import AddressRange

# CONFIG_BLE_MESH_MAX_PROV_NODES of the demo: children of one provisioner.
MAX_CHILDREN: Final = 6
# all_node_addr[] of the demo.
LIST_CAPACITY: Final = 120
# A NODE_ADDR_STATUS of 50 addresses (9 segments) was always read, one of 56 kills a board with
# the NimBLE host; the list may grow by a report of four and more while we ask.
SAFE_LIST_ENTRIES: Final = 40


@dataclass(frozen=True, slots=True)
class Share:
    """The addresses a provisioner hands out: `first`..`last` inclusive, for all below it."""

    first: int
    last: int

    @property
    def children(self) -> range:
        """Addresses of its own children, in the order they are given."""
        return range(self.first, self.first + min(MAX_CHILDREN, self.last - self.first + 1))

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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run asks of its Primary Provisioner."""

    primary: int
    share: Share
    node_addr_cnt: int

    @property
    def reserved(self) -> tuple[int, int]:
        """First and last address that the run takes for good."""
        return self.primary, self.share.last


def choose_node_addr_cnt() -> int:
    """Return 1, whatever the number of boards.

    The board takes the field as a mode, not as a count. Measured over 1 to 24 boards: with 1 the
    proxy comes back unconditionally and the list can be polled while it grows (complete 5..7 s
    after the last board: 18..22 s at 7 boards, 21..37 s at 12, 32..46 s at 20); with 0 and 2..6
    it needs a child, with 7 and more a grandchild to come back at all (never with 3 boards), and
    the list is complete 5 to 12 s later.
    """
    return 1


def share_size(boards: int) -> int:
    """Return how many addresses to offer for `boards` boards: six for each, 256 at the least.

    A child that is left without AppKey never gets its share, so a third of what is offered may
    stay unused. Much more makes every board a provisioner, and all of them chase each board that
    is left: with 100 boards and 3200 addresses the emulated network drowned in it for minutes.
    """
    return max(256, 6 * boards)


# From the connect to the end of a board that we provision ourselves; measured behind BlueZ.
DIRECT_S: Final = 1.75


def direct_s(boards: int, links: int) -> float:
    """Return how long we need for all boards, `links` at a time, in seconds."""
    return DIRECT_S * -(-boards // links)


def fast_s(boards: int) -> float:
    """Return how long boards need that provision each other below one Primary, in seconds.

    From INFO_SET to the last address: 18..22 s were measured at 7 boards, 21..37 s at 12, 32..46 s
    at 20, 42..68 s at 24; beyond, only the emulator tells: 85..115 s at 100.
    """
    return 12.0 + boards


def we_are_faster(boards: int, links: int) -> bool:
    """Whether we provision all boards ourselves in less time than they do each other."""
    return direct_s(boards, links) < fast_s(boards)


def free_block(
    size: int, least: int, unicast_min: int, unicast_max: int, taken: Iterable[AddressRange]
) -> tuple[int, int]:
    """Return first and last of the lowest free block of `size` addresses, at `least` so many.

    Raises:
        LocalProtocolError: the bounds are no unicast addresses, or no such block is left.
    """
    if not (is_unicast(unicast_min) and is_unicast(unicast_max) and unicast_min <= unicast_max):
        raise LocalProtocolError(
            f"unicast range 0x{unicast_min:04x}..0x{unicast_max:04x} must lie within "
            f"0x0001..0x{UNICAST_MAX:04x}"
        )
    taken = list(taken)
    start = unicast_min
    for used in sorted(taken, key=lambda used: used.first):
        if used.last < start:
            continue
        if used.first - start >= size:
            break
        start = used.last + 1
    last = min(start + size - 1, unicast_max, *(u.first - 1 for u in taken if u.first >= start))
    if last - start + 1 < least:
        raise LocalProtocolError(
            f"no {least} free addresses in a row are left within 0x{unicast_min:04x}.."
            f"0x{unicast_max:04x}; widen [mesh] unicast_min and unicast_max"
        )
    return start, last


def plan_run(
    boards: int, unicast_min: int, unicast_max: int, taken: Iterable[AddressRange]
) -> Plan:
    """Return the lowest free block within `unicast_min`..`unicast_max` that serves `boards` boards.

    A smaller share than it wants still serves: it needs at least an address for every board.

    Raises:
        LocalProtocolError: the bounds are no unicast addresses, or no such block is left.
    """
    size, least = 1 + share_size(boards), max(2, boards)
    first, last = free_block(size, least, unicast_min, unicast_max, taken)
    return Plan(first, Share(first + 1, last), choose_node_addr_cnt())
