"""The Device: sample session, recorded sessions, and how the firmware refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.provisioning.device import (
    PROTOCOL_TIMEOUT_S,
    Device,
    DeviceState,
    Provisioned,
    SessionFailed,
    SessionTimedOut,
)
from fastprovd.mesh.provisioning.pdus import (
    Algorithm,
    Algorithms,
    Capabilities,
    FailureCode,
    PduType,
    ProvisioningData,
)
from fastprovd.mesh.provisioning.provisioner import DevKeyDerived, Provisioner
from tests.support.data import vectors
from tests.support.provisioning import SESSIONS, Session

(SAMPLE,) = vectors("provisioning")
BOARD = Capabilities(1, Algorithms.CMAC_AES128 | Algorithms.HMAC_SHA256)
BEFORE_5_2 = Capabilities(1, Algorithms.CMAC_AES128)
OWN_PAIR = EcdhKeyPair(2)
OWN_RANDOM = bytes(range(32, 64))
LIVE = [state for state in DeviceState if state.name.startswith("AWAIT_")]
VALID = {
    DeviceState.AWAIT_INVITE: PduType.INVITE,
    DeviceState.AWAIT_START: PduType.START,
    DeviceState.AWAIT_PUBLIC_KEY: PduType.PUBLIC_KEY,
    DeviceState.AWAIT_CONFIRMATION: PduType.CONFIRMATION,
    DeviceState.AWAIT_RANDOM: PduType.RANDOM,
    DeviceState.AWAIT_DATA: PduType.DATA,
}


class Pair:
    """A Device and a Provisioner, moved one PDU of the Provisioner at a time."""

    def __init__(
        self, capabilities: Capabilities = BOARD, algorithm: Algorithm = Algorithm.CMAC_AES128
    ) -> None:
        self.device = Device(capabilities, OWN_PAIR, OWN_RANDOM, 0.0)
        self.provisioner = Provisioner(
            EcdhKeyPair(1), bytes(range(32)), 0.0, preference=(algorithm,)
        )
        self._pending: list[bytes] = []

    def next_pdu(self) -> bytes:
        """Return the Provisioner's next PDU, not yet delivered."""
        if not self._pending:
            for pdu in self.device.pdus_to_send():
                for event in self.provisioner.receive(pdu, 0.0):
                    if isinstance(event, DevKeyDerived):
                        self.provisioner.send_data(ProvisioningData(NetKey(bytes(16)), 5), 0.0)
            self._pending = self.provisioner.pdus_to_send()
        return self._pending.pop(0)

    def advance(self, state: DeviceState) -> None:
        """Go on until the Device is in `state`."""
        while self.device.state is not state:
            self.device.receive(self.next_pdu(), 0.0)


def _at(state: DeviceState, capabilities: Capabilities = BOARD) -> Pair:
    pair = Pair(capabilities)
    pair.advance(state)
    return pair


def _refuses(device: Device, pdu: bytes, code: FailureCode) -> None:
    device.pdus_to_send()
    assert device.receive(pdu, 1.0) == [SessionFailed(code)]
    assert device.pdus_to_send() == [bytes([PduType.FAILED, code])]
    assert device.state is DeviceState.INVALID
    for late in (b"\x00\x00", b"\x09\x00", b"\x0a", b"\x08"):
        assert device.receive(late, 1.0) == [SessionFailed(FailureCode.UNEXPECTED_PDU)]
        assert device.pdus_to_send() == [b"\x09\x03"]


