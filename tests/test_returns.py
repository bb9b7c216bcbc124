"""Boards that lost their power: their old addresses are forgotten, at a start and with a run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.census import Asked
from fastprovd.clock import SystemClock
from fastprovd.errors import UnknownNode
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.mesh.addresses import ALL_NODES
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice
from fastprovd.records import Membership, MissingBoard, Node, Run, RunState
from fastprovd.returns import Returns, lost_groups
from fastprovd.store.state import StateStore
from tests.support.emulated import World, config, entropy, world
from tests.support.pretended import ELSEWHERE, PretendedRadio, unprovisioned
from tests.support.scene import Listener

# 0x1827 of all boards is on the air, and BlueZ has forgotten what they were.
BOOTED_S = 40.0


def cycle_power(here: World, *boards: int) -> None:
    for number in boards:
        here.air.boards[number].power_off()
        here.air.boards[number].power_on()


async def run_once(gateway: Gateway, expected: int, method: str) -> set[int]:
    settings = gateway.settings(expected=expected, method=method)
    run = await gateway.execute(gateway.prepare_run(settings))
    assert run.state is RunState.DONE
    _, nodes = await gateway.last_run()
    return {node.address for node in nodes}


def told(listener: Listener) -> list[Mapping[str, Any]]:
    return [data for kind, data in listener.events if kind == "nodes_returned"]


@pytest.mark.parametrize("method", ["fast", "direct"])
async def test_a_blackout_is_recognised_at_the_start(tmp_path: Path, method: str) -> None:
    """All boards are back, so all addresses are nobody's: nothing is sent there any more."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        addresses = await run_once(gateway, 3, method)
        assert await gateway.look_for_returned() == 0
    cycle_power(here, 0, 1, 2)
    await asyncio.sleep(BOOTED_S)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy(2)) as gateway:
        listener = Listener()
        gateway.audiences.members.append(listener)
        assert await gateway.look_for_returned() == 3
        assert {a for a, node in listener.nodes.items() if node.forgotten} == addresses
        assert [data["boards"] for data in told(listener)] == [3]
        assert listener.address_list == []
        with pytest.raises(UnknownNode):
            await gateway.controls.get_onoff(min(addresses))
        assert await gateway.look_for_returned() == 0, "told once"


async def test_a_run_forgets_what_its_boards_were(tmp_path: Path) -> None:
    """Fresh addresses, and all means the new ones only."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        listener = Listener()
        gateway.audiences.members.append(listener)
        old = await run_once(gateway, 3, "direct")
        cycle_power(here, 0, 1, 2)
        await asyncio.sleep(BOOTED_S)
        new = await run_once(gateway, 3, "direct")
        assert not old & new
        assert told(listener)
        switched = await gateway.controls.set_onoff(ALL_NODES, True)
        assert set(switched.confirmed) | set(switched.unconfirmed) <= new | old
        assert set(switched.confirmed) == new


async def test_one_of_the_boards_that_others_provisioned(tmp_path: Path) -> None:
    """Its address is not known, so it is counted, and no address is forgotten."""
    here = world(4)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        await run_once(gateway, 4, "fast")
        children = [n for n, board in enumerate(here.air.boards) if board.parent not in (None, "")]
        cycle_power(here, children[0])
        await asyncio.sleep(BOOTED_S)
        listener = Listener()
        gateway.audiences.members.append(listener)
        assert await gateway.look_for_returned() == 1
        assert told(listener) == [{"boards": 1, "forgotten": [], "unplaced": 1}]


async def test_a_power_cut_of_all_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """Gateway and boards alike: the resumed run provisions anew what was proven before."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        old = await run_once(gateway, 3, "direct")
    with StateStore(tmp_path / "state") as store:
        (run,) = store.runs()
        store.save_run(replace(run, state=RunState.PROVISIONING, finished=None))
    cycle_power(here, 0, 1, 2)
    await asyncio.sleep(BOOTED_S)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy(2)) as gateway:
        campaign = gateway.prepare_resumption()
        assert campaign is not None
        run = await gateway.execute(campaign)
        assert (run.state, run.proven) == (RunState.DONE, 3)
        _, nodes = await gateway.last_run()
        new = {node.address for node in nodes}
        assert new == {board.unicast_address for board in here.air.boards}
        assert not new & old


