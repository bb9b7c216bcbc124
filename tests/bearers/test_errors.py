"""Every error that bleak and BlueZ were seen to raise has its class, its remedy and its advice."""

from __future__ import annotations

import pytest
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
)
from dbus_fast.errors import AuthError, DBusError, InvalidAddressError

from fastprovd.bearers.errors import BLEAK_ERRORS, Remedy, describe, diagnose
from fastprovd.errors import (
    BearerError,
    BluetoothUnavailable,
    ConnectionLost,
    DeviceNotFound,
    NoFreeLink,
    OtherService,
    WrongService,
)

OFF, NONE, NO_CENTRAL, DENIED = (
    BleakBluetoothNotAvailableReason.POWERED_OFF,
    BleakBluetoothNotAvailableReason.NO_BLUETOOTH,
    BleakBluetoothNotAvailableReason.NO_BLE_CENTRAL_ROLE,
    BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM,
)
RETRY, SEARCH, FORGET = Remedy.RETRY, Remedy.SEARCH, Remedy.FORGET
WAIT, GIVE_UP = Remedy.WAIT, Remedy.GIVE_UP


def failed(text: str) -> BleakDBusError:
    return BleakDBusError("org.bluez.Error.Failed", [text])


def bluez(name: str, text: str = "") -> BleakDBusError:
    return BleakDBusError(f"org.bluez.Error.{name}", [text])


def dbus(name: str, text: str = "") -> BleakDBusError:
    return BleakDBusError(f"org.freedesktop.DBus.Error.{name}", [text])


def unavailable(text: str, reason: BleakBluetoothNotAvailableReason) -> BleakError:
    return BleakBluetoothNotAvailableError(text, reason)


NO_SCAN = (
    'Method "StartDiscovery" with signature "" on interface "org.bluez.Adapter1" doesn\'t exist'
)
NO_NOTIFY = (
    'Method "StartNotify" with signature "" on interface "org.bluez.GattCharacteristic1" doesn\'t '
    "exist"
)
NO_CONNECT = 'Method "Connect" with signature "" on interface "org.bluez.Device1" doesn\'t exist'


