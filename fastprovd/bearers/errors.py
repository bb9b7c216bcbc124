"""What the errors of bleak and BlueZ mean, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from bleak.exc import BleakError, BleakGATTProtocolError
from dbus_fast.errors import DBusError, DBusFastError

from fastprovd.errors import (
    BearerError,
    BluetoothUnavailable,
    ConnectionLost,
    DeviceNotFound,
    NoFreeLink,
    OtherService,
    WrongService,
)

# Everything a call into bleak was seen to raise when the link, bluetoothd or the bus goes away.
# bleak asserts that it still has its bus; dbus-fast raises EOFError when it lost it. TimeoutError
# is an OSError.
BLEAK_ERRORS: Final = (BleakError, DBusFastError, OSError, EOFError, AssertionError)
# What a connection to the bus of our own raises when it can not be made, or ends.
BUS_ERRORS: Final = (DBusFastError, OSError, EOFError)


class Remedy(Enum):
    """What helps; all but the last are tried before an error is raised, with a pause between.

    Each attempt to connect has a new client, so a link that is not to be trusted needs no remedy
    of its own.
    """

    RETRY = "try again"
    BUSY = "somebody else is at it: try again for a while, which is no attempt of ours"
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


def _unavailable(remedy: Remedy, advice: str) -> Diagnosis:
    return Diagnosis(BluetoothUnavailable, remedy, advice)


# `bluetoothctl power on` fails as long as rfkill blocks the adapter, and does not say why.
SWITCH_ON: Final = (
    "switch it on (bluetoothctl power on; if rfkill blocks it: rfkill unblock bluetooth)"
)
UNBLOCK: Final = "rfkill blocks it: unblock it (rfkill unblock bluetooth), then switch it on"

_NO_BLUETOOTHD: Final = _unavailable(Remedy.GIVE_UP, "start bluetoothd (systemctl start bluetooth)")
_NO_BUS: Final = _unavailable(
    Remedy.GIVE_UP,
    "D-Bus is not there: start it and start bluetoothd (systemctl start dbus bluetooth); into a "
    "container mount /run/dbus",
)
_BUS_DENIED: Final = _unavailable(
    Remedy.GIVE_UP,
    "D-Bus does not let this user in: let the service run as a user that the host knows, also in "
    "a container (its uid is the host's)",
)
_SILENT: Final = _unavailable(
    Remedy.RETRY, "bluetoothd does not answer: restart it (systemctl restart bluetooth)"
)
_OFF: Final = _unavailable(Remedy.RETRY, f"the adapter is off: {SWITCH_ON}")
_ADAPTER_GONE: Final = _unavailable(Remedy.RETRY, "the adapter is gone: plug it in again")
_ADAPTER_BUSY: Final = _unavailable(
    Remedy.RETRY,
    "the adapter is busy: with a scan from before a crash of bluetoothd, which ends within 10 s, "
    "or with another program",
)
_FORGOTTEN: Final = Diagnosis(
    DeviceNotFound, Remedy.SEARCH, "scan again, BlueZ has forgotten the device"
)
_FULL: Final = Diagnosis(
    NoFreeLink, Remedy.WAIT, "the adapter bears no more links: end those of other programs"
)
_LINK_GONE: Final = Diagnosis(ConnectionLost, Remedy.RETRY, "connect to the board again")
_TAKEN: Final = Diagnosis(
    ConnectionLost,
    Remedy.BUSY,
    "another program connects to this board, or uses it: end that one, then try again",
)
_STALE: Final = Diagnosis(
    WrongService,
    Remedy.FORGET,
    "BlueZ shows services that the board does not have: have it forget the board (bluetoothctl "
    "remove), or power-cycle the board",
)

# The first row holds whose texts all occur in "<class>: <message>".
_Table = tuple[tuple[str | tuple[str, ...], Diagnosis], ...]

# What a device answers while it is connected to, and the adapter means otherwise.
_DEVICE_TABLE: Final[_Table] = (
    ("Error.InProgress", _TAKEN),
    ("Device or resource busy", _TAKEN),
    ("Operation already in progress", _TAKEN),
    ("Operation now in progress", _TAKEN),
)
_TABLE: Final[_Table] = (
    # bluetoothd and the bus
    ("DBus.Error.ServiceUnknown", _NO_BLUETOOTHD),
    ("DBus.Error.NameHasNoOwner", _NO_BLUETOOTHD),
    ("DBus.Error.Spawn", _NO_BLUETOOTHD),
    ("DBus.Error.TimedOut", _NO_BLUETOOTHD),  # D-Bus waited for its start
    ("DBus.Error.NoServer", _NO_BUS),
    ("DBus.Error.Disconnected", _NO_BUS),
    ("DBus.Error.NoReply", _SILENT),  # it went while it was asked, or it hangs
    ("DBus.Error.Timeout", _SILENT),
    (
        "DBus.Error.AccessDenied",
        _unavailable(
            Remedy.GIVE_UP,
            "the D-Bus policy must let this user use org.bluez (/etc/dbus-1/system.d; some systems "
            "want the group bluetooth)",
        ),
    ),
    ("DBus.Error.AuthFailed", _BUS_DENIED),
    ("AuthError", _BUS_DENIED),
    ("DENIED_BY_SYSTEM", _BUS_DENIED),
    ("REJECTED", _BUS_DENIED),
    (
        "InvalidAddressError",
        _unavailable(Remedy.GIVE_UP, "correct DBUS_SYSTEM_BUS_ADDRESS, or do without it"),
    ),
    ("PermissionError", _BUS_DENIED),
    (
        "DBus.Error.LimitsExceeded",
        _unavailable(
            Remedy.GIVE_UP,
            "this user has used up its limit of D-Bus connections or match rules: end other "
            "programs of this user, or raise the limits of D-Bus (/etc/dbus-1/system-local.conf)",
        ),
    ),
    ("requires BlueZ", _unavailable(Remedy.GIVE_UP, "install a newer BlueZ")),
    # The adapter, as bleak sees it before it asks
    ("No powered Bluetooth adapters", _unavailable(Remedy.GIVE_UP, _OFF.advice)),
    ("'central' role", _unavailable(Remedy.GIVE_UP, "use an adapter with Bluetooth LE")),
    (
        "BleakBluetoothNotAvailableError",
        _unavailable(Remedy.GIVE_UP, "plug in an adapter or switch it on"),
    ),
    (
        "adapter '",
        _unavailable(Remedy.GIVE_UP, "name an adapter that `bluetoothctl list` shows"),
    ),
    # Objects that are not there, by what was asked of them
    (("DBus.Error.Unknown", "org.bluez.Adapter1"), _ADAPTER_GONE),
    (("DBus.Error.Unknown", "org.bluez.Gatt"), _STALE),
    ("BleakDeviceNotFoundError", _FORGOTTEN),
    ("device 'dev_", _FORGOTTEN),
    ("DBus.Error.UnknownObject", _FORGOTTEN),
    ("DBus.Error.UnknownMethod", _FORGOTTEN),
    ("DBus.Error.UnknownInterface", _FORGOTTEN),
    ("Error.DoesNotExist", _FORGOTTEN),
    # The adapter, as BlueZ sees it
    ("Error.Blocked", _unavailable(Remedy.GIVE_UP, UNBLOCK)),
    ("rfkill", _unavailable(Remedy.GIVE_UP, UNBLOCK)),
    ("Error.NotReady", _OFF),
    ("adapter-not-powered", _OFF),
    ("Input/output error", _OFF),
    ("Error.InProgress", _ADAPTER_BUSY),
    ("Error.Busy", _ADAPTER_BUSY),
    ("Operation already in progress", _ADAPTER_BUSY),
    ("Operation now in progress", _ADAPTER_BUSY),
    ("Device or resource busy", _ADAPTER_BUSY),
    # bluetoothd was restarted under a scan
    ("No discovery started", _unavailable(Remedy.RETRY, "scan again")),
    # The controller refuses a link: HCI 0x09, 0x07, 0x0C and 0x0D in the words of BlueZ
    ("connection-concurrent-connection-limit", _FULL),
    ("connection-memory-allocation", _FULL),
    ("connection-busy", _FULL),
    ("connection-refused", _FULL),
    # Establishing a link
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
    # The services of the firmware before the last flashing, beside the present ones
    ("Multiple Services with this UUID", _STALE),
    ("Multiple Characteristics with this UUID", _STALE),
    ("is already present in this BleakGATT", _STALE),
    # Using it
    ("Notify acquired", _TAKEN),
    ("Write acquired", _TAKEN),
    ("Service Discovery has not been performed", _LINK_GONE),
    ("failed to discover services", _LINK_GONE),
    ("may be disconnected", _LINK_GONE),
    ("Not connected", _LINK_GONE),
    ("Error.NotConnected", _LINK_GONE),
    # The value is longer than the link takes: its size must be learnt anew
    ("Failed to initiate write", _LINK_GONE),
)
# What the bearer raised itself, by class: its sentence may quote any of the above.
_OURS: Final = (
    (BluetoothUnavailable, _unavailable(Remedy.GIVE_UP, "then try again")),
    (OtherService, Diagnosis(OtherService, Remedy.FORGET, "look again for the board")),
    (WrongService, _STALE),
    (ConnectionLost, _LINK_GONE),
)
_UNKNOWN: Final = Diagnosis(ConnectionLost, Remedy.RETRY, "look again for the board and retry")
# What BlueZ answers for a characteristic that it shows and the board does not have, or has with
# other properties.
_NO_SUCH_CHARACTERISTIC: Final = ("DBus.Error.Unknown", "Error.DoesNotExist", "Error.NotSupported")


def diagnose(error: BaseException, *, connecting: bool = False) -> Diagnosis:
    """Return what `error`, one of BLEAK_ERRORS or a BearerError, means for an attempt.

    `connecting`: a device was asked and not the adapter, which answers some things alike.
    """
    for ours, diagnosis in _OURS:
        if isinstance(error, ours):
            return diagnosis
    text = describe(error)
    for needles, diagnosis in (*(_DEVICE_TABLE if connecting else ()), *_TABLE):
        if all(needle in text for needle in _each(needles)):
            return diagnosis
    if isinstance(error, BUS_ERRORS):
        return _NO_BUS
    return _UNKNOWN


def is_stale(error: BaseException) -> bool:
    """Whether a characteristic that BlueZ shows is not that of the board, by what using it gave."""
    text = describe(error)
    return isinstance(error, BleakGATTProtocolError) or any(
        needle in text for needle in _NO_SUCH_CHARACTERISTIC
    )


def _each(needles: str | tuple[str, ...]) -> tuple[str, ...]:
    return (needles,) if isinstance(needles, str) else needles


def describe(error: BaseException) -> str:
    """Return class and message in one line; of an answer of the bus its name, too."""
    message = " ".join(str(error).split())
    if isinstance(error, DBusError):
        message = f"[{error.type}] {message}"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
