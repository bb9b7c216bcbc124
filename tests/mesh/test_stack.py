"""The joined layers: two stacks with a lossy wire between them, and the recordings."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastprovd.errors import LocalProtocolError, SequenceExhausted
from fastprovd.mesh.access import UnknownMessage, encode_message
from fastprovd.mesh.ack_budget import BURST, REFILL_S
from fastprovd.mesh.events import (
    Event,
    MessageReceived,
    MessageRejected,
    TransferCompleted,
    TransferFailed,
)
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    SegmentedAccess,
    SegmentHeader,
    UnsegmentedAccess,
)
from fastprovd.mesh.models.fast_provisioning import NodeAddrStatus
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffStatus
from fastprovd.mesh.network import NetworkPdu
from fastprovd.mesh.segmentation import SegmentationTimers
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import MAX_INCOMING_TRANSFERS, OutgoingPdu, Stack

NET_KEY = NetKey(bytes(range(16)))
APP_KEY = AppKey(bytes(range(16, 32)))
DEV_KEY = DevKey(bytes(range(32, 48)))
TOP, BOARD, GROUP = 0x0001, 0x0005, 0xC000
LONG = NodeAddrStatus(tuple(range(0x0010, 0x0010 + 60)))


def _stack(address: int, seq: range = range(0, 1 << 20)) -> Stack:
    stack = Stack(
        address=address, net_keys=[NET_KEY], iv_index=IvIndex(5), sequence=SequenceNumbers(seq)
    )
    stack.app_keys[0] = APP_KEY
    stack.dev_keys[BOARD] = DEV_KEY
    return stack


@dataclass
class Wire:
    """Carries PDUs between a Top and a board, and collects what both say."""

    loss: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    now: float = 0.0
    events: dict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))
    sent: dict[int, list[OutgoingPdu]] = field(default_factory=lambda: defaultdict(list))

    def run(self, *stacks: Stack, until: float = 60.0) -> None:
        """Deliver and wait until nothing is due any more."""
        while True:
            moved = False
            for stack in stacks:
                for out in stack.pdus_to_send():
                    moved = True
                    self.sent[stack.address].append(out)
                    for other in stacks:
                        if other is not stack and self.rng.random() >= self.loss:
                            pdu = other.decode(out.raw)
                            assert pdu == out.pdu
                            self.events[other.address] += other.receive(pdu, self.now)
            if moved:
                continue
            due = [at for at in (stack.next_deadline() for stack in stacks) if at is not None]
            if not due or min(due) > until:
                return
            self.now = min(due)
            for stack in stacks:
                self.events[stack.address] += stack.handle_deadline(self.now)


def _messages(events: list[Event]) -> list[Any]:
    return [event.message for event in events if isinstance(event, MessageReceived)]


def test_short_message_goes_unsegmented_both_ways() -> None:
    """Generic OnOff Get and its Status take one PDU each."""
    top, board, wire = _stack(TOP), _stack(BOARD), Wire()
    top.send(encode_message(OnOffGet()), dst=BOARD, key=APP_KEY, ttl=3, now=0.0)
    wire.run(top, board)
    (received,) = wire.events[BOARD]
    assert isinstance(received, MessageReceived)
    assert (received.src, received.dst, received.ttl) == (TOP, BOARD, 3)
    assert received.key is APP_KEY
    assert received.message == OnOffGet()
    board.send(encode_message(OnOffStatus(True)), dst=TOP, key=APP_KEY, now=0.0)
    wire.run(top, board)
    assert _messages(wire.events[TOP]) == [OnOffStatus(True)]
    assert len(wire.sent[TOP]) == len(wire.sent[BOARD]) == 1


@pytest.mark.parametrize("szmic", [0, 1])
@pytest.mark.parametrize("key", [APP_KEY, DEV_KEY], ids=["AppKey", "DevKey"])
def test_long_message_is_segmented_and_acknowledged_once(key: Any, szmic: int) -> None:
    """Without loss each segment leaves once, and one acknowledgment completes the transfer."""
    top, board, wire = _stack(TOP), _stack(BOARD), Wire()
    number = board.send(encode_message(LONG), dst=TOP, key=key, ttl=0, now=0.0, szmic=szmic)
    wire.run(top, board)
    assert _messages(wire.events[TOP]) == [LONG]
    assert wire.events[BOARD] == [TransferCompleted(number, TOP)]
    assert len(wire.sent[BOARD]) == -(-(3 + 120 + (8 if szmic else 4)) // 12)
    (ack,) = wire.sent[TOP]
    assert ack.pdu.ttl == 0, "a message with TTL 0 is acknowledged with TTL 0"
    assert wire.now == 0.0


def test_the_longest_message_has_32_segments() -> None:
    """380 octets with a 32-bit TransMIC are 32 segments; one octet more is refused."""
    top, board, wire = _stack(TOP), _stack(BOARD), Wire()
    payload = bytes.fromhex("c0ffff") + bytes(377)
    board.send(payload, dst=TOP, key=APP_KEY, now=0.0)
    wire.run(top, board)
    assert _messages(wire.events[TOP]) == [UnknownMessage(0xC0FFFF, bytes(377))]
    assert len(wire.sent[BOARD]) == 32
    with pytest.raises(LocalProtocolError):
        board.send(payload + b"\0", dst=TOP, key=APP_KEY, now=0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.floats(0.0, 0.3))
def test_loss_costs_time_and_not_truth(seed: int, loss: float) -> None:
    """With up to 30 % loss a message arrives at most once; once it is completed, exactly once."""
    top, board = _stack(TOP), _stack(BOARD)
    wire = Wire(loss=loss, rng=random.Random(seed))
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    wire.run(top, board)
    received = _messages(wire.events[TOP])
    assert received in ([], [LONG])
    if any(isinstance(event, TransferCompleted) for event in wire.events[BOARD]):
        assert received == [LONG]
    assert len({out.pdu.seq for out in wire.sent[BOARD]}) == len(wire.sent[BOARD])


def test_retransmission_repeats_missing_segments_only() -> None:
    """One lost segment costs one more PDU, under a new SEQ."""
    top, board = _stack(TOP), _stack(BOARD)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    first = board.pdus_to_send()
    for out in first[:4] + first[5:]:
        top.receive(out.pdu, 0.0)
    assert top.pdus_to_send() == []
    due = top.next_deadline()
    assert due is not None
    top.handle_deadline(due)
    (ack,) = top.pdus_to_send()
    board.receive(ack.pdu, due)
    (again,) = board.pdus_to_send()
    assert again.pdu.transport_pdu == first[4].pdu.transport_pdu
    assert again.pdu.seq > first[-1].pdu.seq
    assert _messages(top.receive(again.pdu, due)) == [LONG]


def test_repeated_message_is_acknowledged_again_and_not_delivered_twice() -> None:
    """When our acknowledgment is lost, each repeated segment brings it once more."""
    top, board = _stack(TOP), _stack(BOARD)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    received = [event for out in board.pdus_to_send() for event in top.receive(out.pdu, 0.0)]
    assert _messages(received) == [LONG]
    top.pdus_to_send()
    due = board.next_deadline()
    assert due is not None
    board.handle_deadline(due)
    repeated = board.pdus_to_send()
    assert top.receive(repeated[0].pdu, due) == []
    (ack,) = top.pdus_to_send()
    (event,) = board.receive(ack.pdu, due)
    assert isinstance(event, TransferCompleted)


def test_unanswered_transfer_fails_by_name() -> None:
    """After its rounds a transfer that nobody acknowledged is reported."""
    board, wire = _stack(BOARD), Wire()
    number = board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    wire.run(board)
    (failed,) = wire.events[BOARD]
    assert isinstance(failed, TransferFailed)
    assert (failed.transfer_id, failed.dst) == (number, TOP)
    assert len(wire.sent[BOARD]) == SegmentationTimers().rounds * 11


@pytest.mark.parametrize(
    ("src", "seq_zero", "obo", "completes"),
    [(TOP, 0, 0, True), (0x0006, 0, 1, True), (0x0006, 0, 0, False), (TOP, 1, 0, False)],
    ids=["receiver", "friend on its behalf", "stranger", "other message"],
)
def test_acknowledgment_must_be_of_the_receiver_and_the_message(
    src: int, seq_zero: int, obo: int, completes: bool
) -> None:
    """Only the receiver, or its friend on its behalf, completes a transfer."""
    board = _stack(BOARD)
    number = board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    ack = SegmentAcknowledgment(seq_zero, (1 << 11) - 1, obo)
    events = board.receive(NetworkPdu(1, 3, 9, src, BOARD, ack.encode(), 5), 0.0)
    assert events == ([TransferCompleted(number, TOP)] if completes else [])


def test_slow_bearer_starts_the_wait_for_an_acknowledgment() -> None:
    """A segment that left late is awaited from then; other PDUs and transfers change nothing."""
    board = _stack(BOARD)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    segment = board.pdus_to_send()[-1].pdu
    board.send(encode_message(OnOffStatus(True)), dst=TOP, key=APP_KEY, now=0.0)
    (unsegmented,) = board.pdus_to_send()
    before = board.next_deadline()
    board.segment_left(unsegmented.pdu, 5.0)
    board.segment_left(replace(segment, dst=GROUP), 5.0)
    board.segment_left(replace(segment, transport_pdu=b"\x80\xff\xff\xff"), 5.0)
    assert board.next_deadline() == before
    board.segment_left(segment, 5.0)
    assert board.next_deadline() == 5.0 + SegmentationTimers().retransmit_s(0)


def test_segments_for_a_group_are_dropped_silently_when_full() -> None:
    """Nobody is refused who asked for no acknowledgment."""
    top = _stack(TOP)
    top.groups.add(GROUP)
    for address in range(0x10, 0x10 + MAX_INCOMING_TRANSFERS + 1):
        sender = _stack(address)
        sender.send(encode_message(LONG), dst=GROUP, key=APP_KEY, now=0.0)
        assert top.receive(sender.pdus_to_send()[0].pdu, 0.0) == []
    assert top.pdus_to_send() == []


def test_group_message_needs_no_acknowledgment() -> None:
    """Members get a segmented group message once and stay silent; others ignore it."""
    top, member, stranger, wire = _stack(TOP), _stack(BOARD), _stack(0x0006), Wire()
    member.groups.add(GROUP)
    top.send(encode_message(LONG), dst=GROUP, key=APP_KEY, now=0.0)
    wire.run(top, member, stranger)
    assert _messages(wire.events[BOARD]) == [LONG]
    assert wire.events[0x0006] == []
    assert wire.sent[BOARD] == []
    assert isinstance(wire.events[TOP][-1], TransferCompleted)


def test_all_nodes_is_for_everybody_but_the_sender() -> None:
    """0xFFFF is taken without subscription; our own PDU coming back is ignored."""
    top, board, wire = _stack(TOP), _stack(BOARD), Wire()
    top.send(encode_message(OnOffGet()), dst=0xFFFF, key=APP_KEY, ttl=3, now=0.0)
    wire.run(top, board)
    assert _messages(wire.events[BOARD]) == [OnOffGet()]
    (own,) = wire.sent[TOP]
    assert top.receive(own.pdu, 0.0) == []


def test_same_pdu_twice_is_a_replay() -> None:
    """A PDU heard on two links is delivered once."""
    top, board = _stack(TOP), _stack(BOARD)
    board.send(encode_message(OnOffStatus(True)), dst=TOP, key=APP_KEY, now=0.0)
    (out,) = board.pdus_to_send()
    assert len(top.receive(out.pdu, 0.0)) == 1
    assert top.receive(out.pdu, 0.0) == []


def test_second_segmented_message_to_one_node_waits_for_the_first() -> None:
    """One transfer per destination is in flight, and the order is kept."""
    top, board, wire = _stack(TOP), _stack(BOARD), Wire()
    other = NodeAddrStatus((0x0020,) * 8)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    board.send(encode_message(other), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    assert len({out.pdu.transport_pdu[:2] for out in board.pdus_to_send()[:11]}) == 1
    assert board.pdus_to_send() == []
    wire.run(top, board)
    assert _messages(wire.events[TOP]) == [LONG, other]


def test_newer_message_replaces_an_unfinished_one() -> None:
    """The first segments of a message that its sender gave up are forgotten."""
    top, board = _stack(TOP), _stack(BOARD)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    stale = board.pdus_to_send()
    fresh = _stack(BOARD, range(1000, 2000))
    fresh.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    top.receive(stale[0].pdu, 0.0)
    received = [event for out in fresh.pdus_to_send() for event in top.receive(out.pdu, 0.0)]
    assert _messages(received) == [LONG]
    assert top.receive(stale[1].pdu, 0.0) == []


def test_older_message_repeated_after_a_newer_one_is_not_delivered_again() -> None:
    """Its late repetitions, under new SEQ, are neither delivered nor acknowledged."""
    top, board = _stack(TOP), _stack(BOARD)
    other = NodeAddrStatus((0x0020,) * 8)
    received: list[Event] = []
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    received += [event for out in board.pdus_to_send() for event in top.receive(out.pdu, 0.0)]
    newer = _stack(BOARD, range(50, 100))
    newer.send(encode_message(other), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    received += [event for out in newer.pdus_to_send() for event in top.receive(out.pdu, 0.0)]
    assert _messages(received) == [LONG, other]
    top.pdus_to_send()
    board.sequence.restart(range(100, 200))
    due = board.next_deadline()
    assert due is not None
    board.handle_deadline(due)
    assert [top.receive(out.pdu, due) for out in board.pdus_to_send()] == [[]] * 11
    assert top.pdus_to_send() == []


def test_segment_of_the_previous_iv_index_is_not_mixed_in() -> None:
    """Equal SeqAuth under another IV Index is another message."""
    top, board = _stack(TOP), _stack(BOARD)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    now = [out.pdu for out in board.pdus_to_send()]
    board = _stack(BOARD)
    board.iv_index = IvIndex(4)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    before = [out.pdu for out in board.pdus_to_send()]
    received = [event for pdu in (now[0], *before, *now[1:]) for event in top.receive(pdu, 0.0)]
    assert _messages(received) == [LONG]


def test_messages_in_flight_fail_when_seq_begins_again() -> None:
    """Nothing under the old IV Index is repeated, or a nonce would be; new messages go out."""
    board = _stack(BOARD)
    numbers = [
        board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0) for _ in range(2)
    ]
    board.pdus_to_send()
    assert board.change_iv_index(IvIndex(6, update_in_progress=True)) == []
    failed = board.change_iv_index(IvIndex(6))
    assert [event.transfer_id for event in failed if isinstance(event, TransferFailed)] == numbers
    board.sequence.restart(range(0, 100))
    assert board.next_deadline() is None
    board.handle_deadline(60.0)
    assert board.pdus_to_send() == []
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=60.0)
    assert {out.pdu.iv_index for out in board.pdus_to_send()} == {6}


def test_receiver_that_is_full_refuses_politely() -> None:
    """Beyond the bound a transfer is refused with BlockAck 0, which ends it at the sender."""
    top = _stack(TOP)
    boards = [_stack(address) for address in range(0x10, 0x10 + MAX_INCOMING_TRANSFERS + 1)]
    for board in boards:
        board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
        top.receive(board.pdus_to_send()[0].pdu, 0.0)
    (refusal,) = top.pdus_to_send()
    (failed,) = boards[-1].receive(refusal.pdu, 0.0)
    assert isinstance(failed, TransferFailed)


def test_rejected_pdu_names_its_source_and_ends_nothing() -> None:
    """Malformed transport PDUs become events; the next message is taken."""
    top, board = _stack(TOP), _stack(BOARD)
    assert isinstance(
        top.receive(NetworkPdu(0, 3, 1, BOARD, TOP, b"\x40\x01", 5), 0.0)[0], MessageRejected
    )
    board.send(b"\x82\x02", dst=TOP, key=APP_KEY, now=0.0)
    assert isinstance(top.receive(board.pdus_to_send()[0].pdu, 0.0)[0], MessageRejected)
    board.send(encode_message(OnOffStatus(True)), dst=TOP, key=APP_KEY, now=0.0)
    assert _messages(top.receive(board.pdus_to_send()[0].pdu, 0.0)) == [OnOffStatus(True)]


def test_message_under_an_unknown_key_is_ignored() -> None:
    """What no key opens gives no event."""
    top, board = _stack(TOP), _stack(BOARD)
    board.send(encode_message(OnOffStatus(True)), dst=TOP, key=AppKey(bytes(16)), now=0.0)
    board.send(encode_message(OnOffStatus(True)), dst=TOP, key=DevKey(bytes(16)), now=0.0)
    assert [top.receive(out.pdu, 0.0) for out in board.pdus_to_send()] == [[], []]


@pytest.mark.parametrize(
    "arguments",
    [{"dst": 0}, {"dst": 0x10000}, {"ttl": 1}, {"ttl": 128}, {"net_key_index": 3}],
    ids=str,
)
def test_impossible_request_is_our_bug(arguments: dict[str, Any]) -> None:
    """Destinations, TTL and keys that can not be are refused before a SEQ is spent."""
    top = _stack(TOP)
    with pytest.raises(LocalProtocolError):
        top.send(b"\x82\x01", **({"dst": BOARD, "key": APP_KEY, "now": 0.0} | arguments))
    assert top.sequence.next == 0


def test_address_must_be_unicast() -> None:
    """A stack needs a unicast address of its own."""
    with pytest.raises(LocalProtocolError):
        _stack(0xC000)


def test_nothing_is_sent_without_reserved_seq() -> None:
    """An empty reserve stops sending, by name."""
    top = _stack(TOP, range(0))
    with pytest.raises(SequenceExhausted):
        top.send(b"\x82\x01", dst=BOARD, key=APP_KEY, now=0.0)


def test_segmented_message_needs_a_seq_for_each_segment() -> None:
    """A reserve that is too short refuses the message whole; it is not sent later by surprise."""
    board, wire = _stack(BOARD, range(10)), Wire()
    with pytest.raises(SequenceExhausted):
        board.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    board.sequence.extend(range(10, 100))
    wire.run(board)
    assert wire.sent[BOARD] == []


def test_segment_of_a_message_before_seq_0_is_rejected() -> None:
    """A whole message in one segment with an impossible SeqZero has no nonce."""
    segment = SegmentedAccess(0, 0, SegmentHeader(0x1000, 0, 0), bytes(12))
    pdu = NetworkPdu(0, 3, 77, BOARD, TOP, segment.encode(), 5)
    (event,) = _stack(TOP).receive(pdu, 0.0)
    assert isinstance(event, MessageRejected)


@given(st.binary(min_size=1, max_size=16), st.integers(0, 1), st.integers(1, 0xFFFF))
def test_any_transport_pdu_gives_events_only(raw: bytes, ctl: int, dst: int) -> None:
    """No authentic PDU, however odd, breaks the stack."""
    top = _stack(TOP)
    pdu = NetworkPdu(ctl, 3, 77, BOARD, dst, raw, 5)
    for event in top.receive(pdu, 0.0):
        assert isinstance(event, MessageReceived | MessageRejected)


# What only the NetKey opens


def _forged(seq: int, lower: UnsegmentedAccess | SegmentedAccess, src: int = BOARD) -> NetworkPdu:
    return NetworkPdu(lower.CTL, 5, seq, src, TOP, lower.encode(), 5)


def _one_segment(seq: int) -> SegmentedAccess:
    header = SegmentHeader(seq & 0x1FFF, 0, 0, 0)
    return SegmentedAccess(1, APP_KEY.aid, header, b"x" * 12)


def _answer_to(top: Stack, board: Stack, payload: bytes) -> list[Event]:
    board.send(payload, dst=TOP, key=APP_KEY, now=0.0)
    return [event for out in board.pdus_to_send() for event in top.receive(out.pdu, 0.0)]


@pytest.mark.parametrize(
    "lower",
    [UnsegmentedAccess(1, APP_KEY.aid, bytes(8)), UnsegmentedAccess(0, 0, bytes(8))],
    ids=["AppKey", "DevKey"],
)
def test_what_no_key_opens_silences_nobody(lower: UnsegmentedAccess) -> None:
    """With the NetKey alone the highest SEQ in a node's name leaves no trace in the replay list."""
    top, board = _stack(TOP), _stack(BOARD)
    assert top.receive(_forged(0xFFFFFF, lower), 0.0) == []
    assert top.replay.entries() == []
    assert _messages(_answer_to(top, board, encode_message(OnOffStatus(True))))