@pytest.mark.parametrize(
    ("error", "raised", "remedy", "advice"),
    [
        # The adapter
        (BluetoothUnavailable("there is no adapter"), BluetoothUnavailable, GIVE_UP, "again"),
        (
            unavailable("No powered Bluetooth adapters found. Turn on Bluetooth", OFF),
            BluetoothUnavailable,
            GIVE_UP,
            "power on",
        ),
        (
            unavailable("No Bluetooth adapters found.", NONE),
            BluetoothUnavailable,
            GIVE_UP,
            "plug in",
        ),
        (
            unavailable("No Bluetooth adapters with BLE 'central' role found.", NO_CENTRAL),
            BluetoothUnavailable,
            GIVE_UP,
            "Bluetooth LE",
        ),
        (BleakError("adapter 'hci7' not found"), BluetoothUnavailable, GIVE_UP, "list"),
        (bluez("NotReady", "Resource Not Ready"), BluetoothUnavailable, RETRY, "power on"),
        (failed("Input/output error"), BluetoothUnavailable, RETRY, "power on"),
        (bluez("InProgress", "In Progress"), BluetoothUnavailable, RETRY, "another program"),
        (failed("Operation already in progress"), BluetoothUnavailable, RETRY, "another program"),
        (failed("Device or resource busy"), BluetoothUnavailable, RETRY, "another program"),
        (
            bluez("Blocked", "Blocked through rfkill"),
            BluetoothUnavailable,
            GIVE_UP,
            "rfkill unblock",
        ),
        (bluez("NotReady", "Resource Not Ready"), BluetoothUnavailable, RETRY, "rfkill unblock"),
        (dbus("UnknownObject", NO_SCAN), BluetoothUnavailable, RETRY, "plug it in"),
        (failed("No discovery started"), BluetoothUnavailable, RETRY, "scan again"),
        # bluetoothd and the bus
        (dbus("ServiceUnknown"), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (dbus("NameHasNoOwner"), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (dbus("Spawn.ChildExited"), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (dbus("Spawn.ServiceNotFound"), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (dbus("TimedOut"), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (dbus("NoReply"), BluetoothUnavailable, RETRY, "restart it"),
        (
            dbus("LimitsExceeded", "max match rules"),
            BluetoothUnavailable,
            GIVE_UP,
            "limits of D-Bus",
        ),
        (
            PermissionError("no access"),
            BluetoothUnavailable,
            GIVE_UP,
            "D-Bus does not let this user",
        ),
        (
            unavailable("authentication failed: REJECTED: ['EXTERNAL']", DENIED),
            BluetoothUnavailable,
            GIVE_UP,
            "D-Bus does not let this user",
        ),
        (dbus("AccessDenied"), BluetoothUnavailable, GIVE_UP, "policy"),
        (
            DBusError("org.freedesktop.DBus.Error.LimitsExceeded", "too many connections"),
            BluetoothUnavailable,
            GIVE_UP,
            "limits of D-Bus",
        ),
        (AuthError("authentication failed"), BluetoothUnavailable, GIVE_UP, "let this user in"),
        (InvalidAddressError("no"), BluetoothUnavailable, GIVE_UP, "DBUS_SYSTEM_BUS_ADDRESS"),
        (ConnectionRefusedError("refused"), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (FileNotFoundError("no socket"), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (EOFError(), BluetoothUnavailable, GIVE_UP, "start bluetoothd"),
        (BleakError("Bleak requires BlueZ >= 5.55."), BluetoothUnavailable, GIVE_UP, "newer"),
        # The device object
        (
            BleakDeviceNotFoundError("24:0A", "Device with address 24:0A was not found."),
            DeviceNotFound,
            SEARCH,
            "scan again",
        ),
        (BleakError("device 'dev_24_0A' not found"), DeviceNotFound, SEARCH, "scan again"),
        (dbus("UnknownObject", NO_CONNECT), DeviceNotFound, SEARCH, "scan again"),
        (dbus("UnknownMethod", NO_CONNECT), DeviceNotFound, SEARCH, "scan again"),
        (bluez("DoesNotExist", "Does Not Exist"), DeviceNotFound, SEARCH, "scan again"),
        # Establishing a link
        (OtherService("it offers 1827"), OtherService, FORGET, "look again"),
        (WrongService("refused (DBus.Error.UnknownObject)"), WrongService, FORGET, "bluetoothctl"),
        (
            BleakError("Multiple Services with this UUID, refer to your desired service by"),
            WrongService,
            FORGET,
            "bluetoothctl remove",
        ),
        (
            BleakError("The service '7' is already present in this BleakGATTServiceCollection!"),
            WrongService,
            FORGET,
            "bluetoothctl remove",
        ),
        (dbus("UnknownObject", NO_NOTIFY), WrongService, FORGET, "bluetoothctl remove"),
        (ConnectionLost("gone (Error.InProgress)"), ConnectionLost, RETRY, "again"),
        (failed("le-connection-concurrent-connection-limit"), NoFreeLink, WAIT, "other programs"),
        (failed("le-connection-memory-allocation"), NoFreeLink, WAIT, "other programs"),
        (failed("le-connection-busy"), NoFreeLink, WAIT, "other programs"),
        (failed("le-connection-refused"), NoFreeLink, WAIT, "other programs"),
        (failed("br-connection-busy"), NoFreeLink, WAIT, "other programs"),
        (failed("le-connection-abort-by-local"), ConnectionLost, RETRY, "Wi-Fi"),
        (failed("br-connection-canceled"), ConnectionLost, RETRY, "ControllerMode"),
        (failed("br-connection-profile-unavailable"), ConnectionLost, RETRY, "ControllerMode"),
        (TimeoutError(), DeviceNotFound, RETRY, "does not advertise"),
        (
            BleakError("failed to discover services, device disconnected"),
            ConnectionLost,
            RETRY,
            "again",
        ),
        # Using it
        (
            BleakError("Service Discovery has not been performed yet"),
            ConnectionLost,
            RETRY,
            "again",
        ),
        (BleakError("Not connected"), ConnectionLost, RETRY, "again"),
        (bluez("NotConnected", "Not Connected"), ConnectionLost, RETRY, "again"),
        (failed("Not connected"), ConnectionLost, RETRY, "again"),
        (failed("Failed to initiate write"), ConnectionLost, RETRY, "again"),
        (
            BleakError("characteristic at /x not found, device may be disconnected"),
            ConnectionLost,
            RETRY,
            "again",
        ),
        # Never seen
        (failed("le-connection-of-tomorrow"), ConnectionLost, RETRY, "retry"),
    ],
    ids=lambda value: describe(value)[:60] if isinstance(value, BaseException) else "",
)
def test_each_error_has_its_remedy(
    error: Exception, raised: type[BearerError], remedy: Remedy, advice: str
) -> None:
    """Retry, search or forget the device, or give up; and a sentence that says what to do."""
    assert isinstance(error, (*BLEAK_ERRORS, BearerError))
    diagnosis = diagnose(error)
    assert (diagnosis.error, diagnosis.remedy) == (raised, remedy)
    assert advice in diagnosis.advice


@pytest.mark.parametrize(
    "error",
    [
        bluez("InProgress", "In Progress"),
        failed("Operation already in progress"),
        failed("Device or resource busy"),
        BleakDBusError("org.bluez.Error.NotPermitted", ["Notify acquired"]),
    ],
    ids=describe,
)
def test_a_device_that_is_busy_says_nothing_of_the_adapter(error: Exception) -> None:
    """What a board answers while we connect is about the board; another program holds it."""
    diagnosis = diagnose(error, connecting=True)
    assert (diagnosis.error, diagnosis.remedy) == (ConnectionLost, Remedy.BUSY)
    assert "another program connects to this board" in diagnosis.advice


def test_an_error_is_one_line() -> None:
    """Class and message, whatever BlueZ writes into it."""
    assert describe(BleakError("first\n  second")) == "BleakError: first second"
    assert describe(EOFError()) == "EOFError"
