"""Derivations of a session: sample data and every recorded session."""

from __future__ import annotations

import pytest

from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.provisioning.pdus import Algorithm, PduType
from fastprovd.mesh.provisioning.transcript import ConfirmationInputs, Transcript
from tests.support.data import vectors
from tests.support.provisioning import SESSIONS, Session

(SAMPLE,) = vectors("provisioning")


def _octets(name: str) -> bytes:
    return bytes.fromhex(SAMPLE[name])


def _sample_transcript() -> Transcript:
    provisioner, device = SAMPLE["provisioner"], SAMPLE["device"]
    inputs = ConfirmationInputs(
        _octets("invite"),
        _octets("capabilities"),
        _octets("start"),
        bytes.fromhex(provisioner["public_key_x"] + provisioner["public_key_y"]),
        bytes.fromhex(device["public_key_x"] + device["public_key_y"]),
    )
    assert inputs.octets == _octets("confirmation_inputs")
    return Transcript(Algorithm.CMAC_AES128, inputs, _octets("ecdh_secret"))


def test_the_sample_confirmations_are_computed() -> None:
    """Both Confirmations of the sample session come from its inputs."""
    transcript = _sample_transcript()
    for side in ("provisioner", "device"):
        assert transcript.confirmation(_octets(f"random_{side}")) == _octets(f"confirmation_{side}")


def test_the_sample_data_and_device_key_are_computed() -> None:
    """Encrypted data, MIC and DevKey are those published, and the data opens again."""
    keys = _sample_transcript().session_keys(
        _octets("random_provisioner"), _octets("random_device")
    )
    assert keys.dev_key.octets == _octets("device_key")
    encrypted = _octets("data_encrypted") + _octets("data_mic")
    assert keys.encrypt(_octets("data_plaintext")) == encrypted
    assert keys.decrypt(encrypted) == _octets("data_plaintext")


def test_data_with_a_changed_bit_does_not_open() -> None:
    """A wrong MIC gives nothing, whichever octet was changed."""
    keys = _sample_transcript().session_keys(
        _octets("random_provisioner"), _octets("random_device")
    )
    encrypted = _octets("data_encrypted") + _octets("data_mic")
    for position in range(len(encrypted)):
        changed = bytearray(encrypted)
        changed[position] ^= 1
        assert keys.decrypt(bytes(changed)) is None


def test_nothing_secret_is_shown() -> None:
    """No repr contains the secret or a key."""
    transcript = _sample_transcript()
    keys = transcript.session_keys(_octets("random_provisioner"), _octets("random_device"))
    for shown in (repr(transcript), repr(keys), repr(keys.dev_key)):
        for secret in ("ecdh_secret", "device_key", "session_key", "confirmation_key"):
            assert SAMPLE[secret] not in shown


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_recorded_confirmations_fit_their_randoms(session: Session) -> None:
    """With either algorithm the board's Confirmation and the Top's are those on the air."""
    key_pair = EcdhKeyPair.from_octets(session.private_key)
    device_key = session.of(PduType.PUBLIC_KEY, sent=False)[1:]
    transcript = Transcript(
        session.algorithm,
        ConfirmationInputs(
            session.of(PduType.INVITE, sent=True)[1:],
            session.of(PduType.CAPABILITIES, sent=False)[1:],
            session.of(PduType.START, sent=True)[1:],
            session.of(PduType.PUBLIC_KEY, sent=True)[1:],
            device_key,
        ),
        key_pair.exchange(device_key),
    )
    for sent in (True, False):
        random = session.of(PduType.RANDOM, sent=sent)[1:]
        assert len(random) == session.algorithm.value_octets
        assert transcript.confirmation(random) == session.of(PduType.CONFIRMATION, sent=sent)[1:]
