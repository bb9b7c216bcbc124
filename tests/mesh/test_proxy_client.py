"""The proxy client: beacons and the IV Index, configuration both ways, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import SequenceExhausted
from fastprovd.mesh.access import encode_message
from fastprovd.mesh.beacons import SecureNetworkBeacon
from fastprovd.mesh.events import (
    BeaconReceived,
    Event,
    FilterStatusReceived,
    IvIndexChanged,
    IvIndexRefused,
    MessageReceived,
    MessageRejected,
    OwnAddressHeard,
    PduOverheard,
    TransferFailed,
)
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.iv_updates import MAX_STEP
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from fastprovd.mesh.models.configuration import AppKeyAdd
from fastprovd.mesh.models.fast_provisioning import NodeAddrStatus
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffStatus
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu
from fastprovd.mesh.proxy import (
    AddAddresses,
    FilterStatus,
    FilterType,
    ProxyConfiguration,
    ProxyPduType,
    RemoveAddresses,
    SetFilterType,
    decode_proxy_configuration,
)
from fastprovd.mesh.proxy_client import ProxyClient
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from tests.support.data import vectors

NET_KEY = NetKey(bytes(range(16)))
APP_KEY = AppKey(bytes(range(16, 32)))
DEV_KEY = DevKey(bytes(range(32, 48)))
TOP, BOARD, CHILD, GROUP = 0x0001, 0x0005, 0x0010, 0xC000
IV_INDEX = IvIndex(100)
STATUS = FilterStatus(FilterType.REJECT_LIST, 0)
LONG = NodeAddrStatus(tuple(range(0x0010, 0x0030)))


def _client(
    address: int = TOP, *, iv_index: IvIndex = IV_INDEX, seq: range = range(0, 1 << 20)
) -> ProxyClient:
    stack = Stack(
        address=address,
        net_keys=[NET_KEY],
        iv_index=iv_index,
        sequence=SequenceNumbers(seq),
    )
    stack.app_keys[0] = APP_KEY
    stack.dev_keys[BOARD] = DEV_KEY
    return ProxyClient(stack)


def _beacon(value: int, *, update: bool = False, net_key: NetKey = NET_KEY) -> bytes:
    return SecureNetworkBeacon(False, IvIndex(value, update), net_key.network_id).encode(net_key)


def _receive_beacon(client: ProxyClient, beacon: bytes) -> list[Event]:
    return client.receive(ProxyPduType.MESH_BEACON, beacon, 0.0)


def _configuration(message: bytes, *, seq: int = 7, net_key: NetKey = NET_KEY) -> bytes:
    pdu = NetworkPdu(1, 0, seq, BOARD, 0, message, IV_INDEX.value)
    return encode_network_pdu(pdu, net_key, proxy_configuration=True)


def _receive_configuration(client: ProxyClient, raw: bytes) -> list[Event]:
    return client.receive(ProxyPduType.PROXY_CONFIGURATION, raw, 0.0)


def test_beacon_of_the_same_iv_index_is_only_reported() -> None:
    """An authentic beacon that says what we know changes nothing."""
    client = _client()
    assert _receive_beacon(client, _beacon(100)) == [BeaconReceived(IV_INDEX, False)]
    assert client.stack.iv_index == IV_INDEX


@pytest.mark.parametrize("bit", range(8, 22 * 8))
def test_forged_beacon_is_ignored(bit: int) -> None:
    """One wrong bit anywhere behind the beacon type, and there is no event and no change."""
    forged = int.from_bytes(_beacon(101), "big") ^ 1 << (22 * 8 - 1 - bit)
    client = _client()
    assert _receive_beacon(client, forged.to_bytes(22, "big")) == []
    assert client.stack.iv_index == IV_INDEX


def test_beacon_of_another_network_is_ignored() -> None:
    """What another NetKey authenticates is not ours."""
    client = _client()
    assert _receive_beacon(client, _beacon(101, net_key=NetKey(bytes(16)))) == []
    assert client.stack.iv_index == IV_INDEX


@pytest.mark.parametrize("kind", [0x00, 0x02, 0xFF])
def test_beacons_of_other_types_are_ignored(kind: int) -> None:
    """Unprovisioned Device, Mesh Private and unknown beacons give no event."""
    assert _receive_beacon(_client(), bytes([kind]) + bytes(22)) == []


@pytest.mark.parametrize("length", [1, 21, 23])
def test_beacon_of_wrong_length_is_rejected(length: int) -> None:
    """A Secure Network beacon has 22 octets."""
    (event,) = _receive_beacon(_client(), _beacon(101)[:length].ljust(length, b"\0"))
    assert isinstance(event, MessageRejected)


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("step", [1, 2, MAX_STEP])
def test_newer_iv_index_is_taken(step: int, update: bool) -> None:
    """Up to 42 steps ahead a beacon is believed, and the change is an event to be stored."""
    client, newer = _client(), IvIndex(100 + step, update)
    assert _receive_beacon(client, _beacon(100 + step, update=update)) == [
        BeaconReceived(newer, False),
        IvIndexChanged(newer),
    ]
    assert client.stack.iv_index == newer


@pytest.mark.parametrize("value", [0, 99, 100 + MAX_STEP + 1, 0xFFFFFFFF])
def test_iv_index_that_can_not_be_is_not_taken(value: int) -> None:
    """Backwards or more than 42 ahead: authentic, reported, and not followed."""
    client = _client()
    refused = [IvIndexRefused(IvIndex(value))] if value > IV_INDEX.value else []
    assert _receive_beacon(client, _beacon(value)) == [
        BeaconReceived(IvIndex(value), False),
        *refused,
    ]
    assert client.stack.iv_index == IV_INDEX


def test_update_ends_under_the_same_iv_index_and_never_begins_so() -> None:
    """The flag is cleared by a beacon of the same value; one that would set it is stale."""
    client = _client(iv_index=IvIndex(100, update_in_progress=True))
    assert client.stack.iv_index.transmit == 99
    assert _receive_beacon(client, _beacon(100))[1:] == [IvIndexChanged(IvIndex(100))]
    assert client.stack.iv_index.transmit == 100
    assert _receive_beacon(client, _beacon(100, update=True)) == [
        BeaconReceived(IvIndex(100, update_in_progress=True), False)
    ]
    assert client.stack.iv_index == IV_INDEX


def test_messages_in_flight_fail_with_the_iv_index() -> None:
    """A change of the IV Index to send with ends them by name, after the change itself."""
    client = _client()
    client.stack.send(encode_message(LONG), dst=BOARD, key=APP_KEY, now=0.0)
    assert not any(
        isinstance(event, TransferFailed)
        for event in _receive_beacon(client, _beacon(101, update=True))
    )
    *_, change, failed = _receive_beacon(client, _beacon(101))
    assert isinstance(change, IvIndexChanged)
    assert isinstance(failed, TransferFailed)
    assert client.next_deadline() is None


def test_pdus_of_the_previous_iv_index_are_heard_during_an_update() -> None:
    """Boards that lag behind by one are understood; by two they are not."""
    for lag, heard in ((0, True), (1, True), (2, False)):
        client, board = _client(), _client(BOARD, iv_index=IvIndex(100))
        _receive_beacon(client, _beacon(100 + lag, update=True) if lag else _beacon(100))
        board.stack.send(encode_message(OnOffStatus(True)), dst=TOP, key=APP_KEY, now=0.0)
        (pdu,) = board.pdus_to_send()
        assert bool(client.receive(*pdu, 0.0)) is heard


@pytest.mark.parametrize(
    "message",
    [
        SetFilterType(FilterType.REJECT_LIST),
        AddAddresses((GROUP, TOP)),
        RemoveAddresses((GROUP,)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_configuration_is_sent_under_the_proxy_nonce(message: ProxyConfiguration) -> None:
    """CTL 1, TTL 0, DST 0, from our address; as a Network PDU it does not open."""
    client = _client()
    client.configure(message)
    ((pdu_type, raw),) = client.pdus_to_send()
    assert pdu_type is ProxyPduType.PROXY_CONFIGURATION
    pdu = decode_network_pdu(raw, [NET_KEY], IV_INDEX, proxy_configuration=True)
    assert pdu is not None
    assert (pdu.ctl, pdu.ttl, pdu.seq, pdu.src, pdu.dst) == (1, 0, 0, TOP, 0)
    assert decode_proxy_configuration(pdu.transport_pdu) == message
    assert decode_network_pdu(raw, [NET_KEY], IV_INDEX) is None
    assert client.pdus_to_send() == []


def test_configuration_leaves_before_messages_and_shares_their_seq() -> None:
    """The filter is set before what it is set for, and no SEQ serves twice."""
    client = _client()
    client.stack.send(encode_message(OnOffGet()), dst=BOARD, key=APP_KEY, now=0.0)
    client.configure(SetFilterType(FilterType.REJECT_LIST))
    sent = client.pdus_to_send()
    assert [pdu_type for pdu_type, _ in sent] == [
        ProxyPduType.PROXY_CONFIGURATION,
        ProxyPduType.NETWORK_PDU,
    ]
    assert client.stack.sequence.next == 2


def test_configuration_needs_a_seq() -> None:
    """An empty reserve stops configuration too."""
    with pytest.raises(SequenceExhausted):
        _client(seq=range(0)).configure(SetFilterType(FilterType.REJECT_LIST))


@pytest.mark.parametrize("entry", vectors("proxy_config"), ids=lambda entry: entry["id"])
def test_sample_configuration(entry: dict[str, Any]) -> None:
    """The published proxy configuration PDUs are sent octet by octet, or taken without event."""
    stack = Stack(
        address=int(entry["src"], 16),
        net_keys=[NetKey(bytes.fromhex(entry["net_key"]))],
        iv_index=IvIndex(int(entry["iv_index"], 16)),
        sequence=SequenceNumbers(range(int(entry["seq"], 16), 1 << 24)),
    )
    raw = bytes.fromhex(entry["pdu"])
    message = decode_proxy_configuration(bytes.fromhex(entry["transport_pdu"]))
    if message is None:  # an opcode of later versions
        assert ProxyClient(stack).receive(ProxyPduType.PROXY_CONFIGURATION, raw, 0.0) == []
        return
    client = ProxyClient(stack)
    client.configure(message)
    assert client.pdus_to_send() == [(ProxyPduType.PROXY_CONFIGURATION, raw)]


def test_filter_status_is_an_event_with_its_source() -> None:
    """Filter Status tells the state of the filter and the proxy's address."""
    events = _receive_configuration(_client(), _configuration(STATUS.encode()))
    assert events == [FilterStatusReceived(BOARD, STATUS)]