def test_a_segmented_forgery_silences_nobody() -> None:
    """Neither the node's short messages nor its long ones are taken for old afterwards."""
    top, board, wire = _stack(TOP), _stack(BOARD), Wire()
    assert top.receive(_forged(0xFFF000, _one_segment(0xFFF000)), 0.0) == []
    top.pdus_to_send()
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, now=0.0)
    wire.run(top, board)
    assert _messages(wire.events[TOP]) == [LONG]
    assert [src for src, _, _ in top.replay.entries()] == [BOARD]


def test_an_acknowledgment_silences_nobody() -> None:
    """It is a message of the network layer only, so its SEQ is not kept."""
    top = _stack(TOP)
    pdu = NetworkPdu(1, 5, 0xFFFFFF, BOARD, TOP, SegmentAcknowledgment(1, 1).encode(), 5)
    assert top.receive(pdu, 0.0) == []
    assert top.replay.entries() == []


def test_a_message_that_opens_and_says_nonsense_is_kept() -> None:
    """It is authentic, so a copy of it is old."""
    top, board = _stack(TOP), _stack(BOARD)
    (event,) = _answer_to(top, board, b"\x82\x04")
    assert isinstance(event, MessageRejected)
    assert top.replay.entries() == [(BOARD, 5, 0)]


