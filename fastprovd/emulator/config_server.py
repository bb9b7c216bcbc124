"""Configuration Server and Generic OnOff Server of a board."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fastprovd.emulator import firmware
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh import addresses
from fastprovd.mesh.access import Message
from fastprovd.mesh.events import MessageReceived
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.models.composition import CompositionData
from fastprovd.mesh.models.configuration import (
    AppKeyAdd,
    AppKeyStatus,
    CompositionDataGet,
    CompositionDataStatus,
    FoundationStatus,
    NodeReset,
    NodeResetStatus,
)
from fastprovd.mesh.models.configuration_states import (
    BeaconGet,
    BeaconStatus,
    DefaultTtlGet,
    DefaultTtlStatus,
    GattProxyGet,
    GattProxySet,
    GattProxyStatus,
    NetworkTransmitGet,
    NetworkTransmitStatus,
    NodeIdentityGet,
    NodeIdentitySet,
    NodeIdentityStatus,
    RelayGet,
    RelayStatus,
    SigModelSubscriptionGet,
    SigModelSubscriptionList,
)
from fastprovd.mesh.models.configuration_subscriptions import (
    ModelSubscriptionAdd,
    ModelSubscriptionDelete,
    ModelSubscriptionStatus,
)
from fastprovd.mesh.models.generic_onoff import (
    GENERIC_ONOFF_SERVER,
    OnOffGet,
    OnOffSet,
    OnOffSetUnacknowledged,
    OnOffStatus,
)

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board
    from fastprovd.emulator.node import MeshNode


class ConfigServer:
    """Answers under the DevKey, TTL 7; AppKey Add binds the key to all models a little later."""

    def __init__(self, board: Board, node: MeshNode) -> None:
        self._board = board
        self._node = node
        self.bound_app_keys: set[int] = set()
        self.latest_app_key: int | None = None
        self.gatt_proxy = True

    def receive(self, event: MessageReceived) -> None:
        """Take a message under our DevKey."""
        handler = _HANDLERS.get(type(event.message))
        if handler is None:
            return
        self._board.reply(event, handler(self, event.message), ttl=firmware.DEFAULT_TTL)
        if isinstance(event.message, NodeReset):
            self._board.reset_node()

    def _app_key_add(self, message: AppKeyAdd) -> AppKeyStatus:
        key = message.app_key
        status = self._store(key)
        if status is FoundationStatus.SUCCESS:
            delay = self._board.random.uniform(*firmware.BIND_DELAY_S)
            self._board.later(delay, lambda: self._bind(key.index))
        return AppKeyStatus(status, key.bound_net_key_index, key.index)

    def _store(self, key: AppKey) -> FoundationStatus:
        stack = self._node.stack
        known = stack.app_keys.get(key.index)
        if key.bound_net_key_index not in stack.net_keys or (
            known is not None and known.bound_net_key_index != key.bound_net_key_index
        ):
            return FoundationStatus.INVALID_NET_KEY_INDEX
        if known is not None:
            if known.octets == key.octets:
                return FoundationStatus.SUCCESS
            return FoundationStatus.KEY_INDEX_ALREADY_STORED
        if len(stack.app_keys) >= firmware.MAX_APP_KEYS:
            return FoundationStatus.INSUFFICIENT_RESOURCES
        stack.app_keys[key.index] = key
        self._board.app_key_stored()
        return FoundationStatus.SUCCESS

    def _bind(self, index: int) -> None:
        self.bound_app_keys.add(index)
        self.latest_app_key = index

    def _composition_data_get(self, _: Message) -> CompositionDataStatus:
        # Other page numbers fall back to page 0.
        return CompositionDataStatus(CompositionData.PAGE, firmware.COMPOSITION.encode())

    def _node_reset(self, _: Message) -> NodeResetStatus:
        return NodeResetStatus()

    def _default_ttl_get(self, _: Message) -> DefaultTtlStatus:
        return DefaultTtlStatus(firmware.DEFAULT_TTL)

    def _relay_get(self, _: Message) -> RelayStatus:
        return RelayStatus(int(self._node.relay), 2, 1)

    def _gatt_proxy_get(self, _: Message) -> GattProxyStatus:
        # The state stays 1 while fast provisioning has the service disabled (FP 4.2).
        return GattProxyStatus(int(self.gatt_proxy))

    def _gatt_proxy_set(self, message: GattProxySet) -> GattProxyStatus:
        # Only stored: no link is closed, and advertising goes on until it is begun anew (OB 18).
        self.gatt_proxy = bool(message.gatt_proxy)
        return GattProxyStatus(int(self.gatt_proxy))

    def _beacon_get(self, _: Message) -> BeaconStatus:
        return BeaconStatus(0)

    def _network_transmit_get(self, _: Message) -> NetworkTransmitStatus:
        return NetworkTransmitStatus(2, 1)

    def _node_identity_get(self, message: NodeIdentityGet) -> NodeIdentityStatus:
        if message.net_key_index not in self._node.stack.net_keys:
            return NodeIdentityStatus(
                FoundationStatus.INVALID_NET_KEY_INDEX, message.net_key_index, 0
            )
        running = int(self._board.identity_is_running)
        return NodeIdentityStatus(FoundationStatus.SUCCESS, message.net_key_index, running)

    def _node_identity_set(self, message: NodeIdentitySet) -> NodeIdentityStatus:
        # Whatever the GATT Proxy state is, against MshP 4.2.11.1 (OB 18).
        if message.net_key_index in self._node.stack.net_keys:
            self._board.set_identity(bool(message.identity))
        return self._node_identity_get(NodeIdentityGet(message.net_key_index))

    def _subscription_get(self, message: SigModelSubscriptionGet) -> SigModelSubscriptionList:
        element, model = message.element_address, message.model_id
        status = self._model_status(element, model)
        groups = self._node.subscriptions if status is FoundationStatus.SUCCESS else ()
        return SigModelSubscriptionList(status, element, model, groups)

    def _subscription_change(
        self, message: ModelSubscriptionAdd | ModelSubscriptionDelete
    ) -> ModelSubscriptionStatus:
        element, group, model = message.element_address, message.address, message.model_id
        status = self._model_status(element, model)
        if status is FoundationStatus.SUCCESS:
            if not addresses.is_group(group) or group == addresses.ALL_NODES:
                status = FoundationStatus.INVALID_ADDRESS
            elif isinstance(message, ModelSubscriptionDelete):
                self._node.unsubscribe(group)
            else:
                self._node.subscribe(group)
                if group not in self._node.subscriptions:
                    status = FoundationStatus.INSUFFICIENT_RESOURCES
        return ModelSubscriptionStatus(status, element, group, model)

    def _model_status(self, element: int, model: int) -> FoundationStatus:
        if element != self._node.address:
            return FoundationStatus.INVALID_ADDRESS
        if model != GENERIC_ONOFF_SERVER:
            return FoundationStatus.INVALID_MODEL
        return FoundationStatus.SUCCESS


_HANDLERS: Final[dict[type, Callable[[ConfigServer, Any], Message]]] = {
    AppKeyAdd: ConfigServer._app_key_add,
    CompositionDataGet: ConfigServer._composition_data_get,
    NodeReset: ConfigServer._node_reset,
    DefaultTtlGet: ConfigServer._default_ttl_get,
    RelayGet: ConfigServer._relay_get,
    GattProxyGet: ConfigServer._gatt_proxy_get,
    GattProxySet: ConfigServer._gatt_proxy_set,
    BeaconGet: ConfigServer._beacon_get,
    NetworkTransmitGet: ConfigServer._network_transmit_get,
    NodeIdentityGet: ConfigServer._node_identity_get,
    NodeIdentitySet: ConfigServer._node_identity_set,
    SigModelSubscriptionGet: ConfigServer._subscription_get,
    ModelSubscriptionAdd: ConfigServer._subscription_change,
    ModelSubscriptionDelete: ConfigServer._subscription_change,
}


class OnOffServer:
    """Generic OnOff Server: one light, no transitions."""

    def __init__(self, board: Board, node: MeshNode, was_set: Callable[[], None]) -> None:
        self._board = board
        self._node = node
        self._was_set = was_set
        self._last_tid: tuple[int, int, float] | None = None
        self.onoff = False

    def receive(self, event: MessageReceived) -> None:
        """Take an OnOff message."""
        message = event.message
        if isinstance(message, OnOffSet | OnOffSetUnacknowledged):
            self._set(event, message)
        elif not isinstance(message, OnOffGet):
            return
        if not isinstance(message, OnOffSetUnacknowledged):
            self._board.reply(event, OnOffStatus(self.onoff), ttl=firmware.DEFAULT_TTL)

    def _set(self, event: MessageReceived, message: OnOffSet | OnOffSetUnacknowledged) -> None:
        now = self._board.now()
        if event.dst == self._node.address:
            # A repeat is only recognised for a unicast destination (FP 6.2).
            last, self._last_tid = self._last_tid, (event.src, message.tid, now)
            if (
                last is not None
                and last[:2] == (event.src, message.tid)
                and now - last[2] < firmware.ONOFF_REPEAT_S
            ):
                self._last_tid = last
                return
        self.onoff = message.onoff
        self._board.record(Happening.SWITCHED, "on" if message.onoff else "off")
        self._was_set()
