"""The boards' lower transport layer where it leaves the specification, as the recordings show."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastprovd.emulator import firmware
from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.timeline import Happening
from fastprovd.emulator.transport import BoardStack
from fastprovd.mesh.events import MessageReceived
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, NetKey
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    SegmentedAccess,
    SegmentHeader,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.network import NetworkPdu
from fastprovd.mesh.sequence import SequenceNumbers
from tests.conftest import RunVirtual
from tests.emulator.top import Top
from tests.support.tally import CUT, emulated

NET_KEY, APP_KEY = NetKey(bytes(16)), AppKey(bytes(range(16)))
PAYLOAD = bytes.fromhex("c1e5027f0000000000000000")  # two segments


@dataclass
class Node:
    """One stack, the segments that wait in its queue, and what it sent."""

    address: int
    waiting: set[tuple[int, SegmentHeader]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.stack = BoardStack(
            is_waiting=lambda dst, header: (dst, header) in self.waiting,
            address=self.address,
            net_keys=[NET_KEY],
            iv_index=IvIndex(),
            sequence=SequenceNumbers(range(1 << 24)),
        )
        self.stack.app_keys[0] = APP_KEY

    def answer(self, dst: int, now: float = 0.0) -> list[NetworkPdu]:
        self.stack.send(PAYLOAD, dst=dst, key=APP_KEY, ttl=0, now=now)
        return self.sent()

    def sent(self) -> list[NetworkPdu]:
        return [out.pdu for out in self.stack.pdus_to_send()]

    def hear(self, pdu: NetworkPdu, now: float) -> list[object]:
        take = self.stack.receive if pdu.dst == self.address else self.stack.overhear
        return list(take(pdu, now))


def block_acks(pdus: list[NetworkPdu]) -> list[tuple[int, int]]:
    """Return DST and BlockAck of each acknowledgment."""
    lowers = [(pdu.dst, decode_lower_transport_pdu(pdu)) for pdu in pdus]
    return [(dst, low.block_ack) for dst, low in lowers if isinstance(low, SegmentAcknowledgment)]


def segments(pdus: list[NetworkPdu]) -> list[int]:
    """Return SegO of each segment."""
    lowers = [decode_lower_transport_pdu(pdu) for pdu in pdus]
    return [lower.header.seg_o for lower in lowers if isinstance(lower, SegmentedAccess)]


def header_of(pdu: NetworkPdu) -> SegmentHeader:
    lower = decode_lower_transport_pdu(pdu)
    assert isinstance(lower, SegmentedAccess)
    return lower.header


def test_an_acknowledgment_for_a_sibling_ends_a_transfer() -> None:
    """Same SeqZero, same provisioner: what one child gets, all take for themselves."""
    parent, one, other = Node(0x0005), Node(0x0010), Node(0x0011)
    pdus = one.answer(0x0005)
    for pdu in pdus:
        parent.hear(pdu, 0.1)
    (ack,) = parent.sent()
    assert block_acks([ack]) == [(0x0010, 0b11)]
    own = other.answer(0x0005)
    assert all(other.stack.is_wanted(0x0005, header_of(pdu)) for pdu in own)
    other.hear(ack, 0.2)
    assert not any(other.stack.is_wanted(0x0005, header_of(pdu)) for pdu in own)
    assert other.stack.next_deadline() is None
    assert other.sent() == []


def test_only_the_same_source_and_seq_zero_count() -> None:
    """An acknowledgment of another node, or of another message, changes nothing."""
    stranger, child = Node(0x0006), Node(0x0011)
    for pdu in Node(0x0010).answer(0x0006):
        stranger.hear(pdu, 0.1)
    own = child.answer(0x0005)
    child.hear(stranger.sent()[0], 0.2)
    later = Node(0x0005)
    later.stack.sequence.take()
    sender = Node(0x0012)
    sender.stack.sequence.take()
    for pdu in sender.answer(0x0005):
        later.hear(pdu, 0.3)
    child.hear(later.sent()[0], 0.4)
    assert all(child.stack.is_wanted(0x0005, header_of(pdu)) for pdu in own)


def test_each_partial_acknowledgment_costs_a_round() -> None:
    """Old news too: the missing segment is due at once, four times; then the sender gives up."""
    parent, child = Node(0x0005), Node(0x0010)
    first, _ = child.answer(0x0005)
    parent.hear(first, 0.0)
    resent = []
    for _ in range(6):
        now = parent.stack.next_deadline()
        assert now is not None
        parent.stack.handle_deadline(now)
        (ack,) = parent.sent()
        assert block_acks([ack]) == [(0x0010, 0b01)]
        child.hear(ack, now)
        resent.append(segments(child.sent()))
    assert resent == [[1]] * 4 + [[], []]


def test_a_segment_that_still_waits_is_not_queued_again() -> None:
    """The firmware skips it and takes no SEQ for it."""
    parent, child = Node(0x0005), Node(0x0010)
    first, second = child.answer(0x0005)
    child.waiting.add((0x0005, header_of(second)))
    parent.hear(first, 0.0)
    parent.stack.handle_deadline(0.41)
    child.hear(parent.sent()[0], 0.42)
    assert child.sent() == []
    assert child.stack.sequence.take() == 2


def test_an_unfinished_message_is_acknowledged_24_times() -> None:
    """Every 0.4 s for 10 s, as in the recordings, and then no more."""
    parent, child = Node(0x0005), Node(0x0010)
    parent.hear(child.answer(0x0005)[0], 0.0)
    acknowledged = []
    while (deadline := parent.stack.next_deadline()) is not None:
        parent.stack.handle_deadline(deadline)
        acknowledged += [(deadline, ack) for ack in block_acks(parent.sent())]
    assert [ack for _, ack in acknowledged] == [(0x0010, 0b01)] * 24
    assert 9.5 < acknowledged[-1][0] < 9.7
    # Its segments are ignored from then on.
    parent.hear(child.answer(0x0006)[0], 11.0)
    assert parent.sent() == []


def test_a_complete_message_is_forgotten_for_the_next_one() -> None:
    """A repeated segment is acknowledged in full, until another message took the context."""
    parent, one, other = Node(0x0005), Node(0x0010), Node(0x0011)
    first, second = one.answer(0x0005)
    parent.hear(first, 0.0)
    (received,) = parent.hear(second, 0.1)
    assert isinstance(received, MessageReceived)
    parent.sent()
    one.stack.handle_deadline(0.6)
    again, _ = one.sent()
    parent.hear(again, 0.7)
    assert block_acks(parent.sent()) == [(0x0010, 0b11)]
    for pdu in other.answer(0x0005, 0.8):
        parent.hear(pdu, 0.8)
    parent.sent()
    one.stack.handle_deadline(1.3)
    once_more, _ = one.sent()
    assert parent.hear(once_more, 1.4) == []
    parent.stack.handle_deadline(1.9)
    assert block_acks(parent.sent()) == [(0x0010, 0b01)]


def test_a_newer_message_takes_the_place_of_an_unfinished_one() -> None:
    """And an older one is ignored."""
    parent, child = Node(0x0005), Node(0x0010)
    old = child.answer(0x0005)
    child.stack.handle_deadline(100.0)
    child.sent()
    new_child = Node(0x0010)
    for _ in range(20):
        new_child.stack.sequence.take()
    new = new_child.answer(0x0005)
    parent.hear(old[0], 0.0)
    parent.hear(new[0], 0.1)
    assert parent.hear(old[1], 0.2) == []
    (received,) = parent.hear(new[1], 0.3)
    assert isinstance(received, MessageReceived)


def test_there_are_ten_contexts() -> None:
    """The eleventh message in segments is not begun."""
    parent = Node(0x0005)
    for number in range(firmware.RECEIVE_CONTEXTS + 1):
        parent.hear(Node(0x0010 + number).answer(0x0005)[0], 0.0)
    parent.stack.handle_deadline(0.5)
    assert len(block_acks(parent.sent())) == firmware.RECEIVE_CONTEXTS


def test_children_are_cut_off_by_their_siblings(run_virtual: RunVirtual[dict[str, float]]) -> None:
    """In a run of twelve some INFO_STATUS lose a segment; INFO_SET comes again, all are listed."""
    counts = [run_virtual(emulated("n12-cnt11", seed)) for seed in range(6)]
    assert any(count[CUT] for count in counts)
    for count in counts:
        assert count["INFO_SET"] >= 11 + count[CUT] - 1
        assert count["Segment Acknowledgments"] > 34 or not count[CUT]


def test_a_child_that_was_cut_off_is_configured(run_virtual: RunVirtual[None]) -> None:
    """Its provisioner asks again 4 s later and takes any answer."""

    async def main(seed: int) -> None:
        air = Air(seed)
        for number in range(1, 6):
            air.add_board(f"24:0A:C4:5E:00:{number:02X}", host=Host.NIMBLE, flaws=Flaws.none())
        top = Top(air)
        await top.prepare()
        await top.start(count=4)
        await top.sleep(60.0)
        configured = [e for e in air.timeline if e.what is Happening.CONFIGURED]
        assert len(configured) == 4

    for seed in range(5):
        run_virtual(main(seed))
