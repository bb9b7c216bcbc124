"""Which boards of ours are on the air unprovisioned: a look that no filter of duplicates spoils."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.states import WAITS
from fastprovd.mesh.beacons import Advertisement


def _heed(_: Advertisement) -> None:
    """Take an advertisement into the picture, and nothing more."""


def _set_namesakes_apart(context: RunContext) -> None:
    """Take no board for a node of this run that restarted if its device address contradicts."""
    for node in context.log.nodes.values():
        board = context.picture.boards.get(node.device_uuid or b"")
        if board is not None and node.device_address not in (None, board.device_address):
            context.picture.set_apart(board)


async def hear_free_boards(
    context: RunContext,
    are_enough: Callable[[Sequence[HeardBoard]], bool],
    heed: Callable[[Advertisement], None] = _heed,
) -> list[HeardBoard]:
    """Listen, and return the boards that are free; `heed` is told each advertisement.

    What the first moment of the look brings does not count: BlueZ tells old data once more when a
    scan begins. A controller that filters duplicates may tell a free board only then; but our
    scans begin anew each 1.5 s. Where another program keeps a scan of its own going, the filter
    lasts 10.24 s: unless there `are_enough` before, the look goes on for longer than that.
    """

    def listen_on(heard: Advertisement) -> bool:
        heed(heard)
        return False

    begun = context.clock.monotonic()
    settle_s, gone_s = WAITS["boards_settle"].seconds, WAITS["board_gone"].seconds
    free: list[HeardBoard] = []
    for seconds in (settle_s, gone_s + WAITS["stale_report"].seconds - settle_s):
        await context.watch.until(listen_on, seconds)
        now = context.clock.monotonic()
        _set_namesakes_apart(context)
        free = context.picture.unprovisioned(now, now - begun - WAITS["stale_report"].seconds)
        if are_enough(free):
            break
    return free
