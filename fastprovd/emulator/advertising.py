"""One board's only advertising queue, and the connectable advertising that lives in its gaps."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from fastprovd.emulator import firmware
from fastprovd.emulator.peripheral import Report

REPORT_INTERVAL_S: Final = 0.1


class QueuedPdu:
    """A PDU in the queue; `transmit` is told the times of its transmissions when its turn comes.

    `cancelled` takes it out without air time. The callbacks run at the begin and end of its slot,
    which lasts `slot_s`.
    """

    __slots__ = ("cancelled", "ended", "queued", "slot_s", "started", "transmit")

    def __init__(
        self,
        transmit: Callable[[list[float]], None],
        started: Callable[[], None] | None = None,
        ended: Callable[[], None] | None = None,
        slot_s: float = firmware.SLOT_S,
    ) -> None:
        self.transmit = transmit
        self.slot_s = slot_s
        self.started = started
        self.ended = ended
        self.cancelled = False
        self.queued = False


class AdvertisingQueue:
    """Sends queued PDUs strictly one after the other, about 90 ms each (FP 9).

    `changed` is called whenever the queue runs empty or stops being empty.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, random: Random, changed: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._random = random
        self._changed = changed
        self._pdus: deque[QueuedPdu] = deque()
        self._current: QueuedPdu | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is sent or waits."""
        return self._current is None

    @property
    def current(self) -> QueuedPdu | None:
        """The PDU that is being sent."""
        return self._current

    def put(self, pdu: QueuedPdu) -> bool:
        """Append `pdu`; without a free buffer it is lost, and the answer is False."""
        if len(self._pdus) >= firmware.ADVERTISING_BUFFERS:
            return False
        pdu.queued = True
        pdu.cancelled = False
        self._pdus.append(pdu)
        if self._current is None:
            self._next()
        return True

    def stop(self) -> None:
        """Forget everything."""
        self._pdus.clear()
        self._current = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        was_idle = self._current is None
        while self._pdus:
            pdu = self._pdus.popleft()
            if pdu.cancelled:
                pdu.queued = False
                continue
            self._current = pdu
            begin = self._loop.time()
            end = begin + pdu.slot_s
            self._timer = self._loop.call_at(end, self._slot_ended)
            if was_idle:
                self._changed()
            if pdu.started is not None:
                pdu.started()
            uniform = self._random.random
            low, high = firmware.FIRST_TRANSMISSION_S
            at = begin + low + (high - low) * uniform()
            times = []
            while at < end:
                times.append(at)
                at += firmware.TRANSMISSION_INTERVAL_S + firmware.ADVERTISING_DELAY_S * uniform()
            pdu.transmit(times)
            return
        self._current = None
        self._timer = None
        if not was_idle:
            self._changed()

    def _slot_ended(self) -> None:
        pdu = self._current
        if pdu is not None:
            pdu.queued = False
            if pdu.ended is not None:
                pdu.ended()
        if self._current is pdu:
            self._next()


@dataclass(frozen=True, slots=True)
class Connectable:
    """Connectable advertising as the board wants it.

    `answers` is False for advertising that accepts no connection, which one flaw shows.
    """

    service: int
    service_data: bytes
    interval_s: float
    answers: bool = True

    def report(self, device_address: str, rssi_dbm: int) -> Report:
        """Return one event as a scanner hears it, scan response included."""
        return Report(
            device_address,
            rssi_dbm,
            connectable=True,
            service_uuids=(self.service,),
            service_data={self.service: self.service_data},
            local_name=firmware.LOCAL_NAME,
        )


class ConnectableAdvertiser:
    """Connectable advertising: a state, not a stream; events are made only for who listens.

    `content` is asked at every start, with the number of starts, what to advertise; `changed` is
    told the interval of what is on the air now, `None` for nothing; `heard` is told of an event
    and how many it stands for; `listeners` tells whether anybody scans and whether anybody
    connects.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        random: Random,
        content: Callable[[int], Connectable | None],
        changed: Callable[[float | None], None],
        heard: Callable[[int], None],
        listeners: Callable[[], tuple[bool, bool]],
    ) -> None:
        self._loop = loop
        self._random = random
        self._content = content
        self._changed = changed
        self._heard = heard
        self._listeners = listeners
        self._current: Connectable | None = None
        self._starts = 0
        self._has_begun = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def current(self) -> Connectable | None:
        """What is on the air now."""
        return self._current

    def start(self) -> None:
        """Begin, or begin again with fresh content."""
        self._starts += 1
        self._current = self._content(self._starts)
        self._has_begun = False
        self._changed(None if self._current is None else self._current.interval_s)
        self.wake()

    def stop(self) -> None:
        """Fall silent."""
        self._current = None
        self._changed(None)
        self._cancel()

    def wake(self) -> None:
        """Look again who listens; the next event comes as soon as the interval allows."""
        self._cancel()
        if self._current is None or not any(self._listeners()):
            return
        delay = firmware.FIRST_TRANSMISSION_S[0] + firmware.ADVERTISING_DELAY_S * (
            self._random.random()
        )
        if self._has_begun:
            delay += self._current.interval_s * self._random.random()
        self._timer = self._loop.call_later(delay, self._event)

    def _event(self) -> None:
        self._timer = None
        content = self._current
        observed, initiated = self._listeners()
        if content is None or not (observed or initiated):
            return
        self._has_begun = True
        # Observers need no more than a report per 100 ms; who connects needs every event.
        interval = content.interval_s if initiated else max(content.interval_s, REPORT_INTERVAL_S)
        delay = interval + firmware.ADVERTISING_DELAY_S * self._random.random()
        self._timer = self._loop.call_later(delay, self._event)
        self._heard(max(1, int(interval / (content.interval_s + firmware.ADVERTISING_DELAY_S / 2))))

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
