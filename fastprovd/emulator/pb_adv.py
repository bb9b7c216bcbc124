"""PB-ADV between two boards: generic provisioning in full, provisioning PDUs without their crypto.

Every transaction, fragment, acknowledgment and repetition takes its place in the advertising
queues of both boards (FP 9), so that the times of a run come out of the same mechanism as on the
air. What the session yields is real: NetKey, unicast address, DevKey.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from fastprovd.emulator import firmware
from fastprovd.emulator.advertising import QueuedPdu
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.provisioning.pdus import PduType, ProvisioningData

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board
    from fastprovd.emulator.provisioner_role import ProvisionerRole

# Fragments of 20 and 23 octets; Confirmation and Random have 32 octets (HMAC between boards).
_FRAGMENTS: Final = {
    PduType.PUBLIC_KEY: 3,
    PduType.CONFIRMATION: 2,
    PduType.RANDOM: 2,
    PduType.DATA: 2,
}


class Kind(Enum):
    """Generic provisioning PDUs; FRAGMENT is Transaction Start or Continuation."""

    LINK_OPEN = "open"
    LINK_ACK = "link ack"
    LINK_CLOSE = "close"
    FRAGMENT = "fragment"
    ACK = "ack"


class CloseReason(Enum):
    """Reason octet of Link Close."""

    SUCCESS = 0x00
    TIMEOUT = 0x01
    FAIL = 0x02


@dataclass(frozen=True, slots=True)
class GenericPdu:
    """One generic provisioning PDU; `message` and `payload` belong to a FRAGMENT."""

    link: ProvisionerLink
    kind: Kind
    transaction: int = 0
    fragment: int = 0
    last_fragment: int = 0
    message: PduType | None = None
    payload: ProvisioningData | None = None
    reason: CloseReason = CloseReason.SUCCESS


class _Transport:
    """Reliable transactions of one end of a link; one is in flight at a time."""

    def __init__(
        self,
        board: Board,
        link: ProvisionerLink,
        peer: Board,
        first_transaction: int,
        timed_out: Callable[[], None],
    ) -> None:
        self._board = board
        self._link = link
        self._peer = peer
        self._next_transaction = first_transaction
        self._timed_out = timed_out
        self._in_flight: list[QueuedPdu] = []
        self._in_flight_transaction: int | None = None
        self._started_at = 0.0
        self._limit_s = firmware.PB_ADV_TRANSACTION_S
        self._cancel_retransmit: Callable[[], None] | None = None
        self._pending_ack: int | None = None
        self._receiving: int | None = None
        self._missing: set[int] = set()
        self._received: int | None = None

    def send_message(
        self, message: PduType, payload: ProvisioningData | None = None, *, last: bool = False
    ) -> None:
        """Send a provisioning PDU; the one before it is dropped."""
        transaction = self._next_transaction
        self._next_transaction += 1
        count = _FRAGMENTS.get(message, 1)
        pdus = [
            GenericPdu(self._link, Kind.FRAGMENT, transaction, index, count - 1, message, payload)
            for index in range(count)
        ]
        self._send_reliably(pdus, transaction, last=last)

    def send_control(self, kind: Kind) -> None:
        """Send LINK_OPEN or LINK_ACK, repeated until something else is sent."""
        self._send_reliably([GenericPdu(self._link, kind)], None, last=False)

    def send_close(self, reason: CloseReason, ended: Callable[[], None]) -> None:
        """Send one Link Close."""
        self.clear()
        self._put(GenericPdu(self._link, Kind.LINK_CLOSE, reason=reason), ended=ended)

    def clear(self) -> None:
        """Stop what is in flight; fragments that still wait take no air time."""
        for queued in self._in_flight:
            queued.cancelled = True
        self._in_flight = []
        self._in_flight_transaction = None
        if self._cancel_retransmit is not None:
            self._cancel_retransmit()
            self._cancel_retransmit = None

    def receive(self, pdu: GenericPdu) -> GenericPdu | None:
        """Take a FRAGMENT; return the one that completes its message."""
        if pdu.transaction == self._received:
            self._acknowledge(pdu.transaction)
            return None
        if pdu.fragment == 0:
            if self._receiving is not None:
                # A Start while fragments are missing changes nothing; they come again.
                if pdu.transaction != self._receiving:
                    return None
            else:
                self._receiving = pdu.transaction
                self._missing = set(range(pdu.last_fragment + 1))
        elif pdu.transaction != self._receiving:
            return None
        self._missing.discard(pdu.fragment)
        if self._missing:
            return None
        self._receiving = None
        self._acknowledge(pdu.transaction)
        self._received = pdu.transaction
        return pdu

    def acknowledged(self, transaction: int) -> bool:
        """Take a Transaction Acknowledgment; tell whether it ended what is in flight."""
        if transaction != self._in_flight_transaction:
            return False
        self.clear()
        return True

    def _acknowledge(self, transaction: int) -> None:
        # The firmware tracks one acknowledgment in the queue. While another transaction's waits,
        # each copy of a fragment queues an acknowledgment of its own: the recordings show series.
        if self._pending_ack == transaction:
            return
        tracked = self._pending_ack is None
        if tracked:
            self._pending_ack = transaction
        self._put(
            GenericPdu(self._link, Kind.ACK, transaction),
            started=self._ack_started if tracked else None,
        )

    def _ack_started(self) -> None:
        self._pending_ack = None

    def _send_reliably(
        self, pdus: list[GenericPdu], transaction: int | None, *, last: bool
    ) -> None:
        self.clear()
        self._in_flight_transaction = transaction
        self._started_at = self._board.now()
        self._limit_s = (
            firmware.PB_ADV_LAST_TRANSACTION_S if last else firmware.PB_ADV_TRANSACTION_S
        )
        for index, pdu in enumerate(pdus):
            ended = self._fragments_ended if index == len(pdus) - 1 else None
            self._in_flight.append(self._put(pdu, ended=ended))

    def _fragments_ended(self) -> None:
        # A PDU that was cleared while it was on the air starts the one timer as well.
        if self._in_flight:
            if self._cancel_retransmit is not None:
                self._cancel_retransmit()
            self._cancel_retransmit = self._board.later(
                firmware.PB_ADV_RETRANSMIT_S, self._retransmit
            )

    def _retransmit(self) -> None:
        self._cancel_retransmit = None
        if not self._in_flight:
            return
        if self._board.now() - self._started_at > self._limit_s:
            self._timed_out()
            return
        for queued in self._in_flight:
            if not queued.queued:
                self._board.queue_pb_adv(queued)

    def _put(
        self,
        pdu: GenericPdu,
        started: Callable[[], None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> QueuedPdu:
        board, peer = self._board, self._peer
        queued = QueuedPdu(
            lambda times: board.transmit_pb_adv(pdu, peer, times), started=started, ended=ended
        )
        board.queue_pb_adv(queued)
        return queued


# What the provisioner sends when the device's message is complete.
_ANSWERS: Final = {
    PduType.CAPABILITIES: PduType.START,
    PduType.PUBLIC_KEY: PduType.CONFIRMATION,
    PduType.CONFIRMATION: PduType.RANDOM,
    PduType.RANDOM: PduType.DATA,
}


class ProvisionerLink:
    """The provisioner's end: opens the link, leads the session, closes the link."""

    def __init__(self, board: Board, role: ProvisionerRole, device: Board, dev_key: DevKey) -> None:
        self.board = board
        self._role = role
        self.device = device
        self.dev_key = dev_key
        self.address: int | None = None
        self._transport = _Transport(board, self, device, 0x00, self._timed_out)
        self._awaited: PduType | None = None
        self._closing = False
        self._reason = CloseReason.SUCCESS
        self._closes_left = firmware.LINK_CLOSE_TRANSMISSIONS
        self._cancel_protocol_timer: Callable[[], None] | None = None
        self._transport.send_control(Kind.LINK_OPEN)

    def receive(self, pdu: GenericPdu) -> None:
        """Take a PDU of the device."""
        if self._closing:
            # In every recording Complete is acknowledged once, however often it is repeated.
            return
        if pdu.kind is Kind.LINK_ACK:
            if self._awaited is None:
                self._send(PduType.INVITE, PduType.CAPABILITIES)
        elif pdu.kind is Kind.LINK_CLOSE:
            self._close(CloseReason.FAIL)
        elif pdu.kind is Kind.ACK:
            # Start and Public Key go one after the other without an answer between them.
            if self._transport.acknowledged(pdu.transaction) and self._awaited is PduType.START:
                self._send(PduType.PUBLIC_KEY, PduType.PUBLIC_KEY)
        elif (complete := self._transport.receive(pdu)) is not None:
            self._answer(complete)

    def _answer(self, pdu: GenericPdu) -> None:
        if pdu.message is None or pdu.message is not self._awaited:
            return
        if pdu.message is PduType.COMPLETE:
            self._close(CloseReason.SUCCESS)
            self._role.child_completed(self)
            return
        answer = _ANSWERS[pdu.message]
        if answer is PduType.START:
            self._send(PduType.START, PduType.START)
        elif answer is PduType.DATA:
            data = self._role.provisioning_data()
            if data is None:
                self._close(CloseReason.FAIL)
                return
            self.address = data.unicast_address
            self._awaited = PduType.COMPLETE
            self._transport.send_message(PduType.DATA, data, last=True)
            self._cancel_protocol_timer = self.board.later(
                firmware.PB_ADV_LAST_PROTOCOL_S, self._timed_out
            )
        else:
            self._send(answer, answer)

    def _send(self, message: PduType, awaited: PduType) -> None:
        self._awaited = awaited
        self._transport.send_message(message)

    def _timed_out(self) -> None:
        if not self._closing:
            self._close(CloseReason.TIMEOUT)

    def _close(self, reason: CloseReason) -> None:
        self._closing = True
        if self._cancel_protocol_timer is not None:
            self._cancel_protocol_timer()
        self._reason = reason
        self._send_close()

    def _send_close(self) -> None:
        self._closes_left -= 1
        self._transport.send_close(self._reason, self._close_sent)

    def _close_sent(self) -> None:
        follow_up = self._send_close if self._closes_left else self._closed
        self.board.later(firmware.LINK_CLOSE_INTERVAL_S, follow_up)

    def _closed(self) -> None:
        self._role.link_closed(self)


