"""The recorded Top again, by our stack: the same PDUs octet by octet, and what it learnt.

Our ProxyClient gets the recorded Top's first SEQ, what it received, and the messages it sent as
typed values. Two things the throw-away Top did are not ours, and are only encoded alike:
it acknowledged messages that came with TTL 0 with TTL 7 (ours, and a later one, answer with TTL 0,
under the same SEQ at the same place), and it sent with TTL 1, which our stack refuses. Deadlines
are left out: the recorded Top never repeated anything.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import UnknownMessage, encode_message
from fastprovd.mesh.events import (
    BeaconReceived,
    Event,
    FilterStatusReceived,
    MessageReceived,
    MessageRejected,
    TransferFailed,
)
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    SegmentedAccess,
    UnsegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.models.fast_provisioning import InfoSet, InfoStatus, NodeAddrStatus
from fastprovd.mesh.models.registry import decode_message
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu
from fastprovd.mesh.proxy import ProxyPduType, decode_proxy_configuration
from fastprovd.mesh.proxy_client import ProxyClient
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from fastprovd.mesh.upper_transport import MessageContext, encrypt_access
from tests.support.data import RECORDING_NAMES, recording
from tests.support.listener import HeardMessage, keys, listen

TOP = 0x0001
RECORDED_ACK_TTL = 7

every_recording = pytest.mark.parametrize("name", RECORDING_NAMES)


@dataclass
class Replay:
    """The Top of one recording, driven by our ProxyClient."""

    name: str
    recorded: list[tuple[ProxyPduType, bytes]] = field(default_factory=list)
    sent: list[tuple[ProxyPduType, bytes]] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    acks_with_other_ttl: int = 0
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        header = recording(self.name).header
        self.keys = keys(self.name)
        self.acks_with_ttl_0 = (1, 0) in {
            (pdu.ctl, pdu.ttl) for pdu, _ in listen(self.name).pdus if pdu.src == TOP
        }
        first_seq = header["first_seq"]
        stack = Stack(
            address=int(header["top_unicast"], 16),
            net_keys=[self.keys.net_key],
            iv_index=self.keys.iv_index,
            sequence=SequenceNumbers(range(first_seq, 1 << 24)),
        )
        stack.app_keys[0] = self.keys.app_key
        stack.dev_keys.update(self.keys.dev_keys)
        self.client = ProxyClient(stack)

    def run(self) -> Replay:
        """Go through the recording."""
        for event in recording(self.name).of("proxy_tx", "proxy_rx"):
            pdu_type, raw = ProxyPduType(event["type"]), bytes.fromhex(event["pdu"])
            if pdu_type is ProxyPduType.PROVISIONING_PDU:
                continue
            if event["ev"] == "proxy_rx":
                received = self.client.receive(pdu_type, raw, event["t"])
                self.events += [(event["t"], what) for what in received]
            else:
                self.recorded.append((pdu_type, raw))
                self._send_like(pdu_type, raw, event["t"])
            self.sent += [self._as_recorded(*pdu) for pdu in self.client.pdus_to_send()]
        return self

    def _decode(self, pdu_type: ProxyPduType, raw: bytes) -> NetworkPdu:
        pdu = decode_network_pdu(
            raw,
            [self.keys.net_key],
            self.keys.iv_index,
            proxy_configuration=pdu_type is ProxyPduType.PROXY_CONFIGURATION,
        )
        assert pdu is not None
        return pdu

    def _send_like(self, pdu_type: ProxyPduType, raw: bytes, now: float) -> None:
        pdu = self._decode(pdu_type, raw)
        if pdu_type is ProxyPduType.PROXY_CONFIGURATION:
            configuration = decode_proxy_configuration(pdu.transport_pdu)
            assert configuration is not None
            self.client.configure(configuration)
            return
        lower = decode_lower_transport_pdu(pdu)
        if isinstance(lower, SegmentAcknowledgment):
            return  # ours comes by itself, from what was received
        if isinstance(lower, SegmentedAccess) and lower.header.seg_o > 0:
            return  # the whole message left with its first segment
        message = listen(self.name).messages[pdu.src, pdu.seq]
        payload = self._typed(message)
        assert message.key is not None
        if pdu.ttl == 1:
            self._send_with_ttl_1(pdu, message, payload)
        else:
            self.client.stack.send(payload, dst=pdu.dst, key=message.key, ttl=pdu.ttl, now=now)

    def _typed(self, message: HeardMessage) -> bytes:
        """Return the payload out of its typed message; `refused` names what ours would not say."""
        assert message.payload is not None
        try:
            typed = decode_message(message.payload)
            assert not isinstance(typed, UnknownMessage)
            payload = encode_message(typed)
        except (DecodeError, LocalProtocolError):
            self.refused.append(message.payload.hex())
            return message.payload
        assert payload == message.payload
        return payload

    def _send_with_ttl_1(self, pdu: NetworkPdu, message: HeardMessage, payload: bytes) -> None:
        stack = self.client.stack
        seq = stack.sequence.take()
        assert message.key is self.keys.app_key
        context = MessageContext(seq, stack.address, pdu.dst, stack.iv_index.transmit)
        upper = encrypt_access(message.key, payload, context)
        lower = UnsegmentedAccess(1, self.keys.app_key.aid, upper)
        ours = NetworkPdu(0, 1, seq, stack.address, pdu.dst, lower.encode(), context.iv_index)
        self.sent.append((ProxyPduType.NETWORK_PDU, encode_network_pdu(ours, self.keys.net_key)))

    def _as_recorded(self, pdu_type: ProxyPduType, raw: bytes) -> tuple[ProxyPduType, bytes]:
        pdu = self._decode(pdu_type, raw)
        if (
            pdu_type is ProxyPduType.NETWORK_PDU
            and pdu.ctl
            and pdu.ttl == 0
            and not self.acks_with_ttl_0
        ):
            self.acks_with_other_ttl += 1
            raw = encode_network_pdu(replace(pdu, ttl=RECORDED_ACK_TTL), self.keys.net_key)
        return pdu_type, raw

    def messages(self, kind: type) -> list[tuple[float, Any]]:
        """Return what the Top received of a class of messages, with its time."""
        return [
            (at, event.message)
            for at, event in self.events
            if isinstance(event, MessageReceived) and isinstance(event.message, kind)
        ]


@cache
def replay(name: str) -> Replay:
    """Return the finished replay of a recording."""
    return Replay(name).run()


def notes(name: str) -> list[str]:
    """Return the notes of a recording."""
    return [event["text"] for event in recording(name).of("note")]


@every_recording
def test_the_tops_pdus_come_out_octet_by_octet(name: str) -> None:
    """From keys, first SEQ and typed messages: the same PDUs, in the same order, none more."""
    top = replay(name)
    assert top.recorded
    assert top.sent == top.recorded


def test_acknowledgments_come_by_themselves() -> None:
    """All 44 acknowledgments are the stack's own; the 27 that answer TTL 0 differ in TTL only."""
    acknowledgments = [
        lower
        for name in RECORDING_NAMES
        for pdu, lower in listen(name).pdus
        if isinstance(lower, SegmentAcknowledgment) and pdu.src == TOP
        if (pdu.ctl, pdu.ttl) == (1, RECORDED_ACK_TTL)
    ]
    assert len(acknowledgments) == 44
    assert sum(replay(name).acks_with_other_ttl for name in RECORDING_NAMES) == 27