def test_groups_of_boards_that_are_nodes_again() -> None:
    """By Device UUID; left groups, silent nodes and boards that are still away are not restored."""
    a, b, c = (bytes([number]) * 16 for number in range(1, 4))
    forgotten = [Node(2, "r-1", device_uuid=a), Node(3, "r-1", device_uuid=b), Node(4, "r-1")]
    nodes = [
        Node(12, "r-2", device_uuid=a, proven=True),
        Node(13, "r-2", device_uuid=b),
        Node(14, "r-2", device_uuid=c, proven=True),
    ]
    memberships = [
        Membership(0xC010, 2, is_member=True),
        Membership(0xC010, 3, is_member=True),
        Membership(0xC010, 4, is_member=True),
        Membership(0xC011, 2, is_member=False),
    ]
    assert lost_groups(memberships, forgotten, nodes) == {0xC010: [12]}


def board(node: Node, device_address: str | None = None) -> HeardBoard:
    """What a radio says that pretends to be the node's board, unprovisioned."""
    assert node.device_uuid is not None
    address = device_address or node.device_address
    assert address is not None
    return HeardBoard(node.device_uuid, address, -30, last_seen_s=9.0, first_seen_s=1.0)


async def nobody(device_addresses: Collection[str]) -> set[str]:
    """No device answers an Invite."""
    return set()


async def test_an_advertisement_takes_no_living_node_away(tmp_path: Path) -> None:
    """Nodes are asked by name before; from another device address it is not even a question."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        await run_once(gateway, 3, "direct")
        here.air.boards[2].power_off()
        _, nodes = await gateway.last_run()
        off = next(n for n in nodes if n.device_address == here.air.boards[2].device_address)
        asked: list[set[int]] = []

        async def who_answers(addresses: Any) -> Asked:
            asked.append(set(addresses))
            async with gateway._radio:
                return await gateway._who_answers(addresses)

        returns = Returns(gateway._store, gateway.audiences)
        namesakes = [board(node, "66:66:66:66:66:66") for node in nodes]
        assert await returns.at_start(namesakes, who_answers, nobody) == 0
        assert asked == []
        copies = [board(node) for node in nodes]
        assert await returns.at_start(copies) == 0, "there is nobody to ask"
        assert await returns.at_start(copies, who_answers, nobody) == 1
        assert asked == [{node.address for node in nodes}]
        left = {node.address for node in gateway._store.nodes()}
        assert left == {node.address for node in nodes} - {off.address}


async def test_a_run_forgets_only_what_it_made_anew(tmp_path: Path) -> None:
    """Boards that it heard and could not provision may be anything."""
    here = world(2)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        await run_once(gateway, 2, "direct")
        _, nodes = await gateway.last_run()
        returns = Returns(gateway._store, gateway.audiences)
        await returns.run_begins([board(node) for node in nodes], "r-new")
        moment = SystemClock().utc_now()
        await returns.run_ended(Run("r-new", RunState.PARTIAL, moment))
        assert gateway._store.nodes() == nodes
        await returns.run_begins([board(node) for node in nodes], "r-newer")
        anew = replace(nodes[0], address=0x0200, run_id="r-newer")
        gateway._store.save_nodes([anew])
        await returns.run_ended(Run("r-newer", RunState.PARTIAL, moment))
        assert gateway._store.nodes() == [nodes[1], anew]


async def test_what_a_kill_left_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    """A run made the board anew, and was killed before the old address was forgotten."""
    here = world(2)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        await run_once(gateway, 2, "direct")
        _, nodes = await gateway.last_run()
        gateway._store.save_run(Run("r-new", RunState.DONE, SystemClock().utc_now()))
        anew = replace(nodes[0], address=0x0200, run_id="r-new")
        gateway._store.save_nodes([anew])
        assert await gateway.look_for_returned() == 0
        assert gateway._store.nodes() == [nodes[1], anew]


@pytest.mark.parametrize("method", ["fast", "direct"])
@pytest.mark.parametrize("is_borrowed", [False, True])
async def test_who_pretends_to_be_a_living_node_changes_nothing(
    tmp_path: Path, method: str, is_borrowed: bool
) -> None:
    """From an address of its own or a borrowed one, at a start and while a run hears boards."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        await run_once(gateway, 3, method)
        _, nodes = await gateway.last_run()
    uuids = [board.uuid for board in here.air.boards]
    ads = [
        Advertisement(
            b.device_address if is_borrowed else ELSEWHERE[:-1] + str(number),
            UnprovisionedDevice(uuids[number]),
            -30,
            0.0,
        )
        for number, b in enumerate(here.air.boards)
    ]
    radio = PretendedRadio(here.radio, lambda: ads)
    async with open_gateway(config(tmp_path), radio=radio, entropy=entropy(2)) as gateway:
        assert await gateway.look_for_returned() == 0
        settings = gateway.settings(expected=3, scan_s=5.0, run_s=200.0)
        await gateway.execute(gateway.prepare_run(settings))
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy(3)) as gateway:
        assert {n.address for n in gateway._store.nodes()} >= {n.address for n in nodes}
        for node in nodes:
            await gateway.controls.get_onoff(node.address)


