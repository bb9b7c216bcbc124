"""A broker of a few lines, which does what no real one can be told to do; MQTT 5 and 3.1.1."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

from fastprovd.publish.broker import LOOPBACK
from fastprovd.publish.wire import encode_length

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
_CODES_OF_3_1_1 = {0x84: 1, 0x85: 2, 0x86: 4, 0x87: 5}
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """Return one packet."""
    return bytes([kind << 4 | flags]) + encode_length(len(body)) + body


def text(value: str | bytes) -> bytes:
    """Return a string with its length in front."""
    octets = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(octets)) + octets


def publication(topic: str | bytes, payload: bytes = b"{}", properties: bytes = b"") -> bytes:
    """Return a PUBLISH of MQTT 5 with QoS 1."""
    body = text(topic) + b"\x00\x07" + encode_length(len(properties)) + properties + payload
    return packet(PUBLISH, body, 0b0010)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def serving(talk: Talk, port: int = 0, *, slow: bool = False) -> AsyncIterator[int]:
    """Listen and yield the port; in the end nothing of it is left, sockets least of all.

    `slow`: the system takes little before `talk` reads it, as a slow link does.
    """
    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await talk(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass  # the end of the test, or of the connection
        finally:
            writer.transport.abort()

    listener = socket.create_server((LOOPBACK, port))
    if slow:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    server = await asyncio.start_server(serve, sock=listener, limit=4_096)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.001)  # a connection that was just accepted gets its task
        for task in talks:
            task.cancel()
        if talks:
            await asyncio.wait(talks)
        await asyncio.sleep(0)  # the transports' own last turn


@dataclass
class FakeBroker:
    """Takes everybody and acknowledges everything, except where it is told otherwise.

    `connack_properties` are octets of MQTT 5. `connack`, `suback` and `puback` are reason codes; a
    `puback` of None: none is sent. `hangs_up_on` is asked for each topic and payload. Everything
    that clients sent is kept.
    """

    connack: int = 0
    connack_properties: bytes = b""
    suback: int = 1
    puback: Callable[[str], int | None] = lambda _: 0
    hangs_up_on: Callable[[str, bytes], bool] = lambda *_: False
    opening: bytes | None = None  # said in place of a CONNACK
    after_suback: bytes = b""
    answers_pings: bool = True
    hangs_up_on_connect: bool = False
    connects: list[bytes] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    published: list[tuple[str, bytes]] = field(default_factory=list)
    pings: int = 0
    most_in_flight: int = 0
    holds_acknowledgements: bool = False
    port: int = 0

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._stack = contextlib.AsyncExitStack()
        self.port = await self._stack.enter_async_context(serving(self._serve, self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def cut(self) -> None:
        """Break every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()

    def say(self, octets: bytes) -> None:
        """Send octets to every client."""
        for writer in self._writers:
            writer.write(octets)

    def topics(self) -> list[str]:
        """Return the topics that were published to, below `fastprovd/gw1/`."""
        return [topic.removeprefix("fastprovd/gw1/") for topic, _ in self.published]

    def release(self, count: int = 1) -> None:
        """Send the oldest acknowledgements that were held."""
        for writer, octets in self._held[:count]:
            writer.write(octets)
        del self._held[:count]

    @property
    def held(self) -> int:
        """How many publications wait for their acknowledgement."""
        return len(self._held)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await self._talk(reader, writer)
        self._writers.discard(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_v5 = False
        while True:
            kind, flags, body = await _read_packet(reader)
            if kind == CONNECT:
                self.connects.append(body)
                is_v5 = body[6] == 5
                if self.hangs_up_on_connect:
                    return
                if self.opening is not None:
                    writer.write(self.opening)
                    continue
                properties = encode_length(len(self.connack_properties)) + self.connack_properties
                code = self.connack if is_v5 else _CODES_OF_3_1_1.get(self.connack, self.connack)
                answer = bytes([0, code]) + (properties if is_v5 else b"")
                writer.write(packet(CONNACK, answer))
                if self.connack:
                    return
            elif kind == SUBSCRIBE:
                count = self._note_filters(body[3 if is_v5 else 2 :])
                codes = bytes([self.suback]) * count
                writer.write(packet(SUBACK, body[:2] + (b"\x00" if is_v5 else b"") + codes))
                writer.write(self.after_suback)
            elif kind == PUBLISH:
                if not self._note_publication(writer, flags, body, is_v5):
                    return
            elif kind == PINGREQ:
                self.pings += 1
                if self.answers_pings:
                    writer.write(packet(PINGRESP, b""))
            elif kind == DISCONNECT:
                return

    def _note_filters(self, octets: bytes) -> int:
        count = 0
        while octets:
            length = struct.unpack(">H", octets[:2])[0]
            self.filters.append(octets[2 : 2 + length].decode())
            octets = octets[3 + length :]
            count += 1
        return count

    def _note_publication(
        self, writer: asyncio.StreamWriter, flags: int, body: bytes, is_v5: bool
    ) -> bool:
        length = struct.unpack(">H", body[:2])[0]
        topic, mid = body[2 : 2 + length].decode(), body[2 + length : 4 + length]
        payload = body[4 + length + is_v5 :]
        if self.hangs_up_on(topic, payload):
            return False
        self.published.append((topic, payload))
        code = self.puback(topic)
        if flags & 0b0110 and code is not None:
            answer = packet(PUBACK, mid + (bytes([code, 0]) if is_v5 else b""))
            self._held.append((writer, answer))
            self.most_in_flight = max(self.most_in_flight, self.held)
            if not self.holds_acknowledgements:
                self.release()
        return True


async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    first = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        octet = (await reader.readexactly(1))[0]
        length |= (octet & 0x7F) << shift
        shift += 7
        if not octet & 0x80:
            return first >> 4, first & 0x0F, await reader.readexactly(length)