def test_only_what_provokes_errors_is_refused() -> None:
    """Everything a real run needs is typed both ways; provocations are refused, and known."""
    refused = {name: replay(name).refused for name in RECORDING_NAMES if replay(name).refused}
    assert set(refused) == {"info-set-errors"}
    rest = [
        payload.hex()
        for payload in map(bytes.fromhex, refused["info-set-errors"])
        if not _is_unchecked_info_set(payload)
    ]
    # One octet too many, two octets only, and a NET_KEY_ADD: no typed message says these.
    assert rest == ["c0e502000000", "c0e5020000", "c2e502" + 16 * "01"]


def _is_unchecked_info_set(payload: bytes) -> bool:
    try:
        message = decode_message(payload)
    except DecodeError:
        return False
    return isinstance(message, InfoSet) and payload[3:] == message.encode_unchecked()


@every_recording
def test_nothing_that_the_top_received_is_rejected(name: str) -> None:
    """Every message, beacon and filter status of the boards makes sense; no transfer is refused."""
    events = [event for _, event in replay(name).events]
    assert not [event for event in events if isinstance(event, MessageRejected | TransferFailed)]
    single = name.startswith("single")
    assert sum(isinstance(event, FilterStatusReceived) for event in events) == 5 * single
    beacons = [event for event in events if isinstance(event, BeaconReceived)]
    assert {beacon.iv_index for beacon in beacons} <= {keys(name).iv_index}


@every_recording
def test_noted_answers_were_received(name: str) -> None:
    """Each answer that a note quotes octet by octet was received, and typed, by our stack."""
    received = {
        encode_message(event.message).hex()
        for _, event in replay(name).events
        if isinstance(event, MessageReceived) and not isinstance(event.message, UnknownMessage)
    }
    for text in notes(name):
        for answer in _answers(text):
            assert answer in received, text


def _answers(text: str) -> list[str]:
    _, _, said = text.partition("-> ") if "replies" not in text else text.partition("replies")
    return re.findall(r"\b(?:c[1357]e502|8003|8204)[0-9a-f]*\b", said)


