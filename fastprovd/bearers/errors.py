"""What the errors of bleak and BlueZ mean, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bleak.exc import BleakError

from fastprovd.errors import BearerError, BluetoothUnavailable, ConnectionLost, DeviceNotFound

# Everything a call into bleak was seen to raise when the link, bluetoothd or the bus goes away.
# bleak asserts that it still has its bus; dbus-fast raises EOFError when it lost it. TimeoutError
# is an OSError.
BLEAK_ERRORS: Final = (BleakError, OSError, EOFError, AssertionError)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`error` is what to raise in the end, `is_transient` whether to try again first.

    `forgets_device`: BlueZ does not know the device any more, it must be found again.
    """

    error: type[BearerError]
    is_transient: bool
    advice: str
    forgets_device: bool = False


_NO_BLUETOOTHD: Final = Diagnosis(
    BluetoothUnavailable, False, "start bluetoothd (systemctl start bluetooth)"
)
_FORGOTTEN: Final = Diagnosis(
    DeviceNotFound, True, "scan again, BlueZ has forgotten the device", forgets_device=True
)

# The first row whose text occurs in "<class>: <message>" holds.
_TABLE: Final[tuple[tuple[str, Diagnosis], ...]] = (
    (
        "BleakBluetoothNotAvailableError",
        Diagnosis(BluetoothUnavailable, False, "plug in an adapter or switch it on"),
    ),
    (
        "adapter '",
        Diagnosis(BluetoothUnavailable, False, "name an adapter that `bluetoothctl list` shows"),
    ),
    ("BleakDeviceNotFoundError", _FORGOTTEN),
    ("device 'dev_", _FORGOTTEN),
    ("DBus.Error.UnknownObject", _FORGOTTEN),
    ("DBus.Error.ServiceUnknown", _NO_BLUETOOTHD),
    ("DBus.Error.NameHasNoOwner", _NO_BLUETOOTHD),
    ("DBus.Error.Spawn", _NO_BLUETOOTHD),
    (
        "DBus.Error.AccessDenied",
        Diagnosis(BluetoothUnavailable, False, "the D-Bus policy must let this user use org.bluez"),
    ),
    (
        "requires BlueZ",
        Diagnosis(BluetoothUnavailable, False, "install a newer BlueZ"),
    ),
    (
        "Error.NotReady",
        Diagnosis(BluetoothUnavailable, True, "switch the adapter on (bluetoothctl power on)"),
    ),
    (
        "Error.InProgress",
        Diagnosis(BluetoothUnavailable, True, "another program keeps the adapter busy"),
    ),
    (
        "Input/output error",
        Diagnosis(BluetoothUnavailable, True, "switch the adapter on (bluetoothctl power on)"),
    ),
    (
        "le-connection-abort-by-local",
        Diagnosis(
            ConnectionLost,
            True,
            "the radio is disturbed: move the adapter away from Wi-Fi and USB 3",
        ),
    ),
    (
        "br-connection",
        Diagnosis(ConnectionLost, True, "set ControllerMode = le in BlueZ's main.conf"),
    ),
    (
        "TimeoutError",
        Diagnosis(DeviceNotFound, True, "the board does not advertise, or is out of reach"),
    ),
)
_UNKNOWN: Final = Diagnosis(ConnectionLost, True, "look again for the board and retry")


def diagnose(error: BaseException) -> Diagnosis:
    """Return what `error`, one of BLEAK_ERRORS, means for a connection attempt."""
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
