"""The emulated adapter behind bleak's own API.

`BleakScanner(..., backend=scanner_backend(adapter))` and `BleakClient(..., backend=
client_backend(adapter))` behave as bleak 3.1 on BlueZ does: the same calls, exceptions and texts.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

from bleak import BleakScanner
from bleak.assigned_numbers import CharacteristicPropertyName
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, AdvertisementDataCallback, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import (
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
    BleakGATTProtocolError,
    BleakGATTProtocolErrorCode,
)
from bleak.uuids import normalize_uuid_16

from fastprovd.emulator.bluez_adapter import DeviceObject, EmulatedAdapter
from fastprovd.emulator.connection import FAILED, GENERIC_ACCESS, Connection
from fastprovd.emulator.peripheral import AttError, Characteristic, Service

_UNKNOWN_OBJECT: Final = "org.freedesktop.DBus.Error.UnknownObject"


def scanner_backend(adapter: EmulatedAdapter, program: str = "") -> type[BaseBleakScanner]:
    """Return the class to give to `BleakScanner(backend=...)`.

    BlueZ keeps one discovery session for each `program`.
    """
    return type("EmulatedBleakScanner", (_Scanner,), {"_emulated": adapter, "_program": program})


def client_backend(adapter: EmulatedAdapter) -> type[BaseBleakClient]:
    """Return the class to give to `BleakClient(backend=...)`."""
    return type("EmulatedBleakClient", (_Client,), {"_emulated": adapter})


class _Scanner(BaseBleakScanner):
    _emulated: ClassVar[EmulatedAdapter]
    _program: ClassVar[str]

    def __init__(
        self,
        detection_callback: AdvertisementDataCallback | None,
        service_uuids: list[str] | None,
        scanning_mode: str,
        *,
        bluez: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(detection_callback, service_uuids)
        if scanning_mode == "passive":
            raise BleakError("passive scanning mode requires bluez or_patterns")
        self._adapter_name: str | None = bluez.get("adapter")
        self._duplicates = bool(bluez.get("filters", {}).get("DuplicateData", False))
        self._running = False

    async def start(self) -> None:
        self._emulated.check(self._adapter_name)
        self.seen_devices = {}
        await self._emulated.start_discovery(
            self._on_device, duplicates=self._duplicates, client=self._program
        )
        self._running = True

    async def stop(self) -> None:
        if self._running:
            self._running = False
            await self._emulated.stop_discovery(self._program)

    def _on_device(self, device: DeviceObject) -> None:
        if not self.is_allowed_uuid(device.service_uuids):
            return
        advertisement = AdvertisementData(
            local_name=device.name,
            manufacturer_data={},
            service_data=dict(device.service_data),
            service_uuids=list(device.service_uuids),
            tx_power=None,
            rssi=device.rssi,
            platform_data=(device.path,),
        )
        found = self.create_or_update_device(
            device.path, device.address, device.name, {"path": device.path}, advertisement
        )
        self.call_detection_callbacks(found, advertisement)


class _Client(BaseBleakClient):
    _emulated: ClassVar[EmulatedAdapter]

    def __init__(
        self,
        address_or_ble_device: BLEDevice | str,
        services: set[str] | None = None,
        *,
        disconnected_callback: Callable[[], None] | None,
        timeout: float,
        bluez: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(
            address_or_ble_device, disconnected_callback=disconnected_callback, timeout=timeout
        )
        self._adapter_name: str | None = bluez.get("adapter")
        self._is_known = isinstance(address_or_ble_device, BLEDevice)
        self._requested_services = services
        self._connection: Connection | None = None  # bleak's bus: kept until disconnect()
        self._device: DeviceObject | None = None
        self._is_connected = False
        self._disconnecting: asyncio.Event | None = None
        self._callbacks: dict[int, NotifyCallback] = {}

    @property
    def name(self) -> str:
        if self._device is None:
            raise BleakError("Not connected")
        return self._device.name or self.address.replace(":", "-")

    @property
    def mtu_size(self) -> int:
        warnings.warn(
            "Using default MTU value. Call _acquire_mtu() or set _mtu_size first to avoid this "
            "warning.",
            stacklevel=2,
        )
        return 23

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._is_connected

    async def connect(self, pair: bool, **kwargs: Any) -> None:
        if self.is_connected:
            raise BleakError("Client is already connected")
        timeout = kwargs.get("timeout", self._timeout)
        if not self._is_known:
            found = await BleakScanner.find_device_by_address(
                self.address,
                timeout=timeout,
                bluez={} if self._adapter_name is None else {"adapter": self._adapter_name},
                backend=scanner_backend(self._emulated),
            )
            if found is None:
                raise BleakDeviceNotFoundError(
                    self.address, f"Device with address {self.address} was not found."
                )
            self.address = found.address
            self._is_known = True
        async with asyncio.timeout(timeout):
            while not await self._connect_once():
                pass

    async def disconnect(self) -> None:
        if self._connection is None:
            return
        if self._disconnecting is not None:
            async with asyncio.timeout(10):
                await self._disconnecting.wait()
            return
        self._disconnecting = asyncio.Event()
        try:
            if self._is_connected and self._device is not None:
                self._emulated.request_disconnect(self._device)
                async with asyncio.timeout(10):
                    await self._disconnecting.wait()
        finally:
            if self._is_connected:
                self._on_lost()
            self._disconnecting = None
            self._connection = None

    async def pair(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("mesh boards do not pair")

    async def unpair(self) -> None:
        self._is_known = False
        if not await self._emulated.remove_device(self.address):
            raise BleakDeviceNotFoundError(
                self.address, f"Device with address {self.address} was not found."
            )

    async def read_gatt_char(
        self, characteristic: BleakGATTCharacteristic, *, use_cached: bool = False, **kwargs: Any
    ) -> bytearray:
        raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.READ_NOT_PERMITTED)

    async def read_gatt_descriptor(
        self, descriptor: BleakGATTDescriptor, *, use_cached: bool = False, **kwargs: Any
    ) -> bytearray:
        raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.READ_NOT_PERMITTED)

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: Any) -> None:
        raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.WRITE_NOT_PERMITTED)

    async def write_gatt_char(
        self, characteristic: BleakGATTCharacteristic, data: Any, response: bool
    ) -> None:
        connection = await self._call(characteristic)
        if connection is None:
            return
        wanted = "write" if response else "write-without-response"
        if wanted not in characteristic.properties:
            if response:  # the board is asked, and refuses
                raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.WRITE_NOT_PERMITTED)
            raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.REQUEST_NOT_SUPPORTED)
        if len(bytes(data)) > characteristic.max_write_without_response_size:
            raise BleakDBusError(FAILED, ["Failed to initiate write"])
        connection.opened.result().write_command(characteristic.obj.value_handle, bytes(data))

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **kwargs: Any
    ) -> None:
        if "notify" not in characteristic.properties:
            raise BleakDBusError("org.bluez.Error.NotSupported", ["Operation is not supported"])
        self._callbacks[characteristic.obj.value_handle] = callback
        await self._write_cccd(characteristic, b"\x01\x00")

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        await self._write_cccd(characteristic, b"\x00\x00")
        self._callbacks.pop(characteristic.obj.value_handle, None)

    async def _connect_once(self) -> bool:
        """Connect and discover; False when bleak's backend would try again by itself."""
        self._emulated.check(self._adapter_name or self._emulated.name)
        device = self._emulated.device(self.address)
        if device is None:
            raise BleakDeviceNotFoundError(
                self.address,
                f"Device with address {self.address} was not found. It may have been removed "
                "from BlueZ when scanning stopped.",
            )
        if device.connection is not None and device.connection.alive:
            # Another client is connected: bleak does without Connect and takes the services.
            self._device, self._connection = device, device.connection
            device.connection.join(self._on_value, self._on_lost)
            self._use_services()
            return True
        try:
            connection = await self._emulated.connect(device, self._on_lost)
        except BleakDBusError:
            self._emulated.cancel_connect(device)  # bleak cleans up, whoever is connecting
            raise
        self._device, self._connection = device, connection
        connection.on_value = self._on_value
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        try:
            discovery_s = self._emulated.rng.uniform(*self._emulated.timing.discover_services_s)
            try:
                async with asyncio.timeout(discovery_s):
                    await connection.lost.wait()
            except TimeoutError:
                if not await connection.answered():
                    raise BleakError("failed to discover services, device disconnected") from None
            else:
                if loop.time() - opened_at < self._emulated.timing.establishment_s:
                    return False  # le-connection-abort-by-local
                raise BleakError("failed to discover services, device disconnected")
        except BaseException:
            self._emulated.request_disconnect(device)
            self._connection = None
            await connection.lost.wait()  # BlueZ answers Disconnect when the link is gone
            raise
        connection.discover()
        connection.subscribe_service_changed()
        self._use_services()
        return True

    def _use_services(self) -> None:
        connection = self._connection
        if connection is not None:
            octets = connection.opened.result().mtu_octets - 3
            self.services = _collection(connection.services, octets)
            self._is_connected = True

    async def _call(self, characteristic: BleakGATTCharacteristic) -> Connection | None:
        """Make one D-Bus call about `characteristic`; `None` when it is lost without a word."""
        if not self.is_connected or self._connection is None:
            raise BleakError("Not connected")
        connection = self._connection
        await asyncio.sleep(self._emulated.timing.dbus_s)
        if self._connection is not connection:
            raise EOFError  # dbus-fast, when the bus is closed under a call
        if not connection.alive:
            if self._emulated.quirks.racing_writes_fail:
                raise BleakDBusError(FAILED, ["Not connected"])
            return None
        if self._emulated.quirks.stale_services and not connection.has(
            characteristic.obj.value_handle
        ):
            raise BleakDBusError(
                _UNKNOWN_OBJECT,
                [
                    'Method "WriteValue" with signature "aya{sv}" on interface '
                    '"org.bluez.GattCharacteristic1" doesn\'t exist\n'
                ],
            )
        return connection

    async def _write_cccd(self, characteristic: BleakGATTCharacteristic, value: bytes) -> None:
        connection = await self._call(characteristic)
        if connection is None:
            raise BleakDBusError(FAILED, ["Not connected"])
        try:
            await connection.write_cccd(characteristic.obj.cccd_handle, value)
        except AttError as error:
            raise BleakGATTProtocolError(error.code) from error

    def _on_value(self, value_handle: int, value: bytes) -> None:
        callback = self._callbacks.get(value_handle)
        if callback is not None and self._connection is not None:
            callback(bytearray(value))

    def _on_lost(self) -> None:
        if not self._is_connected:
            return
        self._is_connected = False
        self.services = None
        self._callbacks.clear()
        if self._disconnected_callback is not None:
            self._disconnected_callback()
        if self._disconnecting is not None:
            self._disconnecting.set()


def _collection(services: tuple[Service, ...], octets: int) -> BleakGATTServiceCollection:
    collection = BleakGATTServiceCollection()
    for service in services:
        if service.uuid == GENERIC_ACCESS:  # BlueZ keeps it for itself
            continue
        listed = BleakGATTService(service, service.start_handle, normalize_uuid_16(service.uuid))
        collection.add_service(listed)
        for characteristic in service.characteristics:
            _add(collection, listed, characteristic, octets)
    return collection


def _add(
    collection: BleakGATTServiceCollection,
    service: BleakGATTService,
    characteristic: Characteristic,
    octets: int,
) -> None:
    # BlueZ names a characteristic by its declaration, which precedes the value.
    listed = BleakGATTCharacteristic(
        characteristic,
        characteristic.value_handle - 1,
        normalize_uuid_16(characteristic.uuid),
        cast(list[CharacteristicPropertyName], sorted(characteristic.properties)),
        lambda: octets,
        service,
    )
    collection.add_characteristic(listed)
    if characteristic.cccd_handle is not None:
        collection.add_descriptor(
            BleakGATTDescriptor(
                characteristic, characteristic.cccd_handle, normalize_uuid_16(0x2902), listed
            )
        )
