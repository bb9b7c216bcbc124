"""Fast Prov Server: what INFO_SET starts, the Primary's list, and when the proxy comes back.

Names in comments are those of FP 6.1: F_DIS, F_GPE, F_RPD. Not modelled, because no recording
shows it: the answer that dies when a second INFO_SET comes within milliseconds (row 1 says it may).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from fastprovd.emulator import firmware
from fastprovd.emulator.provisioner_role import ProvisionerRole, RunParameters
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh import addresses
from fastprovd.mesh.events import MessageReceived
from fastprovd.mesh.models.configuration import AppKeyStatus
from fastprovd.mesh.models.fast_provisioning import (
    GROUP_MAX,
    MATCH_MAX_OCTETS,
    Action,
    InfoSet,
    InfoStatus,
    InfoStatusBit,
    NetKeyAdd,
    NetKeyStatus,
    NodeAddr,
    NodeAddrAck,
    NodeAddrGet,
    NodeAddrStatus,
    NodeGroupAdd,
    NodeGroupDelete,
)
from fastprovd.mesh.models.fast_provisioning_info import BUSY, PENDING, STOPPING, SUCCEEDED

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board
    from fastprovd.emulator.node import MeshNode


class State(Enum):
    """State of the vendor server; ACTIVE is never left but by a reboot."""

    IDLE = auto()
    PENDING = auto()
    ACTIVE = auto()


def _refusal(bit: InfoStatusBit, status: int) -> InfoStatus:
    return InfoStatus.of({bit: status})


_NOTHING_SET: Final = _refusal(InfoStatusBit.CTX_FLAGS, 1)
_MATCH_TOO_LONG: Final = _refusal(InfoStatusBit.MATCH, 1)
_IN_PROGRESS: Final = _refusal(InfoStatusBit.ACTION, 4)
_NOT_A_GROUP: Final = _refusal(InfoStatusBit.GROUP, 1)
_PRIMARY_NOT_UNICAST: Final = _refusal(InfoStatusBit.PRI_PROV, 1)
_NO_ACTION: Final = _refusal(InfoStatusBit.ACTION, 3)
_ACTION_REFUSED: Final = _refusal(InfoStatusBit.ACTION, 1)
_NET_KEY_UNKNOWN: Final = InfoStatus.of({InfoStatusBit.NET_IDX: 1, InfoStatusBit.ACTION: 2})


class VendorServer:
    """The vendor model's state machine of one node (FP 6)."""

    def __init__(self, board: Board, node: MeshNode) -> None:
        self._board = board
        self._node = node
        self.state = State.PENDING if board.stalls.pending else State.IDLE
        self.role = ProvisionerRole(board, node, self)
        self.listed: list[int] = []
        self.is_primary = False
        self._node_addr_cnt = 0
        self._processing = False
        self._disable_started = False  # F_DIS
        self._proxy_enable_started = False  # F_GPE
        self._proxy_was_disabled = False  # F_RPD
        self._cancel_disable: Callable[[], None] | None = None
        self._cancel_proxy_enable: Callable[[], None] | None = None
        self._last_info_set: MessageReceived | None = None

    def receive(self, event: MessageReceived) -> None:
        """Take a message under a bound AppKey or under a child's DevKey."""
        message = event.message
        if isinstance(message, InfoSet):
            self._info_set(event, message)
        elif isinstance(message, InfoStatus):
            self.role.info_status_received(event.src)
        elif isinstance(message, AppKeyStatus):
            self.role.app_key_status_received(event.src)
        elif isinstance(message, NodeAddr):
            self._node_addr(event, message)
        elif isinstance(message, NodeAddrAck):
            self.role.report_acknowledged(event.src)
        elif isinstance(message, NodeAddrGet):
            self._reply(event, NodeAddrStatus(tuple(self.listed)))
        elif isinstance(message, NodeGroupAdd):
            if self._node.address in message.addresses and addresses.is_group(message.group):
                self._node.subscribe(message.group)
        elif isinstance(message, NodeGroupDelete):
            if self._node.address in message.addresses:
                self._node.unsubscribe(message.group)
        elif isinstance(message, NetKeyAdd):
            # While pending the firmware sends uninitialised octets; 01 01 was measured (OB 5).
            self._reply(event, NetKeyStatus(1, 1))

    # INFO_SET

    def _info_set(self, event: MessageReceived, message: InfoSet) -> None:
        self._last_info_set = event
        refusal = self._check(message)
        if refusal is not None:
            self._reply(event, refusal)
            return
        self._processing = True
        self._board.later(firmware.TASK_HOP_S, lambda: self._set_info(event, message))

    def _check(self, message: InfoSet) -> InfoStatus | None:
        """Return what refuses the message, rows 1 to 10 of FP 5.2, in their order."""
        if self._board.stalls.busy:
            self._board.stalls.busy -= 1
            return BUSY
        if self._processing:
            return BUSY
        if self.state is State.PENDING:
            return PENDING
        if message.ctx_flags == 0:
            return _NOTHING_SET
        if len(message.match_val or b"") > MATCH_MAX_OCTETS:
            return _MATCH_TOO_LONG
        if self.state is State.ACTIVE:
            if message.action_code in (Action.SUSPEND, Action.EXIT):
                self.start_disable_timer()
                return STOPPING
            return _IN_PROGRESS
        unicast = self._check_range(message)
        if unicast:
            return _refusal(InfoStatusBit.UNICAST, unicast)
        group = message.group_addr
        if group is not None:
            if not (addresses.is_group(group) and group <= GROUP_MAX):
                return _NOT_A_GROUP
            self._node.subscribe(group)
        if message.pri_prov_addr is not None and not addresses.is_unicast(message.pri_prov_addr):
            return _PRIMARY_NOT_UNICAST
        if message.action is None:
            return _NO_ACTION
        if message.action_code is not Action.ENTER:
            return _ACTION_REFUSED
        return None

    def _check_range(self, message: InfoSet) -> int:
        if message.unicast_min is None and message.unicast_max is None:
            return 0
        minimum, maximum = self._range(message)
        if not (addresses.is_unicast(minimum) and addresses.is_unicast(maximum)):
            return 1
        if minimum > maximum:
            return 2
        return 4 if minimum < self._node.address + 1 else 0

    def _range(self, message: InfoSet) -> tuple[int, int]:
        minimum, maximum = message.unicast_min, message.unicast_max
        return (
            self._node.address + 1 if minimum is None else minimum,
            addresses.UNICAST_MAX if maximum is None else maximum,
        )

    def _set_info(self, event: MessageReceived, message: InfoSet) -> None:
        net_idx = message.net_idx
        if net_idx is None:
            net_idx = self._node.network.net_key.index
        if net_idx not in self._node.stack.net_keys:
            self.state = State.PENDING
            self._processing = False
            self._reply(event, _NET_KEY_UNKNOWN)
            return
        self._board.later(firmware.TASK_HOP_S, lambda: self._enter(event, message, net_idx))

    def _enter(self, event: MessageReceived, message: InfoSet, net_idx: int) -> None:
        minimum, maximum = self._range(message)
        iv_index = self._node.stack.iv_index
        flags = int(iv_index.update_in_progress) << 1
        self.is_primary = message.makes_primary
        self._node_addr_cnt = (message.node_addr_cnt or 0) if self.is_primary else 0
        if self.is_primary:
            primary = self._node.address
        else:
            primary = message.pri_prov_addr or addresses.UNASSIGNED
        self.role.set_parameters(
            RunParameters(
                unicast_min=minimum,
                unicast_max=maximum,
                flags=flags if message.flags is None else message.flags,
                iv_index=iv_index.value if message.iv_index is None else message.iv_index,
                net_idx=net_idx,
                group=message.group_addr or addresses.UNASSIGNED,
                primary=primary,
                match=message.match_val or b"",
                is_primary=self.is_primary,
            )
        )
        if self._node_addr_cnt == 1:
            self._start_proxy_enable(firmware.PROXY_ENABLE_COUNT_1_S)
        self.state = State.ACTIVE
        self._processing = False
        self._board.record(Happening.RUN_STARTED, "primary" if self.is_primary else "temporary")
        if self._board.stalls.status_not_queued:
            return
        self._reply(event, SUCCEEDED)
        # "Send complete" means handed to the transport, not acknowledged.
        if not self._proxy_was_disabled:
            self._proxy_was_disabled = True
            self._board.disable_proxy()
            self._board.later(firmware.TASK_HOP_S, self._proxy_off_done)

    def _proxy_off_done(self) -> None:
        if self.is_primary:
            self._node.relay = False
        self.role.start()

    # The Primary's list and its proxy

    def child_completed(self, address: int) -> None:
        """An own child said Complete (trigger A of FP 6.5)."""
        if self.is_primary:
            self._list(address)
            count = self._node_addr_cnt
            if count == 0 or 1 < count <= self.role.max_node_num:
                self._start_proxy_enable(firmware.PROXY_ENABLE_S)
        if self._disable_started:
            self._restart_disable_timer()

    def _node_addr(self, event: MessageReceived, message: NodeAddr) -> None:
        if self._proxy_enable_started:
            self._proxy_enable_started = False
            if self._cancel_proxy_enable is not None:
                self._cancel_proxy_enable()
        for address in message.addresses:
            if addresses.is_unicast(address):
                self._list(address)
        self._reply(event, NodeAddrAck())
        if not self._proxy_enable_started:
            self._start_proxy_enable(firmware.PROXY_ENABLE_S)

    def _list(self, address: int) -> None:
        if address not in self.listed and len(self.listed) < firmware.LIST_CAPACITY:
            self.listed.append(address)
            self._board.record(Happening.LISTED, address=address)

    def _start_proxy_enable(self, delay_s: float) -> None:
        if self._cancel_proxy_enable is not None:
            self._cancel_proxy_enable()
        self._proxy_enable_started = True
        if self._board.stalls.proxy_timer_fails:
            self._board.stalls.proxy_timer_fails -= 1
            return
        self._cancel_proxy_enable = self._board.later(delay_s, self._enable_proxy)

    def _enable_proxy(self) -> None:
        if self._proxy_was_disabled:
            self._proxy_was_disabled = False
            self._board.enable_proxy()

    # Stopping

    def start_disable_timer(self) -> None:
        """An OnOff Set or a stop request came; only the first one of a boot counts."""
        if not self._disable_started:
            self._disable_started = True
            self._restart_disable_timer()

    def _restart_disable_timer(self) -> None:
        if self._cancel_disable is not None:
            self._cancel_disable()
        self._cancel_disable = self._board.later(firmware.DISABLE_S, self._disable)

    def _disable(self) -> None:
        self.role.suspend()
        asked = self._last_info_set
        if self._board.stalls.spurious_status and self.state is State.IDLE and asked is not None:
            self._reply(asked, SUCCEEDED)

    def _reply(
        self,
        event: MessageReceived,
        message: InfoStatus | NetKeyStatus | NodeAddrAck | NodeAddrStatus,
    ) -> None:
        self._board.reply(event, message, ttl=0)
