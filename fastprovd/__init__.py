"""Top Provisioner daemon for ESP-BLE-MESH fast provisioning."""

__version__ = "0.1.0"
