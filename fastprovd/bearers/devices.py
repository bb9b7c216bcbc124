"""The devices that BlueZ knows, and bleak's clients for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bleak import BleakClient
from bleak.args.bluez import BlueZClientArgs
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice

from fastprovd.recent import keep_latest

# BlueZ forgets an unconnected device 30 s after its last advertisement.
_LIFE_S: Final = 20.0
# More than there are in reach; who changes its address with each advertisement is forgotten.
MAX_DEVICES: Final = 1024


class KnownDevices:
    """Remembers what was heard a short while ago: a client for it need not search first."""

    def __init__(self, backend: type[BaseBleakClient] | None, connect_timeout_s: float) -> None:
        self._backend = backend
        self._connect_timeout_s = connect_timeout_s
        self._devices: dict[str, tuple[BLEDevice, float]] = {}

    def __contains__(self, device_address: str) -> bool:
        self.forget_silent()
        return device_address in self._devices

    def remember(self, device: BLEDevice) -> None:
        """It was heard."""
        heard = device, asyncio.get_running_loop().time()
        keep_latest(self._devices, device.address, heard, MAX_DEVICES)

    def linked(self, device_address: str) -> None:
        """BlueZ knows it as long as it is connected, however long it was not heard."""
        known = self._devices.get(device_address)
        if known is not None:
            self.remember(known[0])

    def forget(self, device_address: str) -> None:
        """BlueZ may have forgotten it."""
        self._devices.pop(device_address, None)

    def clear(self) -> None:
        """BlueZ has forgotten all of them."""
        self._devices.clear()

    def forget_silent(self) -> None:
        """Forget what BlueZ may have forgotten."""
        oldest_s = asyncio.get_running_loop().time() - _LIFE_S
        self._devices = {
            address: (device, seen_s)
            for address, (device, seen_s) in self._devices.items()
            if seen_s > oldest_s
        }

    def client(
        self,
        device_address: str,
        adapter_name: str,
        on_disconnected: Callable[[BleakClient], None] | None = None,
    ) -> BleakClient:
        """Return a client; without a device that BlueZ knows it searches by itself."""
        self.forget_silent()
        known = self._devices.get(device_address)
        bluez = BlueZClientArgs()
        if adapter_name:
            bluez["adapter"] = adapter_name
        return BleakClient(
            device_address if known is None else known[0],
            disconnected_callback=on_disconnected,
            timeout=self._connect_timeout_s,
            bluez=bluez,
            backend=self._backend,
        )
