"""Boards that are nodes already, as a run leaves them, without the time of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.air import Air, Reach
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.models.configuration import AppKeyAdd
from fastprovd.mesh.models.fast_provisioning import ENTER_AS_PRIMARY, Action, InfoSet
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from fastprovd.records import Network, Node, NodeRole, Run, RunState
from tests.support.emulated import World, config, entropy
from tests.support.scene import device_address

GROUP = 0xC000
PRIMARY = 0x0002
RUN_ID = "r-placed"
# Whoever configured the boards: an address that is no board's and not ours.
_INSTALLER = 0x7EFF
# Far above all boards, and never used: nobody is left to be provisioned.
_SPARE_RANGE = (0x6000, 0x7000)
# The Primary's proxy is back 3 s after its INFO_SET; the last repetition of an INFO_STATUS that
# nobody acknowledges is sent within 5 s.
_SETTLED_S = 6.0


@dataclass(frozen=True)
class _Giver:
    """What a board asks of the link that it was provisioned over."""

    board: Board
    dev_key: DevKey


class _Installer:
    """Provisions boards, and lets each hear Network PDUs that are under the real keys."""

    def __init__(self, air: Air, network: Network) -> None:
        self._air = air
        self._network = network
        self._sequence = SequenceNumbers(range(1 << 20))

    def provision(self, board: Board, giver: Board, address: int, dev_key: DevKey) -> None:
        data = ProvisioningData(self._network.net_key, address, self._network.iv_index)
        board.provisioned_over_pb_adv(_Giver(giver, dev_key), data)

    def say(self, board: Board, address: int, message: Message, key: AppKey | DevKey) -> None:
        # A stack for each message: none waits for the acknowledgments of another.
        stack = Stack(
            address=_INSTALLER,
            net_keys=[self._network.net_key],
            iv_index=self._network.iv_index,
            sequence=self._sequence,
        )
        stack.send(encode_message(message), dst=address, key=key, ttl=0, now=0.0)
        medium = self._air.network(self._network.net_key)
        for out in stack.pdus_to_send():
            board.hear_mesh(medium.frame(out.raw, out.pdu))


def _info_set(address: int) -> InfoSet:
    first, last = _SPARE_RANGE
    is_primary = address == PRIMARY
    return InfoSet(
        node_addr_cnt=1 if is_primary else None,
        unicast_min=first,
        unicast_max=last,
        net_idx=0,
        group_addr=GROUP,
        pri_prov_addr=None if is_primary else PRIMARY,
        match_val=b"\xdd\xdd",
        action=ENTER_AS_PRIMARY if is_primary else int(Action.ENTER),
    )


def _nodes(boards: Collection[Board], moment: datetime) -> list[Node]:
    nodes = []
    for board in boards:
        address = board.unicast_address
        assert address is not None
        is_primary = address == PRIMARY
        nodes.append(
            Node(
                address,
                RUN_ID,
                NodeRole.PRIMARY_PROVISIONER if is_primary else NodeRole.NODE,
                listed=not is_primary,
                proven=board.has_app_key,
                device_uuid=board.uuid if is_primary else None,
                device_address=board.device_address if is_primary else None,
                onoff=False if board.has_app_key else None,
                last_seen=moment,
            )
        )
    return nodes


@asynccontextmanager
async def placed(
    boards: int,
    tmp_path: Path,
    *,
    seed: int = 1,
    host: Host = Host.BLUEDROID,
    flaws: Flaws | None = None,
    loss: float = 0.0,
    without_app_key: Collection[int] = (),
) -> AsyncIterator[tuple[World, Gateway]]:
    """Yield a gateway whose `boards` nodes stand on the air from 0x0002 on, 0x0002 the Primary.

    We know the Primary's DevKey, as after a run. Only its proxy is on the air, its relay is off.
    `loss` counts from now on, for all; nodes of `without_app_key` were left without one.
    """
    air = Air(seed)
    air.set_default_reach(None)  # what they answer the installer would keep a mesh busy
    placed_boards = [
        air.add_board(device_address(number), host=host, flaws=flaws)
        for number in range(1, boards + 1)
    ]
    adapter = EmulatedAdapter(air.adapter(), seed=seed)
    radio = BleakBearer("", scanner_backend(adapter), client_backend(adapter))
    await asyncio.sleep(3.1)  # all have booted
    octets = entropy(seed)
    async with open_gateway(config(tmp_path), radio=radio, entropy=octets) as gateway:
        network = gateway.network
        installer = _Installer(air, network)
        given = [
            (board, PRIMARY + number, DevKey(octets(16)))
            for number, board in enumerate(placed_boards)
        ]
        for board, address, dev_key in given:
            installer.provision(board, placed_boards[0], address, dev_key)
            if address not in without_app_key:
                installer.say(board, address, AppKeyAdd(network.app_key), dev_key)
        await asyncio.sleep(0.1)  # bound
        for board, address, _ in given:
            if address not in without_app_key:
                installer.say(board, address, _info_set(address), network.app_key)
        await asyncio.sleep(_SETTLED_S)
        placed_boards[0].set_identity(False)  # as a run ends it, before the board dies of it
        moment = datetime.now(UTC)
        store = gateway._store
        store.save_dev_key(PRIMARY, placed_boards[0].uuid, given[0][2])
        store.save_nodes(_nodes(placed_boards, moment))
        store.save_run(
            Run(RUN_ID, RunState.DONE, moment, boards, boards, primary=PRIMARY, group=GROUP)
        )
        air.set_default_reach(Reach(loss))
        yield World(air, adapter, radio), gateway


def in_a_row(world: World, cells: int, loss: float) -> None:
    """Let boards hear only those of their own cell and the next ones; the Primary is in one."""
    boards = world.air.boards
    cell = {board.device_address: at * cells // len(boards) for at, board in enumerate(boards)}
    for one in cell:
        for other in cell:
            near = abs(cell[one] - cell[other]) <= 1
            world.air.set_reach(one, other, Reach(loss) if near else None)


def put_on_air(world: World, address: int, *, forwards: bool) -> None:
    """Let a node advertise its Node Identity for a minute; it is a proxy only if it `forwards`."""
    board = world.board(address)
    assert board._models is not None
    board._models.config.gatt_proxy = forwards
    board.enable_proxy()
