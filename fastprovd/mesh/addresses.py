"""Mesh addresses: unassigned, unicast, virtual, group (Mesh Profile v1.0.1 §3.4.2)."""

from __future__ import annotations

from typing import Final

UNASSIGNED: Final = 0x0000
UNICAST_MIN: Final = 0x0001
UNICAST_MAX: Final = 0x7FFF
GROUP_MIN: Final = 0xC000
GROUP_MAX_DYNAMIC: Final = 0xFEFF
ALL_NODES: Final = 0xFFFF


def is_unicast(address: int) -> bool:
    """Tell whether `address` is the address of one element."""
    return UNICAST_MIN <= address <= UNICAST_MAX


def is_group(address: int) -> bool:
    """Tell whether `address` is a group address, fixed or dynamic."""
    return GROUP_MIN <= address <= 0xFFFF


def is_dynamic_group(address: int) -> bool:
    """Tell whether `address` is a group address that has no fixed meaning."""
    return GROUP_MIN <= address <= GROUP_MAX_DYNAMIC


def is_switchable(address: int) -> bool:
    """Tell whether a light may be switched there: a node, a dynamic group, or all nodes."""
    return is_unicast(address) or is_dynamic_group(address) or address == ALL_NODES


def format_address(address: int) -> str:
    """Return the spelling used in logs, topics and payloads, such as `0x0005`."""
    return f"0x{address:04x}"


def parse_address(text: str) -> int:
    """Return the address written as `0x0005` or `5`.

    Raises:
        ValueError: not a number, or outside 0x0000..0xFFFF.
    """
    address = int(text, 0)
    if not 0 <= address <= 0xFFFF:
        raise ValueError(f"address {text} is outside 0x0000..0xffff")
    return address
