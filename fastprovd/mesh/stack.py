"""The layers joined, for one element: Network PDUs in, events and Network PDUs out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Final

from fastprovd.errors import DecodeError, LocalProtocolError, SequenceExhausted
from fastprovd.mesh import addresses
from fastprovd.mesh.ack_budget import AcknowledgmentBudget
from fastprovd.mesh.events import (
    Event,
    MessageReceived,
    MessageRejected,
    TransferCompleted,
    TransferFailed,
)
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.iv_updates import IvUpdates
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from fastprovd.mesh.lower_transport import (
    ACCESS_SEGMENT_OCTETS,
    MAX_SEGMENTS,
    MAX_UNSEGMENTED_UPPER_OCTETS,
    SegmentAcknowledgment,
    SegmentedAccess,
    UnsegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.models.registry import decode_message
from fastprovd.mesh.network import MAX_TTL, NetworkPdu, decode_network_pdu, encode_network_pdu
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.mesh.segmentation import (
    REFUSED,
    IncomingTransfer,
    OutgoingTransfer,
    SegmentationTimers,
    TransferRoute,
    seq_auth,
)
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.upper_transport import (
    MIC_32_OCTETS,
    MIC_64_OCTETS,
    MessageContext,
    decrypt_access,
    encrypt_access,
)

# A sender gets one transfer to us at a time; this bounds what strangers can make us keep.
MAX_INCOMING_TRANSFERS: Final = 32


@dataclass(frozen=True, slots=True)
class OutgoingPdu:
    """A Network PDU to send: as it goes on the bearer, and in the clear."""

    raw: bytes
    pdu: NetworkPdu


@dataclass(frozen=True, slots=True)
class _CompletedTransfer:
    seq_auth: int
    iv_index: int
    seq_zero: int
    block_ack: int


class Stack:
    """One node's network, transport and access layers.

    `dev_keys` maps a node's unicast address to its DevKey, our own under our own address. It does
    not relay, does not decide on bearers, and reserves no SEQ: see that `sequence` has enough
    before you feed it.

    Who has the NetKey alone can send in anybody's name until the upper transport layer has opened
    the message. So nothing is remembered of a source before, and acknowledgments are limited.
    """

    # ESP-IDF remembers, and acknowledges, whatever its NetKey opens.
    TRUSTS_NETWORK_LAYER: ClassVar[bool] = False

    def __init__(
        self,
        *,
        address: int,
        net_keys: Iterable[NetKey],
        iv_index: IvIndex,
        sequence: SequenceNumbers,
        timers: SegmentationTimers | None = None,
        replay: ReplayProtectionList | None = None,
        default_ttl: int = 7,
        iv_updates: IvUpdates | None = None,
    ) -> None:
        if not addresses.is_unicast(address):
            raise LocalProtocolError(f"our address must be unicast, got 0x{address:04x}")
        self.address = address
        self.net_keys: dict[int, NetKey] = {key.index: key for key in net_keys}
        self.app_keys: dict[int, AppKey] = {}
        self.dev_keys: dict[int, DevKey] = {}
        self.groups: set[int] = set()
        self.iv_index = iv_index
        self.iv_updates = iv_updates or IvUpdates()
        self.sequence = sequence
        self.replay = replay or ReplayProtectionList()
        self.default_ttl = default_ttl
        self._timers = timers or SegmentationTimers()
        self._transfer_ids = count(1)
        self._pdus: list[OutgoingPdu] = []
        self._outgoing: list[OutgoingTransfer] = []
        self._waiting: list[tuple[int, TransferRoute, bytes, AppKey | DevKey, int]] = []
        self._incoming: dict[tuple[int, int], IncomingTransfer] = {}
        self._completed: dict[tuple[int, int], _CompletedTransfer] = {}
        self._budget = AcknowledgmentBudget()

    def change_iv_index(self, iv_index: IvIndex) -> list[Event]:
        """Take a new IV Index; messages in flight fail when another one is to be sent with.

        SEQ begins again then, and to repeat their segments would repeat nonces. Until numbers are
        reserved under the new one there are none, and nothing is sent.
        """
        before, self.iv_index = self.iv_index.transmit, iv_index
        if iv_index.transmit == before:
            return []
        unfinished = [(transfer.transfer_id, transfer.route) for transfer in self._outgoing]
        unfinished += [(transfer_id, route) for transfer_id, route, *_ in self._waiting]
        self._outgoing.clear()
        self._waiting.clear()
        self.sequence.restart(range(0))
        return [
            TransferFailed(transfer_id, route.dst, "the IV Index changed")
            for transfer_id, route in unfinished
        ]

    # Sending

    def send(
        self,
        payload: bytes,
        *,
        dst: int,
        key: AppKey | DevKey,
        ttl: int | None = None,
        now: float,
        szmic: int = 0,
        net_key_index: int | None = None,
    ) -> int:
        """Queue an access payload and return the number its transfer events will carry.

        A payload that fits goes unsegmented and gets no transfer event. A second segmented message
        to the same destination waits for the first.

        Raises:
            LocalProtocolError: destination, TTL or length is not allowed, or the NetKey is unknown.
            SequenceExhausted: the reserved SEQ are used up.
        """
        ttl = self.default_ttl if ttl is None else ttl
        if dst == addresses.UNASSIGNED or dst > addresses.ALL_NODES:
            raise LocalProtocolError(f"0x{dst:04x} is no destination")
        if ttl == 1 or not 0 <= ttl <= MAX_TTL:
            raise LocalProtocolError(f"TTL must be 0 or 2..127, got {ttl}")
        if net_key_index is None:
            net_key_index = (
                key.bound_net_key_index if isinstance(key, AppKey) else next(iter(self.net_keys))
            )
        if net_key_index not in self.net_keys:
            raise LocalProtocolError(f"no NetKey with index {net_key_index}")
        transfer_id = next(self._transfer_ids)
        route = TransferRoute(dst, ttl, self.iv_index.transmit, net_key_index)
        if szmic == 0 and len(payload) + MIC_32_OCTETS <= MAX_UNSEGMENTED_UPPER_OCTETS:
            seq = self.sequence.take()
            context = MessageContext(seq, self.address, dst, route.iv_index)
            upper = encrypt_access(key, payload, context)
            self._emit(UnsegmentedAccess(*_akf_aid(key), upper), seq, route)
            return transfer_id
        octets = len(payload) + (MIC_64_OCTETS if szmic else MIC_32_OCTETS)
        if octets > MAX_SEGMENTS * ACCESS_SEGMENT_OCTETS:
            raise LocalProtocolError(
                f"an Upper Transport PDU has at most {MAX_SEGMENTS * ACCESS_SEGMENT_OCTETS} "
                f"octets, this one {octets}"
            )
        if self.sequence.remaining < -(-octets // ACCESS_SEGMENT_OCTETS):
            raise SequenceExhausted("not a SEQ for each segment; reserve a block before sending")
        self._waiting.append((transfer_id, route, payload, key, szmic))
        self._start_transfers(now)
        return transfer_id

    def pdus_to_send(self) -> list[OutgoingPdu]:
        """Return what is to be sent now, in order, and forget it."""
        pdus, self._pdus = self._pdus, []
        return pdus

    def segment_left(self, pdu: NetworkPdu, now: float) -> None:
        """Tell that a segment of ours left a slow bearer: its acknowledgment is awaited from now.

        A bearer that needs this also delays `handle_deadline` while segments of ours wait in it.
        """
        if pdu.ctl or not pdu.transport_pdu[0] & 0x80:
            return
        seq_zero = int.from_bytes(pdu.transport_pdu[1:3], "big") >> 2 & 0x1FFF
        for transfer in self._outgoing:
            if transfer.route.dst == pdu.dst and transfer.seq_zero == seq_zero:
                transfer.segment_left(now)

    def next_deadline(self) -> float | None:
        """When `handle_deadline` must be called, in seconds of `now`."""
        deadlines = [t.deadline for t in self._outgoing if t.deadline is not None]
        deadlines += [t.deadline for t in self._incoming.values()]
        return min(deadlines, default=None)

    def handle_deadline(self, now: float) -> list[Event]:
        """Repeat, acknowledge in part, or give up what is due."""
        events: list[Event] = []
        for outgoing in list(self._outgoing):
            if not outgoing.handle_deadline(now):
                self._outgoing.remove(outgoing)
                events.append(self._given_up(outgoing))
        self._start_transfers(now)
        for key, incoming in list(self._incoming.items()):
            verdict = incoming.handle_deadline(now)
            if verdict is None:
                del self._incoming[key]
            elif verdict:
                self._acknowledge_transfer(incoming, incoming.ttl, now)
        return events

    # Receiving

    def decode(self, raw: bytes) -> NetworkPdu | None:
        """Return the Network PDU that our NetKeys open, else `None`; raises DecodeError."""
        return decode_network_pdu(raw, self.net_keys.values(), self.iv_index)

    def receive(self, pdu: NetworkPdu, now: float) -> list[Event]:
        """Take a Network PDU from any bearer; what is not for us, or old, gives no event."""
        if pdu.src == self.address or not self._is_for_us(pdu.dst):
            return []
        if self.replay.is_replay(pdu.src, pdu.iv_index, pdu.seq):
            return []
        try:
            lower = decode_lower_transport_pdu(pdu)
            if isinstance(lower, SegmentedAccess):
                return self._receive_segment(pdu, lower, now)
            if self.TRUSTS_NETWORK_LAYER:
                self.replay.record(pdu.src, pdu.iv_index, pdu.seq)
            if isinstance(lower, UnsegmentedAccess):
                context = MessageContext(pdu.seq, pdu.src, pdu.dst, pdu.iv_index)
                payload, key = self._open(pdu, lower.akf, lower.aid, lower.upper_pdu, context)
                if key is None:
                    return []
                self.replay.record(pdu.src, pdu.iv_index, pdu.seq)
                return self._receive_message(pdu, context.seq, key, payload)
            if isinstance(lower, SegmentAcknowledgment):
                return self._receive_acknowledgment(pdu, lower, now)
        except DecodeError as error:
            return [MessageRejected(pdu.src, str(error))]
        return []

    def _is_for_us(self, dst: int) -> bool:
        return dst == self.address or dst in self.groups or dst == addresses.ALL_NODES

    def _receive_segment(self, pdu: NetworkPdu, lower: SegmentedAccess, now: float) -> list[Event]:
        auth = seq_auth(pdu.seq, lower.header.seq_zero)
        transfer = self._transfer_of(pdu, lower, auth, now)
        if transfer is None:
            return []
        transfer.receive(lower, pdu.seq, now)
        if not transfer.is_complete:
            return []
        key = (pdu.src, pdu.dst)
        del self._incoming[key]
        if transfer.acknowledged:
            self._acknowledge_transfer(transfer, pdu.ttl, now)
        context = MessageContext(auth, pdu.src, pdu.dst, pdu.iv_index, transfer.szmic)
        payload, opened_by = self._open(
            pdu, transfer.akf, transfer.aid, transfer.upper_pdu(), context
        )
        if opened_by is not None or self.TRUSTS_NETWORK_LAYER:
            self.replay.record(pdu.src, pdu.iv_index, transfer.last_seq)
            self._budget.give_back(transfer.acknowledgments)
            self._completed[key] = _CompletedTransfer(
                auth, pdu.iv_index, transfer.seq_zero, transfer.block_ack
            )
        if opened_by is None:
            return []
        return self._receive_message(pdu, auth, opened_by, payload)

    def _transfer_of(
        self, pdu: NetworkPdu, lower: SegmentedAccess, auth: int, now: float
    ) -> IncomingTransfer | None:
        """Return the transfer that a segment belongs to, `None` when it comes too late."""
        key = (pdu.src, pdu.dst)
        done = self._completed.get(key)
        if done is not None and (pdu.iv_index, auth) <= (done.iv_index, done.seq_auth):
            is_last = (pdu.iv_index, auth) == (done.iv_index, done.seq_auth)
            if is_last and pdu.dst == self.address:  # the sender missed our acknowledgment
                self._acknowledge(pdu.src, done.seq_zero, done.block_ack, pdu.ttl, now)
            return None
        transfer = self._incoming.get(key)
        if transfer is None or (transfer.iv_index, transfer.seq_auth) < (pdu.iv_index, auth):
            if transfer is None and len(self._incoming) >= MAX_INCOMING_TRANSFERS:
                if pdu.dst == self.address:
                    self._acknowledge(pdu.src, lower.header.seq_zero, REFUSED, pdu.ttl, now)
                return None
            return self._begin_transfer(pdu, lower, auth, now)
        if (transfer.iv_index, transfer.seq_auth) != (pdu.iv_index, auth):
            return None  # a segment of an older message, given up by its sender
        return transfer

    def _begin_transfer(
        self, pdu: NetworkPdu, lower: SegmentedAccess, auth: int, now: float
    ) -> IncomingTransfer:
        transfer = self._incoming[pdu.src, pdu.dst] = IncomingTransfer(
            pdu.src,
            pdu.dst,
            auth,
            pdu.iv_index,
            lower,
            ttl=pdu.ttl,
            acknowledged=pdu.dst == self.address,
            timers=self._timers,
            now=now,
        )
        return transfer

    def _open(
        self, pdu: NetworkPdu, akf: int, aid: int, upper_pdu: bytes, context: MessageContext
    ) -> tuple[bytes, AppKey | DevKey | None]:
        """Return the access payload and the key that opens it, `None` if we have no such key."""
        for key in self._keys(pdu, akf, aid):
            payload = decrypt_access(key, upper_pdu, context)
            if payload is not None:
                return payload, key
        return b"", None

    def _receive_message(
        self, pdu: NetworkPdu, seq: int, key: AppKey | DevKey, payload: bytes
    ) -> list[Event]:
        message = decode_message(payload)
        return [MessageReceived(pdu.src, pdu.dst, pdu.ttl, seq, key, message)]

    def _keys(self, pdu: NetworkPdu, akf: int, aid: int) -> list[AppKey] | list[DevKey]:
        if akf:
            return [key for key in self.app_keys.values() if key.aid == aid]
        candidates = (self.dev_keys.get(pdu.src), self.dev_keys.get(self.address))
        return [key for key in candidates if key is not None]

    def _receive_acknowledgment(
        self, pdu: NetworkPdu, ack: SegmentAcknowledgment, now: float
    ) -> list[Event]:
        for transfer in self._outgoing:
            if transfer.seq_zero != ack.seq_zero or (transfer.route.dst != pdu.src and not ack.obo):
                continue
            if ack.block_ack == REFUSED:
                self._outgoing.remove(transfer)
                self._start_transfers(now)
                return [
                    TransferFailed(transfer.transfer_id, transfer.route.dst, "the receiver refused")
                ]
            if not transfer.acknowledge(ack.block_ack):
                self._outgoing.remove(transfer)
                self._start_transfers(now)
                return [self._given_up(transfer)]
            if transfer.is_complete:
                self._outgoing.remove(transfer)
                self._start_transfers(now)
                return [TransferCompleted(transfer.transfer_id, transfer.route.dst)]
            self._send_due_segments(transfer, now)
            break
        return []

    # Transfers

    def _start_transfers(self, now: float) -> None:
        busy = {transfer.route.dst for transfer in self._outgoing}
        for entry in list(self._waiting):
            transfer_id, route, payload, key, szmic = entry
            if route.dst in busy:
                continue
            busy.add(route.dst)
            # The first segment's SEQ is the message's; it is taken when the segments are made.
            first_seq = self.sequence.take()
            self._waiting.remove(entry)
            context = MessageContext(first_seq, self.address, route.dst, route.iv_index, szmic)
            upper = encrypt_access(key, payload, context)
            akf, aid = _akf_aid(key)
            step = ACCESS_SEGMENT_OCTETS
            transfer = OutgoingTransfer(
                transfer_id,
                route,
                [upper[at : at + step] for at in range(0, len(upper), step)],
                first_seq=first_seq,
                akf=akf,
                aid=aid,
                szmic=szmic,
                to_group=not addresses.is_unicast(route.dst),
                timers=self._timers,
            )
            self._outgoing.append(transfer)
            self._send_due_segments(transfer, now, first_seq)
        for transfer in self._outgoing:
            self._send_due_segments(transfer, now)

    def _send_due_segments(
        self, transfer: OutgoingTransfer, now: float, seq: int | None = None
    ) -> None:
        for segment in self._due_segments(transfer, now):
            self._emit(segment, self.sequence.take() if seq is None else seq, transfer.route)
            seq = None

    def _due_segments(self, transfer: OutgoingTransfer, now: float) -> list[SegmentedAccess]:
        return transfer.take_segments(now)

    def _given_up(self, transfer: OutgoingTransfer) -> Event:
        dst = transfer.route.dst
        if addresses.is_unicast(dst):
            return TransferFailed(transfer.transfer_id, dst, "not acknowledged in full")
        return TransferCompleted(transfer.transfer_id, dst)

    def _acknowledge_transfer(self, transfer: IncomingTransfer, ttl: int, now: float) -> None:
        is_sent = self._acknowledge(transfer.src, transfer.seq_zero, transfer.block_ack, ttl, now)
        transfer.acknowledgments += is_sent

    def _acknowledge(
        self, dst: int, seq_zero: int, block_ack: int, received_ttl: int, now: float
    ) -> bool:
        """Acknowledge if that may cost a SEQ now: the sender repeats what nobody acknowledges."""
        if not self.sequence.remaining:
            return False
        if not (self.TRUSTS_NETWORK_LAYER or self._budget.take(now)):
            return False
        ttl = 0 if received_ttl == 0 else self.default_ttl
        route = TransferRoute(dst, ttl, self.iv_index.transmit, next(iter(self.net_keys)))
        self._emit(SegmentAcknowledgment(seq_zero, block_ack), self.sequence.take(), route)
        return True

    def _emit(
        self,
        lower: UnsegmentedAccess | SegmentedAccess | SegmentAcknowledgment,
        seq: int,
        route: TransferRoute,
    ) -> None:
        pdu = NetworkPdu(
            lower.CTL,
            route.ttl,
            seq,
            self.address,
            route.dst,
            lower.encode(),
            route.iv_index,
            route.net_key_index,
        )
        raw = encode_network_pdu(pdu, self.net_keys[route.net_key_index])
        self._pdus.append(OutgoingPdu(raw, pdu))


def _akf_aid(key: AppKey | DevKey) -> tuple[int, int]:
    return (1, key.aid) if isinstance(key, AppKey) else (0, 0)
