"""The demo's broker listens on loopback only, and is gone afterwards."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import socket
from pathlib import Path

import aiomqtt
import pytest

from fastprovd.errors import BrokerUnavailable
from fastprovd.publish import broker
from fastprovd.publish.broker import find_mosquitto, local_broker, start_mosquitto
from tests.support.mqtt import PATIENCE_S


@pytest.fixture(params=["mosquitto", "amqtt"])
def only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make one of the two brokers the only one on this machine."""
    name: str = request.param
    if name == "amqtt":
        pytest.importorskip("amqtt", reason="amqtt is not installed; it is in the extra `demo`")
        monkeypatch.setattr(broker, "find_mosquitto", lambda: None)
    elif find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; apt install mosquitto")
    return name


def listening_addresses(port: int) -> set[str]:
    """Return the local addresses, in the kernel's hexadecimal, on which a port is listened on."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, local_port = local.partition(":")
            if state == "0A" and int(local_port, 16) == port:
                found.add(address)
    return found


@pytest.mark.asyncio  # real sockets
async def test_a_broker_is_there_for_the_context(only: str) -> None:
    """It takes a client, on 127.0.0.1 and nowhere else, and its port is free again afterwards."""
    async with local_broker() as found:
        assert (found.host, found.name) == ("127.0.0.1", only)
        assert listening_addresses(found.port) == {"0100007F"}
        version = aiomqtt.ProtocolVersion
        protocol = {"5": version.V5, "3.1.1": version.V311}[found.protocol]
        async with aiomqtt.Client(found.host, found.port, protocol=protocol) as client:
            await client.publish("t", b"x", qos=1)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((found.host, found.port), 1.0).close()


@pytest.mark.asyncio  # real sockets
async def test_a_connection_that_says_nothing_is_closed(only: str) -> None:
    """By the broker itself when the client ends, not by whoever collects garbage later."""
    async with local_broker() as found:
        reader, writer = await asyncio.open_connection(found.host, found.port)
        gc.disable()
        try:
            writer.write_eof()
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""
        finally:
            gc.enable()
            writer.close()


async def test_it_lives_in_real_time(only: str) -> None:
    """Under a virtual clock it starts and takes a client all the same."""
    async with (
        local_broker() as found,
        aiomqtt.Client(found.host, found.port, timeout=1000.0) as client,
    ):
        await client.publish("t", b"x", qos=1)


@pytest.mark.asyncio  # real sockets
async def test_without_any_broker_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names both packages."""
    monkeypatch.setattr(broker, "find_mosquitto", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BrokerUnavailable, match=r"apt install mosquitto.*fastprovd\[demo\]"):
        async with local_broker():
            pass


def test_a_broker_that_ends_at_once_is_an_error() -> None:
    """A program that is no broker is named."""
    with pytest.raises(BrokerUnavailable, match="/bin/false does not listen"):
        start_mosquitto("/bin/false")