class DeviceLink:
    """The device's end; made by the Link Open it accepts."""

    def __init__(self, board: Board, link: ProvisionerLink) -> None:
        self._board = board
        self.link = link
        self._transport = _Transport(board, link, link.board, 0x80, self._closed)
        self._is_invited = False
        self._is_node = False
        self._cancel_protocol_timer: Callable[[], None] | None = None
        self._restart_protocol_timer()
        self._transport.send_control(Kind.LINK_ACK)

    def receive(self, pdu: GenericPdu) -> None:
        """Take a PDU of the provisioner."""
        self._restart_protocol_timer()
        if pdu.kind is Kind.LINK_OPEN:
            if not self._is_invited:
                self._transport.send_control(Kind.LINK_ACK)
        elif pdu.kind is Kind.LINK_CLOSE:
            self._closed()
        elif pdu.kind is Kind.ACK:
            self._transport.acknowledged(pdu.transaction)
        elif (complete := self._transport.receive(pdu)) is not None:
            self._answer(complete)

    def _answer(self, pdu: GenericPdu) -> None:
        self._is_invited = True
        if pdu.message is PduType.INVITE:
            self._transport.send_message(PduType.CAPABILITIES)
        elif pdu.message in (PduType.PUBLIC_KEY, PduType.CONFIRMATION, PduType.RANDOM):
            self._transport.send_message(pdu.message)
        elif pdu.message is PduType.DATA and pdu.payload is not None:
            self._is_node = True
            if not self._board.stalls.complete_lost:
                self._transport.send_message(PduType.COMPLETE, last=True)
            self._restart_protocol_timer()
            self._board.provisioned_over_pb_adv(self.link, pdu.payload)

    def _restart_protocol_timer(self) -> None:
        if self._cancel_protocol_timer is not None:
            self._cancel_protocol_timer()
        limit = firmware.PB_ADV_LAST_PROTOCOL_S if self._is_node else firmware.PB_ADV_PROTOCOL_S
        self._cancel_protocol_timer = self._board.later(limit, self._protocol_timeout)

    def _protocol_timeout(self) -> None:
        self._transport.send_close(CloseReason.TIMEOUT, lambda: None)
        self._finish()

    def _closed(self) -> None:
        self._transport.clear()
        self._finish()

    def _finish(self) -> None:
        if self._cancel_protocol_timer is not None:
            self._cancel_protocol_timer()
            self._cancel_protocol_timer = None
        self._board.device_link_closed()
