"""The Provisioner: sample session, recorded sessions, and everything it must refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import (
    ConfirmationMismatch,
    DeviceReportedFailure,
    InvalidPublicKey,
    LocalProtocolError,
    NoCommonAlgorithm,
    ProvisioningError,
    ProvisioningTimeout,
    ReflectedValue,
    UnexpectedPdu,
)
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.provisioning.device import Device
from fastprovd.mesh.provisioning.pdus import (
    Algorithm,
    Algorithms,
    Capabilities,
    PduType,
    ProvisioningData,
)
from fastprovd.mesh.provisioning.provisioner import (
    REPLY_TIMEOUT_S,
    SEND_DATA_TIMEOUT_S,
    CapabilitiesReceived,
    Completed,
    DevKeyDerived,
    Provisioner,
    ProvisionerState,
)
from tests.support.data import vectors
from tests.support.provisioning import SESSIONS, Session

(SAMPLE,) = vectors("provisioning")
BOTH = Algorithms.CMAC_AES128 | Algorithms.HMAC_SHA256
OWN_PAIR = EcdhKeyPair(1)
DEVICE_PAIR = EcdhKeyPair(2)
OWN_RANDOM = bytes(range(32))
DEVICE_RANDOM = bytes(range(32, 64))
DATA = ProvisioningData(NetKey(bytes(16)), 0x0005)
STEPS = [
    ProvisionerState.AWAIT_CAPABILITIES,
    ProvisionerState.AWAIT_PUBLIC_KEY,
    ProvisionerState.AWAIT_CONFIRMATION,
    ProvisionerState.AWAIT_RANDOM,
    ProvisionerState.AWAIT_SEND_DATA,
    ProvisionerState.AWAIT_COMPLETE,
    ProvisionerState.COMPLETED,
]
VALID = {
    ProvisionerState.AWAIT_CAPABILITIES: PduType.CAPABILITIES,
    ProvisionerState.AWAIT_PUBLIC_KEY: PduType.PUBLIC_KEY,
    ProvisionerState.AWAIT_CONFIRMATION: PduType.CONFIRMATION,
    ProvisionerState.AWAIT_RANDOM: PduType.RANDOM,
    ProvisionerState.AWAIT_COMPLETE: PduType.COMPLETE,
}


class Pair:
    """A Provisioner and a Device, moved one PDU of the Device at a time."""

    def __init__(
        self,
        algorithms: Algorithms = BOTH,
        preference: tuple[Algorithm, ...] = tuple(Algorithm),
    ) -> None:
        self.now = 0.0
        self.provisioner = Provisioner(OWN_PAIR, OWN_RANDOM, 0.0, preference=preference)
        self.device = Device(Capabilities(1, algorithms), DEVICE_PAIR, DEVICE_RANDOM, 0.0)
        self.sent: list[bytes] = []

    def reply(self) -> bytes:
        """Hand the Provisioner's PDUs over and return the Device's answer."""
        self.now += 0.1
        for pdu in self.provisioner.pdus_to_send():
            self.sent.append(pdu)
            self.device.receive(pdu, self.now)
        (answer,) = self.device.pdus_to_send()
        return answer

    def advance(self, state: ProvisionerState) -> None:
        """Go on until the Provisioner is in `state`."""
        while self.provisioner.state is not state:
            if self.provisioner.state is ProvisionerState.AWAIT_SEND_DATA:
                self.provisioner.send_data(DATA, self.now)
            else:
                self.provisioner.receive(self.reply(), self.now)


def _at(state: ProvisionerState, algorithms: Algorithms = BOTH) -> Pair:
    pair = Pair(algorithms)
    pair.advance(state)
    return pair


def _is_dead(provisioner: Provisioner, now: float) -> None:
    assert provisioner.state is ProvisionerState.FAILED
    assert provisioner.next_deadline() is None
    assert provisioner.pdus_to_send() == []
    assert provisioner.handle_deadline(now + 100) == []
    for pdu in (b"\x08", b"\x09\x04", b"\x01" + bytes(11)):
        with pytest.raises(UnexpectedPdu, match="expected nothing"):
            provisioner.receive(pdu, now)
    with pytest.raises(LocalProtocolError):
        provisioner.send_data(DATA, now)


def test_the_sample_session_runs_octet_by_octet() -> None:
    """With the sample's key, random and data every PDU is the published one."""
    fields = SAMPLE["data"]
    provisioner = Provisioner(
        EcdhKeyPair.from_octets(bytes.fromhex(SAMPLE["provisioner"]["private_key"])),
        bytes.fromhex(SAMPLE["random_provisioner"]) + bytes(16),
        0.0,
    )
    data = ProvisioningData(
        NetKey(bytes.fromhex(fields["net_key"]), int(fields["net_key_index"], 16)),
        int(fields["unicast_address"], 16),
        IvIndex(int(fields["iv_index"], 16)),
    )
    sent, events = [], []
    for step in SAMPLE["pdus"]:
        pdu = bytes.fromhex(step["pdu"])
        if step["sender"] == "device":
            events += provisioner.receive(pdu, 0.0)
            if isinstance(events[-1], DevKeyDerived):
                assert provisioner.pdus_to_send() == []
                provisioner.send_data(data, 0.0)
        sent += provisioner.pdus_to_send()
    assert sent == [
        bytes.fromhex(step["pdu"]) for step in SAMPLE["pdus"] if step["sender"] == "provisioner"
    ]
    capabilities, derived, completed = events
    assert capabilities == CapabilitiesReceived(
        Capabilities(1, Algorithms.CMAC_AES128), Algorithm.CMAC_AES128
    )
    assert isinstance(derived, DevKeyDerived)
    assert derived.dev_key.octets.hex() == SAMPLE["device_key"]
    assert completed == Completed()


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_recorded_sessions_are_reproduced(session: Session) -> None:
    """Given the Top's key and random, all its recorded PDUs and the DevKey come out."""
    provisioner = Provisioner(
        session.key_pair,
        session.random_32,
        0.0,
        attention_duration_s=session.attention_duration_s,
        preference=(session.algorithm,),
    )
    sent = provisioner.pdus_to_send()
    events = []
    for by_top, pdu in session.pdus:
        if by_top:
            continue
        events += provisioner.receive(pdu, 0.0)
        if isinstance(events[-1], DevKeyDerived) and sent[-1][0] != PduType.DATA:
            provisioner.send_data(session.data, 0.0)
        sent += provisioner.pdus_to_send()
    assert sent == [pdu for by_top, pdu in session.pdus if by_top]
    assert [event.dev_key.octets for event in events if isinstance(event, DevKeyDerived)] == [
        session.dev_key
    ]
    assert provisioner.state is ProvisionerState.COMPLETED


