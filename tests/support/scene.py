"""A whole gateway in virtual time: boards, adapter, unmodified bleak, store, run."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.link_limit import START_LINKS
from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.proxy_session import TopProvisioner
from fastprovd.campaign.run import Campaign
from fastprovd.campaign.settings import RunSettings
from fastprovd.clock import SystemClock
from fastprovd.emulator.air import Air, collides
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez import Bluetoothd
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from fastprovd.records import Membership, Node, Run, RunState, Window
from fastprovd.store.state import StateStore


def device_address(number: int) -> str:
    """Return the BD_ADDR of the n-th board."""
    return f"24:0A:C4:5E:{number >> 8:02X}:{number & 0xFF:02X}"


@dataclass
class Listener:
    """An audience that remembers; `watchers` are told each state that the run comes to, once."""

    runs: list[Run] = field(default_factory=list)
    nodes: dict[int, Node] = field(default_factory=dict)
    address_list: list[Node] = field(default_factory=list)
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    watchers: list[Callable[[Run], None]] = field(default_factory=list)
    _reached: defaultdict[RunState, asyncio.Event] = field(
        default_factory=lambda: defaultdict(asyncio.Event)
    )

    async def reached(self, state: RunState) -> None:
        """Wait until the run has come to `state`."""
        await self._reached[state].wait()

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        self.runs.append(run)
        if not self._reached[run.state].is_set():
            self._reached[run.state].set()
            for watcher in self.watchers:
                watcher(run)

    def node_changed(self, node: Node) -> None:
        """A node became known."""
        self.nodes[node.address] = node

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list."""
        self.address_list = list(nodes)

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group."""

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened."""
        self.events.append((kind, data))


@dataclass
class Scene:
    """What a test looks at."""

    air: Air
    adapter: EmulatedAdapter
    bearer: BleakBearer
    store: StateStore
    top: TopProvisioner
    entropy: Callable[[int], bytes]
    listener: Listener
    campaign: Campaign

    def true_nodes(self) -> dict[int, Board]:
        """Return every board that is a node, by its unicast address."""
        return {
            board.unicast_address: board
            for board in self.air.boards
            if board.unicast_address is not None
        }

    def t_provisioned_s(self) -> float:
        """Return when the last board became a node that another board made, since INFO_SET."""
        begun = min(e.time_s for e in self.air.timeline if e.what is Happening.RUN_STARTED)
        made = (e for e in self.air.timeline if e.what is Happening.PROVISIONED and e.detail)
        return max(entry.time_s for entry in made) - begun

    def rungs(self) -> list[str]:
        """Return the rungs of ladders that were tried, in order."""
        return [data["rung"] for kind, data in self.listener.events if kind == "recovery"]

    def climbed(self) -> set[tuple[str, str]]:
        """Return symptom and rung of each rung that was told."""
        told = [data for kind, data in self.listener.events if kind == "recovery"]
        return {(data["symptom"], data["rung"]) for data in told}

    def without_app_key(self) -> set[int]:
        """Return the addresses of nodes that the firmware left without AppKey."""
        return {a for a, board in self.true_nodes().items() if not board.has_app_key}

    def check_against_truth(self, run: Run) -> None:
        """Hold the result against what the boards are: every one a node, known, rightly judged."""
        truth = self.true_nodes()
        silent = self.without_app_key()
        known = self.listener.nodes
        assert len(truth) == len(self.air.boards), "a board was left unprovisioned or killed"
        assert sum(board.killed_count for board in self.air.boards) == 0
        assert set(known) == set(truth)
        assert {a for a, node in known.items() if node.proven} == set(truth) - silent
        assert run.state is (RunState.PARTIAL if silent else RunState.DONE)
        assert {board.address for board in run.missing} == silent
        self.check_closed(run)
        for board in run.missing:
            assert board.address is not None
            if board.device_address is not None:
                assert board.device_address == truth[board.address].device_address

    def check_closed(self, run: Run) -> None:
        """Hold what the run says of its window against the boards."""
        assert run.window is Window.CLOSED, run.window_evidence
        assert [b.device_address for b in self.air.boards if b.is_provisioning] == []


async def _nothing(boards: Iterable[HeardBoard], run_id: str) -> None:
    """Take the boards that were heard, for nothing."""


Door = Callable[[EmulatedAdapter], AbstractAsyncContextManager[BleakBearer]]


def in_process(links: int | None) -> Door:
    """Reach the boards by backend classes for bleak."""

    @asynccontextmanager
    async def reach(adapter: EmulatedAdapter) -> AsyncIterator[BleakBearer]:
        async with BleakBearer(
            scanner_backend=scanner_backend(adapter),
            client_backend=client_backend(adapter),
            max_links=links,
        ) as bearer:
            yield bearer

    return reach


def over_dbus(bus_address: str) -> Door:
    """Reach the boards by bleak's own BlueZ backend."""

    @asynccontextmanager
    async def reach(adapter: EmulatedAdapter) -> AsyncIterator[BleakBearer]:
        async with Bluetoothd(adapter, bus_address), BleakBearer() as bearer:
            yield bearer

    return reach


@asynccontextmanager
async def scene(
    boards: int,
    seed: int,
    *,
    host: Host = Host.BLUEDROID,
    flaws: Flaws | None = None,
    settings: RunSettings | None = None,
    door: Door | None = None,
    links: int | None = START_LINKS,
    listener: Listener | None = None,
    collisions: bool | None = None,
) -> AsyncIterator[Scene]:
    """Set the scene; everything in it depends on the seed only.

    Without a word about `collisions` the number of boards decides, as in the demo. `links` `None`:
    as many as the adapter is found to bear.
    """
    air = Air(seed, collisions=collides(boards) if collisions is None else collisions)
    for number in range(1, boards + 1):
        air.add_board(device_address(number), host=host, flaws=flaws)
    adapter = EmulatedAdapter(air.adapter(), seed=seed)
    entropy = random.Random(f"{seed}/entropy").randbytes
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir(mode=0o700)
        with StateStore(state, entropy) as store:
            network = store.network()
            stack = Stack(
                address=network.address,
                net_keys=[network.net_key],
                iv_index=network.iv_index,
                sequence=SequenceNumbers(),
                replay=ReplayProtectionList(heard=store.replay_list()),
            )
            stack.app_keys[network.app_key.index] = network.app_key
            top = TopProvisioner(stack, store)
            listener = listener or Listener()
            async with (door or in_process(links))(adapter) as bearer:
                campaign = Campaign(
                    "r-test",
                    settings or RunSettings(expected=boards),
                    bearer=bearer,
                    store=store,
                    audience=listener,
                    clock=SystemClock(),
                    entropy=entropy,
                    top=top,
                    app_key=network.app_key,
                    boards_heard=_nothing,
                )
                yield Scene(air, adapter, bearer, store, top, entropy, listener, campaign)
