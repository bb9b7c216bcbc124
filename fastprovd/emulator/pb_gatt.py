"""PB-GATT on one link of a board: the real provisioning protocol, and its silent death."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.provisioning.device import Device, Provisioned
from fastprovd.mesh.provisioning.pdus import Algorithms, Capabilities

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board

CAPABILITIES = Capabilities(
    number_of_elements=1,
    algorithms=Algorithms(0x0003),
)


class PbGatt:
    """One session; after 6 s without a PDU it ignores everything until the link is gone."""

    def __init__(
        self,
        board: Board,
        key_pair: EcdhKeyPair,
        random: bytes,
        send: Callable[[bytes], None],
        provisioned: Callable[[Provisioned], None],
    ) -> None:
        self._board = board
        self._send = send
        self._provisioned = provisioned
        self._device = Device(CAPABILITIES, key_pair, random, board.now())
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    def receive(self, pdu: bytes) -> None:
        """Take a provisioning PDU."""
        events = self._device.receive(pdu, self._board.now())
        for answer in self._device.pdus_to_send():
            self._send(answer)
        self._schedule()
        for event in events:
            if isinstance(event, Provisioned):
                self._provisioned(event)

    def stop(self) -> None:
        """The link is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self.stop()
        deadline = self._device.next_deadline()
        if deadline is not None:
            self._timer = self._board.loop.call_at(deadline, self._deadline)

    def _deadline(self) -> None:
        self._timer = None
        self._device.handle_deadline(self._board.now())
        self._schedule()
