"""What is known, told and refused when lights and groups are changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastprovd.audiences import SilentAudience
from fastprovd.errors import DeviceNotFound, GroupsFull, NoRun, UnknownGroup, UnknownNode
from fastprovd.gateway import open_gateway
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.records import Membership, Node, Proof, Switched
from tests.conftest import RunVirtual
from tests.support.emulated import config, entropy, world
from tests.support.placed import GROUP, PRIMARY, placed

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


def test_one_node(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """A node confirms its state and tells it; both are kept and told."""

    async def main() -> None:
        async with placed(3, tmp_path) as (scene, gateway):
            ears = Ears()
            gateway.audiences.members.append(ears)
            assert await gateway.controls.set_onoff(3, True) == Switched(3, True, (3,), ())
            assert [board.onoff for board in scene.air.boards] == [False, True, False]
            assert (await gateway.controls.get_onoff(3)).onoff is True
            assert [(node.address, node.onoff) for node in ears.nodes] == [(3, True)] * 2
            _, nodes = await gateway.last_run()
            assert [node.onoff for node in nodes] == [False, True, False]

    run_virtual(main())


def test_the_unknown_is_refused(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """Nodes and groups that nobody knows of are named; before the first run there are none."""

    async def main() -> None:
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

    run_virtual(main())


def test_groups_are_kept_and_told(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """The run's group is there from the start; each change is told whole, with its proof."""

    async def main() -> None:
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

    run_virtual(main())


def test_a_fourth_group_is_not_sent(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """It is refused as long as a node may hold three; a proven removal makes room."""

    async def main() -> None:
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

    run_virtual(main())


def test_what_was_not_sent_is_not_kept(run_virtual: RunVirtual[Any], tmp_path: Path) -> None:
    """Without any proxy on the air the change is refused, and nothing is known of it."""

    async def main() -> None:
        async with placed(2, tmp_path) as (scene, gateway):
            scene.board(PRIMARY).power_off()
            with pytest.raises(DeviceNotFound):
                await gateway.controls.change_group(KITCHEN, [3], add=True)
            assert await asyncio.to_thread(gateway._store.memberships) == []

    run_virtual(main())
