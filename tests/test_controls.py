"""What is known, told and refused when lights and groups are changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastprovd.audiences import SilentAudience
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.timeline import Happening
from fastprovd.errors import (
    DeviceNotFound,
    GroupsFull,
    NoRun,
    ResponseTimeout,
    UnknownGroup,
    UnknownNode,
)
from fastprovd.gateway import open_gateway
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.mesh.proxy import ProxyPduType
from fastprovd.records import Membership, Node, Proof, Switched
from tests.support.emulated import World, config, entropy, world
from tests.support.placed import GROUP, PRIMARY, placed, put_on_air

KITCHEN, HALL = 0xC010, 0xC011


class Ears(SilentAudience):
    """Remembers nodes and groups."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.groups: list[Sequence[Membership]] = []

    def node_changed(self, node: Node) -> None:
        self.nodes.append(node)

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        self.groups.append(memberships)


async def test_one_node(tmp_path: Path) -> None:
    """A node confirms its state and tells it; both are kept and told."""
    async with placed(3, tmp_path) as (scene, gateway):
        ears = Ears()
        gateway.audiences.members.append(ears)
        assert await gateway.controls.set_onoff(3, True) == Switched(3, True, (3,), ())
        assert [board.onoff for board in scene.air.boards] == [False, True, False]
        assert (await gateway.controls.get_onoff(3)).onoff is True
        assert [(node.address, node.onoff) for node in ears.nodes] == [(3, True)] * 2
        _, nodes = await gateway.last_run()
        assert [node.onoff for node in nodes] == [False, True, False]


async def test_the_unknown_is_refused(tmp_path: Path) -> None:
    """Nodes and groups that nobody knows of are named; before the first run there are none."""
    async with placed(2, tmp_path) as (_, gateway):
        controls = gateway.controls
        for refused in (
            controls.get_onoff(0x0700),
            controls.set_onoff(0x0700, True),
            controls.change_group(KITCHEN, [3, 0x0700], add=True),
        ):
            with pytest.raises(UnknownNode, match="0x0700"):
                await refused
        with pytest.raises(UnknownGroup, match="0xc010"):
            await controls.set_onoff(KITCHEN, True)
        assert await asyncio.to_thread(gateway._store.memberships) == []
    other = tmp_path / "other"
    other.mkdir()
    async with open_gateway(config(other), radio=world(1).radio, entropy=entropy()) as empty:
        with pytest.raises(NoRun):
            await empty.controls.set_onoff(ALL_NODES, True)


async def test_groups_are_kept_and_told(tmp_path: Path) -> None:
    """The run's group is there from the start; each change is told whole, with its proof."""
    async with placed(2, tmp_path) as (_, gateway):
        ears = Ears()
        gateway.audiences.members.append(ears)
        of_run = [Membership(GROUP, 2, is_member=True), Membership(GROUP, 3, is_member=True)]
        assert await gateway.controls.groups() == of_run
        await gateway.controls.change_group(KITCHEN, [3], add=True)
        joined = Membership(KITCHEN, 3, is_member=True, proof=Proof.ANSWER)
        await gateway.controls.change_group(GROUP, [PRIMARY], add=False)
        left = Membership(GROUP, 2, is_member=False, proof=Proof.STATUS)
        assert ears.groups == [[*of_run, joined], [left, of_run[1], joined]]
        assert await gateway.controls.groups() == ears.groups[-1]
        assert await asyncio.to_thread(gateway._store.memberships) == [left, joined]


async def test_a_fourth_group_is_not_sent(tmp_path: Path) -> None:
    """It is refused as long as a node may hold three; a proven removal makes room."""
    async with placed(3, tmp_path) as (scene, gateway):
        change = gateway.controls.change_group
        await change(KITCHEN, [3, 4], add=True)
        await change(HALL, [3], add=True)
        with pytest.raises(GroupsFull, match="0x0003"):
            await change(0xC012, [3, 4], add=True)
        assert scene.board(4).groups == {GROUP, KITCHEN}
        await change(KITCHEN, [3], add=False)
        await change(0xC012, [3, 4], add=True)
        assert scene.board(3).groups == {GROUP, HALL, 0xC012}


async def test_what_was_not_sent_is_not_kept(tmp_path: Path) -> None:
    """Without any proxy on the air the change is refused, and nothing is known of it."""
    async with placed(2, tmp_path) as (scene, gateway):
        scene.board(PRIMARY).power_off()
        with pytest.raises(DeviceNotFound):
            await gateway.controls.change_group(KITCHEN, [3], add=True)
        assert await asyncio.to_thread(gateway._store.memberships) == []


