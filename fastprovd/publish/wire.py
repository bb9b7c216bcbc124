"""The socket that paho gets: bounded in what it takes in, and able to say how it goes.

paho reads a packet of any length into memory. Here a PUBLISH that is too long loses its end: its
topic and its packet identifier still arrive, so that it can be acknowledged and answered.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
from typing import Final, NamedTuple

MAX_PACKET_OCTETS: Final = 131_072
"""The longest packet taken, also told to a broker with MQTT 5. The longest honest request has some
hundred octets; one of twice 65,535, for Response Topic and Correlation Data, can be answered."""

_CHUNK_OCTETS: Final = 16_384  # what one turn of the event loop takes, a fraction of a ms of work
_OPENING_OCTETS: Final = 16  # enough to say what else listens there

_CONNACK: Final = 0x20
_PUBLISH: Final = 0x30
_TLS_ALERT: Final = b"\x15\x03"
_TLS_HANDSHAKE: Final = b"\x16\x03"
_MAX_LENGTH_OCTETS: Final = 4


class StrangePeer(OSError):
    """What came is not MQTT; the text says what. An OSError, so that paho ends the link."""

    def __init__(self, sentence: str, *, is_tls: bool = False) -> None:
        super().__init__(sentence)
        self.is_tls = is_tls


class PacketGate:
    """Octets of a stream in, the same octets out, but no packet longer than `max_octets`."""

    def __init__(self, max_octets: int = MAX_PACKET_OCTETS) -> None:
        self.opening = b""
        self._max_octets = max_octets
        self._header = bytearray()
        self._to_pass = 0
        self._to_skip = 0

    def receive(self, octets: bytes) -> bytearray:
        """Return what to hand on.

        Raises:
            StrangePeer: this is no broker, or a packet that only a PUBLISH may be is too long.
        """
        if len(self.opening) < _OPENING_OCTETS:
            self.opening += octets[: _OPENING_OCTETS - len(self.opening)]
            self._check_opening()
        passed = bytearray()
        position = 0
        while position < len(octets):
            if self._to_pass:
                part = octets[position : position + self._to_pass]
                passed += part
                self._to_pass -= len(part)
                position += len(part)
            elif self._to_skip:
                skipped = min(self._to_skip, len(octets) - position)
                self._to_skip -= skipped
                position += skipped
            else:
                self._header.append(octets[position])
                position += 1
                passed += self._end_of_header()
        return passed

    def _check_opening(self) -> None:
        if self.opening[0] == _CONNACK:
            return
        if self.opening[:2] in (_TLS_ALERT, _TLS_HANDSHAKE) or self.opening in (b"\x15", b"\x16"):
            raise StrangePeer("what listens there answers in TLS", is_tls=True)
        raise StrangePeer(f"what listens there is no MQTT broker, it begins with {self.opening!r}")

    def _end_of_header(self) -> bytes:
        """Return the header to hand on once it is complete; a length too long is shortened."""
        length_octets = self._header[1:]
        if not length_octets or (
            length_octets[-1] & 0x80 and len(length_octets) <= _MAX_LENGTH_OCTETS
        ):
            return b""
        if len(length_octets) > _MAX_LENGTH_OCTETS:
            raise StrangePeer("the broker sent a packet whose length has more than 4 octets")
        length = sum((octet & 0x7F) << 7 * place for place, octet in enumerate(length_octets))
        kind = self._header[0]
        self._header.clear()
        self._to_pass = min(length, self._max_octets)
        self._to_skip = length - self._to_pass
        if self._to_skip and kind & 0xF0 != _PUBLISH:
            raise StrangePeer(f"the broker sent a packet of type {kind >> 4} of {length} octets")
        return bytes([kind]) + encode_length(self._to_pass)


class Progress(NamedTuple):
    """Octets that came, that were sent, and of these that are still on this side."""

    heard: int
    said: int
    queued: int

    def is_life(self, before: Progress) -> bool:
        """Tell whether the peer did something since `before`.

        What its operating system acknowledged at once is no sign of the broker's life; that it
        goes on taking what has to wait is.
        """
        return self.heard != before.heard or (self.queued > 0 and self != before)


class Wire:
    """A connected socket, plain or TLS, as paho uses one; it never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self.fault: OSError | None = None
        self.waits_for_input = False
        self._sock = sock
        self._gate = PacketGate()
        self._ready = bytearray()
        self._heard_octets = 0
        self._said_octets = 0

    @property
    def opening(self) -> bytes:
        """The first octets that came, at most 16."""
        return self._gate.opening

    def recv(self, size: int) -> bytes:
        """Return up to `size` octets, none at the end of the stream.

        Raises:
            BlockingIOError, ssl.SSLWantReadError: nothing to be had now.
            OSError: the link is broken, or the peer is no broker; `fault` keeps it.
        """
        if not self._ready:
            try:
                octets = self._sock.recv(_CHUNK_OCTETS)
                if not octets:
                    return b""
                self._heard_octets += len(octets)
                self._ready += self._gate.receive(octets)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except OSError as error:
                self.fault = error
                raise
            if not self._ready:
                raise BlockingIOError
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def send(self, octets: bytes | bytearray) -> int:
        """Send a part of `octets` and return how many; raises like `recv`.

        `waits_for_input` then says that TLS has to read before it can write on: a socket that can
        be written to would wake the loop without end.
        """
        self.waits_for_input = False
        try:
            sent = self._sock.send(octets)
        except ssl.SSLWantReadError:
            self.waits_for_input = True
            raise
        except (BlockingIOError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.fault = self.fault or error
            raise
        self._said_octets += sent
        return sent

    def pending(self) -> int:
        """Return how many octets can be had although the socket may not become readable."""
        hidden = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._ready) + hidden

    def progress(self) -> Progress:
        """Return what changes while octets get through."""
        try:
            queued = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # closed meanwhile
            queued = bytes(4)
        return Progress(self._heard_octets, self._said_octets, struct.unpack("i", queued)[0])

    def fileno(self) -> int:
        """Return the file descriptor, -1 after `close`."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Part of what paho calls."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Close the socket; more than once is fine."""
        self._sock.close()


def encode_length(length: int) -> bytes:
    """Return a Remaining Length, 1 to 4 octets (MQTT 5.0 §1.5.5)."""
    octets = bytearray()
    while True:
        length, octet = length >> 7, length & 0x7F
        octets.append(octet | (0x80 if length else 0))
        if not length:
            return bytes(octets)