def test_forged_segments_cost_a_bounded_number_of_seq() -> None:
    """However many there are; a little is granted again with time."""
    top = _stack(TOP)
    for seq in range(1000):
        top.receive(_forged(seq, _one_segment(seq), src=0x0010 + seq % 50), 0.0)
    assert top.sequence.next == BURST
    for seq in range(1000, 2000):
        top.receive(_forged(seq, _one_segment(seq), src=0x0010 + seq % 50), 4 * REFILL_S)
    assert top.sequence.next == BURST + 4


def test_authentic_segments_are_acknowledged_without_end() -> None:
    """What they cost is given back once the message is opened."""
    top, board, wire = _stack(TOP), _stack(BOARD), Wire()
    for _ in range(2 * BURST):
        board.send(encode_message(LONG), dst=TOP, key=APP_KEY, now=0.0)
        wire.run(top, board)
        wire.events[BOARD].clear()
    assert len(_messages(wire.events[TOP])) == 2 * BURST
    assert len(wire.sent[TOP]) == 2 * BURST


def test_between_two_iv_indexes_nothing_is_sent() -> None:
    """A SEQ belongs to the IV Index that it was reserved under; the sender repeats its segment."""
    top, board = _stack(TOP), _stack(BOARD)
    board.send(encode_message(LONG), dst=TOP, key=APP_KEY, now=0.0)
    *first, last = board.pdus_to_send()
    for out in first:
        top.receive(out.pdu, 0.0)
    top.change_iv_index(IvIndex(6))
    assert _messages(top.receive(last.pdu, 0.0)) == [LONG]
    assert top.pdus_to_send() == []
    with pytest.raises(SequenceExhausted):
        top.send(encode_message(OnOffGet()), dst=BOARD, key=APP_KEY, now=0.0)
    top.sequence.restart(range(10))
    top.send(encode_message(OnOffGet()), dst=BOARD, key=APP_KEY, now=0.0)
    (out,) = top.pdus_to_send()
    assert (out.pdu.iv_index, out.pdu.seq) == (6, 0)
