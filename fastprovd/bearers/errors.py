"""What the errors of bleak and BlueZ mean, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from bleak.exc import BleakError

from fastprovd.errors import (
    BearerError,
    BluetoothUnavailable,
    ConnectionLost,
    DeviceNotFound,
    NoFreeLink,
    OtherService,
)

# Everything a call into bleak was seen to raise when the link, bluetoothd or the bus goes away.
# bleak asserts that it still has its bus; dbus-fast raises EOFError when it lost it. TimeoutError
# is an OSError.
BLEAK_ERRORS: Final = (BleakError, OSError, EOFError, AssertionError)


class Remedy(Enum):
    """What helps; all but the last are tried before an error is raised, with a pause between.

    Each attempt to connect has a new client, so a link that is not to be trusted needs no remedy
    of its own.
    """

    RETRY = "try again"
    SEARCH = "BlueZ does not know the device any more: find it again, then try again"
    FORGET = "BlueZ shows services from before: have it forget the device, find it again, try again"
    WAIT = "the adapter bears no more links: try again when one has ended"
    GIVE_UP = "nothing we do helps, somebody must follow the advice"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`error` is what to raise in the end, with `advice` for people."""

    error: type[BearerError]
    remedy: Remedy
    advice: str


_NO_BLUETOOTHD: Final = Diagnosis(
    BluetoothUnavailable, Remedy.GIVE_UP, "start bluetoothd (systemctl start bluetooth)"
)
_ENDED: Final = Diagnosis(
    BluetoothUnavailable, Remedy.RETRY, "start bluetoothd (systemctl start bluetooth)"
)
_OFF: Final = Diagnosis(
    BluetoothUnavailable, Remedy.RETRY, "switch the adapter on (bluetoothctl power on)"
)
_FORGOTTEN: Final = Diagnosis(
    DeviceNotFound, Remedy.SEARCH, "scan again, BlueZ has forgotten the device"
)
_FULL: Final = Diagnosis(
    NoFreeLink, Remedy.WAIT, "the adapter bears no more links: end those of other programs"
)
_LINK_GONE: Final = Diagnosis(ConnectionLost, Remedy.RETRY, "connect to the board again")

# The first row whose text occurs in "<class>: <message>" holds.
_TABLE: Final[tuple[tuple[str, Diagnosis], ...]] = (
    # The adapter, as we look for it; the sentence has its own advice
    ("BluetoothUnavailable", Diagnosis(BluetoothUnavailable, Remedy.GIVE_UP, "then try again")),
    # The adapter, as bleak sees it before it asks
    (
        "No powered Bluetooth adapters",
        Diagnosis(
            BluetoothUnavailable,
            Remedy.GIVE_UP,
            "the adapter is off, switch it on (bluetoothctl power on)",
        ),
    ),
    (
        "'central' role",
        Diagnosis(BluetoothUnavailable, Remedy.GIVE_UP, "use an adapter with Bluetooth LE"),
    ),
    (
        "BleakBluetoothNotAvailableError",
        Diagnosis(BluetoothUnavailable, Remedy.GIVE_UP, "plug in an adapter or switch it on"),
    ),
    (
        "adapter '",
        Diagnosis(
            BluetoothUnavailable, Remedy.GIVE_UP, "name an adapter that `bluetoothctl list` shows"
        ),
    ),
    # The device object
    ("BleakDeviceNotFoundError", _FORGOTTEN),
    ("device 'dev_", _FORGOTTEN),
    ("DBus.Error.UnknownObject", _FORGOTTEN),
    ("DBus.Error.UnknownMethod", _FORGOTTEN),
    ("Error.DoesNotExist", _FORGOTTEN),
    # bluetoothd and the bus
    ("DBus.Error.ServiceUnknown", _NO_BLUETOOTHD),
    ("DBus.Error.NameHasNoOwner", _NO_BLUETOOTHD),
    ("DBus.Error.Spawn", _NO_BLUETOOTHD),
    ("DBus.Error.TimedOut", _NO_BLUETOOTHD),  # D-Bus waited for its start
    ("DBus.Error.NoReply", _ENDED),  # it went while it was asked
    (
        "DBus.Error.AccessDenied",
        Diagnosis(
            BluetoothUnavailable,
            Remedy.GIVE_UP,
            "the D-Bus policy must let this user use org.bluez",
        ),
    ),
    ("requires BlueZ", Diagnosis(BluetoothUnavailable, Remedy.GIVE_UP, "install a newer BlueZ")),
    # The adapter, as BlueZ sees it
    ("Error.NotReady", _OFF),
    ("Input/output error", _OFF),
    (
        "Error.InProgress",
        Diagnosis(
            BluetoothUnavailable,
            Remedy.RETRY,
            "the adapter is busy: with a scan from before a crash of bluetoothd, which ends within "
            "10 s, or with another program",
        ),
    ),
    # bluetoothd was restarted under a scan
    ("No discovery started", Diagnosis(BluetoothUnavailable, Remedy.RETRY, "scan again")),
    # The controller refuses a link: HCI 0x09, 0x07, 0x0C and 0x0D in the words of BlueZ
    ("connection-concurrent-connection-limit", _FULL),
    ("connection-memory-allocation", _FULL),
    ("connection-busy", _FULL),
    ("connection-refused", _FULL),
    # Establishing a link
    ("OtherService", Diagnosis(OtherService, Remedy.FORGET, "look again for the board")),
    (
        "le-connection-abort-by-local",
        Diagnosis(
            ConnectionLost,
            Remedy.RETRY,
            "the radio is disturbed: move the adapter away from Wi-Fi and USB 3",
        ),
    ),
    (
        "br-connection",
        Diagnosis(ConnectionLost, Remedy.RETRY, "set ControllerMode = le in BlueZ's main.conf"),
    ),
    (
        "TimeoutError",
        Diagnosis(DeviceNotFound, Remedy.RETRY, "the board does not advertise, or is out of reach"),
    ),
    # Using it
    ("Service Discovery has not been performed", _LINK_GONE),
    ("failed to discover services", _LINK_GONE),
    ("may be disconnected", _LINK_GONE),
    ("Not connected", _LINK_GONE),
    ("Error.NotConnected", _LINK_GONE),
    # The value is longer than the link takes: its size must be learnt anew
    ("Failed to initiate write", _LINK_GONE),
)
_UNKNOWN: Final = Diagnosis(ConnectionLost, Remedy.RETRY, "look again for the board and retry")


def diagnose(error: BaseException) -> Diagnosis:
    """Return what `error`, one of BLEAK_ERRORS or OtherService, means for an attempt."""
    text = describe(error)
    for needle, diagnosis in _TABLE:
        if needle in text:
            return diagnosis
    if isinstance(error, OSError | EOFError):
        return _NO_BLUETOOTHD
    return _UNKNOWN


def describe(error: BaseException) -> str:
    """Return class and message in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