def test_filter_status_is_replay_protected() -> None:
    """The same PDU twice, or an older one, is heard once."""
    client = _client()
    assert _receive_configuration(client, _configuration(STATUS.encode(), seq=7))
    for seq in (7, 6):
        assert not _receive_configuration(client, _configuration(STATUS.encode(), seq=seq))
    assert _receive_configuration(client, _configuration(STATUS.encode(), seq=8))


@pytest.mark.parametrize(
    "message",
    [SetFilterType(FilterType.ACCEPT_LIST).encode(), AddAddresses((GROUP,)).encode(), b"\x55"],
    ids=["SetFilterType", "AddAddresses", "unknown"],
)
def test_requests_from_the_server_are_ignored(message: bytes) -> None:
    """A client answers no configuration request, and ignores opcodes of later versions."""
    client = _client()
    assert _receive_configuration(client, _configuration(message)) == []
    assert client.pdus_to_send() == []


@pytest.mark.parametrize("message", ["", "0302", "030000", "03020000", "0005", "01c0"])
def test_malformed_configuration_is_rejected(message: str) -> None:
    """An authentic configuration message with wrong parameters is named, and ends nothing."""
    client = _client()
    (event,) = _receive_configuration(client, _configuration(bytes.fromhex(message)))
    assert isinstance(event, MessageRejected)
    assert _receive_configuration(client, _configuration(STATUS.encode(), seq=8))