def test_the_recordings_hold_30_sessions_of_both_algorithms() -> None:
    """No recorded session is left out."""
    assert len(SESSIONS) == 30
    assert {session.algorithm for session in SESSIONS} == set(Algorithm)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_both_algorithms_complete(algorithm: Algorithm) -> None:
    """Provisioner and Device finish together with the algorithm that is preferred."""
    pair = Pair(preference=(algorithm,))
    pair.advance(ProvisionerState.COMPLETED)
    assert pair.sent[1] == bytes([PduType.START, algorithm, 0, 0, 0, 0])
    assert pair.provisioner.next_deadline() is None
    with pytest.raises(UnexpectedPdu):
        pair.provisioner.receive(b"\x08", pair.now)
    assert pair.provisioner.state is ProvisionerState.COMPLETED


@pytest.mark.parametrize(
    ("algorithms", "chosen"),
    [
        (0x0001, Algorithm.CMAC_AES128),
        (0x0002, Algorithm.HMAC_SHA256),
        (0x0003, Algorithm.CMAC_AES128),
        (0xFFFE, Algorithm.HMAC_SHA256),
        (0xFFFF, Algorithm.CMAC_AES128),
    ],
)
def test_algorithm_0_is_preferred_and_unknown_ones_are_tolerated(
    algorithms: int, chosen: Algorithm
) -> None:
    """CMAC_AES128 is chosen wherever it is offered."""
    pair = Pair(Algorithms(algorithms))
    (event,) = pair.provisioner.receive(pair.reply(), 0.0)
    assert event == CapabilitiesReceived(Capabilities(1, Algorithms(algorithms)), chosen)
    pair.advance(ProvisionerState.COMPLETED)


def test_a_device_without_our_algorithms_is_refused() -> None:
    """Only unknown algorithms: the error tells which bits were offered."""
    pair = Pair(Algorithms(0x0004))
    with pytest.raises(NoCommonAlgorithm, match="0x0004") as caught:
        pair.provisioner.receive(pair.reply(), 0.0)
    assert caught.value.offered == 4
    _is_dead(pair.provisioner, 0.0)


