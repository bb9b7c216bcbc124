"""A GATT link to a small board, with scripted faults; nothing of what is under test is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fastprovd.errors import ConnectionLost
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.provisioning.device import Device, Provisioned
from fastprovd.mesh.provisioning.pdus import Algorithms, Capabilities
from fastprovd.mesh.proxy import ProxyPduType

# One connection interval each way.
LATENCY_S = 0.03

Pdu = tuple[ProxyPduType, bytes]
# What arrives in place of a PDU: nothing, another one, several.
Fault = Callable[["FakeLink", Pdu], Iterable[Pdu]]


@dataclass(frozen=True)
class Answer:
    """A Proxy PDU of the board, `after_s` after what it answers."""

    pdu: Pdu
    after_s: float = 0.0


class Board(Protocol):
    """The other end."""

    def receive(self, pdu: Pdu, now: float) -> Iterable[Answer]:
        """Take one Proxy PDU and return what the board says to it."""
        ...


def drop(link: FakeLink, pdu: Pdu) -> Iterable[Pdu]:
    """The PDU is lost."""
    return ()


def hang_up(link: FakeLink, pdu: Pdu) -> Iterable[Pdu]:
    """The link goes instead of delivering the PDU."""
    link.hang_up()
    return ()


def hang_up_after(link: FakeLink, pdu: Pdu) -> Iterable[Pdu]:
    """The PDU arrives, and nothing more."""
    yield pdu
    link.hang_up()


def alter(change: Callable[[bytes], bytes]) -> Fault:
    """The PDU arrives with another payload."""
    return lambda link, pdu: ((pdu[0], change(pdu[1])),)


def precede(*others: Pdu) -> Fault:
    """Others arrive before the PDU."""
    return lambda link, pdu: (*others, pdu)


class FakeLink:
    """Meets the port `Link`.

    `to_board` and `to_top` say what happens to the n-th PDU of a direction, 0 is the first; from
    `deaf_from` on nothing arrives at the board. What came before a hang-up is delivered first.
    `sent` is all that we sent and when; `watched` is told each PDU before it leaves.
    """

    def __init__(
        self,
        board: Board,
        *,
        to_board: Mapping[int, Fault] | None = None,
        to_top: Mapping[int, Fault] | None = None,
        deaf_from: int | None = None,
        watched: Callable[[Pdu], None] = lambda pdu: None,
    ) -> None:
        self._board = board
        self._to_board = to_board or {}
        self._to_top = to_top or {}
        self._deaf_from = deaf_from
        self._watched = watched
        self._delivered = 0
        self._inbox: asyncio.Queue[Pdu | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.is_connected = True
        self.sent: list[tuple[float, Pdu]] = []

    async def send(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Hand one PDU to the board; raises ConnectionLost, also when the link goes meanwhile."""
        self._check()
        number, pdu = len(self.sent), (pdu_type, payload)
        self._watched(pdu)
        self.sent.append((self._loop.time(), pdu))
        await asyncio.sleep(0)
        if self._deaf_from is None or number < self._deaf_from:
            for arriving in self._to_board.get(number, _as_it_is)(self, pdu):
                for answer in self._board.receive(arriving, self._loop.time()):
                    self._loop.call_later(
                        2 * LATENCY_S + answer.after_s, self._deliver_unless_lost, answer.pdu
                    )
        self._check()

    async def receive(self) -> Pdu:
        """Return the next PDU of the board; raises ConnectionLost."""
        pdu = await self._inbox.get()
        if pdu is None:
            self._inbox.put_nowait(None)
            raise ConnectionLost("the board hung up")
        return pdu

    def say(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Let the board say something unasked, now."""
        self._inbox.put_nowait((pdu_type, payload))

    def hang_up(self) -> None:
        """End the link from the other side."""
        self.is_connected = False
        self._inbox.put_nowait(None)

    def hang_up_later(self, after_s: float) -> None:
        """End the link `after_s` after the answer to what the board receives now."""
        self._loop.call_later(2 * LATENCY_S + after_s, self.hang_up)

    def _deliver_unless_lost(self, pdu: Pdu) -> None:
        if not self.is_connected:
            return
        fault = self._to_top.get(self._delivered, _as_it_is)
        self._delivered += 1
        for arriving in fault(self, pdu):
            self._inbox.put_nowait(arriving)

    def _check(self) -> None:
        if not self.is_connected:
            raise ConnectionLost("the board hung up")


def _as_it_is(link: FakeLink, pdu: Pdu) -> Iterable[Pdu]:
    return (pdu,)


class FakeDevice:
    """An unprovisioned board; `provisioned` is what it took. Each answer takes `thinks_s`."""

    def __init__(self, *, elements: int = 1, thinks_s: float = 0.0) -> None:
        now = asyncio.get_running_loop().time()
        capabilities = Capabilities(elements, Algorithms.CMAC_AES128)
        self._device = Device(capabilities, EcdhKeyPair(2), bytes(range(32, 64)), now)
        self._thinks_s = thinks_s
        self.provisioned: Provisioned | None = None

    def receive(self, pdu: Pdu, now: float) -> Iterable[Answer]:
        """Take one Provisioning PDU."""
        assert pdu[0] is ProxyPduType.PROVISIONING_PDU
        for event in self._device.receive(pdu[1], now):
            if isinstance(event, Provisioned):
                self.provisioned = event
        return [
            Answer((ProxyPduType.PROVISIONING_PDU, raw), self._thinks_s)
            for raw in self._device.pdus_to_send()
        ]
