"""The Provisioner's side of one provisioning session, No OOB, sans-IO."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from fastprovd.errors import (
    ConfirmationMismatch,
    DecodeError,
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
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.provisioning.pdus import (
    Algorithm,
    Capabilities,
    Complete,
    Confirmation,
    Data,
    Failed,
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
from fastprovd.mesh.provisioning.transcript import ConfirmationInputs, SessionKeys, Transcript

RANDOM_OCTETS: Final = 32
# The board forgets the session without a word 6 s after the last PDU; one more for the air.
REPLY_TIMEOUT_S: Final = 7.0
# Data that leaves after the board forgot the session would burn an address for nothing.
SEND_DATA_TIMEOUT_S: Final = 5.0
# The firmware's algorithm 1 can send garbage for its Random, so it is the second choice.
PREFERENCE: Final = (Algorithm.CMAC_AES128, Algorithm.HMAC_SHA256)


class ProvisionerState(Enum):
    """What the session waits for."""

    AWAIT_CAPABILITIES = auto()
    AWAIT_PUBLIC_KEY = auto()
    AWAIT_CONFIRMATION = auto()
    AWAIT_RANDOM = auto()
    AWAIT_SEND_DATA = auto()
    AWAIT_COMPLETE = auto()
    COMPLETED = auto()
    FAILED = auto()


_AWAITED: Final = {
    ProvisionerState.AWAIT_CAPABILITIES: PduType.CAPABILITIES,
    ProvisionerState.AWAIT_PUBLIC_KEY: PduType.PUBLIC_KEY,
    ProvisionerState.AWAIT_CONFIRMATION: PduType.CONFIRMATION,
    ProvisionerState.AWAIT_RANDOM: PduType.RANDOM,
    ProvisionerState.AWAIT_COMPLETE: PduType.COMPLETE,
}


@dataclass(frozen=True, slots=True)
class CapabilitiesReceived:
    """What the device can, and the algorithm chosen: reserve `number_of_elements` addresses."""

    capabilities: Capabilities
    algorithm: Algorithm


@dataclass(frozen=True, slots=True)
class DevKeyDerived:
    """The device proved itself: keep its DevKey durably, then call `send_data`."""

    dev_key: DevKey


@dataclass(frozen=True, slots=True)
class Completed:
    """The device is a node now."""


ProvisionerEvent = CapabilitiesReceived | DevKeyDerived | Completed


class Provisioner:
    """One session: the Invite is queued at once, Data only when the caller says `send_data`.

    Every failure is raised as a ProvisioningError and ends the session: afterwards nothing is
    queued, no deadline is set, and each further PDU raises UnexpectedPdu. It retries nothing,
    sends no Failed PDU, and knows no OOB authentication.
    """

    def __init__(
        self,
        key_pair: EcdhKeyPair,
        random: bytes,
        now: float,
        *,
        attention_duration_s: int = 0,
        preference: tuple[Algorithm, ...] = PREFERENCE,
    ) -> None:
        """`random` has 32 octets, fresh for this session; CMAC_AES128 takes the first 16.

        Raises:
            LocalProtocolError: `random` of another length.
        """
        if len(random) != RANDOM_OCTETS:
            raise LocalProtocolError(f"random must have 32 octets, got {len(random)}")
        self._key_pair = key_pair
        self._random = random
        self._preference = preference
        self._inputs = ConfirmationInputs(provisioner_public_key=key_pair.public)
        self._algorithm = Algorithm.CMAC_AES128
        self._transcript: Transcript | None = None
        self._session_keys: SessionKeys | None = None
        self._confirmation = b""
        self._device_confirmation = b""
        self._queue: list[bytes] = []
        self._state = ProvisionerState.AWAIT_CAPABILITIES
        self._deadline: float | None = now + REPLY_TIMEOUT_S
        self._inputs.invite = self._send(Invite(attention_duration_s))

    @property
    def state(self) -> ProvisionerState:
        """What the session waits for."""
        return self._state

    def receive(self, pdu: bytes, now: float) -> list[ProvisionerEvent]:
        """Take one PDU of the device.

        Raises:
            ProvisioningError: its subclass says why the session is over.
        """
        try:
            pdu_type, parameters = split_type(pdu)
        except DecodeError as error:
            raise self._unexpected(str(error)) from error
        handler = _TRANSITIONS.get((self._state, pdu_type))
        if handler is None:
            raise self._unexpected(pdu_type.name)
        try:
            return handler(self, parameters, now)
        except DecodeError as error:
            raise self._unexpected(str(error)) from error
        except ProvisioningError:
            self._end(ProvisionerState.FAILED)
            raise

    def send_data(self, data: ProvisioningData, now: float) -> None:
        """Queue the Provisioning Data; the DevKey must be durable by now.

        Raises:
            LocalProtocolError: no DevKeyDerived before, sent already, or an impossible address.
            ProvisioningTimeout: the device has forgotten the session.
        """
        if self._state is not ProvisionerState.AWAIT_SEND_DATA or self._session_keys is None:
            raise LocalProtocolError(f"send_data in state {self._state.name}")
        self.handle_deadline(now)
        self._send(Data(self._session_keys.encrypt(data.encode())))
        self._await(ProvisionerState.AWAIT_COMPLETE, now + REPLY_TIMEOUT_S)

    def pdus_to_send(self) -> list[bytes]:
        """Return the PDUs queued since the last call, in order."""
        queue, self._queue = self._queue, []
        return queue

    def next_deadline(self) -> float | None:
        """Return when the wait is over, `None` once the session is."""
        return self._deadline

    def handle_deadline(self, now: float) -> list[ProvisionerEvent]:
        """End the session when its wait is over; raises ProvisioningTimeout."""
        if self._deadline is None or now < self._deadline:
            return []
        awaited = _AWAITED.get(self._state)
        timeout = ProvisioningTimeout(
            self._state.name, "send_data" if awaited is None else awaited.name
        )
        self._end(ProvisionerState.FAILED)
        raise timeout

    def _on_capabilities(self, parameters: bytes, now: float) -> list[ProvisionerEvent]:
        capabilities = Capabilities.decode_parameters(parameters)
        offered = (one for one in self._preference if capabilities.algorithms.offers(one))
        algorithm = next(offered, None)
        if algorithm is None:
            raise NoCommonAlgorithm(capabilities.algorithms)
        self._algorithm = algorithm
        self._inputs.capabilities = parameters
        self._inputs.start = self._send(Start(algorithm))
        self._send(PublicKey(self._key_pair.public))
        self._await(ProvisionerState.AWAIT_PUBLIC_KEY, now + REPLY_TIMEOUT_S)
        return [CapabilitiesReceived(capabilities, algorithm)]

    def _on_public_key(self, parameters: bytes, now: float) -> list[ProvisionerEvent]:
        point = PublicKey.decode_parameters(parameters).point
        if point == self._key_pair.public:
            raise InvalidPublicKey("the device's public key is equal to ours")
        try:
            secret = self._key_pair.exchange(point)
        except DecodeError as error:
            raise InvalidPublicKey(f"the device's {error}") from error
        self._inputs.device_public_key = point
        self._random = self._random[: self._algorithm.value_octets]
        self._transcript = Transcript(self._algorithm, self._inputs, secret)
        self._confirmation = self._transcript.confirmation(self._random)
        self._send(Confirmation(self._confirmation))
        self._await(ProvisionerState.AWAIT_CONFIRMATION, now + REPLY_TIMEOUT_S)
        return []

    def _on_confirmation(self, parameters: bytes, now: float) -> list[ProvisionerEvent]:
        value = Confirmation.decode_parameters(parameters).value
        self._check_length(PduType.CONFIRMATION, value)
        if hmac.compare_digest(value, self._confirmation):
            raise ReflectedValue("Confirmation")
        self._device_confirmation = value
        self._send(Random(self._random))
        self._await(ProvisionerState.AWAIT_RANDOM, now + REPLY_TIMEOUT_S)
        return []

    def _on_random(self, parameters: bytes, now: float) -> list[ProvisionerEvent]:
        value = Random.decode_parameters(parameters).value
        self._check_length(PduType.RANDOM, value)
        if hmac.compare_digest(value, self._random):
            raise ReflectedValue("Random")
        if self._transcript is None or not hmac.compare_digest(
            self._transcript.confirmation(value), self._device_confirmation
        ):
            raise ConfirmationMismatch(
                "the device's Random does not fit its Confirmation; provision again"
            )
        self._session_keys = self._transcript.session_keys(self._random, value)
        self._await(ProvisionerState.AWAIT_SEND_DATA, now + SEND_DATA_TIMEOUT_S)
        return [DevKeyDerived(self._session_keys.dev_key)]

    def _on_complete(self, parameters: bytes, now: float) -> list[ProvisionerEvent]:
        Complete.decode_parameters(parameters)
        self._end(ProvisionerState.COMPLETED)
        return [Completed()]

    def _on_failed(self, parameters: bytes, now: float) -> list[ProvisionerEvent]:
        code = Failed.decode_parameters(parameters).code
        raise DeviceReportedFailure(code, code.name)

    def _check_length(self, pdu_type: PduType, value: bytes) -> None:
        expected = self._algorithm.value_octets
        if len(value) != expected:
            raise DecodeError(
                f"{pdu_type.name} of {self._algorithm.name} must have {expected} octets, "
                f"got {len(value)}"
            )

    def _send(self, pdu: Pdu) -> bytes:
        encoded = encode_pdu(pdu)
        self._queue.append(encoded)
        return encoded[1:]

    def _await(self, state: ProvisionerState, deadline: float) -> None:
        self._state = state
        self._deadline = deadline

    def _unexpected(self, got: str) -> UnexpectedPdu:
        awaited = _AWAITED.get(self._state)
        error = UnexpectedPdu(self._state.name, "nothing" if awaited is None else awaited.name, got)
        self._end(ProvisionerState.FAILED)
        return error

    def _end(self, state: ProvisionerState) -> None:
        if self._state is not ProvisionerState.COMPLETED:
            self._state = state
        self._deadline = None
        self._queue.clear()


_Handler = Callable[[Provisioner, bytes, float], list[ProvisionerEvent]]

_TRANSITIONS: Final[dict[tuple[ProvisionerState, PduType], _Handler]] = {
    (ProvisionerState.AWAIT_CAPABILITIES, PduType.CAPABILITIES): Provisioner._on_capabilities,
    (ProvisionerState.AWAIT_PUBLIC_KEY, PduType.PUBLIC_KEY): Provisioner._on_public_key,
    (ProvisionerState.AWAIT_CONFIRMATION, PduType.CONFIRMATION): Provisioner._on_confirmation,
    (ProvisionerState.AWAIT_RANDOM, PduType.RANDOM): Provisioner._on_random,
    (ProvisionerState.AWAIT_COMPLETE, PduType.COMPLETE): Provisioner._on_complete,
    (ProvisionerState.AWAIT_CAPABILITIES, PduType.FAILED): Provisioner._on_failed,
    (ProvisionerState.AWAIT_PUBLIC_KEY, PduType.FAILED): Provisioner._on_failed,
    (ProvisionerState.AWAIT_CONFIRMATION, PduType.FAILED): Provisioner._on_failed,
    (ProvisionerState.AWAIT_RANDOM, PduType.FAILED): Provisioner._on_failed,
    (ProvisionerState.AWAIT_SEND_DATA, PduType.FAILED): Provisioner._on_failed,
    (ProvisionerState.AWAIT_COMPLETE, PduType.FAILED): Provisioner._on_failed,
}
