"""The GATT proxy of a node: filters, what goes to which client, proxy configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastprovd.emulator import firmware
from fastprovd.errors import DecodeError
from fastprovd.mesh import addresses
from fastprovd.mesh.beacons import SecureNetworkBeacon
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu
from fastprovd.mesh.proxy import (
    AddAddresses,
    FilterStatus,
    FilterType,
    ProxyPduType,
    RemoveAddresses,
    SetFilterType,
    decode_proxy_configuration,
)

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board
    from fastprovd.emulator.gatt_server import Link
    from fastprovd.emulator.node import MeshNode


class _Filter:
    """One client's filter; an address it sent from is marked as the client's own."""

    def __init__(self) -> None:
        self.filter_type = FilterType.ACCEPT_LIST
        self._addresses: dict[int, bool] = {}

    @property
    def status(self) -> FilterStatus:
        return FilterStatus(self.filter_type, len(self._addresses))

    def learn(self, address: int) -> None:
        if self.filter_type is FilterType.ACCEPT_LIST:
            self.add(address, of_client=True)
        else:
            self._addresses.pop(address, None)

    def add(self, address: int, *, of_client: bool = False) -> None:
        known = self._addresses.get(address)
        if known is None and len(self._addresses) >= firmware.PROXY_FILTER_CAPACITY:
            return
        self._addresses[address] = bool(known) or of_client

    def remove(self, address: int) -> None:
        self._addresses.pop(address, None)

    def set_type(self, filter_type: FilterType) -> None:
        self.filter_type = filter_type
        self._addresses.clear()

    def passes(self, dst: int) -> bool:
        if self.filter_type is FilterType.REJECT_LIST:
            return dst not in self._addresses
        return dst == addresses.ALL_NODES or dst in self._addresses

    def is_client(self, dst: int) -> bool:
        return self._addresses.get(dst, False)


class ProxyServer:
    """Serves every link on which a filter was opened."""

    def __init__(self, board: Board, node: MeshNode) -> None:
        self._board = board
        self._node = node
        self._filters: dict[Link, _Filter] = {}

    def open(self, link: Link, *, is_fresh: bool) -> None:
        """Begin with the accept list, empty; a fresh link gets one Secure Network beacon."""
        if link in self._filters:
            return
        self._filters[link] = _Filter()
        if is_fresh:
            self._board.later(firmware.PROXY_BEACON_DELAY_S, lambda: self._send_beacon(link))

    def close(self, link: Link) -> None:
        """Forget a link."""
        self._filters.pop(link, None)

    def forward(self, raw: bytes, dst: int) -> None:
        """Send a Network PDU to the clients whose filter lets it through."""
        for link, address_filter in tuple(self._filters.items()):
            if address_filter.passes(dst):
                link.send_proxy_pdu(ProxyPduType.NETWORK_PDU, raw)

    def passes(self, dst: int) -> bool:
        """Whether any client would get a PDU for `dst`."""
        return any(address_filter.passes(dst) for address_filter in self._filters.values())

    def is_client(self, dst: int) -> bool:
        """Whether `dst` is a client's own address: its PDUs go to no other bearer."""
        return any(address_filter.is_client(dst) for address_filter in self._filters.values())

    def receive(self, link: Link, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Take a Proxy PDU of a client; without an open filter its address is not learnt."""
        if pdu_type is ProxyPduType.NETWORK_PDU:
            self._receive_network_pdu(link, payload)
        elif pdu_type is ProxyPduType.PROXY_CONFIGURATION:
            self._receive_configuration(link, payload)

    def _receive_network_pdu(self, link: Link, raw: bytes) -> None:
        pdu = self._node.network.decode(raw, self._node.stack.iv_index)
        if pdu is None:
            return
        self._learn(link, pdu.src)
        self._node.receive_from_gatt(pdu)

    def _learn(self, link: Link, src: int) -> None:
        address_filter = self._filters.get(link)
        if address_filter is not None:
            address_filter.learn(src)

    def _receive_configuration(self, link: Link, raw: bytes) -> None:
        stack = self._node.stack
        address_filter = self._filters.get(link)
        if address_filter is None:
            return
        try:
            pdu = decode_network_pdu(
                raw, stack.net_keys.values(), stack.iv_index, proxy_configuration=True
            )
            if pdu is None or stack.replay.is_replay(pdu.src, pdu.iv_index, pdu.seq):
                return
            stack.replay.record(pdu.src, pdu.iv_index, pdu.seq)
            address_filter.learn(pdu.src)
            message = decode_proxy_configuration(pdu.transport_pdu)
        except DecodeError:
            return
        if isinstance(message, SetFilterType):
            address_filter.set_type(message.filter_type)
        elif isinstance(message, AddAddresses):
            for address in message.addresses:
                address_filter.add(address)
        elif isinstance(message, RemoveAddresses):
            for address in message.addresses:
                address_filter.remove(address)
        else:
            return
        self._send_status(link, address_filter)

    def _send_status(self, link: Link, address_filter: _Filter) -> None:
        stack = self._node.stack
        net_key = self._node.network.net_key
        status = NetworkPdu(
            1,
            0,
            stack.sequence.take(),
            stack.address,
            addresses.UNASSIGNED,
            address_filter.status.encode(),
            stack.iv_index.transmit,
            net_key.index,
        )
        raw = encode_network_pdu(status, net_key, proxy_configuration=True)
        link.send_proxy_pdu(ProxyPduType.PROXY_CONFIGURATION, raw)

    def _send_beacon(self, link: Link) -> None:
        if link in self._filters:
            net_key = self._node.network.net_key
            beacon = SecureNetworkBeacon(False, self._node.stack.iv_index, net_key.network_id)
            link.send_proxy_pdu(ProxyPduType.MESH_BEACON, beacon.encode(net_key))
