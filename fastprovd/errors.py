"""The one exception tree: facts as attributes, one sentence built from them."""

from __future__ import annotations


class FastprovdError(Exception):
    """Root of everything fastprovd raises on purpose."""


class ConfigError(FastprovdError):
    """The configuration is wrong; `problems` has one sentence per mistake, each with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DecodeError(FastprovdError):
    """Bytes from outside are malformed."""


class LocalProtocolError(FastprovdError):
    """We asked for something the protocol forbids: a bug of ours, never of a board."""


class SequenceExhausted(FastprovdError):
    """No reserved SEQ is left: reserve a block durably before sending on."""


class ProvisioningError(FastprovdError):
    """A provisioning session ended without a node."""


class UnexpectedPdu(ProvisioningError):
    """A provisioning PDU came out of order, of wrong length, or of unknown type."""

    def __init__(self, state: str, expected: str, got: str) -> None:
        super().__init__(f"in state {state} expected {expected}, got {got}; provision again")
        self.state = state
        self.expected = expected
        self.got = got


class ConfirmationMismatch(ProvisioningError):
    """The device's Confirmation does not fit its Random: wrong AuthValue, or someone in between."""


class DeviceReportedFailure(ProvisioningError):
    """The peer sent Provisioning Failed."""

    def __init__(self, code: int, name: str) -> None:
        super().__init__(f"device reported Provisioning Failed 0x{code:02x} ({name})")
        self.code = code


class InvalidPublicKey(ProvisioningError):
    """The device's public key is ours, or no point on the curve."""


class ReflectedValue(ProvisioningError):
    """The device sent our own Confirmation or Random back; it proves nothing."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the device's {what} is equal to ours; it does not prove who it is")
        self.what = what


class NoCommonAlgorithm(ProvisioningError):
    """The device offers no provisioning algorithm that we speak."""

    def __init__(self, offered: int) -> None:
        super().__init__(f"the device offers none of our algorithms, only 0x{offered:04x}")
        self.offered = offered


class ProvisioningTimeout(ProvisioningError):
    """What the session waited for did not come in time."""

    def __init__(self, state: str, awaited: str) -> None:
        super().__init__(f"in state {state} no {awaited} in time; reconnect and provision again")
        self.state = state
        self.awaited = awaited


class AccessError(FastprovdError):
    """A message was not answered, or answered with a failure."""


class StatusError(AccessError):
    """A Status message says no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ResponseTimeout(AccessError):
    """No Status came in time."""


class MessagesDropped(ResponseTimeout):
    """A proxy greets us and drops what we send: it has heard a higher SEQ from our address."""


class BearerError(FastprovdError):
    """The GATT bearer failed."""


class DeviceNotFound(BearerError):
    """The device is not on the air, or not known to the adapter any more."""


class ConnectionLost(BearerError):
    """The link went away, or a write met a link that is no longer there."""


class ProxySilent(ConnectionLost):
    """The proxy keeps its link and answers nothing any more, as a board does that died."""


class WrongService(BearerError):
    """Connected, but the device does not offer the service we came for."""


class OtherService(WrongService):
    """It offers the other mesh service: its role has changed, or BlueZ shows what was before."""


class BluetoothUnavailable(BearerError):
    """No adapter, no bluetoothd, or powered off."""


class NoFreeLink(BearerError):
    """The adapter bears no more links, and none of those that are open ended in time."""


class StoreError(FastprovdError):
    """The state directory can not be used as it is."""


class SchemaTooNew(StoreError):
    """The database was written by a newer fastprovd."""


class CorruptStore(StoreError):
    """The database is damaged."""


class CopiedStore(StoreError):
    """The database is a copy, was put back, or somebody else sends with its address."""


class StoreInUse(StoreError):
    """Another fastprovd holds the state directory."""


class SeqSpaceExhausted(StoreError):
    """All 2**24 SEQ numbers under this IV Index are used."""


class AddressesTaken(StoreError):
    """Unicast addresses are asked for that were handed out before."""


class RunInProgress(FastprovdError):
    """A run is going on, so nothing else may use the mesh."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} is going on; stop it first")
        self.run_id = run_id


class RunsRefused(FastprovdError):
    """This process starts no run on request, or not any more."""


class NoRun(FastprovdError):
    """There is no run that it could be about."""


class UnknownNode(FastprovdError):
    """No run has made this node."""

    def __init__(self, address: int) -> None:
        super().__init__(f"no node 0x{address:04x} is known")
        self.address = address


class UnknownGroup(FastprovdError):
    """Nobody is known to be in this group."""

    def __init__(self, group: int) -> None:
        super().__init__(f"no node is known to be in group 0x{group:04x}; add some to it first")
        self.group = group


class GroupsFull(FastprovdError):
    """A node has no room for one more group."""


class BrokerUnavailable(FastprovdError):
    """No MQTT broker can be started on this machine."""


class BrokerMismatch(FastprovdError):
    """The broker does not have what was published."""