def test_configuration_under_another_key_is_ignored() -> None:
    """What no NetKey of ours opens gives no event."""
    raw = _configuration(STATUS.encode(), net_key=NetKey(bytes(16)))
    assert _receive_configuration(_client(), raw) == []


def test_types_are_not_mixed_up() -> None:
    """A Network PDU as configuration, or the reverse, does not open."""
    client, board = _client(), _client(BOARD)
    board.stack.send(encode_message(OnOffStatus(True)), dst=TOP, key=APP_KEY, now=0.0)
    ((_, network),) = board.pdus_to_send()
    assert _receive_configuration(client, network) == []
    configuration = _configuration(STATUS.encode())
    assert client.receive(ProxyPduType.NETWORK_PDU, configuration, 0.0) == []


def test_provisioning_pdu_is_rejected() -> None:
    """A Provisioning PDU has no place on the proxy link."""
    (event,) = _client().receive(ProxyPduType.PROVISIONING_PDU, b"\x00\x00", 0.0)
    assert isinstance(event, MessageRejected)


@pytest.mark.parametrize("pdu_type", [ProxyPduType.NETWORK_PDU, ProxyPduType.PROXY_CONFIGURATION])
@pytest.mark.parametrize("octets", [0, 1, 13, 30, 64])
def test_pdu_of_wrong_length_is_rejected(pdu_type: ProxyPduType, octets: int) -> None:
    """Network and configuration PDUs have 14..29 octets."""
    (event,) = _client().receive(pdu_type, bytes(octets), 0.0)
    assert isinstance(event, MessageRejected)