def test_our_own_public_key_is_refused() -> None:
    """A reflected public key would make the secret known to the reflector's peer."""
    pair = _at(ProvisionerState.AWAIT_PUBLIC_KEY)
    with pytest.raises(InvalidPublicKey, match="equal to ours"):
        pair.provisioner.receive(b"\x03" + OWN_PAIR.public, pair.now)
    _is_dead(pair.provisioner, pair.now)


@pytest.mark.parametrize("point", [bytes(64), b"\x01" * 64, b"\xff" * 64])
def test_a_point_off_the_curve_is_refused(point: bytes) -> None:
    """The infinity, and any pair that does not satisfy the curve, end the session."""
    pair = _at(ProvisionerState.AWAIT_PUBLIC_KEY)
    with pytest.raises(InvalidPublicKey, match="P-256"):
        pair.provisioner.receive(b"\x03" + point, pair.now)
    _is_dead(pair.provisioner, pair.now)


def test_a_reflected_confirmation_is_refused() -> None:
    """Our own Confirmation proves nothing."""
    pair = _at(ProvisionerState.AWAIT_CONFIRMATION)
    (own,) = pair.provisioner.pdus_to_send()
    with pytest.raises(ReflectedValue, match="Confirmation"):
        pair.provisioner.receive(own, pair.now)
    _is_dead(pair.provisioner, pair.now)


def test_a_reflected_random_is_refused() -> None:
    """Our own Random proves nothing."""
    pair = _at(ProvisionerState.AWAIT_RANDOM)
    (own,) = pair.provisioner.pdus_to_send()
    with pytest.raises(ReflectedValue, match="Random"):
        pair.provisioner.receive(own, pair.now)
    _is_dead(pair.provisioner, pair.now)


@pytest.mark.parametrize(
    "state", [ProvisionerState.AWAIT_CONFIRMATION, ProvisionerState.AWAIT_RANDOM]
)
def test_a_wrong_confirmation_or_random_is_a_mismatch(state: ProvisionerState) -> None:
    """One changed bit in either is found when the Random arrives, and no DevKey comes out."""
    pair = _at(state)
    changed = bytearray(pair.reply())
    changed[-1] ^= 1
    if state is ProvisionerState.AWAIT_CONFIRMATION:
        assert pair.provisioner.receive(bytes(changed), pair.now) == []
        changed = bytearray(pair.reply())
    with pytest.raises(ConfirmationMismatch):
        pair.provisioner.receive(bytes(changed), pair.now)
    _is_dead(pair.provisioner, pair.now)


@pytest.mark.parametrize("state", STEPS[:-1])
@pytest.mark.parametrize("pdu_type", [*PduType, 0x0A, 0xFF])
def test_a_pdu_out_of_order_ends_the_session(state: ProvisionerState, pdu_type: int) -> None:
    """In each state only the awaited type and Failed are taken; the error says what was."""
    if pdu_type in (VALID.get(state), PduType.FAILED):
        return
    pair = _at(state)
    pair.provisioner.pdus_to_send()
    with pytest.raises(UnexpectedPdu) as caught:
        pair.provisioner.receive(bytes([pdu_type]) + bytes(16), pair.now)
    assert caught.value.state == state.name
    assert caught.value.expected == (VALID[state].name if state in VALID else "nothing")
    _is_dead(pair.provisioner, pair.now)


@pytest.mark.parametrize("state", VALID)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda pdu: pdu[:-1], id="shorter"),
        pytest.param(lambda pdu: pdu + b"\x00", id="longer"),
        pytest.param(lambda pdu: pdu + bytes(16), id="16 longer"),
        pytest.param(lambda pdu: pdu[:1] + bytes(7), id="cut"),
        pytest.param(lambda pdu: b"", id="empty"),
    ],
)
def test_a_wrong_length_ends_the_session(
    state: ProvisionerState, change: Callable[[bytes], bytes]
) -> None:
    """The awaited PDU with any other length is refused, 32 octets under algorithm 0 too."""
    pair = _at(state)
    with pytest.raises(UnexpectedPdu, match=state.name):
        pair.provisioner.receive(change(pair.reply()), pair.now)
    _is_dead(pair.provisioner, pair.now)


def test_sixteen_octets_under_algorithm_1_end_the_session() -> None:
    """HMAC_SHA256 takes 32 octets and nothing else."""
    pair = _at(ProvisionerState.AWAIT_CONFIRMATION, Algorithms.HMAC_SHA256)
    with pytest.raises(UnexpectedPdu, match="must have 32 octets, got 16"):
        pair.provisioner.receive(pair.reply()[:17], pair.now)


