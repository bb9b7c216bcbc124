"""What a run asks for: how many Primaries, which addresses, node_addr_cnt, who is faster; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.shares import Share, largest_share, smallest_share
from fastprovd.campaign.times import direct_time, fast_time
from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.addresses import UNICAST_MAX, is_unicast
from fastprovd.records import AddressRange

# all_node_addr[] of the demo.
LIST_CAPACITY: Final = 120
# A NODE_ADDR_STATUS of 50 addresses (9 segments) was always read, one of 56 kills a board with
# the NimBLE host; the list may grow by a report of four and more while we ask.
SAFE_LIST_ENTRIES: Final = 40
# From so many boards on two Primaries are better than one.
_TWO_PRIMARIES: Final = 20
# The quietest boards stand nearest to those that we do not hear; one of them may have to start.
EDGE_PROXIES: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run asks of one Primary Provisioner."""

    primary: int
    share: Share
    node_addr_cnt: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run asks of its Primaries: first their addresses in a row, then their shares."""

    plans: tuple[Plan, ...]

    @property
    def reserved(self) -> tuple[int, int]:
        """First and last address that the run takes."""
        return self.plans[0].primary, self.plans[-1].share.last


def choose_primaries(boards: int, links: int) -> int:
    """Return how many Primaries `boards` boards get, when the adapter bears `links` GATT links.

    One below 20 boards. Two from 20 on: with 20 boards the last one was provisioned after
    17..21 s instead of 25..39 s, and the lists were complete after 33..35 s instead of 32..46 s.
    Three and more were never measured; in the emulator 100 boards in one cell drown in what three
    trees relay, and with two they are as fast as with one, or faster. Never more than links,
    because every Primary is connected at once while addresses are collected.
    """
    return 1 if boards < _TWO_PRIMARIES else min(2, links)


def wants_spare(boards: int, primaries: int, links: int) -> bool:
    """Whether a board is provisioned as a plain node, whose proxy stays on the air.

    It costs 2 s before the start, and a link beside the Primary's. It reaches every node and can
    wake a Primary that is silent; with two Primaries either is a way in, and with two boards the
    second is needed as a child.
    """
    return primaries == 1 and boards > 2 and links > primaries


def primaries_of(settings: RunSettings, boards: int) -> int:
    """Return how many Primaries a run over `boards` boards makes: as told where that can be."""
    if settings.primaries is None:
        return choose_primaries(boards, settings.links)
    return min(settings.primaries, settings.links, boards)


def edge_primaries(settings: RunSettings, heard: int) -> int:
    """Return how many nodes of ours provision the boards beyond the `heard` that we made nodes."""
    return min(EDGE_PROXIES, settings.links, heard)


def is_direct(settings: RunSettings, heard: int) -> bool:
    """Whether we provision all `heard` boards ourselves; with `auto`: if that is faster."""
    if settings.method is not Method.AUTO:
        return settings.method is Method.DIRECT
    fast = fast_time(heard, primaries_of(settings, heard))
    return direct_time(heard, settings.links).middle_s < fast.middle_s


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


def free_block(
    size: int, least: int, unicast_min: int, unicast_max: int, taken: Iterable[AddressRange]
) -> tuple[int, int]:
    """Return first and last of the lowest free block of `size` addresses, else of the largest.

    Raises:
        LocalProtocolError: the bounds are no unicast addresses, or no `least` are left in a row.
    """
    if not (is_unicast(unicast_min) and is_unicast(unicast_max) and unicast_min <= unicast_max):
        raise LocalProtocolError(
            f"unicast range 0x{unicast_min:04x}..0x{unicast_max:04x} must lie within "
            f"0x0001..0x{UNICAST_MAX:04x}"
        )
    free, start = [], unicast_min
    for used in sorted(taken, key=lambda used: used.first):
        free.append(range(start, min(used.first, unicast_max + 1)))
        start = max(start, used.last + 1)
    free.append(range(start, unicast_max + 1))
    block = next((block for block in free if len(block) >= size), None) or max(free, key=len)
    if len(block) < least:
        raise LocalProtocolError(
            f"no {least} free addresses in a row are left within 0x{unicast_min:04x}.."
            f"0x{unicast_max:04x}; widen [mesh] unicast_min and unicast_max, or begin a new "
            "network with another [state] directory and reset every board"
        )
    return block[0], block[:size][-1]


def plan_direct(
    boards: int,
    unicast_min: int,
    unicast_max: int,
    taken: Iterable[AddressRange],
) -> tuple[int, int]:
    """Return first and last of the addresses for `boards` boards that we provision ourselves.

    Raises:
        LocalProtocolError: the bounds are no unicast addresses, or too few are left in a row.
    """
    return free_block(boards, boards, unicast_min, unicast_max, taken)


def plan_share(
    boards: int, primary: int, unicast_min: int, unicast_max: int, taken: Iterable[AddressRange]
) -> Share:
    """Return what node `primary` hands out to `boards` boards, above its own address.

    Raises:
        LocalProtocolError: the bounds are no unicast addresses, or too few are left in a row.
    """
    wanted = share_size(boards)
    low = max(unicast_min, primary + 1)
    first, last = free_block(wanted, smallest_share(boards), low, unicast_max, taken)
    size = last - first + 1
    if size < wanted:
        size = largest_share(size, boards)
    return Share(first, first + size - 1)


def plan_run(
    boards: int,
    unicast_min: int,
    unicast_max: int,
    taken: Iterable[AddressRange],
    *,
    primaries: int = 1,
) -> RunPlan:
    """Return the lowest free block within `unicast_min`..`unicast_max` that serves `boards` boards.

    Each share is sized for an even part of the boards. Where fewer addresses are left than it
    wants, all shares shrink alike, down to what their boards need.

    Raises:
        LocalProtocolError: the bounds are no unicast addresses, no such block is left, or there
            are more Primaries than boards.
    """
    if not 1 <= primaries <= boards:
        raise LocalProtocolError(
            f"expected 1 to {boards} Primaries for {boards} boards, got {primaries}"
        )
    part = -(-boards // primaries)
    wanted, below = share_size(part), part - 1
    least = primaries * (1 + smallest_share(below))
    first, last = free_block(primaries * (1 + wanted), least, unicast_min, unicast_max, taken)
    size = (last - first + 1) // primaries - 1
    if size < wanted:
        size = largest_share(size, below)
    shares = [first + primaries + size * number for number in range(primaries)]
    return RunPlan(
        tuple(
            Plan(first + number, Share(start, start + size - 1), choose_node_addr_cnt())
            for number, start in enumerate(shares)
        )
    )
