"""An open link: writes, notifications, and its loss."""

from __future__ import annotations

import asyncio

import pytest
from bleak.exc import BleakDBusError, BleakError, BleakGATTProtocolError

from fastprovd.emulator.hosts import Host
from fastprovd.errors import ConnectionLost
from fastprovd.mesh.proxy import ProxyPduType
from tests.support.contract.common import HOSTS, IN, OUT, capabilities, found_link
from tests.support.door import Door, Need, contract, needs
from tests.support.fake_air import DATA_IN, DATA_OUT


@contract
class Links:
    """What goes over a link, in which pieces and in which order."""

    @pytest.mark.quick
    @pytest.mark.parametrize("mtu", [23, 69, 247])
    async def test_the_mtu_bounds_a_write(self, door: Door, mtu: int) -> None:
        """A write of MTU - 3 octets arrives whole, one octet more is refused and harms nothing."""
        (board,) = door.place_fakes()
        board.mtu_octets = mtu
        async with door.connected() as client:
            data_in = client.services.get_characteristic(IN)
            assert data_in is not None
            assert data_in.max_write_without_response_size == mtu - 3
            with pytest.raises(BleakDBusError, match="Failed to initiate write"):
                await client.write_gatt_char(IN, bytes(mtu - 2), response=False)
            await client.write_gatt_char(IN, bytes(mtu - 3), response=False)
            await door.until(lambda: bool(board.written))
            assert client.is_connected
        assert board.written == [(DATA_IN, bytes(mtu - 3))]

    @pytest.mark.slow
    @pytest.mark.parametrize("mtu", [23, 69, 247])
    async def test_the_bearer_fills_its_writes(self, door: Door, mtu: int) -> None:
        """A Proxy PDU leaves in pieces of MTU - 3 octets, the last one shorter."""
        (board,) = door.place_fakes()
        board.mtu_octets = mtu
        async with door.bearer() as bearer:
            await door.find()
            async with bearer.provisioning_link(board.address) as link:
                assert link.value_octets == mtu - 3
                # Each piece has one octet of header.
                await link.send(ProxyPduType.PROVISIONING_PDU, bytes(2 * (mtu - 4) + 1))
                await door.until(lambda: len(board.written) == 3)
        assert [len(value) for _, value in board.written] == [mtu - 3, mtu - 3, 2]

    @pytest.mark.quick
    async def test_300_writes_arrive_in_order(self, door: Door) -> None:
        """Writes without response are not lost and not reordered."""
        (board,) = door.place_fakes()
        values = [index.to_bytes(2, "big") * 10 for index in range(300)]
        async with door.connected() as client:
            for value in values:
                await client.write_gatt_char(IN, value, response=False)
            await door.until(lambda: len(board.written) == len(values))
        assert [value for _, value in board.written] == values

    @HOSTS
    async def test_notifications_are_on_before_the_bearer_writes(
        self, door: Door, host: Host
    ) -> None:
        """The answer to the first PDU is heard."""
        (board,) = door.place_boards(1, host)
        async with found_link(door, board) as link:
            await capabilities(door, link)

    @pytest.mark.slow
    async def test_notifications_before_the_first_write(self, door: Door) -> None:
        """What a board says the moment it is subscribed to is heard, and a write comes after it."""
        (board,) = door.place_fakes()
        got: list[bytes] = []
        board.on_cccd = lambda: board.notify(DATA_OUT, b"beacon")
        async with door.connected() as client:
            await client.start_notify(OUT, lambda _, value: got.append(bytes(value)))
            await door.until(lambda: got == [b"beacon"])
            await client.write_gatt_char(IN, b"x", response=False)
            await door.until(lambda: board.log[:3] == ["connected", "cccd 0100", "write"])

    async def test_notifications_arrive_in_order(self, door: Door) -> None:
        """What the board says in one moment is not shuffled, and ends with stop_notify."""
        (board,) = door.place_fakes()
        got: list[int] = []
        async with door.connected() as client:
            await client.start_notify(OUT, lambda _, value: got.append(value[0]))
            for index in range(100):
                board.notify(DATA_OUT, bytes([index]))
            await door.until(lambda: len(got) == 100)
            await client.stop_notify(OUT)
            board.notify(DATA_OUT, b"\xff")
            await asyncio.sleep(0.2 * door.patience)
        assert got == list(range(100))
        assert board.log == ["connected", "cccd 0100", "cccd 0000", "disconnected"]

    @pytest.mark.slow
    @needs(Need.BUS)
    async def test_notifications_by_socket(self, door: Door) -> None:
        """AcquireNotify gives a socket; the board is told when the program closes it."""
        (board,) = door.place_fakes()
        got: list[int] = []
        async with door.connected() as client:
            await client.start_notify(
                OUT, lambda _, value: got.append(value[0]), bluez={"use_start_notify": False}
            )
            for index in range(100):
                board.notify(DATA_OUT, bytes([index]))
            await door.until(lambda: len(got) == 100)
            await client.stop_notify(OUT)
            await door.until(lambda: board.log[-1] == "cccd 0000")
        assert got == list(range(100))

    @pytest.mark.slow
    async def test_what_a_characteristic_does_not_offer_is_refused(self, door: Door) -> None:
        """Write Request, notification and read need their property."""
        door.place_fakes()
        async with door.connected() as client:
            with pytest.raises(BleakGATTProtocolError, match="Write Not Permitted"):
                await client.write_gatt_char(IN, b"x", response=True)
            with pytest.raises(BleakDBusError, match="NotSupported"):
                await client.start_notify(IN, lambda _, __: None)
            with pytest.raises(BleakGATTProtocolError, match="Read Not Permitted"):
                await client.read_gatt_char(OUT)

    @pytest.mark.slow
    async def test_a_hidden_cccd_answers_an_att_error(self, door: Door) -> None:
        """start_notify on a service that went raises the board's ATT error."""
        (board,) = door.place_fakes()
        async with door.connected() as client:
            board.become_node(told=False)
            with pytest.raises(BleakGATTProtocolError, match="Invalid Handle"):
                await client.start_notify(OUT, lambda _, __: None)

    async def test_a_board_that_hangs_up(self, door: Door) -> None:
        """Its last words are heard before the loss, or never by the real BlueZ; it can be reached.

        The real one reads the link's data and its end from different sockets.
        """
        (board,) = door.place_fakes()
        heard: list[object] = []
        async with door.connected() as client:
            await client.start_notify(
                OUT, lambda _, value: heard.append((bytes(value), len(door.lost)))
            )
            board.notify(DATA_OUT, b"last words")
            board.hang_up()
            await door.until(lambda: bool(door.lost))
            assert heard == [(b"last words", 0)] or (door.is_real and not heard)
            assert not client.is_connected
            with pytest.raises(BleakError, match="Service Discovery has not been performed yet"):
                await client.write_gatt_char(IN, b"x", response=False)
        assert len(door.lost) == 1
        async with door.connected() as client:
            assert client.is_connected

    async def test_a_board_that_vanishes_ends_the_bearers_link(self, door: Door) -> None:
        """Loss of power is told to whoever waits for a PDU."""
        (board,) = door.place_boards(1)
        async with found_link(door, board) as link:
            await capabilities(door, link)
            board.power_off()
            with pytest.raises(ConnectionLost):
                async with asyncio.timeout(5 * door.patience):
                    await link.receive()
            assert not link.is_connected