# Through a proxy that forwards nothing: from the command to the answer of everybody else.
FOUND_OUT_S = 15.0
HOSTS = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda host: host.name)


def connected(scene: World, after_s: float) -> list[str]:
    """Return to whom links were opened, in order."""
    return [
        entry.device_address
        for entry in scene.air.timeline
        if entry.what is Happening.CONNECTED and entry.time_s >= after_s
    ]


@HOSTS
async def test_all_are_reached_through_another_proxy(tmp_path: Path, host: Host) -> None:
    """When only the proxy itself answers, the next one is taken, and kept for the next command."""
    async with placed(12, tmp_path, host=host) as (scene, gateway):
        put_on_air(scene, PRIMARY, forwards=False)
        put_on_air(scene, 7, forwards=True)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        everybody = tuple(range(PRIMARY, PRIMARY + 12))
        switched = await gateway.controls.set_onoff(ALL_NODES, True)
        assert switched == Switched(ALL_NODES, True, everybody, ())
        assert loop.time() - begun < FOUND_OUT_S
        primary, other = (scene.board(a).device_address for a in (PRIMARY, 7))
        assert connected(scene, begun) == [primary, other]
        begun = loop.time()
        assert (await gateway.controls.set_onoff(GROUP, False)).confirmed == everybody
        assert connected(scene, begun) == [other]


@HOSTS
async def test_one_node_is_reached_through_another_proxy(tmp_path: Path, host: Host) -> None:
    """Asked or set; the proxy itself needs no other."""
    async with placed(5, tmp_path, host=host) as (scene, gateway):
        put_on_air(scene, PRIMARY, forwards=False)
        put_on_air(scene, 4, forwards=True)
        controls = gateway.controls
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await controls.set_onoff(6, True) == Switched(6, True, (6,), ())
        assert loop.time() - begun < 15.0
        put_on_air(scene, PRIMARY, forwards=False)
        put_on_air(scene, 4, forwards=True)
        assert (await controls.get_onoff(6)).onoff is True
        begun = loop.time()
        assert (await controls.get_onoff(PRIMARY)).onoff is False
        assert connected(scene, begun) == [scene.board(PRIMARY).device_address]


@HOSTS
async def test_a_group_is_changed_through_another_proxy(tmp_path: Path, host: Host) -> None:
    """Nodes with a DevKey and without one give their proofs."""
    async with placed(8, tmp_path, host=host) as (scene, gateway):
        put_on_air(scene, PRIMARY, forwards=False)
        put_on_air(scene, 7, forwards=True)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        who = range(PRIMARY, PRIMARY + 8)
        changed = await gateway.controls.change_group(KITCHEN, who, add=True)
        assert [m.proof for m in changed] == [Proof.STATUS, *[Proof.ANSWER] * 7]
        assert loop.time() - begun < 20.0


def swallow(scene: World, address: int) -> None:
    """Have a proxy take everything and say nothing."""
    scene.board(address).receive_proxy_pdu = lambda *_: None  # type: ignore[method-assign]


def hang_up_on_messages(scene: World, address: int) -> None:
    """Have a proxy confirm its filter, and hang up on everything else."""
    board = scene.board(address)
    receive = board.receive_proxy_pdu

    def take(link: Any, pdu_type: ProxyPduType, payload: bytes) -> None:
        if pdu_type is ProxyPduType.NETWORK_PDU:
            link.hang_up(0.0)
        else:
            receive(link, pdu_type, payload)

    board.receive_proxy_pdu = take  # type: ignore[method-assign]


@pytest.mark.parametrize("spoil", [swallow, hang_up_on_messages])
@pytest.mark.parametrize("dead", [(PRIMARY,), (PRIMARY, 3, 4)])
async def test_a_dead_proxy_fails_no_request(
    tmp_path: Path, dead: tuple[int, ...], spoil: Callable[[World, int], None]
) -> None:
    """Others that are on the air carry it: for one node, for a group, and for a change of one."""
    async with placed(8, tmp_path) as (scene, gateway):
        for address in dead:
            put_on_air(scene, address, forwards=True)
            spoil(scene, address)
        put_on_air(scene, 7, forwards=True)
        controls = gateway.controls
        alive = {*range(PRIMARY, PRIMARY + 8)} - {*dead}
        assert (await controls.get_onoff(9)).onoff is False
        assert (await controls.set_onoff(9, True)).confirmed == (9,)
        assert alive <= set((await controls.set_onoff(ALL_NODES, True)).confirmed) | {7}
        changed = await controls.change_group(KITCHEN, [8, 9], add=True)
        assert all(membership.proof is Proof.ANSWER for membership in changed)


