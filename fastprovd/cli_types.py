"""Types of arguments on the command line: what they accept, and what they say of the rest."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from urllib.parse import urlsplit

from fastprovd.config_values import broker_host
from fastprovd.mesh.addresses import (
    ALL_NODES,
    UNASSIGNED,
    is_dynamic_group,
    is_switchable,
    is_unicast,
    parse_address,
)


def count(most: int) -> Callable[[str], int]:
    """Return a type that takes whole numbers 1..`most`."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected 1..{most}, got {text!r}")
        return int(text)

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """Return a type that takes numbers `least`..`most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected {least:g}..{most:g}, got {text!r}")
        return value

    return parse


def _address(text: str, allowed: Callable[[int], bool], expected: str) -> int:
    try:
        address = parse_address(text)
    except ValueError:
        address = UNASSIGNED
    if not allowed(address):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return address


def switchable(text: str) -> int:
    """Take what can be switched: a node, a group, or all nodes."""
    if text == "all":
        return ALL_NODES
    return _address(text, is_switchable, "a node 0x0001..0x7fff, a group 0xc000..0xfeff, or all")


def node_address(text: str) -> int:
    """Take a unicast address."""
    return _address(text, is_unicast, "a node 0x0001..0x7fff")


def group_address(text: str) -> int:
    """Take the address of a group."""
    return _address(text, is_dynamic_group, "a group 0xc000..0xfeff")


def broker(text: str) -> tuple[str, int]:
    """Take the URL of a broker without credentials; return host and port."""
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
        broker_host(host)
    except ValueError:
        port = 0
    if (
        port == 0
        or url.scheme != "mqtt"
        or url.username is not None
        or url.path not in ("", "/")
        or url.query
        or url.fragment
    ):
        raise argparse.ArgumentTypeError(f"expected mqtt://HOST or mqtt://HOST:PORT, got {text!r}")
    return host, port or 1883
