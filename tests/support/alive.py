"""Whether the nodes of a run still answer later on, through a proxy found from nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from fastprovd.campaign.census import Census
from fastprovd.clock import SystemClock
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
    app_key = scene.store.network().app_key
    proven = {node.address for node in nodes if node.proven}
    census = Census(scene.bearer, scene.top, SystemClock(), app_key, nodes)
    return proven - await census.answering(proven)