def test_messages_go_both_ways_and_deadlines_are_the_stacks() -> None:
    """The four verbs carry a segmented message, its repetition, and its acknowledgment."""
    client, board = _client(), _client(BOARD)
    board.stack.send(encode_message(LONG), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    first = board.pdus_to_send()
    for pdu in first[1:]:
        assert client.receive(*pdu, 0.0) == []
    due = board.next_deadline()
    assert due is not None
    assert board.handle_deadline(due) == []
    events = [event for pdu in board.pdus_to_send() for event in client.receive(*pdu, due)]
    assert [event.message for event in events if isinstance(event, MessageReceived)] == [LONG]
    acks = client.pdus_to_send()
    assert acks
    board.receive(*acks[0], due)
    assert board.next_deadline() is None


@pytest.mark.parametrize(("key", "device_key"), [(APP_KEY, False), (DEV_KEY, True)])
def test_messages_between_others_are_overheard(key: Any, device_key: bool) -> None:
    """With an open filter the Top hears of unicast messages between boards, not what they say."""
    client, board = _client(), _client(BOARD)
    board.stack.send(encode_message(OnOffStatus(True)), dst=CHILD, key=key, now=0.0)
    (pdu,) = board.pdus_to_send()
    assert client.receive(*pdu, 0.0) == [PduOverheard(BOARD, CHILD, device_key)]


def test_an_app_key_add_is_no_answer_of_its_sender() -> None:
    """It is segmented and under the child's DevKey; who sends it is the parent, not the child."""
    client, board = _client(), _client(BOARD)
    board.stack.send(encode_message(AppKeyAdd(APP_KEY)), dst=CHILD, key=DEV_KEY, now=0.0)
    segments = board.pdus_to_send()
    assert len(segments) == 2
    for pdu in segments:
        assert client.receive(*pdu, 0.0) == [PduOverheard(BOARD, CHILD, device_key=False)]


def test_an_overheard_acknowledgment_is_told() -> None:
    """Who waits for the rest of a segmented message says which segments it has."""
    board, child, client = _client(BOARD), _client(CHILD), _client()
    board.stack.send(encode_message(LONG), dst=CHILD, key=APP_KEY, ttl=0, now=0.0)
    first = board.pdus_to_send()[0]
    child.receive(*first, 0.0)
    due = child.next_deadline()
    assert due is not None
    child.handle_deadline(due)
    (acknowledgment,) = child.pdus_to_send()
    (event,) = client.receive(*acknowledgment, due)
    assert isinstance(event, PduOverheard)
    assert event.acknowledgment is not None
    assert event.acknowledgment.block_ack == 1


def test_own_and_group_messages_are_not_overheard() -> None:
    """Our own message relayed back, and one to a group that is not ours, give no event."""
    client, board = _client(), _client(BOARD)
    client.stack.send(encode_message(OnOffGet()), dst=CHILD, key=APP_KEY, now=0.0)
    board.stack.send(encode_message(OnOffGet()), dst=GROUP, key=APP_KEY, now=0.0)
    for pdu in client.pdus_to_send() + board.pdus_to_send():
        assert client.receive(*pdu, 0.0) == []


@given(st.sampled_from(ProxyPduType), st.binary(max_size=80))
def test_any_octets_give_events_only(pdu_type: ProxyPduType, octets: bytes) -> None:
    """Whatever comes over the link, nothing is raised."""
    assert all(isinstance(event, Event) for event in _client().receive(pdu_type, octets, 0.0))


@given(
    st.integers(0, 1),
    st.integers(0, 0x7F),
    st.integers(0, (1 << 24) - 1),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.binary(min_size=1, max_size=12),
    st.booleans(),
)
def test_any_authentic_pdu_gives_events_only(
    ctl: int, ttl: int, seq: int, src: int, dst: int, transport: bytes, configuration: bool
) -> None:
    """Someone with the NetKey can say anything; the client only ever answers with events."""
    pdu = NetworkPdu(ctl, ttl, seq, src, dst, transport, IV_INDEX.value)
    raw = encode_network_pdu(pdu, NET_KEY, proxy_configuration=configuration)
    pdu_type = ProxyPduType.PROXY_CONFIGURATION if configuration else ProxyPduType.NETWORK_PDU
    assert all(isinstance(event, Event) for event in _client().receive(pdu_type, raw, 0.0))


@pytest.mark.parametrize(
    ("iv_index", "sent_under", "seq", "is_foreign"),
    [
        (IvIndex(100), 100, 299, False),
        (IvIndex(100), 100, 300, True),
        (IvIndex(100), 100, (1 << 24) - 1, True),
        (IvIndex(100), 99, 5000, False),
        (IvIndex(100, True), 99, 299, False),
        (IvIndex(100, True), 99, 300, True),
        (IvIndex(100, True), 100, 0, True),
    ],
)
@pytest.mark.parametrize("dst", [0xFFFF, CHILD, TOP])
def test_who_else_sends_with_our_address(
    iv_index: IvIndex, sent_under: int, seq: int, is_foreign: bool, dst: int
) -> None:
    """Our own PDUs come back relayed; one that we have not sent yet is somebody else's."""
    client = _client(iv_index=iv_index, seq=range(300, 400))
    pdu = NetworkPdu(0, 4, seq, TOP, dst, bytes(16), sent_under)
    raw = encode_network_pdu(pdu, NET_KEY)
    expected = [OwnAddressHeard(sent_under, seq, 300)] if is_foreign else []
    assert client.receive(ProxyPduType.NETWORK_PDU, raw, 0.0) == expected


def test_without_a_reserved_seq_nobody_is_suspected() -> None:
    """Before the first block is reserved we do not know what we have sent."""
    pdu = NetworkPdu(0, 4, 7, TOP, 0xFFFF, bytes(16), IV_INDEX.value)
    raw = encode_network_pdu(pdu, NET_KEY)
    assert _client(seq=range(0)).receive(ProxyPduType.NETWORK_PDU, raw, 0.0) == []