async def test_a_proxy_that_we_switched_off_is_taken_last(tmp_path: Path) -> None:
    """Although it may be heard first; alone, it answers for itself and the others are named."""
    async with placed(6, tmp_path) as (scene, gateway):
        nodes = await asyncio.to_thread(gateway._store.nodes)
        for node in nodes:
            if node.address in (3, 4, 5):
                put_on_air(scene, node.address, forwards=False)
                off = replace(node, gatt_proxy=False)
                await asyncio.to_thread(gateway._store.save_nodes, [off])
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert (await gateway.controls.set_onoff(ALL_NODES, True)).unconfirmed == ()
        assert connected(scene, begun) == [scene.board(PRIMARY).device_address]
        scene.board(PRIMARY).power_off()
        begun = loop.time()
        switched = await gateway.controls.set_onoff(ALL_NODES, False)
        # Three were asked, each for itself.
        assert switched.confirmed == (3, 4, 5)
        assert switched.unconfirmed == (PRIMARY, 6, 7)
        assert len(connected(scene, begun)) == 3
        assert loop.time() - begun < 40.0
        with pytest.raises(ResponseTimeout):
            await gateway.controls.get_onoff(7)


async def test_silent_nodes_are_not_the_fault_of_the_proxy(tmp_path: Path) -> None:
    """When those who are asked first have no power, the only proxy is gone back to."""
    async with placed(14, tmp_path) as (scene, gateway):
        dead = tuple(range(3, 10))
        for address in dead:
            scene.board(address).power_off()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        switched = await gateway.controls.set_onoff(ALL_NODES, True)
        assert switched.confirmed == (PRIMARY, *range(10, 16))
        assert switched.unconfirmed == dead
        assert connected(scene, begun) == [scene.board(PRIMARY).device_address] * 2
        assert loop.time() - begun < 60.0


async def test_a_node_without_power_is_told_in_time(tmp_path: Path) -> None:
    """However many proxies there are, it takes no more than 20 s to say that it is silent."""
    async with placed(8, tmp_path) as (scene, gateway):
        for address in (4, 5, 6, 7):
            put_on_air(scene, address, forwards=True)
        scene.board(3).power_off()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(ResponseTimeout, match="0x0003"):
            await gateway.controls.get_onoff(3)
        assert loop.time() - begun < 22.0


async def test_commands_that_wait_for_one_link_have_each_a_tid(tmp_path: Path) -> None:
    """A light that is switched on and off at once is off in the end, however it is addressed."""
    async with placed(3, tmp_path) as (scene, gateway):
        put_on_air(scene, PRIMARY, forwards=True)
        wishes = [(PRIMARY, True), (PRIMARY, False), (ALL_NODES, True), (PRIMARY, False)]
        await asyncio.gather(*(gateway.controls.set_onoff(*wish) for wish in wishes))
        assert (await gateway.controls.get_onoff(PRIMARY)).onoff is False


async def test_room_in_a_board_is_looked_at_when_its_turn_has_come(tmp_path: Path) -> None:
    """With that of its run a board holds three; what is asked for at once beyond is refused."""
    async with placed(1, tmp_path) as (scene, gateway):
        put_on_air(scene, PRIMARY, forwards=True)
        groups = range(KITCHEN, KITCHEN + 4)
        asked = [gateway.controls.change_group(g, [PRIMARY], add=True) for g in groups]
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(end) for end in ends].count(GroupsFull) == 2
        held = [m.group for m in await gateway.controls.groups() if m.address == PRIMARY]
        assert len(held) == 3


async def test_what_a_node_answers_is_kept_with_its_seq(tmp_path: Path) -> None:
    """Before anybody is told, so that after a kill the same answer is a copy."""
    async with placed(1, tmp_path) as (scene, gateway):
        put_on_air(scene, PRIMARY, forwards=True)
        told: list[list[tuple[int, int, int]]] = []

        class Told(SilentAudience):
            def node_changed(self, node: Node) -> None:
                told.append(gateway._store.replay_list())

        gateway.audiences.members.append(Told())
        await gateway.controls.get_onoff(PRIMARY)
        (heard,) = told
        assert [src for src, _, _ in heard] == [PRIMARY]
