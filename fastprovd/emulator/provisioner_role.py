"""Primary and Temporary Provisioner: which devices it takes, how it configures and reports them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import pairwise
from typing import TYPE_CHECKING

from fastprovd.emulator import firmware
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.pb_adv import ProvisionerLink
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.access import encode_message
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.models.configuration import AppKeyAdd
from fastprovd.mesh.models.fast_provisioning import Action, InfoSet, NodeAddr
from fastprovd.mesh.provisioning.pdus import ProvisioningData

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board
    from fastprovd.emulator.node import MeshNode
    from fastprovd.emulator.vendor_server import VendorServer


@dataclass(frozen=True, slots=True)
class RunParameters:
    """What a complete INFO_SET gave; `primary` is where Temporary Provisioners report."""

    unicast_min: int
    unicast_max: int
    flags: int
    iv_index: int
    net_idx: int
    group: int
    primary: int
    match: bytes
    is_primary: bool


class ChildRanges:
    """The arithmetic of FP 6.3: own children first, the rest in `count` equal parts."""

    def __init__(self, unicast_min: int, unicast_max: int, count: int) -> None:
        """`count` is the most children; a smaller range lowers it."""
        self.count = min(count, unicast_max - unicast_min + 1)
        self.last_own = unicast_min + self.count - 1
        self._next_own = unicast_min
        self._current = unicast_min + self.count
        self._maximum = unicast_max
        room = unicast_max - self._current
        self._step = 0 if room <= 0 else room // self.count

    @property
    def has_address(self) -> bool:
        """Whether a child can still get an address."""
        return self._next_own <= self.last_own

    def take_address(self) -> int | None:
        """Return the next child's address; it is not reused if that child fails."""
        if not self.has_address:
            return None
        self._next_own += 1
        return self._next_own - 1

    def take_range(self) -> tuple[int, int] | None:
        """Return a child's range, first and last; `None` for lack of addresses."""
        if self._current >= self._maximum:
            return None
        low = self._current
        high = min(low + self._step, self._maximum)
        self._current = high + 1
        return low, high


class _Stage(Enum):
    LEFT_WITHOUT_APP_KEY = auto()
    AWAIT_APP_KEY_STATUS = auto()
    AWAIT_INFO_STATUS = auto()
    DONE = auto()


@dataclass(slots=True)
class _Child:
    board: Board
    address: int
    dev_key: DevKey = field(repr=False)
    stage: _Stage = _Stage.AWAIT_APP_KEY_STATUS
    reported: bool = False
    cancel_timeout: Callable[[], None] | None = None


