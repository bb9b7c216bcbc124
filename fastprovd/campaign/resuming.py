"""Finding out, at the beginning of a resumed run, what became of the boards meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.census import Census
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.direct import Direct
from fastprovd.campaign.free_boards import hear_free_boards
from fastprovd.campaign.inviting import who_is_unprovisioned
from fastprovd.campaign.resumption import Resumption
from fastprovd.campaign.states import Trigger
from fastprovd.mesh.beacons import Advertisement


async def hear_again(context: RunContext, direct: Direct, left: Resumption) -> list[HeardBoard]:
    """Return boards on the air that are nobody's; hand `direct` those that may be ours.

    Most boards may be nodes by now, so nobody in particular is expected. Who is unprovisioned did
    not take the address that it was offered, or lost its power and forgot it. Who answered and
    advertises Node Identity is not to do so to its end, since that silences boards.
    """
    log, picture = context.log, context.picture
    await log.move(Trigger.NODES_TO_FIND)
    fading: set[int] = set()

    def note(heard: Advertisement) -> None:
        addresses = (offer.address for offer in left.ours)
        fading.update(address for address in addresses if picture.is_identity(heard, address))

    def are_enough(free: Sequence[HeardBoard]) -> bool:
        proven = {node.device_uuid for node in log.nodes.values() if node.proven}
        return len(proven.union(board.uuid for board in free)) >= context.boards

    free = await _not_alive(context, await hear_free_boards(context, are_enough, note))
    boards = {(board.uuid, board.device_address) for board in free}
    ours = [o for o in left.unfinished if (o.board.uuid, o.board.device_address) not in boards]
    ours += [offer for offer in left.ours if offer.address in fading and offer not in ours]
    direct.go_on(ours, left.unoffered)
    for node in list(log.nodes.values()):
        if (node.device_uuid, node.device_address) in boards:
            await log.forget(node.address)
    return free


async def _not_alive(context: RunContext, heard: list[HeardBoard]) -> list[HeardBoard]:
    """Return the boards but for those that are nodes still, whatever is advertised.

    Nodes are asked by name. Where no proxy of ours can carry the question, the board itself has to
    show that it is unprovisioned.
    """
    on_air = {(board.uuid, board.device_address): board for board in heard}
    nodes = list(context.log.nodes.values())
    in_doubt = {
        node.address: on_air[board]
        for node in nodes
        if (board := (node.device_uuid, node.device_address)) in on_air
    }
    if not in_doubt:
        return heard
    known = context.top.stack.dev_keys
    dev_keys = {address: known[address] for address in in_doubt if address in known}
    census = Census(context.bearer, context.top, context.clock, context.app_key, nodes, dev_keys)
    asked = await census.ask(in_doubt)
    unasked = {a: b for a, b in in_doubt.items() if a not in asked.answering | asked.silent}
    shown = await who_is_unprovisioned(
        context.bearer,
        [board.device_address for board in unasked.values()],
        context.clock,
        context.entropy,
    )
    alive = {in_doubt[address].device_address for address in asked.answering}
    alive |= {board.device_address for board in unasked.values()} - shown
    return [board for board in heard if board.device_address not in alive]
