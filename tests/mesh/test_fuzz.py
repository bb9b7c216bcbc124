"""The whole core against damaged recordings: on the link, inside the network, inside the message.

Damage is bits flipped, ends cut or added, PDUs repeated, dropped and put elsewhere. The number of
cases is that of the hypothesis profile: `pytest --hypothesis-profile=fuzz tests/mesh/test_fuzz.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from fastprovd.errors import DecodeError
from fastprovd.mesh.access import MAX_PAYLOAD_OCTETS
from fastprovd.mesh.events import Event, MessageReceived, MessageRejected
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.lower_transport import SegmentedAccess, SegmentHeader
from fastprovd.mesh.network import NetworkPdu
from fastprovd.mesh.proxy import ProxyPduType, Reassembler
from fastprovd.mesh.proxy_client import ProxyClient
from fastprovd.mesh.segmentation import SegmentationTimers
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from fastprovd.mesh.upper_transport import MessageContext, encrypt_access
from tests.support.data import RECORDING_NAMES, recording
from tests.support.listener import keys, listen

TOP, BOARD = 0x0001, 0x0005
WINDOW = 24
GIVEN_UP_S = SegmentationTimers().incomplete_s

names = st.sampled_from(RECORDING_NAMES)
Damage = Callable[[list[bytes]], list[bytes]]


def _flip(at: int, bit: int) -> Damage:
    def flipped(octets: bytes) -> bytes:
        where = bit % (8 * len(octets))
        return (int.from_bytes(octets, "big") ^ 1 << where).to_bytes(len(octets), "big")

    return lambda pdus: [
        flipped(pdu) if number == at % len(pdus) and pdu else pdu for number, pdu in enumerate(pdus)
    ]


def _resize(at: int, octets: int, tail: bytes) -> Damage:
    return lambda pdus: [
        pdu[:octets] + tail if number == at % len(pdus) else pdu for number, pdu in enumerate(pdus)
    ]


def _repeat(at: int, to: int) -> Damage:
    return lambda pdus: _inserted(pdus, to, pdus[at % len(pdus)])


def _move(at: int, to: int) -> Damage:
    def moved(pdus: list[bytes]) -> list[bytes]:
        at_here = at % len(pdus)
        return _inserted(pdus[:at_here] + pdus[at_here + 1 :], to, pdus[at_here])

    return moved


def _drop(at: int) -> Damage:
    return lambda pdus: [pdu for number, pdu in enumerate(pdus) if number != at] or pdus


def _inserted(pdus: list[bytes], to: int, pdu: bytes) -> list[bytes]:
    to %= len(pdus) + 1
    return [*pdus[:to], pdu, *pdus[to:]]


indexes = st.integers(0, WINDOW)
damages = st.lists(
    st.one_of(
        st.builds(_flip, indexes, st.integers(0, 600)),
        st.builds(_resize, indexes, st.integers(0, 32), st.binary(max_size=4)),
        st.builds(_repeat, indexes, indexes),
        st.builds(_move, indexes, indexes),
        st.builds(_drop, indexes),
    ),
    max_size=6,
)


def _damaged(pdus: list[bytes], damage: list[Damage]) -> list[bytes]:
    for change in damage:
        pdus = change(pdus)
    return pdus


def _client(name: str) -> ProxyClient:
    known = keys(name)
    stack = Stack(
        address=TOP,
        net_keys=[known.net_key],
        iv_index=known.iv_index,
        sequence=SequenceNumbers(range(1 << 20, 1 << 24)),
    )
    stack.app_keys[0] = known.app_key
    stack.dev_keys.update(known.dev_keys)
    return ProxyClient(stack)


@cache
def _received(name: str) -> list[bytes]:
    """Return what the recorded Top received, as type octet and payload."""
    return [
        bytes([event["type"]]) + bytes.fromhex(event["pdu"])
        for event in recording(name).of("proxy_rx")
        if event["type"] != ProxyPduType.PROVISIONING_PDU
    ]


@cache
def _values(name: str) -> list[bytes]:
    """Return the ATT values of all notifications."""
    return [
        bytes.fromhex(event["pdu"])[3:]
        for event in recording(name).of("att_rx")
        if event["pdu"].startswith("1b")
    ]


def _window(pdus: list[bytes], start: int) -> list[bytes]:
    start %= len(pdus)
    return pdus[start : start + WINDOW]


def _feed(client: ProxyClient, pdus: list[bytes], step_s: float) -> list[Event]:
    """Give typed payloads to a client, with its deadlines; any exception is the test's failure."""
    events: list[Event] = []
    now = 0.0
    for pdu in pdus:
        now += step_s
        while (due := client.next_deadline()) is not None and due <= now:
            events += client.handle_deadline(due)
        if pdu and pdu[0] <= max(ProxyPduType):
            events += client.receive(ProxyPduType(pdu[0]), pdu[1:], now)
        client.pdus_to_send()
    for _ in range(10 * WINDOW):
        due = client.next_deadline()
        if due is None:
            break
        events += client.handle_deadline(due)
    assert client.next_deadline() is None, "everything unfinished is given up some day"
    assert all(isinstance(event, Event) for event in events)
    return events


def _identities(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.src, event.seq) for event in events if isinstance(event, MessageReceived)]


@cache
def _truth(name: str) -> set[tuple[int, int]]:
    return {
        (message.src, message.seq)
        for message in listen(name).messages.values()
        if message.payload is not None and message.dst == TOP
    }


