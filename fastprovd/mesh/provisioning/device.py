"""The device's side of one provisioning session over PB-GATT, as ESP-BLE-MESH behaves; sans-IO."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.provisioning.pdus import (
    Algorithm,
    Capabilities,
    Complete,
    Confirmation,
    Data,
    Failed,
    FailureCode,
    Invite,
    Pdu,
    PduType,
    ProvisioningData,
    PublicKey,
    Random,
    Start,
    encode_pdu,
    split_type,
)
from fastprovd.mesh.provisioning.transcript import ConfirmationInputs, Transcript

RANDOM_OCTETS: Final = 32
# The fast provisioning build shortens the protocol timer from 60 s.
PROTOCOL_TIMEOUT_S: Final = 6.0


class DeviceState(Enum):
    """What the session waits for; INVALID after a Failed, CLOSED once it answers nothing."""

    AWAIT_INVITE = auto()
    AWAIT_START = auto()
    AWAIT_PUBLIC_KEY = auto()
    AWAIT_CONFIRMATION = auto()
    AWAIT_RANDOM = auto()
    AWAIT_DATA = auto()
    INVALID = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Provisioned:
    """The device is a node now; Complete is queued."""

    data: ProvisioningData
    dev_key: DevKey


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """A Failed PDU is queued; the session stays invalid until the link is gone."""

    code: FailureCode


@dataclass(frozen=True, slots=True)
class SessionTimedOut:
    """The protocol timer ended the session; only a new link begins another."""


DeviceEvent = Provisioned | SessionFailed | SessionTimedOut


class _Refused(Exception):
    def __init__(self, code: FailureCode) -> None:
        super().__init__(code.name)
        self.code = code


class Device:
    """One session on an open link; the protocol timer runs from the start.

    It never raises for what it receives: it answers with a Failed PDU and is invalid from then on.
    As the firmware it does not compare public keys and does not check index and address of the
    Provisioning Data. It offers no OOB and ignores attention and a received Failed.
    """

    def __init__(
        self, capabilities: Capabilities, key_pair: EcdhKeyPair, random: bytes, now: float
    ) -> None:
        """`random` has 32 octets, fresh for this session; CMAC_AES128 takes the first 16.

        Raises:
            LocalProtocolError: `random` of another length.
        """
        if len(random) != RANDOM_OCTETS:
            raise LocalProtocolError(f"random must have 32 octets, got {len(random)}")
        self._capabilities = capabilities
        self._key_pair = key_pair
        self._random = random
        self._inputs = ConfirmationInputs(device_public_key=key_pair.public)
        self._algorithm = Algorithm.CMAC_AES128
        self._transcript: Transcript | None = None
        self._provisioner_confirmation = b""
        self._provisioner_random = b""
        self._queue: list[bytes] = []
        self._state = DeviceState.AWAIT_INVITE
        self._deadline: float | None = now + PROTOCOL_TIMEOUT_S

    @property
    def state(self) -> DeviceState:
        """What the session waits for."""
        return self._state

    def receive(self, pdu: bytes, now: float) -> list[DeviceEvent]:
        """Take one PDU of the Provisioner; an empty one and all after the end are ignored."""
        if not pdu or self._state is DeviceState.CLOSED:
            return []
        self._deadline = now + PROTOCOL_TIMEOUT_S
        try:
            return self._dispatch(pdu)
        except _Refused as refused:
            self._send(Failed(refused.code))
            self._state = DeviceState.INVALID
            return [SessionFailed(refused.code)]

    def pdus_to_send(self) -> list[bytes]:
        """Return the PDUs queued since the last call, in order."""
        queue, self._queue = self._queue, []
        return queue

    def next_deadline(self) -> float | None:
        """Return when the protocol timer ends the session, `None` once it is over."""
        return self._deadline

    def handle_deadline(self, now: float) -> list[DeviceEvent]:
        """End the session when the protocol timer is over; the link stays up, silent."""
        if self._deadline is None or now < self._deadline:
            return []
        self._close()
        return [SessionTimedOut()]

    def _dispatch(self, pdu: bytes) -> list[DeviceEvent]:
        if self._state is DeviceState.INVALID:
            raise _Refused(FailureCode.UNEXPECTED_PDU)
        try:
            pdu_type, parameters = split_type(pdu)
        except DecodeError as error:
            raise _Refused(FailureCode.INVALID_PDU) from error
        try:
            if pdu_type is PduType.FAILED:
                Failed.decode_parameters(parameters)
                return []
            handler = _TRANSITIONS.get((self._state, pdu_type))
            if handler is None:
                raise _Refused(FailureCode.UNEXPECTED_PDU)
            return handler(self, parameters)
        except DecodeError as error:
            raise _Refused(FailureCode.INVALID_FORMAT) from error

    def _on_invite(self, parameters: bytes) -> list[DeviceEvent]:
        Invite.decode_parameters(parameters)
        self._inputs.invite = parameters
        self._inputs.capabilities = self._send(self._capabilities)
        self._state = DeviceState.AWAIT_START
        return []

    def _on_start(self, parameters: bytes) -> list[DeviceEvent]:
        start = Start.decode_parameters(parameters)
        try:
            self._algorithm = Algorithm(start.algorithm)
        except ValueError as error:
            raise _Refused(FailureCode.INVALID_FORMAT) from error
        if start != Start(self._algorithm) or not self._offers(self._algorithm):
            raise _Refused(FailureCode.INVALID_FORMAT)
        self._inputs.start = parameters
        self._state = DeviceState.AWAIT_PUBLIC_KEY
        return []

    def _on_public_key(self, parameters: bytes) -> list[DeviceEvent]:
        point = PublicKey.decode_parameters(parameters).point
        try:
            secret = self._key_pair.exchange(point)
        except DecodeError as error:
            raise _Refused(FailureCode.UNEXPECTED_PDU) from error
        self._inputs.provisioner_public_key = point
        self._transcript = Transcript(self._algorithm, self._inputs, secret)
        self._random = self._random[: self._algorithm.value_octets]
        self._send(PublicKey(self._key_pair.public))
        self._state = DeviceState.AWAIT_CONFIRMATION
        return []

    def _on_confirmation(self, parameters: bytes) -> list[DeviceEvent]:
        self._provisioner_confirmation = self._value(
            Confirmation.decode_parameters(parameters).value
        )
        confirmation = self._derived.confirmation(self._random)
        if hmac.compare_digest(confirmation, self._provisioner_confirmation):
            raise _Refused(FailureCode.INVALID_FORMAT)
        self._send(Confirmation(confirmation))
        self._state = DeviceState.AWAIT_RANDOM
        return []

    def _on_random(self, parameters: bytes) -> list[DeviceEvent]:
        self._provisioner_random = self._value(Random.decode_parameters(parameters).value)
        expected = self._derived.confirmation(self._provisioner_random)
        if not hmac.compare_digest(expected, self._provisioner_confirmation):
            raise _Refused(FailureCode.CONFIRMATION_FAILED)
        self._send(Random(self._random))
        self._state = DeviceState.AWAIT_DATA
        return []

    def _on_data(self, parameters: bytes) -> list[DeviceEvent]:
        encrypted = Data.decode_parameters(parameters).encrypted
        keys = self._derived.session_keys(self._provisioner_random, self._random)
        octets = keys.decrypt(encrypted)
        if octets is None:
            raise _Refused(FailureCode.DECRYPTION_FAILED)
        self._send(Complete())
        self._close()
        return [Provisioned(ProvisioningData.decode(octets), keys.dev_key)]

    @property
    def _derived(self) -> Transcript:
        if self._transcript is None:
            raise LocalProtocolError(f"no public key came before state {self._state.name}")
        return self._transcript

    def _offers(self, algorithm: Algorithm) -> bool:
        return self._capabilities.algorithms.offers(algorithm)

    def _value(self, value: bytes) -> bytes:
        # A firmware with HMAC_SHA256 takes both lengths and reads what its algorithm needs.
        if len(value) != Algorithm.CMAC_AES128.value_octets and not self._offers(
            Algorithm.HMAC_SHA256
        ):
            raise DecodeError(f"a device without HMAC_SHA256 takes 16 octets, got {len(value)}")
        return value[: self._algorithm.value_octets]

    def _send(self, pdu: Pdu) -> bytes:
        encoded = encode_pdu(pdu)
        self._queue.append(encoded)
        return encoded[1:]

    def _close(self) -> None:
        self._state = DeviceState.CLOSED
        self._deadline = None


_Handler = Callable[[Device, bytes], list[DeviceEvent]]

_TRANSITIONS: Final[dict[tuple[DeviceState, PduType], _Handler]] = {
    (DeviceState.AWAIT_INVITE, PduType.INVITE): Device._on_invite,
    (DeviceState.AWAIT_START, PduType.START): Device._on_start,
    (DeviceState.AWAIT_PUBLIC_KEY, PduType.PUBLIC_KEY): Device._on_public_key,
    (DeviceState.AWAIT_CONFIRMATION, PduType.CONFIRMATION): Device._on_confirmation,
    (DeviceState.AWAIT_RANDOM, PduType.RANDOM): Device._on_random,
    (DeviceState.AWAIT_DATA, PduType.DATA): Device._on_data,
}
