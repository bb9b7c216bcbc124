"""What a board prints on its serial console: lines of the demo firmware, letter by letter.

Not every line that the firmware logs, but those that tell boot, addresses, AppKey, fast
provisioning and the light; each is worded as in its source, with ESP-IDF's prefix and colours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastprovd.emulator.timeline import Entry, Happening

if TYPE_CHECKING:
    from fastprovd.emulator.air import Air
    from fastprovd.emulator.board import Board

ELF_SHA256: Final = hashlib.sha256(b"the emulated fast_prov_server").hexdigest()
"""What the emulated firmware says it was linked as; the console shows the first digits."""

_SHOWN_DIGITS: Final = 9  # CONFIG_APP_RETRIEVE_LEN_ELF_SHA
_COLOURS: Final = {"I": "0;32", "W": "0;33", "E": "0;31"}
_EXAMPLE: Final = "EXAMPLE"
_SERVER: Final = "FAST_PROV_SERVER"


class Console:
    """The console of one board: give it the air's timeline, `put` gets what is printed."""

    def __init__(self, air: Air, board: Board, put: Callable[[bytes], None]) -> None:
        self._board = board
        self._put = put
        self._booted_at = air.loop.time()
        self._own_children: set[int] = set()
        air.watchers.append(self._happened)

    def _happened(self, entry: Entry) -> None:
        if entry.device_address != self._board.device_address:
            return
        if entry.what is Happening.POWERED_ON:
            self._booted_at = entry.time_s
            self._own_children.clear()
        printed = _PRINTED.get(entry.what)
        if printed is not None:
            printed(self, entry)

    def _raw(self, text: str) -> None:
        self._put(f"{text}\r\n".encode("ascii"))

    def _log(self, entry: Entry, text: str, *, level: str = "I", tag: str = _EXAMPLE) -> None:
        milliseconds = round(1000 * (entry.time_s - self._booted_at))
        self._raw(f"\x1b[{_COLOURS[level]}m{level} ({milliseconds}) {tag}: {text}\x1b[0m")

    # One method for each happening that the firmware logs

    def _powered_on(self, entry: Entry) -> None:
        self._raw("rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)")
        digits = ELF_SHA256[:_SHOWN_DIGITS]
        self._log(entry, f"ELF file SHA256:  {digits}...", tag="app_init")
        self._log(entry, "Initializing...")

    def _on_air(self, entry: Entry) -> None:
        self._log(entry, "ESP_BLE_MESH_NODE_PROV_ENABLE_COMP_EVT, err_code: 0")
        self._log(entry, "BLE Mesh Fast Prov Node initialized")

    def _provisioned(self, entry: Entry) -> None:
        node = self._board.node
        if node is None:
            return
        iv_index = node.stack.iv_index
        flags = int(iv_index.update_in_progress) << 1
        self._log(entry, "ESP_BLE_MESH_NODE_PROV_COMPLETE_EVT")
        net_idx = node.network.net_key.index
        self._log(entry, f"net_idx: 0x{net_idx:04x}, unicast_addr: 0x{entry.address:04x}")
        self._log(entry, f"flags: 0x{flags:02x}, iv_index: 0x{iv_index.value:08x}")

    def _complete_heard(self, entry: Entry) -> None:
        if entry.address is None:
            return
        self._own_children.add(entry.address)
        self._log(entry, "ESP_BLE_MESH_PROVISIONER_PROV_COMPLETE_EVT")
        device = self._board.air.board(entry.detail)
        self._log(entry, device.uuid[2:8].hex(" ") + " ", tag="Device uuid")
        self._log(entry, f"Unicast address 0x{entry.address:04x}")

    def _app_key_failed(self, entry: Entry) -> None:
        text = "provisioner_prov_complete: Failed to send Config AppKey Add message"
        self._log(entry, text, level="E")

    def _app_key_stored(self, entry: Entry) -> None:
        self._log(entry, "Config Server get Config AppKey Add")

    def _run_started(self, entry: Entry) -> None:
        self._log(entry, "ESP_BLE_MESH_SET_FAST_PROV_ACTION_COMP_EVT, status_action 0x00")

    def _proxy_off(self, entry: Entry) -> None:
        self._log(entry, "ESP_BLE_MESH_NODE_PROXY_GATT_DISABLE_COMP_EVT")

    def _listed(self, entry: Entry) -> None:
        # Own children go onto the list without a line.
        if entry.address not in self._own_children:
            self._log(entry, f"Node address: 0x{entry.address:04x}", tag=_SERVER)

    def _proxy_on(self, entry: Entry) -> None:
        self._log(entry, "enable_gatt_proxy_cb: Enable BLE Mesh Relay & GATT Proxy", tag=_SERVER)

    def _switched(self, entry: Entry) -> None:
        self._log(entry, "ESP_BLE_MESH_GENERIC_SERVER_STATE_CHANGE_EVT")
        self._log(entry, f"onoff 0x{int(entry.detail == 'on'):02x}")

    def _aborted(self, entry: Entry) -> None:
        self._raw("Rebooting...")


_PRINTED: Final[dict[Happening, Callable[[Console, Entry], None]]] = {
    Happening.POWERED_ON: Console._powered_on,
    Happening.ON_AIR: Console._on_air,
    Happening.PROVISIONED: Console._provisioned,
    Happening.COMPLETE_HEARD: Console._complete_heard,
    Happening.APP_KEY_FAILED: Console._app_key_failed,
    Happening.APP_KEY_STORED: Console._app_key_stored,
    Happening.RUN_STARTED: Console._run_started,
    Happening.PROXY_OFF: Console._proxy_off,
    Happening.LISTED: Console._listed,
    Happening.PROXY_ON: Console._proxy_on,
    Happening.SWITCHED: Console._switched,
    Happening.ABORTED: Console._aborted,
}
