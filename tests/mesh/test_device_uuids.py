"""How boards are written in an inventory."""

from __future__ import annotations

import re

import pytest

from fastprovd.emulator.hosts import Host
from fastprovd.mesh.device_uuids import BOARD_PATTERN, contradictions, parse_board

ADDRESS = "24:0A:C4:5E:00:01"


def test_an_address_stands_for_the_uuids_of_both_hosts() -> None:
    """Bluedroid's display order first, then NimBLE's reversed one, as the firmware makes them."""
    assert parse_board(ADDRESS) == (
        Host.BLUEDROID.device_uuid(ADDRESS),
        Host.NIMBLE.device_uuid(ADDRESS),
    )
    assert parse_board(ADDRESS.lower()) == parse_board(ADDRESS)


def test_hex_is_the_beginning_itself() -> None:
    """Two to sixteen octets, in either case."""
    assert parse_board("DDdd24") == (b"\xdd\xdd\x24",)
    assert parse_board("dd" * 16) == (b"\xdd" * 16,)


@pytest.mark.parametrize("text", ["", "dd", "ddd", "dd" * 17, "24:0A:C4:5E:00", "24-0A", "dddd\n"])
def test_all_else_is_refused(text: str) -> None:
    """By the parser and by the pattern alike."""
    assert re.fullmatch(BOARD_PATTERN, text) is None
    with pytest.raises(ValueError, match="expected a Bluetooth address or 2 to 16 octets"):
        parse_board(text)


BLUEDROID, NIMBLE = (uuid.hex() for uuid in parse_board(ADDRESS))


@pytest.mark.parametrize(
    ("match", "allow", "deny", "paths"),
    [
        ("dddd", [], [], []),
        ("dddd", ["dddd24"], ["dddd240a"], []),
        ("dddd", [ADDRESS], ["24:0A:C4:5E:00:02"], []),
        ("dddd", ["dddd", "dddd24"], ["dd00"], []),
        ("dddd", [ADDRESS], [ADDRESS.lower()], ["allow[0]"]),
        ("dddd", ["dddd24", "DDDD0102"], ["dddd0102"], ["allow[1]"]),
        ("dddd", ["dddd240a"], ["dddd24"], ["allow[0]"]),
        ("dddd", [BLUEDROID], [ADDRESS], ["allow[0]"]),
        ("dddd", [NIMBLE], [ADDRESS], ["allow[0]"]),
        ("dddd", [ADDRESS], [BLUEDROID[:16]], ["allow[0]"]),
        ("dddd", [BLUEDROID[:16]], [ADDRESS], ["allow[0]"]),
        ("dddd", [ADDRESS], [BLUEDROID[:14]], []),  # with NimBLE it is another board's beginning
        ("dddd24", [ADDRESS], [BLUEDROID[:14]], ["allow[0]"]),
        ("dddd", ["dddd24"], ["dddd24", "dddd"], ["allow[0]", "deny[1]"]),
        ("dddd24", [], ["dddd"], ["deny[0]"]),
        (BLUEDROID, [], [ADDRESS], ["deny[0]"]),
        ("dddd24", ["dddd25", "dd01"], [], ["allow[0]", "allow[1]"]),
    ],
)
def test_contradictions(match: str, allow: list[str], deny: list[str], paths: list[str]) -> None:
    """One board in both lists, however written; all boards denied; allowed outside of match."""
    found = contradictions(bytes.fromhex(match), allow, deny)
    assert sorted(problem.path for problem in found) == paths
