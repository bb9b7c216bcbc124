"""Joining and leaving groups, over emulated boards in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.groups import ADDRESSES_PER_MESSAGE, MAX_ASKED_TOGETHER, split
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.mesh.access import encode_message
from fastprovd.mesh.lower_transport import MAX_UNSEGMENTED_UPPER_OCTETS
from fastprovd.mesh.models.fast_provisioning import NodeGroupAdd
from fastprovd.mesh.upper_transport import MIC_32_OCTETS
from fastprovd.records import Membership, Proof
from tests.support.emulated import World
from tests.support.placed import GROUP, PRIMARY, in_a_row, placed

HOSTS = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda host: host.name)
KITCHEN = 0xC010


def in_group(world: World, group: int = KITCHEN) -> set[int]:
    return {board.unicast_address or 0 for board in world.air.boards if group in board.groups}


def fill(board: Board) -> None:
    """Give a board two more groups that nobody told us of."""
    assert board.node is not None
    for group in (0xC020, 0xC021):
        board.node.subscribe(group)


def proofs(changed: list[Membership]) -> dict[int, Proof | None]:
    return {membership.address: membership.proof for membership in changed}


@given(st.sets(st.integers(1, 0x7FFF), max_size=200))
def test_every_message_fits_and_nobody_is_left_out(addresses: set[int]) -> None:
    """Each message is unsegmented, so its length is never odd; together they name all, once."""
    parts = split(addresses)
    assert sorted(address for part in parts for address in part) == sorted(addresses)
    for part in parts:
        assert 1 <= len(part) <= ADDRESSES_PER_MESSAGE
        octets = len(encode_message(NodeGroupAdd(KITCHEN, part)))
        assert octets + MIC_32_OCTETS <= MAX_UNSEGMENTED_UPPER_OCTETS


@HOSTS
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("boards", "wanted"), [(1, 1), (5, 5), (20, 8), (20, 12)])
async def test_nodes_join_and_leave_and_prove_it(
    tmp_path: Path, boards: int, wanted: int, loss: float, host: Host
) -> None:
    """Whatever the loss: the boards follow, each with a proof of its kind, nobody is killed."""
    async with placed(boards, tmp_path, host=host, loss=loss) as (world, gateway):
        who = list(range(PRIMARY, PRIMARY + wanted))
        change = gateway.controls.change_group
        joined = await change(KITCHEN, who, add=True)
        assert in_group(world) == set(who)
        expected = Proof.ANSWER if wanted <= MAX_ASKED_TOGETHER else Proof.ACKNOWLEDGMENT
        others = dict.fromkeys(who[1:], expected)
        assert proofs(joined) == {PRIMARY: Proof.STATUS} | others
        leaving = who[: wanted // 2 + 1]
        left = await change(KITCHEN, leaving, add=False)
        assert in_group(world) == set(who) - set(leaving)
        acknowledged = dict.fromkeys(leaving[1:], Proof.ACKNOWLEDGMENT)
        assert proofs(left) == {PRIMARY: Proof.STATUS} | acknowledged
        assert in_group(world, GROUP) == set(range(PRIMARY, PRIMARY + boards))
        assert sum(board.killed_count for board in world.air.boards) == 0


async def test_far_nodes_join(tmp_path: Path) -> None:
    """Commands and acknowledgments cross four hops at 30 % loss."""
    async with placed(20, tmp_path) as (world, gateway):
        in_a_row(world, cells=5, loss=0.3)
        who = range(PRIMARY, PRIMARY + 20)
        joined = await gateway.controls.change_group(KITCHEN, who, add=True)
        assert in_group(world) == set(who)
        assert None not in proofs(joined).values()


async def test_100_nodes_join(tmp_path: Path) -> None:
    """A hundred NimBLE boards join and prove it; nobody is killed."""
    async with placed(100, tmp_path, host=Host.NIMBLE) as (world, gateway):
        who = range(PRIMARY, PRIMARY + 100)
        joined = await gateway.controls.change_group(KITCHEN, who, add=True)
        assert in_group(world) == set(who)
        assert None not in proofs(joined).values()
        assert sum(board.killed_count for board in world.air.boards) == 0


async def test_a_group_is_switched_alone(tmp_path: Path) -> None:
    """Those who joined follow, those who left do not."""
    async with placed(5, tmp_path, loss=0.1) as (world, gateway):
        controls = gateway.controls
        await controls.change_group(KITCHEN, [3, 4, 5], add=True)
        await controls.change_group(KITCHEN, [4], add=False)
        switched = await controls.set_onoff(KITCHEN, True)
        assert (switched.confirmed, switched.unconfirmed) == ((3, 5), ())
        on = {board.unicast_address for board in world.air.boards if board.onoff}
        assert on == {3, 5}


async def test_a_full_list_is_found_out(tmp_path: Path) -> None:
    """Whose three places are taken by others says so, or does not answer in the group."""
    async with placed(5, tmp_path) as (world, gateway):
        for address in (PRIMARY, 4):
            fill(world.board(address))
        joined = await gateway.controls.change_group(KITCHEN, range(2, 7), add=True)
        assert in_group(world) == {3, 5, 6}
        answer = Proof.ANSWER
        assert proofs(joined) == {PRIMARY: None, 3: answer, 4: None, 5: answer, 6: answer}


@pytest.mark.parametrize("wanted", [4, 10])
async def test_who_can_not_follow_proves_nothing(tmp_path: Path, wanted: int) -> None:
    """Without power nothing comes; without AppKey an acknowledgment comes, and is no proof."""
    async with placed(12, tmp_path, without_app_key=(5,)) as (world, gateway):
        world.board(4).power_off()
        who = range(3, 3 + wanted)
        joined = await gateway.controls.change_group(KITCHEN, who, add=True)
        assert {address for address, proof in proofs(joined).items() if proof is None} == {4, 5}
        assert in_group(world) == set(who) - {4, 5}


async def test_a_large_group_is_never_asked_at_once(tmp_path: Path) -> None:
    """One member more than can be asked together turns the question off, also for a newcomer."""
    async with placed(20, tmp_path, host=Host.NIMBLE) as (world, gateway):
        who = range(3, 3 + MAX_ASKED_TOGETHER)
        change = gateway.controls.change_group
        assert set(proofs(await change(KITCHEN, who, add=True)).values()) == {Proof.ANSWER}
        newcomer = await change(KITCHEN, [15], add=True)
        assert proofs(newcomer) == {15: Proof.ACKNOWLEDGMENT}
        assert in_group(world) == {*who, 15}


async def test_a_change_goes_on_over_another_link(tmp_path: Path) -> None:
    """When the link is lost, those who gave no proof yet are told again."""
    async with placed(12, tmp_path) as (world, gateway):
        primary = world.board(PRIMARY)
        loop = asyncio.get_running_loop()
        loop.call_later(3.5, lambda: primary._links[0].hang_up(0.0))
        joined = await gateway.controls.change_group(KITCHEN, range(2, 14), add=True)
        assert in_group(world) == set(range(2, 14))
        assert None not in proofs(joined).values()