MEANINGS = [
    ("ctx_flags 0, one octet appended", "INFO_SET carries nothing"),
    ("action bit absent", "no action was asked for"),
    ("min > max", "unicast_min is above unicast_max"),
    ("min = own address", "unicast_min is not above the board's own address"),
    ("min = 0000", "the range is not of unicast addresses"),
    ("min = 8000", "the range is not of unicast addresses"),
    ("max = 8000", "the range is not of unicast addresses"),
    ("group = 0010", "the group is no group address"),
    ("group = ffff", "the group is no group address"),
    ("group = 8000 (virtual)", "the group is no group address"),
    ("pri_prov_addr = c000", "the Primary Provisioner's address is not unicast"),
    ("action 82", "the action was refused"),
    ("action 80", "the action was refused"),
    ("action 83", "the action was refused"),
    ("action 00", "the action was refused"),
    ("suspend while idle", "the action was refused"),
    ("match 17 octets", "the UUID match was refused"),
    ("no addresses form 40 00 + group", "no action was asked for"),
]


@pytest.mark.parametrize(("provocation", "reason"), MEANINGS)
def test_info_status_says_what_was_provoked(provocation: str, reason: str) -> None:
    """The reason of the answer is the mistake that the note names."""
    (text,) = [
        text for text in notes("info-set-errors") if text.startswith(f"INFO_SET {provocation}: ")
    ]
    (answer,) = _answers(text)
    status = decode_message(bytes.fromhex(answer))
    assert isinstance(status, InfoStatus)
    assert status.reason == reason
    assert not any([status.succeeded, status.pending, status.busy])


def test_info_status_of_two_boards_that_are_not_plain() -> None:
    """The board without the NetKey waits for ever; the other starts and is busy with a twin."""
    at = next(recording("info-set-errors").of("disconnect"))["t"]
    statuses = replay("info-set-errors").messages(InfoStatus)
    first = [status for time, status in statuses if time < at]
    second = [status for time, status in statuses if time > at]
    assert [status.pending for status in first[-3:]] == [True, True, True]
    assert first[-3].reason.startswith("the NetKeyIndex is unknown to the board; the board waits")
    assert [(status.succeeded, status.busy) for status in second] == [(True, False), (False, True)]


@every_recording
def test_run_began_when_the_note_says_so(name: str) -> None:
    """The answer to "INFO_SET sent" is a success, but where it was lost with the link."""
    sent = [event for event in recording(name).of("note") if "INFO_SET sent to" in event["text"]]
    for note in sent:
        answers = [
            status
            for at, status in replay(name).messages(InfoStatus)
            if note["t"] < at < note["t"] + 1
        ]
        assert len(answers) == (name != "info-status-lost-n3")
        assert all(status.succeeded for status in answers)
    assert sent or name.startswith(("info-set-errors", "direct"))


@pytest.mark.parametrize(
    ("note", "verdict"),
    [
        ("second INFO_SET while active", "already_in_progress"),
        ("INFO_SET enter after suspend", "already_in_progress"),
        ("second INFO_SET 000202", "stopping"),
    ],
)
def test_info_status_of_a_running_board(note: str, verdict: str) -> None:
    """A board that runs or stops says so in each recording with such a note."""
    texts = [text for name in RECORDING_NAMES for text in notes(name) if text.startswith(note)]
    assert texts
    for text in texts:
        (answer,) = _answers(text)
        assert getattr(decode_message(bytes.fromhex(answer)), verdict) is True


@every_recording
def test_lists_grow_as_noted(name: str) -> None:
    """NODE_ADDR_STATUS lists have the noted sizes, only grow at their end, and end complete."""
    growths = [text for text in notes(name) if "growth" in text]
    for text in growths:
        complete = next(e["t"] for e in recording(name).of("note") if e["text"] == text)
        began = next(e["t"] for e in recording(name).of("note") if "sent to" in e["text"])
        lists = [
            status.addresses
            for at, status in replay(name).messages(NodeAddrStatus)
            if began < at < complete
        ]
        noted = [size for _, size in ast.literal_eval(text.partition("growth ")[2])]
        assert sorted({len(addresses) for addresses in lists}) == noted
        assert all(addresses == lists[-1][: len(addresses)] for addresses in lists)
        (truth,) = re.findall(r"list (\d+) of", text)
        assert len(set(lists[-1])) == len(lists[-1]) == int(truth)
    without = ("single", "info-set-errors", "stall", "direct", "primary")
    assert bool(growths) is (not name.startswith(without)), "every group run has its growth noted"


def test_lists_are_the_noted_addresses() -> None:
    """The lists of two provisioners, read after a recovery, hold what the notes say."""
    noted = [
        [int(address, 16) for address in ast.literal_eval(text[text.index("[") :])]
        for text in notes("stall-s1-recovery-n4")
        if text.startswith("NODE_ADDR_STATUS")
    ]
    lists = replay("stall-s1-recovery-n4").messages(NodeAddrStatus)
    assert [list(status.addresses) for _, status in lists] == noted
    assert noted == [[0x0010, 0x0011, 0x0006], [0x0006]]


@pytest.mark.parametrize(
    ("name", "size"), [("suspend-info-set-n4", 3), ("suspend-with-latecomer-n4", 4)]
)
def test_last_list_after_suspending(name: str, size: int) -> None:
    """The list read after the stop has the noted size."""
    assert any(text.startswith(f"list after suspend {size}") for text in notes(name))
    assert len(replay(name).messages(NodeAddrStatus)[-1][1].addresses) == size
