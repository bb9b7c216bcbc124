"""Links and their ends, whatever goes wrong with them."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from bleak import BleakClient
from structlog.testing import capture_logs

from fastprovd.bearers.connection import Connection, Connections
from fastprovd.bearers.gatt import PROXY, GattLink


class Client:
    """Disconnects as BlueZ does, or fails with `error`."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.is_hung_up = False

    async def disconnect(self) -> None:
        await asyncio.sleep(2.0)
        if self._error is not None:
            raise self._error
        self.is_hung_up = True


def connection(number: int, client: Client) -> Connection:
    address = f"24:0A:C4:5E:00:{number:02X}"
    return Connection(address, GattLink(address, PROXY), cast(BleakClient, client))


@pytest.mark.parametrize("error", [KeyError("chaos"), RuntimeError("chaos"), OSError(5, "chaos")])
async def test_a_hang_up_that_fails_is_over(error: Exception) -> None:
    """Whoever waits for it goes on; a fault of ours is told with its traceback."""
    told: list[Connection] = []
    connections = Connections(told.append)
    one, other = connection(1, Client(error)), connection(2, Client())
    for each in (one, other):
        connections.add(each)
        connections.hang_up(each)
    with capture_logs() as logs:
        await connections.hung_up()
    assert (len(connections), connections.hang_ups()) == (0, [])
    assert told == [one, other]
    faults = [entry["device_address"] for entry in logs if entry["event"] == "hang_up_failed"]
    assert faults == ([] if isinstance(error, OSError) else [one.device_address])


@pytest.mark.parametrize("error", [KeyError("chaos"), EOFError("chaos")])
async def test_a_listener_that_fails_keeps_no_link(error: Exception) -> None:
    """Neither the one that it was told of nor the next one stays for ever."""

    def refuse(_: Connection) -> None:
        raise error

    connections = Connections(refuse)
    for number in (1, 2):
        each = connection(number, Client())
        connections.add(each)
        connections.hang_up(each)
    with capture_logs() as logs:
        await connections.hung_up()
    assert (len(connections), connections.hang_ups()) == (0, [])
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "callback_failed",
        "callback_failed",
    ]


async def test_what_nobody_ended_is_ended() -> None:
    """Once; a link that is being hung up is left to that."""
    connections = Connections(lambda _: None)
    clients = [Client(), Client()]
    for number, client in enumerate(clients):
        connections.add(connection(number, client))
    connections.hang_up(next(iter(connections)))
    connections.hang_up_all()
    assert len(connections.hang_ups()) == 2
    await connections.hung_up()
    assert all(client.is_hung_up for client in clients)
    assert len(connections) == 0
