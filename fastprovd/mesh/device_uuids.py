"""Device UUIDs of the demo firmware: DD DD, the BD_ADDR, eight zero octets; and parts of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from fastprovd.checking import Problem

DEVICE_UUID_OCTETS: Final = 16

_DEMO: Final = b"\xdd\xdd"
_NAMED_OCTETS: Final = 8  # with a whole BD_ADDR in it, of one board
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


def begin_alike(one: bytes, other: bytes) -> bool:
    """Tell whether a Device UUID can begin with both."""
    return one.startswith(other) or other.startswith(one)


def contradictions(match: bytes, allow: Sequence[str], deny: Sequence[str]) -> Iterator[Problem]:
    """Yield what can not be meant: entries that nothing is left of, by path such as `allow[0]`."""
    for number, entry in enumerate(deny):
        if any(match.startswith(prefix) for prefix in parse_board(entry)):
            yield Problem(f"deny[{number}]", f"{entry} denies all boards of match {match.hex()}")
    for number, entry in enumerate(allow):
        ours = [prefix for prefix in parse_board(entry) if begin_alike(prefix, match)]
        if not ours:
            yield Problem(
                f"allow[{number}]", f"no Device UUID of {entry} begins with match {match.hex()}"
            )
        for denied in deny:
            others = parse_board(denied)
            if any(_same_board(one, other) for one in ours for other in others) or (
                ours and all(any(one.startswith(other) for other in others) for one in ours)
            ):
                yield Problem(f"allow[{number}]", f"{entry} is denied by {denied}, which wins")
                break


def _same_board(one: bytes, other: bytes) -> bool:
    return begin_alike(one, other) and min(len(one), len(other)) >= _NAMED_OCTETS
