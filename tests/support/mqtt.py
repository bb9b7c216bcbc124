"""What the MQTT tests share: records, a broker to kill, a gate in front of it, a reader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import aiomqtt

from fastprovd.publish.broker import LOOPBACK, find_mosquitto
from fastprovd.publish.messages import GatewayInfo
from fastprovd.records import Node, NodeRole, ParentSource, Run, RunState

START = datetime(2026, 11, 22, 7, 19, 31, 900_000, tzinfo=UTC)
INFO = GatewayInfo("1.0.0", "gw1", START)
PATIENCE_S = 30.0  # far beyond what a loaded machine needs; only a failing test waits for it


def a_run(state: RunState = RunState.PROVISIONING, known: int = 0) -> Run:
    """Return a run of 20 boards."""
    return Run("r-1", state, START, expected=20, known=known)


def a_node(address: int, onoff: bool | None = None) -> Node:
    """Return a node that the Primary at 0x0005 provisioned."""
    return Node(
        address,
        "r-1",
        NodeRole.NODE,
        provisioned_by=5,
        parent_source=ParentSource.INFERRED,
        onoff=onoff,
        first_seen=START,
    )


class Mosquitto:
    """A mosquitto on one loopback port, which can be killed and started again."""

    def __init__(self, directory: Path, *lines: str) -> None:
        program = find_mosquitto()
        assert program is not None
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            self.port: int = listener.getsockname()[1]
        path = directory / "mosquitto.conf"
        # Started by root it would become a user who can not read the test's files.
        path.write_text("\n".join([f"listener {self.port} {LOOPBACK}", "user root", *lines, ""]))
        self._command = [program, "-c", str(path)]
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._child = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self._child.poll() is None, "mosquitto ended at once"
            assert time.monotonic() < deadline, "mosquitto does not listen"
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), 1):
                return
            time.sleep(0.005)

    def kill(self) -> None:
        """End it without a farewell."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    @property
    def is_up(self) -> bool:
        """Whether it was started and not killed."""
        return self._child is not None


class Gate:
    """A TCP relay to the broker that can be shut, or made to withhold what the broker says."""

    def __init__(self, port: int) -> None:
        self._broker_port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.withhold_answers = False
        self.relayed_octets = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()

    async def open(self) -> None:
        """Listen, on the same port as before."""
        self.withhold_answers = False
        self._server = await asyncio.start_server(self._relay, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse connections and break those that are there."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def say_and_hang_up(self, octets: bytes) -> None:
        """Send octets to every client as if the broker had, and close."""
        for writer in self._clients:
            writer.write(octets)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            broker_reader, broker_writer = await asyncio.open_connection(
                LOOPBACK, self._broker_port
            )
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(broker_writer)
        self._clients.add(writer)
        await asyncio.gather(
            self._pump(reader, broker_writer, lambda: False),
            self._pump(broker_reader, writer, lambda: self.withhold_answers),
        )

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        withheld: Callable[[], bool],
    ) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(65_536):
                self.relayed_octets += len(octets)
                if not withheld():
                    writer.write(octets)
        writer.transport.abort()


class Reader:
    """An independent MQTT client that keeps all it receives."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.messages: list[aiomqtt.Message] = []
        self._news = asyncio.Condition()

    async def follow(self) -> None:
        """Keep receiving until the broker goes."""
        with contextlib.suppress(aiomqtt.MqttError):
            async for message in self.client.messages:
                async with self._news:
                    self.messages.append(message)
                    self._news.notify_all()

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until something holds for what was received."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: bool(happened()))

    def topics(self) -> list[str]:
        """Return the topics in order of arrival, below `fastprovd/gw1/`."""
        return [message.topic.value.removeprefix("fastprovd/gw1/") for message in self.messages]

    def all(self, topic: str) -> list[Any]:
        """Return all payloads of a topic in order; an empty payload as None."""
        return [
            json.loads(message.payload) if message.payload else None
            for message in self.messages
            if message.topic.value == f"fastprovd/gw1/{topic}"
        ]

    def last(self, topic: str) -> Any:
        """Return the newest payload of a topic, or None."""
        return (self.all(topic) or [None])[-1]

    def seqs(self) -> list[int]:
        """Return the `seq` of all events in order of arrival."""
        return [event["seq"] for event in self.all("bridge/event")]

    async def request(self, command: str, payload: bytes | str = b"{}", **more: Any) -> None:
        """Publish a request."""
        topic = f"fastprovd/gw1/bridge/request/{command}"
        await self.client.publish(topic, payload, qos=1, **more)


@contextlib.asynccontextmanager
async def reader(port: int, topic: str = "fastprovd/gw1/#", **more: Any) -> AsyncIterator[Reader]:
    """Connect an independent client and subscribe."""
    async with aiomqtt.Client(LOOPBACK, port, **more) as client:
        await client.subscribe(topic, qos=1)
        found = Reader(client)
        following = asyncio.create_task(found.follow())
        try:
            yield found
        finally:
            following.cancel()
            await asyncio.wait([following])


async def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds that no one announces."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)
