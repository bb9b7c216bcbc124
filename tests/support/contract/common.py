"""What the tests of several topics do in the same way."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest
from bleak import BleakClient
from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.adapter import CONNECT_TIMEOUT_S, BleakBearer
from fastprovd.bearers.gatt import GattLink
from fastprovd.campaign.primary import Outcome, provision
from fastprovd.clock import SystemClock
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice
from fastprovd.mesh.events import FilterStatusReceived
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import DevKey, NetKey
from fastprovd.mesh.provisioning.pdus import PduType, ProvisioningData
from fastprovd.mesh.proxy import FilterType, ProxyPduType, SetFilterType
from fastprovd.mesh.proxy_client import ProxyClient
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from tests.support.door import Door

PROVISIONING: Final = normalize_uuid_16(0x1827)
PROXY: Final = normalize_uuid_16(0x1828)
IN: Final = normalize_uuid_16(0x2ADB)
OUT: Final = normalize_uuid_16(0x2ADC)

# A firmware without Generic Attribute service: nobody is told of the swap.
SILENT: Final = replace(
    Host.NIMBLE,
    name="without Service Changed",
    base_services=Host.NIMBLE.base_services[:1],
    service_changed_cccd=0,
)
HOSTS: Final = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda h: h.name)
INVITE: Final = bytes([PduType.INVITE, 0])
ABSENT: Final = "24:0A:C4:00:00:00"


def mesh_services(client: BleakClient) -> list[str]:
    """Return the UUIDs of the mesh services that bleak shows."""
    return [found.uuid for found in client.services if found.uuid in (PROVISIONING, PROXY)]


async def heard_until(
    door: Door, bearer: BleakBearer, enough: Callable[[dict[str, Advertisement]], bool]
) -> dict[str, Advertisement]:
    """Scan until the latest advertisements by BD_ADDR are enough."""
    heard: dict[str, Advertisement] = {}
    async with asyncio.timeout(20 * door.patience), bearer.scan() as scan:
        async for advertisement in scan:
            heard[advertisement.device_address] = advertisement
            if enough(heard):
                break
    return heard


async def find(door: Door, bearer: BleakBearer, board: Board) -> None:
    """Scan until the board was heard waiting for a provisioner."""
    wanted = UnprovisionedDevice(board.uuid)
    await heard_until(
        door,
        bearer,
        lambda heard: board.device_address in heard and heard[board.device_address].data == wanted,
    )


async def capabilities(door: Door, link: GattLink) -> bytes:
    """Send Invite and return the answer."""
    async with asyncio.timeout(5 * door.patience):
        await link.send(ProxyPduType.PROVISIONING_PDU, INVITE)
        pdu_type, pdu = await link.receive()
    assert pdu_type is ProxyPduType.PROVISIONING_PDU
    assert pdu[0] == PduType.CAPABILITIES
    return pdu


async def provision_over(link: GattLink, address: int, net_key: NetKey | None = None) -> None:
    """Make the board a node, without a NetKey of a network of its own."""

    async def forget(_: DevKey) -> None:
        return

    data = ProvisioningData(net_key or NetKey(secrets.token_bytes(16)), address)
    outcome, reason = await provision(link, data, secrets.token_bytes, SystemClock(), forget)
    assert outcome is Outcome.COMPLETED, reason


async def talks_as_proxy(door: Door, link: GattLink, net_key: NetKey) -> int:
    """Set a filter and return the address of the proxy that tells its state."""
    stack = Stack(
        address=0x0001,
        net_keys=[net_key],
        iv_index=IvIndex(),
        sequence=SequenceNumbers(range(100)),
    )
    client = ProxyClient(stack)
    client.configure(SetFilterType(FilterType.REJECT_LIST))
    for pdu in client.configuration_to_send():
        await link.send(*pdu)
    async with asyncio.timeout(5 * door.patience):
        while True:
            for event in client.receive(*await link.receive(), 0.0):
                if isinstance(event, FilterStatusReceived):
                    return event.src


@asynccontextmanager
async def found_link(
    door: Door, board: Board, connect_timeout_s: float = CONNECT_TIMEOUT_S
) -> AsyncIterator[GattLink]:
    """Find the board and open PB-GATT, with a bearer for this alone."""
    async with door.bearer(connect_timeout_s=connect_timeout_s) as bearer:
        await find(door, bearer, board)
        async with bearer.provisioning_link(board.device_address) as link:
            yield link


class Record:
    """Keeps which links are open, of one bearer after the other."""

    def __init__(self) -> None:
        self._links: set[str] = set()

    def open_links(self) -> list[str]:
        """Return them."""
        return sorted(self._links)

    def note_open_link(self, device_address: str) -> None:
        """Keep one."""
        self._links.add(device_address)

    def drop_open_links(self, device_addresses: Iterable[str]) -> None:
        """Forget them."""
        self._links.difference_update(device_addresses)


async def works(door: Door, board: Board) -> None:
    """Find the board, connect and converse."""
    async with found_link(door, board) as link:
        await capabilities(door, link)
