"""What the broker sends is bounded before paho reads it, and is otherwise untouched."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.publish.wire import PacketGate, Progress, StrangePeer, Wire, encode_length
from tests.support.fake_broker import packet, publication

CONNACK = b"\x20\x02\x00\x00"
LIMIT = 100


@given(
    st.lists(st.tuples(st.integers(2, 15), st.binary(max_size=LIMIT))),
    st.lists(st.integers(1, 40)),
)
def test_packets_go_through_as_they_are(packets: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However the stream is cut into pieces."""
    stream = CONNACK + b"".join(packet(kind, body) for kind, body in packets)
    gate, passed, rest = PacketGate(LIMIT), b"", stream
    for cut in [*cuts, len(stream)]:
        if rest[:cut]:
            passed += gate.receive(rest[:cut])
        rest = rest[cut:]
    assert passed == stream


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_publish_that_is_too_long_loses_its_end(piece: int) -> None:
    """Its topic and identifier stay, and what follows it is in step."""
    gate, passed = PacketGate(LIMIT), b""
    after = publication("t", b"after")
    stream = CONNACK + publication("topic", b"A" * 5_000) + after
    for start in range(0, len(stream), piece):
        passed += gate.receive(stream[start : start + piece])
    shortened = passed.removeprefix(CONNACK).removesuffix(after)
    assert shortened == packet(3, publication("topic", b"A" * 5_000)[3 : 3 + LIMIT], 0b0010)


def test_another_packet_that_is_too_long_ends_the_link() -> None:
    """Only a PUBLISH can honestly be long."""
    with pytest.raises(StrangePeer, match="type 9 of 101 octets"):
        PacketGate(LIMIT).receive(CONNACK + packet(9, bytes(LIMIT + 1)))


def test_a_length_of_five_octets_ends_the_link() -> None:
    """No packet of MQTT has one."""
    with pytest.raises(StrangePeer, match="more than 4 octets"):
        PacketGate(LIMIT).receive(CONNACK + b"\x32\xff\xff\xff\xff\x01")


@pytest.mark.parametrize(
    ("opening", "is_tls", "said"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", True, "in TLS"),
        (b"\x15", True, "in TLS"),
        (b"SSH-2.0-OpenSSH_9\r\n", False, "SSH-2.0-OpenSSH"),
        (b"HTTP/1.1 400 Bad Request", False, "HTTP/1.1"),
        (b"\x30\x02\x00\x00", False, "no MQTT broker"),
    ],
)
def test_a_peer_that_is_no_broker_is_told(opening: bytes, is_tls: bool, said: str) -> None:
    """By how it begins."""
    with pytest.raises(StrangePeer, match=said) as caught:
        PacketGate().receive(opening)
    assert caught.value.is_tls is is_tls


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384, 268_435_455])
def test_a_remaining_length_is_as_short_as_it_can_be(length: int) -> None:
    """Seven bits an octet, the lowest first."""
    octets = encode_length(length)
    assert sum((octet & 0x7F) << 7 * place for place, octet in enumerate(octets)) == length
    assert len(octets) == max(1, -(-length.bit_length() // 7))


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    """A wire, and what is at its other end."""
    here, there = socket.socketpair()
    here.setblocking(False)
    wire = Wire(here)
    yield wire, there
    wire.close()
    there.close()


def test_what_is_ready_is_had_without_the_socket(pair: tuple[Wire, socket.socket]) -> None:
    """The first read takes what came, and says that there is more."""
    wire, there = pair
    there.sendall(CONNACK)
    assert wire.recv(1) == CONNACK[:1]
    assert wire.pending() == 3
    assert wire.recv(100) == CONNACK[1:]
    with pytest.raises(BlockingIOError):
        wire.recv(1)


def test_the_rest_of_a_long_packet_is_nothing_yet(pair: tuple[Wire, socket.socket]) -> None:
    """What is thrown away is not the end of the stream, which is an empty read."""
    wire, there = pair
    there.sendall(CONNACK + b"\x32" + encode_length(200_000) + bytes(140_000))
    taken = 0
    while True:
        try:
            taken += len(wire.recv(1_000_000))
        except BlockingIOError:
            if wire.progress()[0] >= 140_000:
                break
    assert taken == len(CONNACK) + 1 + 4 - 1 + 131_072
    there.close()
    assert wire.recv(1) == b""


def test_a_fault_is_kept(pair: tuple[Wire, socket.socket]) -> None:
    """paho only says that the connection was lost."""
    wire, there = pair
    there.sendall(b"SSH-2.0")
    with pytest.raises(StrangePeer):
        wire.recv(1)
    assert isinstance(wire.fault, StrangePeer)


def test_progress_is_seen_in_both_directions(pair: tuple[Wire, socket.socket]) -> None:
    """What was heard, and what was said."""
    wire, there = pair
    seen = [wire.progress()]
    wire.send(b"abc")
    seen.append(wire.progress())
    there.sendall(CONNACK)
    wire.recv(4)
    seen.append(wire.progress())
    assert len(set(seen)) == 3
    wire.close()
    assert wire.progress()[:2] == (4, 3)


def test_an_answer_of_the_system_is_no_life() -> None:
    """What came is; what went is only while more of it waits."""
    assert Progress(1, 0, 0).is_life(Progress(0, 0, 0))
    assert Progress(0, 9, 5).is_life(Progress(0, 9, 7))
    assert not Progress(0, 9, 0).is_life(Progress(0, 7, 0))
    assert not Progress(0, 9, 5).is_life(Progress(0, 9, 5))


class _HalfDone:
    """A TLS socket in the middle of a handshake: it can not write before it has read."""

    def send(self, octets: bytes) -> int:
        raise ssl.SSLWantReadError


def test_a_writer_that_has_to_read_first_says_so() -> None:
    """Else the loop would try again without end."""
    wire = Wire(_HalfDone())  # type: ignore[arg-type]
    with pytest.raises(ssl.SSLWantReadError):
        wire.send(b"x")
    assert wire.waits_for_input
    assert wire.fault is None
