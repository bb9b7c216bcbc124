"""Device UUIDs of the demo firmware: DD DD, the BD_ADDR, eight zero octets; and parts of them."""

from __future__ import annotations

import re
from typing import Final

DEVICE_UUID_OCTETS: Final = 16

_DEMO: Final = b"\xdd\xdd"
_BD_ADDR: Final = r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}"
_HEX: Final = r"([0-9A-Fa-f]{2}){2,16}"

BOARD_PATTERN: Final = f"{_BD_ADDR}|{_HEX}"
"""How a board, or all boards whose Device UUID begins alike, is written."""


def parse_board(text: str) -> tuple[bytes, ...]:
    """Return what Device UUIDs may begin with: `240ac4...` as it is, or those of a BD_ADDR.

    Which of the two belongs to `24:0A:C4:5E:00:01` depends on the firmware's Bluetooth host: with
    Bluedroid the address is in display order, with NimBLE it is reversed.

    Raises:
        ValueError: neither a BD_ADDR nor 2 to 16 octets in hex.
    """
    if re.fullmatch(_BD_ADDR, text):
        address = bytes.fromhex(text.replace(":", ""))
        return tuple(
            (_DEMO + octets).ljust(DEVICE_UUID_OCTETS, b"\0") for octets in (address, address[::-1])
        )
    if re.fullmatch(_HEX, text):
        return (bytes.fromhex(text),)
    raise ValueError(f"expected a Bluetooth address or 2 to 16 octets in hex, got {text!r}")
