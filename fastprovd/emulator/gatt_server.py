"""One open link of a board: ATT, Proxy SAR, notifications at the link's pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastprovd.emulator import firmware
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.pb_gatt import PbGatt
from fastprovd.emulator.peripheral import (
    CONNECTION_TIMEOUT,
    REMOTE_USER_TERMINATED,
    AttError,
    Central,
    Service,
)
from fastprovd.errors import DecodeError
from fastprovd.mesh.proxy import ProxyPduType, Reassembler, segment

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board

_INVALID_HANDLE: Final = 0x01
_ENABLE_NOTIFICATIONS: Final = b"\x01\x00"
_ENABLE_INDICATIONS: Final = b"\x02\x00"


class Link:
    """The board's end of a link; implements `peripheral.PeripheralLink` for the central.

    Writes arrive with the next connection event, notifications leave a few per event. What the
    hosts do when too many wait is their flaw.
    """

    def __init__(self, board: Board, central: Central) -> None:
        self._board = board
        self._loop = board.loop
        self._host: Host = board.host
        self._central = central
        self._opened_at = board.now()
        self._reassembler = Reassembler()
        self._sar_timer: asyncio.TimerHandle | None = None
        self._pending: deque[tuple[int, bytes]] = deque()
        self._pump_timer: asyncio.TimerHandle | None = None
        self._event = -1
        self._sent_in_event = 0
        self._limit = self._draw_limit()
        self._after_last: Callable[[], None] | None = None
        self._indications_enabled = False
        self.pb_gatt: PbGatt | None = None
        self.was_kept = False
        self.is_open = True
        if self._host.service_changed_unasked:
            self._indicate_service_changed(board.random.uniform(0.001, 0.030))

    # The central's side

    @property
    def mtu_octets(self) -> int:
        """ATT_MTU, 23 whatever the central asks for."""
        return firmware.ATT_MTU_OCTETS

    @property
    def answers(self) -> bool:
        """Whether the board's host still runs; a dead one leaves the link to the controller."""
        return not self._board.is_silent

    def services(self) -> tuple[Service, ...]:
        """What a discovery finds now."""
        visible = self._board.visible_service
        return self._host.base_services + (() if visible is None else (visible,))

    def write_command(self, handle: int, value: bytes) -> None:
        """Deliver a Write Command with the next connection event."""
        if self.is_open:
            self._loop.call_at(self._next_event(), self._written, handle, bytes(value))

    def write_cccd(self, handle: int, value: bytes) -> None:
        """Deliver a Write Request to a CCCD; raises AttError for one that is hidden."""
        if not (self.is_open and self.answers):
            return
        cccds = {c.cccd_handle for service in self.services() for c in service.characteristics}
        if handle not in cccds or handle == 0:
            raise AttError(_INVALID_HANDLE, handle)
        if handle == self._host.service_changed_cccd:
            self._indications_enabled = value == _ENABLE_INDICATIONS
        elif value == _ENABLE_NOTIFICATIONS:
            if handle == self._host.provisioning_service.characteristics[1].cccd_handle:
                self._board.open_pb_gatt(self)
            else:
                self._board.open_proxy(self)

    def disconnect(self) -> None:
        """Hang up from the central's side; idempotent."""
        if self.is_open:
            self._shut()
            self._board.link_gone(self)

    # The board's side

    def send_proxy_pdu(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Notify a Proxy PDU, in pieces of 20 octets."""
        if not (self.is_open and self.answers):
            return
        provisioning = pdu_type is ProxyPduType.PROVISIONING_PDU
        service = self._host.provisioning_service if provisioning else self._host.proxy_service
        handle = service.characteristics[1].value_handle
        for value in segment(pdu_type, payload, firmware.ATT_MTU_OCTETS - 3):
            if not self._queue(handle, value):
                return

    def services_swapped(self) -> None:
        """The visible service has changed on this link."""
        self.was_kept = True
        if self._host.service_changed_unasked or self._indications_enabled:
            self._indicate_service_changed(self._board.random.uniform(*firmware.ANSWER_DELAY_S))

    def hang_up(self, delay_s: float, *, drop_pending: bool = False) -> None:
        """Disconnect once what waits has left, or at once without it."""
        if drop_pending:
            self._pending.clear()
        if self._pending:
            self._after_last = lambda: self._hang_up_later(delay_s)
        else:
            self._hang_up_later(delay_s)

    def fall_silent(self) -> None:
        """The board's host is dead; the link stays open, and nothing comes over it."""
        self._pending.clear()
        self._after_last = None
        self._stop_timers()

    def lose(self) -> None:
        """The board is gone; the central notices by its supervision timeout."""
        if self.is_open:
            self._shut()
            self._central.disconnected(CONNECTION_TIMEOUT)

    def _hang_up_later(self, delay_s: float) -> None:
        self._loop.call_later(delay_s, self._hang_up_now)

    def _hang_up_now(self) -> None:
        if self.is_open and self.answers:
            self._shut()
            self._board.link_gone(self)
            self._central.disconnected(REMOTE_USER_TERMINATED)

    def _shut(self) -> None:
        self.is_open = False
        self._pending.clear()
        self._stop_timers()

    def _stop_timers(self) -> None:
        for timer in (self._pump_timer, self._sar_timer):
            if timer is not None:
                timer.cancel()
        if self.pb_gatt is not None:
            self.pb_gatt.stop()

    # Writes

    def _next_event(self) -> float:
        """Return the first connection event that the central's controller can still make."""
        interval = firmware.CONNECTION_INTERVAL_S
        earliest = self._loop.time() + firmware.WRITE_LATENCY_S - self._opened_at
        return self._opened_at + (int(earliest / interval) + 1) * interval

    def _written(self, handle: int, value: bytes) -> None:
        visible = self._board.visible_service
        if not self.is_open or visible is None:
            return
        if handle != visible.characteristics[0].value_handle:
            return
        now = self._loop.time()
        try:
            complete = self._reassembler.receive(value, now)
        except DecodeError:
            complete = None
        self._restart_sar_timer()
        if complete is None:
            return
        pdu_type, payload = complete
        provisioning = visible is self._host.provisioning_service
        if provisioning != (pdu_type is ProxyPduType.PROVISIONING_PDU):
            return
        if not provisioning:
            self._board.receive_proxy_pdu(self, pdu_type, payload)
        elif self.pb_gatt is not None:
            self.pb_gatt.receive(payload)

    def _restart_sar_timer(self) -> None:
        if self._sar_timer is not None:
            self._sar_timer.cancel()
            self._sar_timer = None
        deadline = self._reassembler.next_deadline()
        if deadline is not None:
            self._sar_timer = self._loop.call_at(deadline, self._hang_up_now)

    # Notifications

    def _queue(self, handle: int, value: bytes) -> bool:
        flaws = self._board.flaws
        waiting = len(self._pending)
        if self._host is Host.NIMBLE:
            if flaws.notification_abort and waiting >= firmware.NIMBLE_NOTIFICATION_BUFFERS:
                self._board.abort()
                return False
        elif flaws.notification_limit and waiting >= self._limit:
            return True  # lost without a word
        self._pending.append((handle, value))
        if self._pump_timer is None:
            delay = self._board.random.uniform(*firmware.ANSWER_DELAY_S)
            self._pump_timer = self._loop.call_later(delay, self._pump)
        return True

    def _pump(self) -> None:
        self._pump_timer = None
        interval = firmware.CONNECTION_INTERVAL_S
        event = int((self._loop.time() - self._opened_at) / interval)
        if event != self._event:
            self._event = event
            self._sent_in_event = 0
        while self._pending and self._sent_in_event < firmware.NOTIFICATIONS_PER_EVENT:
            handle, value = self._pending.popleft()
            self._sent_in_event += 1
            self._central.notified(handle, value)
            if not self.is_open:
                return
        if self._pending:
            at = self._opened_at + (event + 1) * interval + firmware.BOARD_TURN_S
            self._pump_timer = self._loop.call_at(at, self._pump)
            return
        self._limit = self._draw_limit()
        if self._after_last is not None:
            after_last, self._after_last = self._after_last, None
            after_last()

    def _draw_limit(self) -> int:
        probability, limit = firmware.BLUEDROID_LUCKY_ROUND
        if self._board.random.random() < probability:
            return limit
        return self._board.random.randint(*firmware.BLUEDROID_NOTIFICATIONS_PER_ROUND)

    def _indicate_service_changed(self, delay_s: float) -> None:
        def indicate() -> None:
            if self.is_open and self.answers:
                self._central.services_changed()

        self._loop.call_later(delay_s, indicate)