def test_the_sample_session_runs_octet_by_octet() -> None:
    """With the sample's key and random the Device sends the published PDUs and gets the data."""
    device = Device(
        BEFORE_5_2,
        EcdhKeyPair.from_octets(bytes.fromhex(SAMPLE["device"]["private_key"])),
        bytes.fromhex(SAMPLE["random_device"]) + bytes(16),
        0.0,
    )
    sent, events = [], []
    for step in SAMPLE["pdus"]:
        if step["sender"] == "provisioner":
            events += device.receive(bytes.fromhex(step["pdu"]), 0.0)
            sent += device.pdus_to_send()
    assert sent == [
        bytes.fromhex(step["pdu"]) for step in SAMPLE["pdus"] if step["sender"] == "device"
    ]
    (event,) = events
    assert isinstance(event, Provisioned)
    assert event.dev_key.octets.hex() == SAMPLE["device_key"]
    assert event.data.encode().hex() == SAMPLE["data_plaintext"]


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_the_board_answers_in_the_recorded_order(session: Session) -> None:
    """After each recorded PDU of the Top the Device sends the types the board sent.

    Its keys differ from the board's, so the Top's recorded Confirmation is where it stops.
    """
    device = Device(BOARD, OWN_PAIR, OWN_RANDOM, 0.0)
    heard: list[int] = []
    for by_top, pdu in session.pdus:
        if not by_top:
            assert heard.pop(0) == pdu[0]
            if pdu[0] == PduType.CAPABILITIES:
                assert pdu == bytes.fromhex("010100030000000000000000")
            continue
        events = device.receive(pdu, 0.0)
        heard += [answer[0] for answer in device.pdus_to_send()]
        if pdu[0] == PduType.RANDOM:
            assert events == [SessionFailed(FailureCode.CONFIRMATION_FAILED)]
            return
    pytest.fail("the recorded session has no Random")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_both_algorithms_complete(algorithm: Algorithm) -> None:
    """Complete is queued, the data is whole, and nothing is answered afterwards."""
    pair = Pair(algorithm=algorithm)
    pair.advance(DeviceState.AWAIT_DATA)
    (event,) = pair.device.receive(pair.next_pdu(), 0.0)
    assert isinstance(event, Provisioned)
    assert event.data.unicast_address == 5
    assert pair.device.pdus_to_send() == [b"\x08"]
    assert pair.device.state is DeviceState.CLOSED
    assert pair.device.next_deadline() is None
    assert pair.device.receive(b"\x00\x00", 0.0) == []
    assert pair.device.pdus_to_send() == []


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("pdu_type", PduType)
def test_a_pdu_out_of_order_is_answered_03(state: DeviceState, pdu_type: PduType) -> None:
    """Whatever is not awaited gives Failed 03, repeated PDUs included; Failed is ignored."""
    if pdu_type in (VALID[state], PduType.FAILED):
        return
    _refuses(_at(state).device, bytes([pdu_type]) + bytes(16), FailureCode.UNEXPECTED_PDU)


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("pdu", [b"\x0a", b"\xff" + bytes(16)])
def test_an_unknown_type_is_answered_01(state: DeviceState, pdu: bytes) -> None:
    """Reserved types are told apart from PDUs out of order."""
    _refuses(_at(state).device, pdu, FailureCode.INVALID_PDU)


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("surplus", [-1, 1, 17])
def test_a_wrong_length_is_answered_02(state: DeviceState, surplus: int) -> None:
    """The awaited type with another length gives Failed 02."""
    pair = _at(state)
    pdu = pair.next_pdu()
    changed = pdu[:surplus] if surplus < 0 else pdu + bytes(surplus)
    _refuses(pair.device, changed, FailureCode.INVALID_FORMAT)


@pytest.mark.parametrize(
    "start",
    [
        "0500000000",
        "0200000000",
        "0001000000",
        "0000010000",
        "0000020001",
        "0000000100",
        "0000000001",
    ],
)
def test_a_start_that_the_board_does_not_offer_is_answered_02(start: str) -> None:
    """Unknown algorithm, OOB public key or any OOB authentication."""
    pair = _at(DeviceState.AWAIT_START)
    _refuses(pair.device, b"\x02" + bytes.fromhex(start), FailureCode.INVALID_FORMAT)


def test_algorithm_1_is_refused_where_it_is_not_offered() -> None:
    """A firmware before v5.2 knows CMAC_AES128 only."""
    pair = _at(DeviceState.AWAIT_START, BEFORE_5_2)
    _refuses(pair.device, bytes.fromhex("020100000000"), FailureCode.INVALID_FORMAT)


@pytest.mark.parametrize("point", [bytes(64), b"\x01" * 64, b"\xff" * 64])
def test_a_point_off_the_curve_is_answered_03(point: bytes) -> None:
    """The firmware answers an invalid public key as a PDU out of order."""
    pair = _at(DeviceState.AWAIT_PUBLIC_KEY)
    _refuses(pair.device, b"\x03" + point, FailureCode.UNEXPECTED_PDU)


def test_public_keys_are_not_compared() -> None:
    """As the firmware, the Device takes its own public key from a Provisioner."""
    pair = _at(DeviceState.AWAIT_PUBLIC_KEY)
    assert pair.device.receive(b"\x03" + OWN_PAIR.public, 0.0) == []
    assert pair.device.state is DeviceState.AWAIT_CONFIRMATION


def test_its_own_confirmation_is_answered_02() -> None:
    """A reflected Confirmation is the only reflection that the firmware looks for."""
    ours = _at(DeviceState.AWAIT_CONFIRMATION)
    ours.device.pdus_to_send()
    ours.device.receive(b"\x05" + bytes(16), 0.0)
    (confirmation,) = ours.device.pdus_to_send()
    other = _at(DeviceState.AWAIT_CONFIRMATION)
    _refuses(other.device, confirmation, FailureCode.INVALID_FORMAT)


