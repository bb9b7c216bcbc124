"""One object per segmented transfer in flight, sending and receiving.

Mesh Profile v1.0.1 §3.5.3. The transfers know segments, acknowledgments and deadlines; keys and
Network PDUs are the stack's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastprovd.errors import DecodeError
from fastprovd.mesh.lower_transport import SegmentedAccess, SegmentHeader


@dataclass(frozen=True, slots=True)
class SegmentationTimers:
    """Times in seconds. The defaults are what the Top Provisioner uses over a GATT proxy.

    retransmit: 0.2 + 0.05 * TTL is the specification's minimum (§3.5.3.3). `rounds` counts the
    first transmission too. Groups are repeated without waiting for anybody. The acknowledgment
    timer is 0.15 + 0.05 * TTL (§3.5.3.4), plus `ack_per_segment_s` for each missing segment;
    `ack_restarts` starts it again at every new segment, so that a transfer in progress is never
    acknowledged in part: a board with little memory answers such an acknowledgment with all
    missing segments at once. An unfinished transfer is given up after `incomplete_s` (§3.5.3.4),
    plus `incomplete_per_segment_s` for each segment received, times TTL. With `ack_takes_round`
    each partial acknowledgment, news or not, is a round of its own, as ESP-IDF has it.
    """

    retransmit_base_s: float = 0.2
    retransmit_per_ttl_s: float = 0.05
    rounds: int = 5
    group_interval_s: float = 0.05
    group_rounds: int = 3
    ack_base_s: float = 0.15
    ack_per_ttl_s: float = 0.05
    ack_per_segment_s: float = 0.1
    ack_min_s: float = 0.4
    ack_restarts: bool = True
    incomplete_s: float = 10.0
    incomplete_per_segment_s: float = 0.0
    ack_takes_round: bool = False

    def retransmit_s(self, ttl: int) -> float:
        """Return the wait for an acknowledgment after the last segment of a round."""
        return self.retransmit_base_s + self.retransmit_per_ttl_s * ttl

    def acknowledge_s(self, ttl: int, missing: int) -> float:
        """Return the wait before a partial acknowledgment."""
        wait = self.ack_base_s + self.ack_per_ttl_s * ttl + self.ack_per_segment_s * missing
        return max(self.ack_min_s, wait)

    def give_up_s(self, ttl: int, received: int) -> float:
        """Return how long an unfinished transfer waits for its next segment."""
        return self.incomplete_s + self.incomplete_per_segment_s * ttl * received


def seq_auth(seq: int, seq_zero: int) -> int:
    """Return the SEQ of the first segment, from the SEQ of any segment and SeqZero.

    Raises:
        DecodeError: SeqZero names a first segment before SEQ 0.
    """
    value = (seq & ~0x1FFF) | seq_zero
    if value > seq:
        value -= 0x2000
    if value < 0:
        raise DecodeError(f"SeqZero {seq_zero} can not belong to a segment with SEQ {seq}")
    return value


@dataclass(frozen=True, slots=True)
class TransferRoute:
    """What all segments of a transfer share on the network layer."""

    dst: int
    ttl: int
    iv_index: int
    net_key_index: int


class OutgoingTransfer:
    """Sends an Upper Transport PDU in segments; repeats only what is not acknowledged.

    It does not know when its PDUs have left: the wait begins when they are handed over, unless
    `segment_left` says otherwise.
    """

    __slots__ = (
        "_aid",
        "_akf",
        "_block_ack",
        "_deadline",
        "_due",
        "_rounds_left",
        "_segments",
        "_szmic",
        "_timers",
        "_to_group",
        "first_seq",
        "route",
        "transfer_id",
    )

    def __init__(
        self,
        transfer_id: int,
        route: TransferRoute,
        segments: list[bytes],
        *,
        first_seq: int,
        akf: int,
        aid: int,
        szmic: int,
        to_group: bool,
        timers: SegmentationTimers,
    ) -> None:
        self.transfer_id = transfer_id
        self.route = route
        self.first_seq = first_seq
        self._segments = segments
        self._akf = akf
        self._aid = aid
        self._szmic = szmic
        self._to_group = to_group
        self._timers = timers
        self._block_ack = 0
        self._rounds_left = timers.group_rounds if to_group else timers.rounds
        self._deadline: float | None = None
        self._due = True

    @property
    def seq_zero(self) -> int:
        """The SeqZero that acknowledgments name."""
        return self.first_seq & 0x1FFF

    @property
    def is_complete(self) -> bool:
        """Whether every segment is acknowledged (never for a group)."""
        return self._block_ack == (1 << len(self._segments)) - 1

    @property
    def deadline(self) -> float | None:
        """When to look at the transfer again."""
        return self._deadline

    def take_segments(self, now: float) -> list[SegmentedAccess]:
        """Return the segments due now, in order, and start the wait for their acknowledgment."""
        if not self._due:
            return []
        self._due = False
        seg_n = len(self._segments) - 1
        self._start_wait(now)
        return [
            SegmentedAccess(
                self._akf,
                self._aid,
                SegmentHeader(self.seq_zero, seg_o, seg_n, self._szmic),
                segment,
            )
            for seg_o, segment in enumerate(self._segments)
            if not self.is_acknowledged(seg_o)
        ]

    def segment_left(self, now: float) -> None:
        """Start the wait anew: a segment has left a bearer that kept it waiting."""
        if self._deadline is not None:
            self._start_wait(now)

    def _start_wait(self, now: float) -> None:
        wait = (
            self._timers.group_interval_s
            if self._to_group
            else self._timers.retransmit_s(self.route.ttl)
        )
        self._deadline = now + wait

    def is_acknowledged(self, seg_o: int) -> bool:
        """Whether the receiver has that segment."""
        return bool(self._block_ack >> seg_o & 1)

    def acknowledge(self, block_ack: int) -> bool:
        """Take a BlockAck; progress makes the missing segments due at once.

        Return False when that takes a round and there is none left.
        """
        progress = block_ack & ~self._block_ack & ((1 << len(self._segments)) - 1)
        self._block_ack |= progress
        if self.is_complete:
            self._deadline = None
        elif self._timers.ack_takes_round:
            return self._begin_round()
        elif progress:
            self._due = True
        return True

    def handle_deadline(self, now: float) -> bool:
        """Begin the next round; return False when there is none left."""
        if self._deadline is None or now < self._deadline:
            return True
        return self._begin_round()

    def _begin_round(self) -> bool:
        self._deadline = None
        self._rounds_left -= 1
        if self._rounds_left <= 0:
            return False
        self._due = True
        return True


# BlockAck of a receiver that is busy or has given up: the sender stops (§3.5.2.3.1).
REFUSED: Final = 0


class IncomingTransfer:
    """Collects the segments of one message.

    It keeps the first copy of each segment; copies that differ change nothing. `acknowledgments`
    counts what was sent for it.
    """

    __slots__ = (
        "_ack_deadline",
        "_incomplete_deadline",
        "_last_seq",
        "_segments",
        "_timers",
        "_ttl",
        "acknowledged",
        "acknowledgments",
        "aid",
        "akf",
        "dst",
        "iv_index",
        "seg_n",
        "seq_auth",
        "seq_zero",
        "src",
        "szmic",
    )

    def __init__(
        self,
        src: int,
        dst: int,
        seq_auth: int,
        iv_index: int,
        first: SegmentedAccess,
        *,
        ttl: int,
        acknowledged: bool,
        timers: SegmentationTimers,
        now: float,
    ) -> None:
        self.src = src
        self.dst = dst
        self.seq_auth = seq_auth
        self.iv_index = iv_index
        self.seq_zero = first.header.seq_zero
        self.seg_n = first.header.seg_n
        self.szmic = first.header.szmic
        self.akf = first.akf
        self.aid = first.aid
        self.acknowledged = acknowledged
        self.acknowledgments = 0
        self._ttl = ttl
        self._timers = timers
        self._segments: dict[int, bytes] = {}
        self._last_seq = -1
        self._ack_deadline: float | None = None
        self._incomplete_deadline = now + timers.give_up_s(ttl, 0)

    @property
    def ttl(self) -> int:
        """TTL that the first segment arrived with."""
        return self._ttl

    @property
    def last_seq(self) -> int:
        """Highest SEQ of the segments taken."""
        return self._last_seq

    @property
    def block_ack(self) -> int:
        """Bit n is set when segment n is here."""
        return sum(1 << seg_o for seg_o in self._segments)

    @property
    def is_complete(self) -> bool:
        """Whether every segment is here."""
        return len(self._segments) == self.seg_n + 1

    @property
    def deadline(self) -> float:
        """When to acknowledge in part, or to give up."""
        if self._ack_deadline is None:
            return self._incomplete_deadline
        return min(self._ack_deadline, self._incomplete_deadline)

    def receive(self, pdu: SegmentedAccess, seq: int, now: float) -> None:
        """Take a segment.

        Raises:
            DecodeError: it contradicts the segments before it.
        """
        header = pdu.header
        if (header.seg_n, header.szmic, pdu.akf, pdu.aid) != (
            self.seg_n,
            self.szmic,
            self.akf,
            self.aid,
        ):
            raise DecodeError("a segment contradicts earlier ones of the same message")
        self._last_seq = max(self._last_seq, seq)
        if header.seg_o in self._segments:
            return
        self._segments[header.seg_o] = pdu.segment
        self._incomplete_deadline = now + self._timers.give_up_s(self._ttl, len(self._segments))
        if self.acknowledged and (self._timers.ack_restarts or self._ack_deadline is None):
            self._start_acknowledgment_timer(now)

    def upper_pdu(self) -> bytes:
        """Return the joined Upper Transport PDU of a complete transfer."""
        return b"".join(self._segments[seg_o] for seg_o in range(self.seg_n + 1))

    def handle_deadline(self, now: float) -> bool | None:
        """Return True when a partial acknowledgment is due, None when the transfer is given up."""
        if now >= self._incomplete_deadline:
            return None
        if self._ack_deadline is None or now < self._ack_deadline:
            return False
        self._start_acknowledgment_timer(now)
        return True

    def _start_acknowledgment_timer(self, now: float) -> None:
        missing = self.seg_n + 1 - len(self._segments)
        self._ack_deadline = now + self._timers.acknowledge_s(self._ttl, missing)