class ProvisionerRole:
    """Begins with `start`, ends with `suspend`; configuring and reporting go on after that."""

    def __init__(self, board: Board, node: MeshNode, server: VendorServer) -> None:
        self._board = board
        self._node = node
        self._server = server
        self._parameters: RunParameters | None = None
        self._ranges = ChildRanges(0, -1, firmware.MAX_NODE_NUM)
        self.max_node_num = firmware.MAX_NODE_NUM
        self.is_provisioning = False
        self.links: list[ProvisionerLink] = []
        self._children: dict[int, _Child] = {}
        self._queue: list[Board] = []
        self._started_count = 0
        self._cancel_report: Callable[[], None] | None = None
        self._outstanding: list[_Child] = []

    @property
    def children(self) -> tuple[Board, ...]:
        """Boards this one provisioned, in order."""
        return tuple(child.board for child in self._children.values())

    def set_parameters(self, parameters: RunParameters) -> None:
        """Take what the run is about; called once per boot."""
        self._parameters = parameters
        self._ranges = ChildRanges(
            parameters.unicast_min, parameters.unicast_max, self.max_node_num
        )
        self.max_node_num = self._ranges.count

    def start(self) -> None:
        """Listen to beacons from now on."""
        self.is_provisioning = True
        self._started_count += self._board.stalls.leaked_starts
        self._board.listen_to_beacons(True)

    def suspend(self) -> None:
        """Take no more devices; the children stay known."""
        if self.is_provisioning:
            self.is_provisioning = False
            self._board.listen_to_beacons(False)
            self._board.record(Happening.SUSPENDED)

    # Taking devices

    def hear_beacon(self, device: Board) -> None:
        """An Unprovisioned Device beacon: open a link when there is room for that device."""
        parameters = self._parameters
        if (
            not self.is_provisioning
            or parameters is None
            or len(self.links) >= firmware.MAX_PB_ADV_LINKS
            or not device.uuid.startswith(parameters.match)
            or any(link.device is device for link in self.links)
            or any(child.board is device for child in self._children.values())
            or not self._ranges.has_address
        ):
            return
        if device not in self._queue:
            # A device that waits in the stack's queue is served without being counted (S8).
            if self._started_count >= self.max_node_num or len(self._children) >= self.max_node_num:
                return
            if len(self._queue) >= firmware.UNPROVISIONED_QUEUE:
                # The demo adds every device as flushable; a full queue drops its first such entry
                # (ESP-IDF, esp_ble_mesh_provisioner_add_unprov_dev; the reference is silent).
                del self._queue[0]
            self._queue.append(device)
            self._started_count += 1
        dev_key = DevKey(self._board.random.randbytes(16))
        self._board.record(Happening.LINK_OPENED, device.device_address)
        self.links.append(ProvisionerLink(self._board, self, device, dev_key))

    def provisioning_data(self) -> ProvisioningData | None:
        """Return what the next child becomes a node with, `None` without an address."""
        address = self._ranges.take_address()
        if address is None:
            return None
        return ProvisioningData(self._node.network.net_key, address, self._node.stack.iv_index)

    def link_closed(self, link: ProvisionerLink) -> None:
        """The slot of a link is free."""
        self.links.remove(link)
        if self._started_count > 0:
            self._started_count -= 1
        self._board.record(Happening.LINK_CLOSED, link.device.device_address)

    def child_completed(self, link: ProvisionerLink) -> None:
        """A device said Complete: list or report it, and configure it."""
        if link.address is None:
            return
        child = _Child(link.device, link.address, link.dev_key)
        self._children[child.address] = child
        if link.device in self._queue:
            self._queue.remove(link.device)
        self._node.stack.dev_keys[child.address] = child.dev_key
        self._board.record(
            Happening.COMPLETE_HEARD, link.device.device_address, address=child.address
        )
        self._server.child_completed(child.address)
        if not self._server.is_primary:
            self._restart_report_timer(firmware.REPORT_S)
        if self._app_key_add_fails():
            child.stage = _Stage.LEFT_WITHOUT_APP_KEY
            self._board.record(
                Happening.APP_KEY_FAILED, link.device.device_address, address=child.address
            )
            return
        self._send_app_key(child)

    def _app_key_add_fails(self) -> bool:
        # 48 to 49 of 50 timers are in use; what it takes to use up the rest is not known. Only
        # that it happens more often with more boards around, and mostly to the Primary (OB 17).
        if self._board.host is not Host.BLUEDROID or not self._board.flaws.missing_app_keys:
            return False
        column = 1 if self._server.is_primary else 2
        boards = self._board.air.neighbours(self._board) + 1
        probability = interpolate(firmware.MISSING_APP_KEY, boards, column)
        return self._board.random.random() < probability

    # Configuring children

    def app_key_status_received(self, src: int) -> None:
        """A child answered AppKey Add; what it says is not looked at."""
        child = self._children.get(src)
        parameters = self._parameters
        if child is None or parameters is None or child.stage is not _Stage.AWAIT_APP_KEY_STATUS:
            return
        child.stage = _Stage.AWAIT_INFO_STATUS
        span = self._ranges.take_range()
        if span is None:
            message = InfoSet(group_addr=parameters.group)
        else:
            message = InfoSet(
                unicast_min=span[0],
                unicast_max=span[1],
                flags=parameters.flags,
                iv_index=parameters.iv_index,
                net_idx=parameters.net_idx,
                group_addr=parameters.group,
                pri_prov_addr=parameters.primary,
                match_val=parameters.match,
                action=Action.ENTER,
            )
        # Not the checked encoder: without a group of its own a board forwards 0x0000 (FP 5.1).
        payload = InfoSet.OPCODE.to_bytes(3, "big") + message.encode_unchecked()
        self._request(child, payload, self._app_key)

    def info_status_received(self, src: int) -> None:
        """A child answered INFO_SET; what it says is not looked at."""
        child = self._children.get(src)
        if child is None or child.stage is not _Stage.AWAIT_INFO_STATUS:
            return
        self._stop_timeout(child)
        child.stage = _Stage.DONE
        self._board.record(Happening.CONFIGURED, child.board.device_address, address=child.address)

    def _send_app_key(self, child: _Child) -> None:
        payload = encode_message(AppKeyAdd(self._app_key))
        self._request(child, payload, child.dev_key)

    @property
    def _app_key(self) -> AppKey:
        return self._board.latest_app_key

    def _request(self, child: _Child, payload: bytes, key: AppKey | DevKey) -> None:
        """Send until the stage is over: 4 s after it went on the air, again and without limit."""
        self._stop_timeout(child)
        stage = child.stage

        def again() -> None:
            if child.stage is stage:
                self._request(child, payload, key)

        def started() -> None:
            if child.stage is stage:
                child.cancel_timeout = self._board.later(firmware.CLIENT_TIMEOUT_S, again)

        self._node.send(payload, dst=child.address, key=key, ttl=0, started=started)

    def _stop_timeout(self, child: _Child) -> None:
        if child.cancel_timeout is not None:
            child.cancel_timeout()
            child.cancel_timeout = None

    # Reporting to the Primary

    def report_acknowledged(self, src: int) -> None:
        """The Primary has our report: next batch in 5 s."""
        if self._parameters is None or src != self._parameters.primary or not self._outstanding:
            return
        for child in self._outstanding:
            child.reported = True
        self._outstanding = []
        self._restart_report_timer(firmware.REPORT_S)

    def _restart_report_timer(self, delay_s: float) -> None:
        if self._outstanding:
            return  # its own timeout goes on
        if self._cancel_report is not None:
            self._cancel_report()
        self._cancel_report = self._board.later(delay_s, self._report)

    def _report(self) -> None:
        self._cancel_report = None
        unreported = [child for child in self._children.values() if not child.reported]
        self._outstanding = unreported[: firmware.REPORT_ADDRESSES]
        if self._outstanding:
            self._send_report()

    def _send_report(self) -> None:
        outstanding = self._outstanding
        parameters = self._parameters
        if not outstanding or parameters is None or parameters.primary == 0:
            return
        payload = encode_message(NodeAddr(tuple(child.address for child in outstanding)))

        def again() -> None:
            if self._outstanding is outstanding:
                self._send_report()

        def started() -> None:
            self._board.later(firmware.CLIENT_TIMEOUT_S, again)

        self._node.send(payload, dst=parameters.primary, key=self._app_key, ttl=0, started=started)


def interpolate(table: tuple[tuple[int, float, float], ...], at: int, column: int) -> float:
    """Return `column` of `table` at `at`, linear between its rows and flat outside."""
    if at <= table[0][0]:
        return table[0][column]
    for lower, upper in pairwise(table):
        if at <= upper[0]:
            share = (at - lower[0]) / (upper[0] - lower[0])
            return lower[column] + share * (upper[column] - lower[column])
    return table[-1][column]