@settings(deadline=None)
@given(names, st.integers(0), damages, st.floats(0, GIVEN_UP_S))
def test_damage_on_the_link_invents_no_message(
    name: str, start: int, damage: list[Damage], step_s: float
) -> None:
    """Damaged Proxy PDUs give events only; each message is one of the recording, and once."""
    pdus = _damaged(_window(_received(name), start), damage)
    heard = _identities(_feed(_client(name), pdus, step_s))
    assert len(heard) == len(set(heard))
    assert set(heard) <= _truth(name)


@settings(deadline=None)
@given(names, st.integers(0), damages)
def test_damaged_att_values_do_not_stop_the_link(
    name: str, start: int, damage: list[Damage]
) -> None:
    """Reassembly raises DecodeError only, and the next whole PDU comes through."""
    reassembler, client = Reassembler(), _client(name)
    for value in _damaged(_window(_values(name), start), damage):
        try:
            pdu = reassembler.receive(value, 0.0)
        except DecodeError:
            continue
        if pdu is not None:
            assert all(isinstance(event, Event) for event in client.receive(*pdu, 0.0))
    due = reassembler.next_deadline()
    assert reassembler.handle_deadline(due or 0.0) is (due is not None)
    assert reassembler.receive(b"\x01whole", 0.0) == (ProxyPduType.MESH_BEACON, b"whole")


@settings(deadline=None)
@given(names, st.integers(0), damages, st.floats(0, GIVEN_UP_S))
def test_damaged_transport_pdus_give_events_only(
    name: str, start: int, damage: list[Damage], step_s: float
) -> None:
    """With the NetKey a node can send any transport PDU: the stack goes on, and forgets it."""
    to_top = [pdu for pdu, _ in listen(name).pdus if pdu.dst == TOP]
    start %= len(to_top)
    window = to_top[start : start + WINDOW]
    changed = _damaged([_flat(pdu) for pdu in window], damage)
    client = _client(name)
    now = 0.0
    for flat in changed:
        now += step_s
        while (due := client.next_deadline()) is not None and due <= now:
            client.handle_deadline(due)
        events = client.stack.receive(_unflat(flat, window[0]), now)
        assert all(isinstance(event, Event) for event in events)
    _feed(client, [], 0.0)


def _flat(pdu: NetworkPdu) -> bytes:
    return bytes([pdu.ctl]) + pdu.seq.to_bytes(3, "big") + pdu.transport_pdu


def _unflat(flat: bytes, like: NetworkPdu) -> NetworkPdu:
    flat = flat.ljust(5, b"\0")
    seq = int.from_bytes(flat[1:4], "big")
    return replace(like, ctl=flat[0] & 1, seq=seq, transport_pdu=flat[4:])


@settings(deadline=None)
@given(names, st.data())
def test_damaged_access_payloads_give_events_only(name: str, data: st.DataObject) -> None:
    """With the right key a node can say anything: it is a message, or rejected by name."""
    said = [message for message in listen(name).messages.values() if message.payload]
    message = data.draw(st.sampled_from(said))
    assert message.payload is not None
    assert message.key is not None
    (payload, *_) = _damaged([message.payload], data.draw(damages))
    if not 1 <= len(payload) <= MAX_PAYLOAD_OCTETS:
        return  # our encoder has no such message
    dev_keys = keys(name).dev_keys
    board = _client(name)
    board.stack.address = next((a for a, key in dev_keys.items() if key is message.key), BOARD)
    client = _client(name)
    board.stack.send(payload, dst=TOP, key=message.key, now=0.0)
    events = [event for pdu in board.pdus_to_send() for event in client.receive(*pdu, 0.0)]
    assert len(events) == 1
    assert isinstance(events[0], MessageReceived | MessageRejected)


@settings(deadline=None)
@given(st.booleans(), st.booleans(), st.binary(max_size=11), st.integers(0, 15))
def test_any_upper_pdu_gives_events_only(
    is_device: bool, says_device: bool, payload: bytes, octets: int
) -> None:
    """Whatever decrypts is a message or rejected, also the empty payload; all else is ignored."""
    known = keys("single-alg0")
    key: AppKey | DevKey = known.dev_keys[BOARD] if is_device else known.app_key
    context = MessageContext(1, BOARD, TOP, known.iv_index.transmit)
    upper = encrypt_access(key, payload, context)[:octets]
    head = 0x00 if says_device else 0x40 | known.app_key.aid
    pdu = NetworkPdu(0, 3, 1, BOARD, TOP, bytes([head]) + upper)
    events = _client("single-alg0").stack.receive(pdu, 0.0)
    assert all(isinstance(event, MessageReceived | MessageRejected) for event in events)


segments = st.builds(
    SegmentedAccess,
    akf=st.integers(0, 1),
    aid=st.sampled_from([0, keys("single-alg0").app_key.aid]),
    header=st.builds(
        SegmentHeader,
        seq_zero=st.integers(0, 4) | st.integers(0, 0x1FFF),
        seg_o=st.integers(0, 2),
        seg_n=st.integers(0, 2),
        szmic=st.integers(0, 1),
    ),
    segment=st.binary(min_size=1, max_size=12) | st.just(bytes(12)),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8) | st.integers(0, 0xFFFFFF), segments), max_size=8))
def test_any_segments_give_events_only(sent: list[tuple[int, SegmentedAccess]]) -> None:
    """Segments that contradict each other, themselves or their SEQ break nothing."""
    client = _client("single-alg0")
    for seq, lower in sent:
        pdu = NetworkPdu(0, 3, seq, BOARD, TOP, lower.encode())
        assert all(isinstance(event, Event) for event in client.stack.receive(pdu, 0.0))
    _feed(client, [], 0.0)
