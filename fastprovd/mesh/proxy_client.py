"""The GATT proxy client: Proxy PDUs in, events and Proxy PDUs out, over one stack."""

from __future__ import annotations

from typing import Final

from fastprovd.errors import DecodeError
from fastprovd.mesh import addresses
from fastprovd.mesh.beacons import SecureNetworkBeacon
from fastprovd.mesh.events import (
    BeaconReceived,
    Event,
    FilterStatusReceived,
    IvIndexChanged,
    IvIndexRefused,
    MessageRejected,
    OwnAddressHeard,
    PduOverheard,
)
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    UnsegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu
from fastprovd.mesh.proxy import (
    FilterStatus,
    ProxyConfiguration,
    ProxyPduType,
    decode_proxy_configuration,
)
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.mesh.stack import Stack

# Whoever tells the state of a filter; there is one on a link, and no reason to remember thousands.
_PROXIES_ON_A_LINK: Final = 8


class ProxyClient:
    """Speaks with a proxy server; the four verbs of the stack, with Proxy PDU types added.

    It does not segment into ATT values (the bearer does), and it follows no IV Index backwards.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._configuration: list[bytes] = []
        self._configuration_heard = ReplayProtectionList(_PROXIES_ON_A_LINK)

    def configure(self, message: ProxyConfiguration) -> None:
        """Queue a proxy configuration message, with CTL 1, TTL 0, DST 0."""
        stack = self.stack
        net_key = next(iter(stack.net_keys.values()))
        pdu = NetworkPdu(
            1,
            0,
            stack.sequence.take(),
            stack.address,
            0,
            message.encode(),
            stack.iv_index.transmit,
            net_key.index,
        )
        self._configuration.append(encode_network_pdu(pdu, net_key, proxy_configuration=True))

    def configuration_to_send(self) -> list[tuple[ProxyPduType, bytes]]:
        """Return the proxy configuration messages to send now, in order, and forget them."""
        configuration, self._configuration = self._configuration, []
        return [(ProxyPduType.PROXY_CONFIGURATION, raw) for raw in configuration]

    def pdus_to_send(self) -> list[tuple[ProxyPduType, bytes]]:
        """Return what is to be sent now, in order, and forget it.

        Where several clients share a stack, see `configuration_to_send` and the stack's own.
        """
        pdus = self.configuration_to_send()
        pdus += [(ProxyPduType.NETWORK_PDU, out.raw) for out in self.stack.pdus_to_send()]
        return pdus

    def next_deadline(self) -> float | None:
        """When `handle_deadline` must be called, in seconds of `now`."""
        return self.stack.next_deadline()

    def handle_deadline(self, now: float) -> list[Event]:
        """Do what is due in the stack."""
        return self.stack.handle_deadline(now)

    def receive(self, pdu_type: ProxyPduType, payload: bytes, now: float) -> list[Event]:
        """Take a Proxy PDU; what no key opens gives no event, what is malformed is rejected."""
        try:
            if pdu_type is ProxyPduType.NETWORK_PDU:
                return self._receive_network(payload, now)
            if pdu_type is ProxyPduType.MESH_BEACON:
                return self._receive_beacon(payload, now)
            if pdu_type is ProxyPduType.PROXY_CONFIGURATION:
                return self._receive_configuration(payload)
        except DecodeError as error:
            return [MessageRejected(None, str(error))]
        return [MessageRejected(None, "a Provisioning PDU came over the proxy link")]

    def _receive_network(self, payload: bytes, now: float) -> list[Event]:
        pdu = self.stack.decode(payload)
        if pdu is None:
            return []
        if pdu.src == self.stack.address:
            return self._receive_own(pdu)
        if addresses.is_unicast(pdu.dst) and pdu.dst != self.stack.address:
            return [_overheard(pdu)]
        return self.stack.receive(pdu, now)

    def _receive_own(self, pdu: NetworkPdu) -> list[Event]:
        """Tell our own PDUs, which neighbours relay, from those that we have not sent yet."""
        now, next_seq = self.stack.iv_index.transmit, self.stack.sequence.next
        if next_seq is None or (pdu.iv_index, pdu.seq) < (now, next_seq):
            return []
        return [OwnAddressHeard(pdu.iv_index, pdu.seq, next_seq)]

    def _receive_beacon(self, payload: bytes, now: float) -> list[Event]:
        if not payload or payload[0] != SecureNetworkBeacon.TYPE:
            return []
        stack = self.stack
        beacon = SecureNetworkBeacon.decode(payload, stack.net_keys.values())
        if beacon is None:
            return []
        events: list[Event] = [BeaconReceived(beacon.iv_index, beacon.key_refresh)]
        ours, theirs = stack.iv_index, beacon.iv_index
        if stack.iv_updates.allow(ours, theirs, now):
            stack.iv_updates.moved(ours, theirs, now)
            events += [IvIndexChanged(theirs), *stack.change_iv_index(theirs)]
        elif theirs.value > ours.value:
            events.append(IvIndexRefused(theirs))
        return events

    def _receive_configuration(self, payload: bytes) -> list[Event]:
        stack = self.stack
        pdu = decode_network_pdu(
            payload, stack.net_keys.values(), stack.iv_index, proxy_configuration=True
        )
        if pdu is None or pdu.src == stack.address:
            return []
        for heard in (stack.replay, self._configuration_heard):
            if heard.is_replay(pdu.src, pdu.iv_index, pdu.seq):
                return []
        # Whoever has the NetKey can make one: it must not silence its SRC on other links.
        self._configuration_heard.record(pdu.src, pdu.iv_index, pdu.seq)
        message = decode_proxy_configuration(pdu.transport_pdu)
        if isinstance(message, FilterStatus):
            return [FilterStatusReceived(pdu.src, message)]
        return []


def _overheard(pdu: NetworkPdu) -> PduOverheard:
    """Tell what a PDU between others is; raises DecodeError."""
    carried = decode_lower_transport_pdu(pdu)
    return PduOverheard(
        pdu.src,
        pdu.dst,
        device_key=isinstance(carried, UnsegmentedAccess) and not carried.akf,
        acknowledgment=carried if isinstance(carried, SegmentAcknowledgment) else None,
    )
