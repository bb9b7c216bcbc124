"""Finding out, at the beginning of a resumed run, what became of the boards meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.direct import Direct
from fastprovd.campaign.free_boards import hear_free_boards
from fastprovd.campaign.resumption import Resumption
from fastprovd.mesh.beacons import Advertisement
from fastprovd.records import RunState


async def hear_again(context: RunContext, direct: Direct, left: Resumption) -> list[HeardBoard]:
    """Return boards on the air that are nobody's; hand `direct` those that may be ours.

    Most boards may be nodes by now, so nobody in particular is expected. Who is unprovisioned did
    not take the address that it was offered, or lost its power and forgot it. Who answered and
    advertises Node Identity is not to do so to its end, since that silences boards.
    """
    log, picture = context.log, context.picture
    await log.enter(RunState.CONNECTING)
    fading: set[int] = set()

    def note(heard: Advertisement) -> None:
        addresses = (offer.address for offer in left.ours)
        fading.update(address for address in addresses if picture.is_identity(heard, address))

    def are_enough(free: Sequence[HeardBoard]) -> bool:
        proven = {node.device_uuid for node in log.nodes.values() if node.proven}
        return len(proven.union(board.uuid for board in free)) >= context.boards

    free = await hear_free_boards(context, are_enough, note)
    uuids = {board.uuid for board in free}
    ours = [offer for offer in left.unfinished if offer.board.uuid not in uuids]
    ours += [offer for offer in left.ours if offer.address in fading and offer not in ours]
    direct.go_on(ours, left.unoffered)
    for node in list(log.nodes.values()):
        if node.device_uuid in uuids:
            await log.forget(node.address)
    return free
