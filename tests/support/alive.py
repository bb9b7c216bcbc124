"""Whether the nodes of a run still answer later on, through a proxy found from nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from fastprovd.campaign.calm import Calm
from fastprovd.campaign.control import network_session
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.roll_call import RollCall, Rounds
from fastprovd.campaign.ways import ForwardsNothing, Proxies, Ways, Witness
from fastprovd.clock import SystemClock
from fastprovd.errors import BearerError
from fastprovd.records import Node
from tests.support.scene import Scene

# Seconds after the end of a run: what a Node Identity of 60 s kills is dead by then, and what
# wears out slowly has shown it.
LATER_S = (120.0, 3600.0)


async def silent_later(scene: Scene) -> dict[float, set[int]]:
    """Let time go on and ask at each moment of `LATER_S`; return which proven nodes are silent."""
    loop = asyncio.get_running_loop()
    ended = loop.time()
    silent = {}
    for after_s in LATER_S:
        await asyncio.sleep(ended + after_s - loop.time())
        silent[after_s] = await silent_nodes(scene, scene.listener.nodes.values())
    return silent


async def silent_nodes(scene: Scene, nodes: Collection[Node]) -> set[int]:
    """Ask every proven node by name, over as many proxies as a command of the operator tries."""
    clock = SystemClock()
    ways = Ways(Proxies(clock))
    waiting = {node.address for node in nodes if node.proven}
    try:
        while waiting:
            async with network_session(
                scene.bearer, scene.top, clock, nodes=nodes, ways=ways
            ) as session:
                try:
                    await _ask(scene, session, ways, waiting)
                    break
                except ForwardsNothing:
                    ways.did_not_help()
    except BearerError:
        pass  # no proxy, or no other one: they are silent
    return waiting


async def _ask(scene: Scene, session: ProxySession, ways: Ways, waiting: set[int]) -> None:
    clock = SystemClock()
    calm = Calm(clock)
    session.overheard = calm.heard

    async def answered(address: int, _: bool) -> None:
        waiting.discard(address)

    witness = Witness(session, ways)
    roll_call = RollCall(
        session,
        scene.store.network().app_key,
        clock,
        answered=answered,
        calm=lambda: calm.wait(session),
    )

    async def ask(address: int, attempt: int) -> bool:
        return witness.saw(address, answered=await roll_call.ask(address, attempt))

    await Rounds(ask, lambda: calm.wait(session)).through(waiting)
