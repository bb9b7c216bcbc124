"""A BleakBearer that tells what passes through it, to the moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.gatt import GattLink
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.lower_transport import (
    SegmentedAccess,
    UnsegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu
from fastprovd.mesh.provisioning.pdus import PduType
from fastprovd.mesh.proxy import ProxyPduType


class TracedBearer(BleakBearer):
    """Calls `passed` with a name before each link is opened, and at each PDU.

    Names: `connect`; `INVITE sent`, `CAPABILITIES received` and so on; `DevKey sent`, `AppKey
    received` and so on for access messages, by their key. `net_keys` opens those. `seqs` are the
    SEQ of all PDUs of ours that left, `partner` is the board of the last link.
    """

    def __init__(self, passed: Callable[[str], None]) -> None:
        super().__init__()
        self.passed = passed
        self.net_keys: list[NetKey] = []
        self.seqs: list[int] = []
        self.partner: str | None = None

    @asynccontextmanager
    async def provisioning_link(self, device_address: str) -> AsyncIterator[GattLink]:
        self.partner = device_address
        self.passed("connect")
        async with super().provisioning_link(device_address) as link:
            yield cast(GattLink, _TracedLink(link, self))

    @asynccontextmanager
    async def proxy_link(self, device_address: str) -> AsyncIterator[GattLink]:
        async with super().proxy_link(device_address) as link:
            yield cast(GattLink, _TracedLink(link, self))

    @asynccontextmanager
    async def kept_proxy_link(self, device_address: str) -> AsyncIterator[GattLink]:
        async with super().kept_proxy_link(device_address) as link:
            yield cast(GattLink, _TracedLink(link, self))

    def pdu_passed(self, how: str, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Tell of one Proxy PDU."""
        if pdu_type is ProxyPduType.PROVISIONING_PDU:
            self.passed(f"{PduType(payload[0]).name} {how}")
            return
        if pdu_type is ProxyPduType.MESH_BEACON:
            return
        is_configuration = pdu_type is ProxyPduType.PROXY_CONFIGURATION
        pdu = decode_network_pdu(
            payload, self.net_keys, IvIndex(), proxy_configuration=is_configuration
        )
        assert pdu is not None, "a PDU that the network's key does not open"
        if how == "sent":
            self.seqs.append(pdu.seq)
        if not is_configuration:
            self._access_passed(how, pdu)

    def _access_passed(self, how: str, pdu: NetworkPdu) -> None:
        lower = decode_lower_transport_pdu(pdu)
        if isinstance(lower, SegmentedAccess | UnsegmentedAccess):
            self.passed(f"{'AppKey' if lower.akf else 'DevKey'} {how}")


class _TracedLink:
    """A Link for the campaign; what is sent is told before, what is received after."""

    def __init__(self, link: GattLink, bearer: TracedBearer) -> None:
        self._link = link
        self._bearer = bearer

    @property
    def is_connected(self) -> bool:
        return self._link.is_connected

    async def send(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        self._bearer.pdu_passed("sent", pdu_type, payload)
        await self._link.send(pdu_type, payload)

    async def receive(self) -> tuple[ProxyPduType, bytes]:
        pdu_type, payload = await self._link.receive()
        self._bearer.pdu_passed("received", pdu_type, payload)
        return pdu_type, payload