async def test_without_a_proxy_the_board_itself_has_to_show_it(tmp_path: Path) -> None:
    """Nobody carries the question: who answers an Invite returned, who does not is kept."""
    here = world(2)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        await run_once(gateway, 2, "direct")
        _, nodes = await gateway.last_run()
        cycle_power(here, 1)
        await asyncio.sleep(BOOTED_S)
        back = next(n for n in nodes if n.device_address == here.air.boards[1].device_address)
        returns = Returns(gateway._store, gateway.audiences)

        async def nobody_carries(addresses: Collection[int]) -> Asked:
            return Asked(frozenset())

        async def who_is_unprovisioned(device_addresses: Collection[str]) -> set[str]:
            async with gateway._radio:
                return await gateway._who_is_unprovisioned(device_addresses)

        listener = Listener()
        gateway.audiences.members.append(listener)
        heard = [board(node) for node in nodes]
        assert await returns.at_start(heard, nobody_carries, who_is_unprovisioned) == 1
        assert [n for n in nodes if n not in gateway._store.nodes()] == [back]
        (warning,) = [data for kind, data in listener.events if kind == "warning"]
        assert warning["about"] == here.air.boards[0].device_address


@pytest.mark.parametrize("is_borrowed", [False, True])
async def test_who_pretends_while_a_run_is_resumed(tmp_path: Path, is_borrowed: bool) -> None:
    """Nodes that answer by name stay what they are, and get no other addresses."""
    here = world(3)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        old = await run_once(gateway, 3, "direct")
        _, nodes = await gateway.last_run()
    with StateStore(tmp_path / "state") as store:
        (run,) = store.runs()
        store.save_run(replace(run, state=RunState.PROVISIONING, finished=None))
    ads = [unprovisioned(node, None if is_borrowed else ELSEWHERE) for node in nodes]
    radio = PretendedRadio(here.radio, lambda: ads)
    async with open_gateway(config(tmp_path), radio=radio, entropy=entropy(2)) as gateway:
        campaign = gateway.prepare_resumption()
        assert campaign is not None
        run = await gateway.execute(campaign)
        assert run.proven == 3
        assert {node.address for node in gateway._store.nodes()} == old


async def test_of_boards_only_heard_nothing_is_kept(tmp_path: Path) -> None:
    """Anybody can advertise any Device UUID; whose node a board is, a run has to show."""
    here = world(4)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        await run_once(gateway, 4, "fast")
        store, moment = gateway._store, SystemClock().utc_now()
        first = store.boards()
        assert set(first) == {board.uuid for board in here.air.boards}
        (run,) = store.runs()
        returns = Returns(store, gateway.audiences)
        made_up = [HeardBoard(bytes([n]) * 16, "AA", -30, 9.0, 1.0) for n in range(1, 9)]
        nodes_of_old = [HeardBoard(uuid, "BB", -30, 9.0, 1.0) for uuid in first]
        await returns.run_begins([*made_up, *nodes_of_old], "r-new")
        named = {b.uuid for b in made_up} | {n.device_uuid for n in store.nodes()} - {None}
        assert {u for u, run_id in store.boards().items() if run_id == "r-new"} >= {
            board.uuid for board in made_up
        }
        assert all(store.boards()[uuid] == run.run_id for uuid in first if uuid not in named)
        child = next(uuid for uuid in first if uuid not in named)
        store.save_nodes([Node(0x0200, "r-new", device_uuid=child, device_address="BB")])
        await returns.run_ended(Run("r-new", RunState.PARTIAL, moment))
        assert [uuid for uuid, run_id in store.boards().items() if run_id == "r-new"] == [child]


async def test_boards_that_a_run_took_are_its_own(tmp_path: Path) -> None:
    """Of a run with nodes that others made: who is missing was not taken."""
    here = world(1)
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        store, moment = gateway._store, SystemClock().utc_now()
        returns = Returns(store, gateway.audiences)
        taken, left = (HeardBoard(bytes([n]) * 16, "AA", -30, 9.0, 1.0) for n in (1, 2))
        await returns.run_begins([taken, left], "r-new")
        store.save_nodes([Node(0x0200, "r-new")])
        missing = (MissingBoard("left", None, left.uuid),)
        await returns.run_ended(Run("r-new", RunState.PARTIAL, moment, missing=missing))
        assert store.boards() == {taken.uuid: "r-new"}
