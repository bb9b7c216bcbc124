"""The mesh node inside a board: stack, network cache, relay, and the choice of bearers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastprovd.emulator import firmware
from fastprovd.emulator.advertising import QueuedPdu
from fastprovd.emulator.frames import Flood, MeshFrame, Network
from fastprovd.emulator.proxy_server import ProxyServer
from fastprovd.emulator.transport import BoardStack
from fastprovd.mesh import addresses
from fastprovd.mesh.events import Event
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.lower_transport import SegmentHeader
from fastprovd.mesh.network import NetworkPdu
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import OutgoingPdu

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board


class MeshNode:
    """One provisioned board on its network.

    A PDU for a proxy client goes to GATT only, all else to the advertising queue and to the
    clients whose filter lets it through (FP 7). Replies keep the order they were made in.
    """

    def __init__(
        self,
        board: Board,
        network: Network,
        address: int,
        iv_index: IvIndex,
        dev_key: DevKey,
        received: Callable[[Event], None],
    ) -> None:
        self._board = board
        self._received = received
        self.network = network
        self.address = address
        self.stack = BoardStack(
            is_waiting=lambda dst, header: (dst, header) in self._waiting,
            address=address,
            net_keys=[network.net_key],
            iv_index=iv_index,
            sequence=SequenceNumbers(range(1 << 24)),
            replay=ReplayProtectionList(firmware.REPLAY_LIST),
            default_ttl=firmware.DEFAULT_TTL,
        )
        self.stack.dev_keys[address] = dev_key
        self.relay = True
        self.proxy = ProxyServer(board, self)
        self._cache: deque[Flood] = deque()
        self._bit = 1 << board.bit
        self._timer: asyncio.TimerHandle | None = None
        self._segments_queued = 0
        # Segments in the queue whose turn has not come.
        self._waiting: dict[tuple[int, SegmentHeader], QueuedPdu] = {}
        self._subscriptions: list[int] = []
        # The last segmented message that went to a proxy client: destination and SeqZero.
        self._gatt_transfer: tuple[int, int] | None = None
        self._forwarding_until = 0.0
        network.members |= self._bit

    def stop(self) -> None:
        """Leave the network."""
        self.network.members &= ~self._bit
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def subscriptions(self) -> tuple[int, ...]:
        """Groups of the OnOff Server, in the order they were added."""
        return tuple(self._subscriptions)

    def subscribe(self, group: int) -> None:
        """Add a group; a full list is only logged by the firmware (Q9)."""
        if (
            group not in self._subscriptions
            and len(self._subscriptions) < firmware.MAX_SUBSCRIPTIONS
        ):
            self._subscriptions.append(group)
            self.stack.groups.add(group)

    def unsubscribe(self, group: int) -> None:
        """Remove a group."""
        if group in self._subscriptions:
            self._subscriptions.remove(group)
            self.stack.groups.discard(group)

    # Sending

    def send(
        self,
        payload: bytes,
        *,
        dst: int,
        key: AppKey | DevKey,
        ttl: int,
        started: Callable[[], None] | None = None,
    ) -> None:
        """Send an access payload; `started` is called when its first PDU goes on a bearer."""
        self.stack.send(payload, dst=dst, key=key, ttl=ttl, now=self._board.now())
        self.flush(started)

    def flush(self, started: Callable[[], None] | None = None) -> None:
        """Hand over what the stack has to send, and look when it wants to be woken."""
        for out in self.stack.pdus_to_send():
            self._hand_over(out, started)
            started = None
        self._withdraw()
        if started is not None:
            # It waits behind another message to the same node; that is when its time begins.
            started()
        self._schedule()

    def _withdraw(self) -> None:
        """Take the segments that nobody needs any more out of the queue."""
        for key, queued in list(self._waiting.items()):
            if not self.stack.is_wanted(*key):
                queued.cancelled = True
                del self._waiting[key]
                self._segments_queued -= 1

    def _hand_over(self, out: OutgoingPdu, started: Callable[[], None] | None) -> None:
        header = None
        if not out.pdu.ctl and out.pdu.transport_pdu[0] & 0x80:
            header = SegmentHeader.decode(out.pdu.transport_pdu[1:4])
        transfer = None if header is None else (out.pdu.dst, header.seq_zero)
        self.proxy.forward(out.raw, out.pdu.dst)
        if self.proxy.is_client(out.pdu.dst):
            self._gatt_transfer = transfer or self._gatt_transfer
            if started is not None:
                started()
            return
        frame = self.network.frame(out.raw, out.pdu)
        frame.flood.heard |= self._bit
        if header is None:
            self._board.queue_mesh(frame, started=started)
            return
        is_repeated = transfer == self._gatt_transfer
        key = (out.pdu.dst, header)
        queued = self._board.queue_mesh(
            frame,
            started=self._segment_started(key, started),
            ended=self._segment_ended(out.pdu),
            slot_s=firmware.REPEATED_FROM_GATT_SLOT_S if is_repeated else firmware.SLOT_S,
        )
        if queued is not None:
            self._segments_queued += 1
            if queued is not self._board.queue.current:
                self._waiting[key] = queued

    def _segment_started(
        self, key: tuple[int, SegmentHeader], started: Callable[[], None] | None
    ) -> Callable[[], None]:
        def begun() -> None:
            self._waiting.pop(key, None)
            if started is not None:
                started()

        return begun

    def _segment_ended(self, pdu: NetworkPdu) -> Callable[[], None]:
        def ended() -> None:
            self._segments_queued -= 1
            self.stack.segment_left(pdu, self._board.now())
            self._schedule()

        return ended

    # Receiving

    def receive_from_air(self, frame: MeshFrame) -> None:
        """Take a Network PDU of another board; the caller has looked into the cache."""
        flood = frame.flood
        flood.heard |= self._bit
        cache = self._cache
        cache.append(flood)
        if len(cache) > firmware.NETWORK_CACHE:
            cache.popleft().heard &= ~self._bit
        pdu = self.network.decode(frame.raw, self.stack.iv_index)
        if pdu is None or pdu.src == self.address:
            return
        if self._is_local(pdu.dst):
            self._to_stack(pdu)
            if pdu.dst == self.address:
                return
        else:
            self._overhear(pdu)
        # With the relay off only what is not tagged for relaying is lost one hop earlier (FP 7).
        if pdu.ttl >= (2 if self.relay else 3):
            self._pass_on(pdu, from_air=True, to_air=self.relay)

    def receive_from_gatt(self, pdu: NetworkPdu) -> None:
        """Take a Network PDU of a proxy client."""
        if pdu.src == self.address:
            return
        if self._is_local(pdu.dst):
            self._to_stack(pdu)
            if pdu.dst == self.address:
                return
        elif self._board.gatt_proxy:
            self._overhear(pdu)
        if pdu.ttl >= 3 and self._board.gatt_proxy:
            self._pass_on(pdu, from_air=False, to_air=True)

    def _is_local(self, dst: int) -> bool:
        return dst == self.address or dst in self.stack.groups or dst == addresses.ALL_NODES

    def _to_stack(self, pdu: NetworkPdu) -> None:
        for event in self.stack.receive(pdu, self._board.now()):
            self._received(event)
        self.flush()

    def _overhear(self, pdu: NetworkPdu) -> None:
        if pdu.ctl:
            for event in self.stack.overhear(pdu, self._board.now()):
                self._received(event)
            self.flush()

    def _pass_on(self, pdu: NetworkPdu, *, from_air: bool, to_air: bool) -> None:
        relayed, raw = self.network.relayed(pdu)
        # With its GATT Proxy state 0 a node neither forwards (OB 18) nor passes from the air to
        # GATT (ESP-IDF core/net.c, read only): its clients hear what it sends itself.
        has_clients = self._board.gatt_proxy
        if from_air and has_clients and self.proxy.passes(relayed.dst):
            now = self._board.now()
            self._forwarding_until = max(now, self._forwarding_until) + firmware.FORWARD_S
            self._board.later(
                self._forwarding_until - now, lambda: self.proxy.forward(raw, relayed.dst)
            )
        elif not from_air:
            self.proxy.forward(raw, relayed.dst)
        if has_clients and self.proxy.is_client(relayed.dst):
            return
        if to_air:
            frame = self.network.frame(raw, relayed)
            frame.flood.heard |= self._bit
            self._board.queue_mesh(frame)

    # Time

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.stack.next_deadline()
        # The wait for an acknowledgment begins when the last segment has left the queue.
        if deadline is not None and self._segments_queued == 0:
            self._timer = self._board.loop.call_at(deadline, self._deadline)

    def _deadline(self) -> None:
        self._timer = None
        for event in self.stack.handle_deadline(self._board.now()):
            self._received(event)
        self.flush()
