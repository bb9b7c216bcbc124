"""The swap of the services on one link."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from bleak import BleakClient
from bleak.exc import BleakDBusError

from fastprovd.bearers.gatt import GattLink
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.timeline import Happening
from fastprovd.errors import ConnectionLost
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.proxy import ProxyPduType
from tests.support.contract.common import (
    HOSTS,
    IN,
    INVITE,
    OUT,
    PROVISIONING,
    PROXY,
    SILENT,
    find,
    found_link,
    mesh_services,
    provision_over,
    talks_as_proxy,
)
from tests.support.door import Door, contract
from tests.support.fake_air import DATA_OUT, GENERIC_ATTRIBUTE, PROXY_CCCD, PROXY_OUT

# Between two tries of something that will fail once BlueZ has noticed.
RETRY_S = 0.1


async def send_for_ever(link: GattLink) -> None:
    while True:
        await link.send(ProxyPduType.PROVISIONING_PDU, INVITE)
        await asyncio.sleep(RETRY_S)


async def write_for_ever(client: BleakClient) -> None:
    while True:
        await client.write_gatt_char(IN, b"x", response=False)
        await asyncio.sleep(RETRY_S)


async def shows_proxy(door: Door) -> None:
    async with door.connected() as client:
        assert mesh_services(client) == [PROXY]
        assert PROXY_CCCD in client.services.descriptors


@contract
class Swapping:
    """0x1827 goes, 0x1828 comes, with and without Service Changed."""

    async def test_the_services_swap_with_service_changed(self, door: Door) -> None:
        """bleak keeps the old service, a write to it fails; a new link shows the new one."""
        (board,) = door.place_fakes(base=(GENERIC_ATTRIBUTE,))
        async with door.connected() as client:
            board.become_node()
            with pytest.raises(BleakDBusError, match="UnknownObject"):
                async with asyncio.timeout(5 * door.patience):
                    await write_for_ever(client)
            assert mesh_services(client) == [PROVISIONING]
            assert client.is_connected
        await shows_proxy(door)

    @pytest.mark.slow
    async def test_a_subscription_goes_with_its_service(self, door: Door) -> None:
        """After the swap nothing more is told of the old service, and the link stays."""
        (board,) = door.place_fakes(base=(GENERIC_ATTRIBUTE,))
        got: list[bytes] = []
        async with door.connected() as client:
            await client.start_notify(OUT, lambda _, value: got.append(bytes(value)))
            board.notify(DATA_OUT, b"before")
            board.become_node()
            with pytest.raises(BleakDBusError, match="UnknownObject"):
                async with asyncio.timeout(5 * door.patience):
                    await write_for_ever(client)
            board.notify(PROXY_OUT, b"beacon")
            await asyncio.sleep(0.5 * door.patience)
            assert client.is_connected
        assert got == [b"before"]

    async def test_the_services_swap_without_service_changed(self, door: Door) -> None:
        """BlueZ notices nothing and a write is lost; a new link shows the new service."""
        (board,) = door.place_fakes()
        async with door.connected() as client:
            board.become_node(told=False)
            await asyncio.sleep(1 * door.patience)
            assert mesh_services(client) == [PROVISIONING]
            await client.write_gatt_char(IN, b"x", response=False)
        await shows_proxy(door)

    @HOSTS
    async def test_the_old_service_is_of_no_use_after_the_swap(
        self, door: Door, host: Host
    ) -> None:
        """Once BlueZ has taken Service Changed, the bearer fails and loses nothing silently."""
        (board,) = door.place_boards(1, host)
        async with found_link(door, board) as link:
            await provision_over(link, 0x0005)
            async with asyncio.timeout(5 * door.patience):
                with pytest.raises(ConnectionLost):
                    await send_for_ever(link)
            assert board.link_count == 1

    @pytest.mark.quick
    @HOSTS
    async def test_the_bearer_goes_on_as_a_proxy_on_the_same_link(
        self, door: Door, host: Host
    ) -> None:
        """Another client of ours takes the link over, and nobody hangs up in between."""
        (board,) = door.place_boards(1, host)
        net_key = NetKey(secrets.token_bytes(16))
        async with door.bearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await provision_over(link, 0x0005, net_key)
                async with bearer.kept_proxy_link(board.device_address) as proxy:
                    assert await talks_as_proxy(door, proxy, net_key) == 0x0005
                    assert board.link_count == 1
        connected = [
            entry
            for entry in board.air.timeline
            if entry.what is Happening.CONNECTED and entry.device_address == board.device_address
        ]
        assert len(connected) == 1
        await door.until(lambda: board.link_count == 0)

    async def test_without_service_changed_the_link_is_not_kept(self, door: Door) -> None:
        """The bearer says so, and a new connection works."""
        (board,) = door.place_boards(1, SILENT)
        net_key = NetKey(secrets.token_bytes(16))
        async with door.bearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await provision_over(link, 0x0005, net_key)
                with pytest.raises(ConnectionLost, match="did not go on as a proxy"):
                    async with bearer.kept_proxy_link(board.device_address):
                        pass
            async with bearer.proxy_link(board.device_address) as proxy:
                assert await talks_as_proxy(door, proxy, net_key) == 0x0005

    @pytest.mark.quick
    @pytest.mark.parametrize(
        "host", [Host.NIMBLE, Host.BLUEDROID, SILENT], ids=lambda host: host.name
    )
    async def test_a_node_shows_the_proxy_on_the_next_connection(
        self, door: Door, host: Host
    ) -> None:
        """After the swap the bearer's next connection finds 0x1828, and it works."""
        (board,) = door.place_boards(1, host)
        async with door.bearer() as bearer:
            await find(door, bearer, board)
            async with bearer.provisioning_link(board.device_address) as link:
                await provision_over(link, 0x0005)
            async with (
                asyncio.timeout(20 * door.patience),
                bearer.proxy_link(board.device_address) as link,
            ):
                pdu_type, _ = await link.receive()
        assert pdu_type is ProxyPduType.MESH_BEACON