@pytest.mark.parametrize("state", [DeviceState.AWAIT_CONFIRMATION, DeviceState.AWAIT_RANDOM])
def test_a_wrong_confirmation_or_random_is_answered_04(state: DeviceState) -> None:
    """One changed bit in either gives Failed 04 when the Random arrives."""
    pair = _at(state)
    changed = bytearray(pair.next_pdu())
    changed[-1] ^= 1
    if state is DeviceState.AWAIT_CONFIRMATION:
        pair.device.receive(bytes(changed), 0.0)
        changed = bytearray(pair.next_pdu())
    _refuses(pair.device, bytes(changed), FailureCode.CONFIRMATION_FAILED)


def test_a_longer_confirmation_is_taken_where_algorithm_1_is_offered() -> None:
    """The firmware takes both lengths and reads what its algorithm needs."""
    pair = _at(DeviceState.AWAIT_CONFIRMATION)
    pair.device.receive(pair.next_pdu() + bytes(16), 0.0)
    pair.device.receive(pair.next_pdu() + bytes(16), 0.0)
    assert pair.device.state is DeviceState.AWAIT_DATA


def test_a_longer_confirmation_is_refused_where_it_is_not_offered() -> None:
    """A firmware before v5.2 takes 16 octets."""
    pair = _at(DeviceState.AWAIT_CONFIRMATION, BEFORE_5_2)
    _refuses(pair.device, pair.next_pdu() + bytes(16), FailureCode.INVALID_FORMAT)


def test_data_that_does_not_open_is_answered_06() -> None:
    """A changed bit in the encrypted data gives Failed 06."""
    pair = _at(DeviceState.AWAIT_DATA)
    changed = bytearray(pair.next_pdu())
    changed[1] ^= 1
    _refuses(pair.device, bytes(changed), FailureCode.DECRYPTION_FAILED)


@pytest.mark.parametrize("state", LIVE)
def test_a_failed_of_the_provisioner_changes_nothing(state: DeviceState) -> None:
    """It is taken with its length checked, and the session goes on."""
    pair = _at(state)
    pdu = pair.next_pdu()
    assert pair.device.receive(b"\x09\x04", 0.0) == []
    assert pair.device.pdus_to_send() == []
    assert pair.device.state is state
    pair.device.receive(pdu, 0.0)
    assert pair.device.state is not state
    _refuses(_at(state).device, b"\x09", FailureCode.INVALID_FORMAT)


@pytest.mark.parametrize("state", LIVE)
def test_six_seconds_of_silence_end_the_session_without_a_word(state: DeviceState) -> None:
    """Every PDU restarts the timer; afterwards the Device answers nothing at all."""
    pair = Pair()
    device = pair.device
    assert device.next_deadline() == PROTOCOL_TIMEOUT_S
    now = 0.0
    while device.state is not state:
        now += 5.0
        device.receive(pair.next_pdu(), now)
    deadline = device.next_deadline()
    assert deadline == now + 6.0
    assert deadline is not None
    device.pdus_to_send()
    assert device.handle_deadline(deadline - 0.001) == []
    assert device.handle_deadline(deadline) == [SessionTimedOut()]
    assert device.next_deadline() is None
    assert device.handle_deadline(deadline + 100) == []
    assert device.receive(b"\x00\x00", deadline) == []
    assert device.pdus_to_send() == []


def test_an_empty_pdu_is_ignored() -> None:
    """It neither fails the session nor restarts its timer."""
    device = Device(BOARD, OWN_PAIR, OWN_RANDOM, 0.0)
    assert device.receive(b"", 5.0) == []
    assert device.next_deadline() == PROTOCOL_TIMEOUT_S
    assert device.state is DeviceState.AWAIT_INVITE


def test_a_random_of_another_length_is_our_bug() -> None:
    """The caller gives 32 octets whatever algorithm will be chosen."""
    with pytest.raises(LocalProtocolError, match="got 16"):
        Device(BOARD, OWN_PAIR, bytes(16), 0.0)


@given(
    st.sampled_from(LIVE),
    st.lists(st.tuples(st.integers(0, 11), st.binary(max_size=66)), min_size=1, max_size=4),
)
def test_any_pdus_are_answered_or_ignored(
    state: DeviceState, pdus: list[tuple[int, bytes]]
) -> None:
    """No input raises; once a Failed was sent, every PDU is answered 03."""
    device = _at(state).device
    device.pdus_to_send()
    for pdu_type, parameters in pdus:
        was_invalid = device.state is DeviceState.INVALID
        device.receive(bytes([pdu_type]) + parameters, 0.0)
        answers = device.pdus_to_send()
        assert len(answers) <= 1
        if was_invalid:
            assert answers == [b"\x09\x03"]
