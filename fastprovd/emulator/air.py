"""The virtual air: who hears whom, with what loss and delay, and what was really said."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from fastprovd.emulator.board import Board
from fastprovd.emulator.controller import Adapter
from fastprovd.emulator.frames import MeshFrame, Network
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.pb_adv import GenericPdu
from fastprovd.emulator.radio import Radio
from fastprovd.emulator.timeline import Entry, Happening
from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.keys import NetKey

# Fewer boards hardly disturb each other: with 12 the measured times are the same (OB 19).
_COLLISIONS_FROM: Final = 20


def collides(boards: int) -> bool:
    """Tell whether so many boards on one air are to be shown with collisions, unless asked."""
    return boards >= _COLLISIONS_FROM


@dataclass(frozen=True, slots=True)
class Reach:
    """How a receiver hears a sender: each single transmission is lost with probability `loss`."""

    loss: float = 0.0
    delay_s: float = 0.0


class Air:
    """Boards and adapters around one event loop's clock; the same seed gives the same run.

    By default everybody hears everybody at once and without loss; with `collisions` transmissions
    get lost as `radio.py` says, and what is left as `Reach` says. The loop is to be a
    `VirtualTimeLoop`, for real time one at speed 1: others mix up timers for the same moment, and
    with them the order of writes.
    """

    def __init__(
        self, seed: int = 0, *, reach: Reach | None = None, collisions: bool = False
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.seed = seed
        self.timeline: list[Entry] = []
        self.watchers: list[Callable[[Entry], None]] = []
        self._default_reach: Reach | None = reach or Reach()
        self._reach: dict[tuple[str, str], Reach | None] = {}
        self._random = self.random_for("air")
        self._radio = Radio(self.octets_for, self.random_for("radio"))
        self._collisions = collisions
        self._boards: dict[str, Board] = {}
        self._by_bit: list[Board] = []
        # For a board as sender: the bits of those in reach of it, and how each board hears it.
        self._rows: dict[int, tuple[int, list[Reach | None]]] = {}
        self._provisioners: dict[str, Board] = {}
        self._networks: dict[tuple[bytes, int], Network] = {}
        self._adapters: dict[str, Adapter] = {}
        self._observing: dict[str, Adapter] = {}

    # Building the scene

    def add_board(
        self,
        device_address: str,
        *,
        host: Host = Host.BLUEDROID,
        flaws: Flaws | None = None,
        power_on: bool = True,
    ) -> Board:
        """Place a board; it boots now unless `power_on` is False.

        Raises:
            LocalProtocolError: the BD_ADDR is taken.
        """
        if device_address in self._boards:
            raise LocalProtocolError(f"there is a board {device_address} already")
        self._radio.add_board(device_address)
        board = Board(self, device_address, len(self._by_bit), host, flaws or Flaws())
        self._boards[device_address] = board
        self._by_bit.append(board)
        self._rows.clear()
        if power_on:
            board.power_on()
        return board

    def adapter(self, name: str = "hci0") -> Adapter:
        """Return the adapter of that name, made at first use."""
        adapter = self._adapters.get(name)
        if adapter is None:
            adapter = self._adapters[name] = Adapter(self, name)
        return adapter

    def set_reach(self, one: str, other: str, reach: Reach | None) -> None:
        """Set how `one` and `other` (BD_ADDR or adapter name) hear each other; `None`: not."""
        self.set_one_way(one, other, reach)
        self.set_one_way(other, one, reach)

    def set_one_way(self, sender: str, receiver: str, reach: Reach | None) -> None:
        """Set how `receiver` hears `sender`, and not the reverse."""
        self._reach[sender, receiver] = reach
        self._rows.clear()

    def set_default_reach(self, reach: Reach | None) -> None:
        """Set how everybody else hears each other."""
        self._default_reach = reach
        self._rows.clear()

    # Truth, for tests and the demo

    @property
    def boards(self) -> tuple[Board, ...]:
        """All boards in the order they were placed."""
        return tuple(self._by_bit)

    def board(self, device_address: str) -> Board:
        """Return the board with that BD_ADDR; raises KeyError."""
        return self._boards[device_address]

    def record(
        self, board: Board, what: Happening, detail: str = "", address: int | None = None
    ) -> None:
        """Write into the timeline, and tell those who watch it."""
        entry = Entry(self.loop.time(), board.device_address, what, detail, address)
        self.timeline.append(entry)
        for watcher in self.watchers:
            watcher(entry)

    # For boards and adapters

    def random_for(self, name: str) -> Random:
        """Return a generator of random numbers of its own for `name`."""
        return Random(f"{self.seed}/{name}")

    def octets_for(self, name: str, count: int) -> bytes:
        """Return `count` octets that depend on the seed and `name` only, at most 32."""
        return hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:count]

    def reach(self, sender: str, receiver: str) -> Reach | None:
        """Return how `receiver` hears `sender`."""
        return self._reach.get((sender, receiver), self._default_reach)

    def hears(self, sender: str, receiver: str) -> bool:
        """Draw whether `receiver` hears one transmission of `sender`, were there no other."""
        reach = self.reach(sender, receiver)
        return reach is not None and (reach.loss <= 0.0 or self._random.random() >= reach.loss)

    def path_loss_db(self, one: str, other: str) -> float:
        """Return how much weaker the one is at the other, 0 to 30 dB; it does not change."""
        return self._radio.path_loss_db(one, other)

    def set_interval(self, board: Board, interval_s: float | None) -> None:
        """Tell how often `board` sends from now on, queue or advertising; `None`: not at all."""
        self._radio.set_interval(board.bit, interval_s)

    def network(self, net_key: NetKey) -> Network:
        """Return what the holders of `net_key` share."""
        key = (net_key.octets, net_key.index)
        network = self._networks.get(key)
        if network is None:
            network = self._networks[key] = Network(net_key)
        return network

    def set_provisioner(self, board: Board, active: bool) -> None:
        """Tell whether `board` listens to unprovisioned device beacons."""
        if active:
            self._provisioners[board.device_address] = board
        else:
            self._provisioners.pop(board.device_address, None)

    def neighbours(self, board: Board) -> int:
        """Return how many boards on the air `board` is in reach of."""
        return sum(
            1
            for other in self._by_bit
            if other is not board
            and other.is_on_air
            and self.reach(other.device_address, board.device_address) is not None
        )

    # Transmissions

    def send_mesh(self, sender: Board, frame: MeshFrame, times: list[float]) -> None:
        """Put a Network PDU on the air; each board takes the first transmission it hears."""
        self._report_at(sender, times)
        if self._is_ideal:
            self.loop.call_at(times[0], self._deliver_mesh, sender, frame)
            return
        self.loop.call_at(times[0], self._transmit_mesh, sender, frame, times, 0)

    def _deliver_mesh(self, sender: Board, frame: MeshFrame) -> None:
        rest = frame.network.members & ~frame.flood.heard & ~(1 << sender.bit)
        while rest:
            low = rest & -rest
            rest ^= low
            self._by_bit[low.bit_length() - 1].hear_mesh(frame)

    def _transmit_mesh(
        self, sender: Board, frame: MeshFrame, times: list[float], number: int
    ) -> None:
        """One transmission: who has heard the PDU, from whomever, does not listen any more."""
        rest = frame.network.members & ~frame.flood.heard & ~(1 << sender.bit)
        if not rest:
            return
        if number + 1 < len(times):
            self.loop.call_at(
                times[number + 1], self._transmit_mesh, sender, frame, times, number + 1
            )
        if self._collisions:
            rest = self._radio.survivors(sender.bit, rest)
        in_reach, row = self._rows.get(sender.bit) or self._row(sender)
        rest &= in_reach
        while rest:
            low = rest & -rest
            rest ^= low
            bit = low.bit_length() - 1
            receiver, reach = self._by_bit[bit], row[bit]
            if reach is None or (reach.loss > 0.0 and self._random.random() < reach.loss):
                continue
            if reach.delay_s > 0.0:
                self.loop.call_later(reach.delay_s, self._deliver_mesh_to, receiver, frame)
            else:
                receiver.hear_mesh(frame)

    def _row(self, sender: Board) -> tuple[int, list[Reach | None]]:
        row = [self.reach(sender.device_address, board.device_address) for board in self._by_bit]
        in_reach = sum(1 << bit for bit, reach in enumerate(row) if reach is not None)
        self._rows[sender.bit] = in_reach, row
        return in_reach, row

    def _deliver_mesh_to(self, receiver: Board, frame: MeshFrame) -> None:
        if not frame.flood.heard >> receiver.bit & 1:
            receiver.hear_mesh(frame)

    def send_beacon(self, sender: Board, times: list[float]) -> None:
        """Put an Unprovisioned Device beacon on the air; who has no room yet may have it later."""
        self._report_at(sender, times)
        for at in times if self._provisioners else ():
            self.loop.call_at(at, self._transmit_beacon, sender)

    def _transmit_beacon(self, sender: Board) -> None:
        for receiver in tuple(self._provisioners.values()):
            reach = self.reach(sender.device_address, receiver.device_address)
            if reach is None or not self._gets_through(sender, receiver, reach):
                continue
            if reach.delay_s > 0.0:
                self.loop.call_later(reach.delay_s, receiver.hear_beacon, sender)
            else:
                receiver.hear_beacon(sender)

    def send_pb_adv(
        self, sender: Board, pdu: GenericPdu, receiver: Board, times: list[float]
    ) -> None:
        """Put a PB-ADV PDU on the air; only its receiver cares, but for every transmission."""
        self._report_at(sender, times)
        if not receiver.listens_to_pb_adv:
            return
        reach = self.reach(sender.device_address, receiver.device_address)
        if reach is None:
            return
        for at in times:
            if self._gets_through(sender, receiver, reach):
                self.loop.call_at(at + reach.delay_s, receiver.hear_pb_adv, pdu)

    @property
    def _is_ideal(self) -> bool:
        return not (self._collisions or self._reach) and self._default_reach == Reach()

    def _gets_through(self, sender: Board, receiver: Board, reach: Reach) -> bool:
        if self._collisions and not self._radio.survivors(sender.bit, 1 << receiver.bit):
            return False
        return reach.loss <= 0.0 or self._random.random() >= reach.loss

    # Adapters

    def set_observing(self, adapter: Adapter, active: bool) -> None:
        """Tell whether `adapter` scans."""
        if active:
            self._observing[adapter.name] = adapter
            for board in self._by_bit:
                board.advertiser.wake()
        else:
            self._observing.pop(adapter.name, None)

    def listeners(self, board: Board) -> tuple[bool, bool]:
        """Tell whether anybody observes, and whether anybody wants to connect to `board`."""
        initiated = any(
            adapter.is_initiating(board.device_address) for adapter in self._adapters.values()
        )
        return bool(self._observing), initiated

    def connectable_event(self, board: Board, events: int) -> None:
        """Let the adapters hear `board`, whose last `events` advertising events are told as one."""
        for adapter in tuple(self._adapters.values()):
            if self._adapter_hears(board, adapter, events):
                adapter.hear_connectable(board)

    def _report_at(self, sender: Board, times: list[float]) -> None:
        if self._observing:
            self.loop.call_at(times[0], self._report, sender, len(times))

    def _report(self, sender: Board, events: int) -> None:
        for adapter in tuple(self._observing.values()):
            if self._adapter_hears(sender, adapter, events):
                adapter.hear_non_connectable(sender)

    def _adapter_hears(self, board: Board, adapter: Adapter, events: int) -> bool:
        if not self.hears(board.device_address, adapter.name):
            return False
        return not self._collisions or self._radio.hears(board.bit, adapter.name, events)
