"""Boards simple enough to see through, on an air that loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastprovd.emulator.peripheral import (
    CONNECTION_TIMEOUT,
    REMOTE_USER_TERMINATED,
    AttError,
    Central,
    Characteristic,
    PeripheralLink,
    Report,
    Service,
)

UUID = bytes.fromhex("dddd240ac45e00010000000000000000")
UNPROVISIONED = UUID + bytes(2)
NETWORK_ID = b"\x00" + bytes(range(8))
NODE_IDENTITY = b"\x01" + bytes(range(8)) + bytes(range(8, 16))

DATA_IN, DATA_OUT, CCCD = 0x16, 0x18, 0x19
PROXY_IN, PROXY_OUT, PROXY_CCCD = 0x10, 0x12, 0x13


def service(uuid: int, data_in: tuple[int, int], data_out: tuple[int, int, int]) -> Service:
    return Service(
        uuid,
        data_in[1] - 2,
        (
            Characteristic(data_in[0], data_in[1], frozenset({"write-without-response"})),
            Characteristic(data_out[0], data_out[1], frozenset({"notify"}), data_out[2]),
        ),
    )


PROVISIONING_SERVICE = service(0x1827, (0x2ADB, DATA_IN), (0x2ADC, DATA_OUT, CCCD))
PROXY_SERVICE = service(0x1828, (0x2ADD, PROXY_IN), (0x2ADE, PROXY_OUT, PROXY_CCCD))
GENERIC_ACCESS = Service(0x1800, 0x01, (Characteristic(0x2A00, 0x03, frozenset({"read"})),))
# With Service Changed.
GENERIC_ATTRIBUTE = Service(
    0x1801, 0x06, (Characteristic(0x2A05, 0x08, frozenset({"indicate"}), 0x09),)
)


class FakeBoard:
    """Advertises `service_data`; keeps what is written; answers by `on_write`.

    It shows its mesh service above `base`.
    """

    def __init__(self, address: str = "24:0A:C4:5E:00:01", base: tuple[Service, ...] = ()) -> None:
        self.address = address
        self.base = base
        self.rssi_dbm = -50
        self.service_data: dict[int, bytes] = {0x1827: UNPROVISIONED}
        self.advertising = True
        self.connectable = True
        self.services: tuple[Service, ...] = (*base, PROVISIONING_SERVICE)
        self.mtu_octets = 23
        self.answers = True
        self.written: list[tuple[int, bytes]] = []
        self.log: list[str] = []
        self.on_write: Callable[[int, bytes], None] | None = None
        self.on_cccd: Callable[[], None] | None = None
        self.drop_after_open_s: float | None = None
        self.central: Central | None = None

    def become_node(self, *, told: bool = True) -> None:
        """Do what a board does at Provisioning Complete: swap the services on the same link."""
        self.services = (*self.base, PROXY_SERVICE)
        self.service_data = {0x1828: NODE_IDENTITY}
        if told and self.central is not None:
            self.central.services_changed()

    def notify(self, handle: int, value: bytes) -> None:
        assert self.central is not None
        self.central.notified(handle, value)

    def hang_up(self, reason: int = REMOTE_USER_TERMINATED) -> None:
        central, self.central = self.central, None
        if central is not None:
            self.log.append("hang up")
            central.disconnected(reason)


class FakeLink:
    def __init__(self, board: FakeBoard, central: Central) -> None:
        self.board = board
        self.central = central
        board.central = central
        board.log.append("connected")
        if board.drop_after_open_s is not None:
            drop_after_s = board.drop_after_open_s
            board.drop_after_open_s = None
            asyncio.get_running_loop().call_later(drop_after_s, board.hang_up, CONNECTION_TIMEOUT)

    @property
    def is_open(self) -> bool:
        return self.board.central is self.central

    @property
    def mtu_octets(self) -> int:
        return self.board.mtu_octets

    @property
    def answers(self) -> bool:
        return self.board.answers

    def services(self) -> tuple[Service, ...]:
        return self.board.services

    def write_command(self, handle: int, value: bytes) -> None:
        assert self.is_open
        self.board.written.append((handle, value))
        self.board.log.append("write")
        if self.board.on_write is not None:
            self.board.on_write(handle, value)

    def write_cccd(self, handle: int, value: bytes) -> None:
        cccds = {c.cccd_handle for s in self.board.services for c in s.characteristics}
        if handle not in cccds:
            raise AttError(0x01, handle)
        self.board.log.append(f"cccd {value.hex()}")
        if self.board.on_cccd is not None:
            self.board.on_cccd()

    def disconnect(self) -> None:
        if self.is_open:
            self.board.central = None
            self.board.log.append("disconnected")


class FakeAir:
    """Delivers what the boards advertise to one adapter; sleeps while nobody listens.

    Each board advertises every `interval_s`.
    """

    INTERVAL_S = 0.02

    def __init__(self, *boards: FakeBoard, interval_s: float = INTERVAL_S) -> None:
        self.boards = {board.address: board for board in boards}
        self._interval_s = interval_s
        self._observers: list[Callable[[Report], None]] = []
        self._initiators: list[tuple[str, Central, Callable[[PeripheralLink], None]]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_used(self) -> bool:
        return bool(self._observers or self._initiators)

    def place(self, board: FakeBoard) -> None:
        """Add a board."""
        self.boards[board.address] = board
        if self.is_used:
            self._wake()

    def observe(self, observer: Callable[[Report], None]) -> Callable[[], None]:
        self._observers.append(observer)
        self._wake()
        return lambda: self._observers.remove(observer)

    def initiate(
        self, device_address: str, central: Central, opened: Callable[[PeripheralLink], None]
    ) -> Callable[[], None]:
        entry = (device_address, central, opened)
        self._initiators.append(entry)
        self._wake()

        def cancel() -> None:
            if entry in self._initiators:
                self._initiators.remove(entry)

        return cancel

    def beacon(self, board: FakeBoard) -> None:
        """Let a board send something non-connectable, such as a mesh PDU."""
        for observer in list(self._observers):
            observer(Report(board.address, board.rssi_dbm, connectable=False))

    def _wake(self) -> None:
        if self._timer is None and self.boards:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for board in self.boards.values():
            if board.advertising:
                self._advertise(board)
        if self.is_used:
            self._wake()

    def _advertise(self, board: FakeBoard) -> None:
        uuids = tuple(board.service_data)
        report = Report(
            board.address, board.rssi_dbm, True, uuids, dict(board.service_data), "ESP-BLE-MESH"
        )
        for observer in list(self._observers):
            observer(report)
        for entry in list(self._initiators):
            address, central, opened = entry
            if address == board.address and board.connectable:
                self._initiators.remove(entry)
                opened(FakeLink(board, central))