@pytest.mark.parametrize("state", STEPS[:-1])
@pytest.mark.parametrize(("code", "name"), [(4, "CONFIRMATION_FAILED"), (0x40, "UNKNOWN_0x40")])
def test_a_failed_pdu_is_reported(state: ProvisionerState, code: int, name: str) -> None:
    """The device's reason reaches the caller in every state, unknown codes by number."""
    pair = _at(state)
    pair.provisioner.pdus_to_send()
    with pytest.raises(DeviceReportedFailure, match=name) as caught:
        pair.provisioner.receive(bytes([9, code]), pair.now)
    assert caught.value.code == code
    _is_dead(pair.provisioner, pair.now)


@pytest.mark.parametrize("state", STEPS[:-1])
def test_every_wait_has_an_end(state: ProvisionerState) -> None:
    """Each state sets a deadline from now; nothing happens before it, a timeout at it."""
    pair = _at(state)
    limit = SEND_DATA_TIMEOUT_S if state is ProvisionerState.AWAIT_SEND_DATA else REPLY_TIMEOUT_S
    deadline = pair.provisioner.next_deadline()
    assert deadline == pytest.approx(pair.now + limit)
    assert deadline is not None
    assert pair.provisioner.handle_deadline(deadline - 0.001) == []
    with pytest.raises(ProvisioningTimeout, match=state.name) as caught:
        pair.provisioner.handle_deadline(deadline)
    assert caught.value.awaited == (VALID[state].name if state in VALID else "send_data")
    _is_dead(pair.provisioner, deadline)


def test_data_is_not_sent_to_a_board_that_forgot_the_session() -> None:
    """A caller that took too long to store the DevKey gets a timeout, and nothing leaves."""
    pair = _at(ProvisionerState.AWAIT_SEND_DATA)
    with pytest.raises(ProvisioningTimeout):
        pair.provisioner.send_data(DATA, pair.now + SEND_DATA_TIMEOUT_S)
    _is_dead(pair.provisioner, pair.now)


@pytest.mark.parametrize("state", [state for state in STEPS if state is not STEPS[4]])
def test_data_is_sent_only_after_the_device_proved_itself(state: ProvisionerState) -> None:
    """send_data in any other state is a bug of ours."""
    pair = _at(state)
    with pytest.raises(LocalProtocolError, match=state.name):
        pair.provisioner.send_data(DATA, pair.now)


def test_an_impossible_address_leaves_the_session_waiting() -> None:
    """The caller may correct its data."""
    pair = _at(ProvisionerState.AWAIT_SEND_DATA)
    with pytest.raises(LocalProtocolError, match="unicast"):
        pair.provisioner.send_data(ProvisioningData(DATA.net_key, 0), pair.now)
    pair.advance(ProvisionerState.COMPLETED)


def test_a_random_of_another_length_is_our_bug() -> None:
    """The caller gives 32 octets whatever algorithm will be chosen."""
    with pytest.raises(LocalProtocolError, match="got 16"):
        Provisioner(OWN_PAIR, bytes(16), 0.0)


def test_leading_zeros_survive() -> None:
    """Randoms and NetKey that begin with zero octets arrive whole."""
    provisioner = Provisioner(OWN_PAIR, bytes(31) + b"\x01", 0.0)
    device = Device(Capabilities(1, Algorithms.HMAC_SHA256), DEVICE_PAIR, bytes(31) + b"\x02", 0.0)
    while provisioner.state is not ProvisionerState.COMPLETED:
        if provisioner.state is ProvisionerState.AWAIT_SEND_DATA:
            provisioner.send_data(DATA, 0.0)
        for pdu in provisioner.pdus_to_send():
            device.receive(pdu, 0.0)
        for pdu in device.pdus_to_send():
            provisioner.receive(pdu, 0.0)


@given(
    st.sampled_from(STEPS),
    st.lists(st.tuples(st.integers(0, 11), st.binary(max_size=66)), min_size=1, max_size=4),
)
def test_any_pdus_give_events_or_a_provisioning_error(
    state: ProvisionerState, pdus: list[tuple[int, bytes]]
) -> None:
    """No input makes anything else than a ProvisioningError, and none is survived."""
    pair = _at(state)
    for pdu_type, parameters in pdus:
        try:
            pair.provisioner.receive(bytes([pdu_type]) + parameters, pair.now)
        except ProvisioningError:
            ended = (ProvisionerState.FAILED, ProvisionerState.COMPLETED)
            assert pair.provisioner.state in ended
            assert pair.provisioner.next_deadline() is None
