"""The lower transport layer of a board, where ESP-IDF's core/transport.c leaves the specification.

Three habits together cut and repeat messages whenever several children of one provisioner answer
at once, and make up most of the acknowledgments in the recordings: a Segment Acknowledgment is
taken whoever it is for, each partial one costs the sender a round, and a receiver forgets a
message as soon as it needs the place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastprovd.emulator import firmware
from fastprovd.errors import DecodeError
from fastprovd.mesh.events import Event
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    SegmentedAccess,
    SegmentHeader,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.network import NetworkPdu
from fastprovd.mesh.segmentation import IncomingTransfer, OutgoingTransfer
from fastprovd.mesh.stack import Stack


class BoardStack(Stack):
    """A node's stack; `is_waiting` tells whether a segment still waits in the advertising queue."""

    TRUSTS_NETWORK_LAYER = True

    def __init__(self, *, is_waiting: Callable[[int, SegmentHeader], bool], **kwargs: Any) -> None:
        super().__init__(timers=firmware.SEGMENTATION, **kwargs)
        self._is_waiting = is_waiting
        # The contexts of the firmware, each with the last transfer it was used for.
        self._contexts: list[IncomingTransfer | None] = [None] * firmware.RECEIVE_CONTEXTS

    def overhear(self, pdu: NetworkPdu, now: float) -> list[Event]:
        """Take a Segment Acknowledgment for another node: SRC and SeqZero are all that counts.

        Siblings answer their provisioner with the same SeqZero, so an acknowledgment for one ends
        the transfer of another: INFO_STATUS is cut after its first segment.
        """
        if not (pdu.ctl and self._outgoing):
            return []
        try:
            lower = decode_lower_transport_pdu(pdu)
        except DecodeError:
            return []
        if not isinstance(lower, SegmentAcknowledgment):
            return []
        return self._receive_acknowledgment(pdu, lower, now)

    def is_wanted(self, dst: int, header: SegmentHeader) -> bool:
        """Whether a segment of ours is neither acknowledged nor given up."""
        return any(
            transfer.route.dst == dst
            and transfer.seq_zero == header.seq_zero
            and not transfer.is_acknowledged(header.seg_o)
            for transfer in self._outgoing
        )

    def _due_segments(self, transfer: OutgoingTransfer, now: float) -> list[SegmentedAccess]:
        dst = transfer.route.dst
        return [
            segment
            for segment in super()._due_segments(transfer, now)
            if not self._is_waiting(dst, segment.header)
        ]

    def _transfer_of(
        self, pdu: NetworkPdu, lower: SegmentedAccess, auth: int, now: float
    ) -> IncomingTransfer | None:
        key = (pdu.src, pdu.dst)
        running = self._incoming.get(key)
        for transfer in self._contexts:
            if transfer is None or (transfer.src, transfer.dst) != key:
                continue
            if (transfer.iv_index, transfer.seq_auth) == (pdu.iv_index, auth):
                if transfer is running:
                    return transfer
                self._acknowledge_again(transfer, pdu, now)
                return None
            if (transfer.iv_index, transfer.seq_auth) > (pdu.iv_index, auth):
                return None
            if transfer is running:
                del self._incoming[key]
                break
        for index, transfer in enumerate(self._contexts):
            if transfer is None or self._incoming.get((transfer.src, transfer.dst)) is not transfer:
                begun = self._contexts[index] = self._begin_transfer(pdu, lower, auth, now)
                return begun
        return None

    def _acknowledge_again(self, transfer: IncomingTransfer, pdu: NetworkPdu, now: float) -> None:
        # What was given up stays so.
        if transfer.is_complete:
            self.replay.record(pdu.src, pdu.iv_index, pdu.seq)
            if transfer.acknowledged:
                self._acknowledge(pdu.src, transfer.seq_zero, transfer.block_ack, pdu.ttl, now)
