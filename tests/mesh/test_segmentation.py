"""Transfers in flight: rounds, acknowledgments, deadlines."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError
from fastprovd.mesh.lower_transport import SegmentedAccess, SegmentHeader
from fastprovd.mesh.segmentation import (
    IncomingTransfer,
    OutgoingTransfer,
    SegmentationTimers,
    TransferRoute,
    seq_auth,
)

TIMERS = SegmentationTimers()


def _outgoing(
    segments: int,
    *,
    to_group: bool = False,
    ttl: int = 3,
    timers: SegmentationTimers = TIMERS,
) -> OutgoingTransfer:
    return OutgoingTransfer(
        1,
        TransferRoute(0xC000 if to_group else 5, ttl, 0, 0),
        [bytes([n]) * 12 for n in range(segments)],
        first_seq=0x3129AB,
        akf=1,
        aid=7,
        szmic=0,
        to_group=to_group,
        timers=timers,
    )


def _seg_o(segments: list[SegmentedAccess]) -> list[int]:
    return [segment.header.seg_o for segment in segments]


def _segment(seg_o: int, seg_n: int, *, szmic: int = 0) -> SegmentedAccess:
    return SegmentedAccess(1, 7, SegmentHeader(9, seg_o, seg_n, szmic), bytes([seg_o]) * 12)


def _incoming(first: SegmentedAccess, timers: SegmentationTimers = TIMERS) -> IncomingTransfer:
    return IncomingTransfer(5, 1, 9, 0, first, ttl=3, acknowledged=True, timers=timers, now=0.0)


@given(st.integers(0, (1 << 24) - 1), st.integers(0, 0x1FFE))
def test_seq_auth_is_the_first_segments_seq(first: int, later: int) -> None:
    """From any segment within 8191 numbers SeqZero gives back the SEQ of the first."""
    assert seq_auth(first + later, first & 0x1FFF) == first


@given(st.integers(0, 0x1FFE), st.data())
def test_message_can_not_begin_before_seq_0(seq: int, data: st.DataObject) -> None:
    """A SeqZero above a SEQ below 8192 names no first segment."""
    with pytest.raises(DecodeError):
        seq_auth(seq, data.draw(st.integers(seq + 1, 0x1FFF)))


def test_all_segments_leave_once_then_only_the_missing_ones() -> None:
    """After a partial BlockAck exactly the segments that are missing are due at once."""
    transfer = _outgoing(4)
    assert _seg_o(transfer.take_segments(0.0)) == [0, 1, 2, 3]
    assert transfer.take_segments(0.0) == []
    transfer.acknowledge(0b1010)
    assert _seg_o(transfer.take_segments(0.1)) == [0, 2]
    transfer.acknowledge(0b1010)
    assert transfer.take_segments(0.2) == []
    transfer.acknowledge(0b1111)
    assert transfer.is_complete
    assert transfer.deadline is None


def test_silence_repeats_by_ttl_and_ends() -> None:
    """Unacknowledged segments come again every 0.2 + 0.05 * TTL seconds, five rounds in all."""
    transfer = _outgoing(2, ttl=4)
    now, rounds = 0.0, 0
    while True:
        assert _seg_o(transfer.take_segments(now)) == [0, 1]
        rounds += 1
        assert transfer.deadline == pytest.approx(now + 0.4)
        assert transfer.handle_deadline(now + 0.39)
        now += 0.4
        if not transfer.handle_deadline(now):
            break
    assert rounds == TIMERS.rounds


def test_group_transfer_waits_for_nobody() -> None:
    """A group gets every segment in each of three rounds."""
    transfer = _outgoing(2, to_group=True)
    now, rounds = 0.0, 0
    while True:
        assert _seg_o(transfer.take_segments(now)) == [0, 1]
        rounds += 1
        now += TIMERS.group_interval_s
        if not transfer.handle_deadline(now):
            break
    assert rounds == TIMERS.group_rounds


@given(st.integers(1, 31), st.randoms(use_true_random=False))
def test_segments_in_any_order_and_number_join(seg_n: int, rng: random.Random) -> None:
    """Order and repetition of the segments do not matter."""
    order = [rng.randint(0, seg_n) for _ in range(seg_n)] + list(range(seg_n + 1))
    rng.shuffle(order)
    transfer = _incoming(_segment(order[0], seg_n))
    for number, seg_o in enumerate(order):
        transfer.receive(_segment(seg_o, seg_n), 9 + number, 0.0)
    assert transfer.is_complete
    assert transfer.block_ack == (1 << (seg_n + 1)) - 1
    assert transfer.upper_pdu() == b"".join(bytes([n]) * 12 for n in range(seg_n + 1))
    assert transfer.last_seq == 9 + len(order) - 1


def test_contradicting_segment_is_refused() -> None:
    """SegN and SZMIC must stay what they were."""
    transfer = _incoming(_segment(0, 2))
    transfer.receive(_segment(0, 2), 9, 0.0)
    with pytest.raises(DecodeError):
        transfer.receive(_segment(1, 3), 10, 0.0)
    with pytest.raises(DecodeError):
        transfer.receive(_segment(1, 2, szmic=1), 10, 0.0)


def test_no_partial_acknowledgment_while_segments_arrive() -> None:
    """Each new segment starts the acknowledgment timer again, silence lets it run out."""
    transfer = _incoming(_segment(0, 5))
    for number in range(4):
        transfer.receive(_segment(number, 5), 9 + number, number * 0.3)
        assert transfer.handle_deadline(number * 0.3 + 0.29) is False
    due = transfer.deadline
    assert due == pytest.approx(0.9 + max(0.4, 0.15 + 0.05 * 3 + 0.1 * 2))
    assert transfer.handle_deadline(due) is True
    assert transfer.block_ack == 0b1111


def test_firmware_timers_acknowledge_in_part_during_a_transfer() -> None:
    """Without `ack_restarts` the timer of the first segment runs through."""
    transfer = _incoming(_segment(0, 5), SegmentationTimers(ack_restarts=False))
    transfer.receive(_segment(0, 5), 9, 0.0)
    first = transfer.deadline
    transfer.receive(_segment(1, 5), 10, 0.3)
    assert transfer.deadline == first


def test_unfinished_transfer_is_given_up() -> None:
    """Ten seconds after the last new segment the transfer ends."""
    transfer = _incoming(_segment(0, 1))
    transfer.receive(_segment(0, 1), 9, 2.0)
    assert transfer.handle_deadline(11.9) is True
    assert transfer.handle_deadline(12.0) is None


def test_an_acknowledgment_may_take_a_round() -> None:
    """With `ack_takes_round` every partial one repeats what is missing, until no round is left."""
    timers = SegmentationTimers(ack_takes_round=True)
    transfer = _outgoing(2, timers=timers)
    assert _seg_o(transfer.take_segments(0.0)) == [0, 1]
    for _ in range(timers.rounds - 1):
        assert transfer.acknowledge(0b01)
        assert transfer.is_acknowledged(0)
        assert not transfer.is_acknowledged(1)
        assert _seg_o(transfer.take_segments(0.1)) == [1]
    assert not transfer.acknowledge(0b01)
    assert transfer.deadline is None


def test_the_time_to_give_up_may_grow_with_the_segments() -> None:
    """10 s, and 0.1 s times TTL for each segment received."""
    timers = SegmentationTimers(incomplete_per_segment_s=0.1)
    transfer = _incoming(_segment(0, 5), timers)
    for received in range(3):
        transfer.receive(_segment(received, 5), 9, 0.0)
    assert transfer.handle_deadline(10.85) is not None
    assert transfer.handle_deadline(10.95) is None
