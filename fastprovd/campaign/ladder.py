"""What a run does when something stays away: one table of symptoms, rungs, costs and ends; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final


class Rung(Enum):
    """One attempt; the value says what is done."""

    POLL_AGAIN = "read the list again, every 2 s"
    LINK_AGAIN = "open the link again"
    SEND_AGAIN = "send INFO_SET again; a board that has begun says so and nothing else happens"
    ANOTHER_PROXY = "go on through the proxy of another node of ours"
    SPARE_PROXY = "provision a board that is left ourselves, as a node whose proxy we can use"
    WAKE_PRIMARY = "send NODE_ADDR to the Primary Provisioner through it, which starts its timer"
    ROLL_CALL = "ask the addresses that are known, then those that the plan predicts, one by one"
    IDENTIFY_PROXIES = "ask each proxy on the air for its address"
    PROVISION_DIRECTLY = "provision the boards that are left ourselves over PB-GATT"
    FURTHER_PRIMARY = "where we provisioned the others: make some of them Primary Provisioners"
    STOP_AGAIN = "tell all nodes to stop again"
    ASK_OPERATOR = "end partial, and say which boards to power-cycle and what happens then"


class Symptom(Enum):
    """What can be observed; many causes have the same."""

    START_UNCONFIRMED = "INFO_SET was sent and no INFO_STATUS came"
    PRIMARY_SILENT = "the Primary Provisioner's proxy can not be reached"
    ADDRESSES_MISSING = "there are fewer addresses than boards"
    BOARDS_LEFT = "boards are on the air as unprovisioned devices and nobody takes them"
    BOARDS_UNHEARD = "more boards are expected than can be heard"
    NODES_SILENT = "an address is known and answers nothing"
    WINDOW_OPEN = "boards still join after the message to stop"


_R, _S = Rung, Symptom

# What a rung costs in time: measured of the firmware, behind BlueZ, or set by ourselves.
COSTS: Final[Mapping[Rung, str]] = MappingProxyType(
    {
        _R.POLL_AGAIN: "2 s each",
        _R.LINK_AGAIN: "1 to 3 s; 5 s for each attempt at a board that just left the air",
        _R.SEND_AGAIN: "2 s each, at most three times",
        _R.ANOTHER_PROXY: "1 to 3 s for each proxy that is tried",
        _R.SPARE_PROXY: "4 s; 3 s at least, and in vain, while boards provision each other",
        _R.WAKE_PRIMARY: "10 s",
        _R.ROLL_CALL: "0.2 s for each node that answers; 10 s and calm between for each that "
        "does not, four at a time",
        _R.IDENTIFY_PROXIES: "3 s of listening, 1 s for each proxy, 16 s for each that is gone",
        _R.PROVISION_DIRECTLY: "3.1 s for each board and link",
        _R.FURTHER_PRIMARY: "4 s, and what the boards that it finds take",
        _R.STOP_AGAIN: "12 s each, at most 180 s",
        _R.ASK_OPERATOR: "nothing",
    }
)


@dataclass(frozen=True, slots=True)
class Ladder:
    """`wait` names the row of WAITS (or the setting) after which the symptom counts."""

    seen_as: str
    wait: str
    rungs: tuple[Rung, ...]
    end: str


LADDERS: Final[Mapping[Symptom, Ladder]] = MappingProxyType(
    {
        _S.START_UNCONFIRMED: Ladder(
            "the request times out, or the link is lost before its answer",
            "info_status",
            (_R.SEND_AGAIN, _R.LINK_AGAIN),
            "started, or failed: the board refuses, or neither starts nor hangs up",
        ),
        _S.PRIMARY_SILENT: Ladder(
            "no advertisement of its Node Identity, or of our Network ID from its BD_ADDR",
            "[run] proxy_timeout_s",
            (_R.ANOTHER_PROXY, _R.SPARE_PROXY, _R.WAKE_PRIMARY, _R.ROLL_CALL),
            "collected over its own proxy or another; without any proxy partial, at once",
        ),
        _S.ADDRESSES_MISSING: Ladder(
            "fewer addresses than boards, and no news",
            "[run] settle_s",
            (_R.POLL_AGAIN, _R.IDENTIFY_PROXIES, _R.ROLL_CALL),
            "every address is known, or the board is named as missing",
        ),
        _S.BOARDS_LEFT: Ladder(
            "advertisements with 0x1827 and a UUID of ours, once the provisioners have stopped",
            "list_stuck",
            (_R.PROVISION_DIRECTLY, _R.ASK_OPERATOR),
            "they are nodes; or each is named with the reason why it can not be provisioned",
        ),
        _S.BOARDS_UNHEARD: Ladder(
            "[run] expected is higher than the number of boards that were heard",
            "[run] scan_timeout_s",
            (_R.FURTHER_PRIMARY, _R.ASK_OPERATOR),
            "nodes that we hear provision those that we do not; or so many boards are missing",
        ),
        _S.NODES_SILENT: Ladder(
            "no answer to OnOff Get, asked one by one with back-off",
            "answer",
            (_R.ROLL_CALL, _R.IDENTIFY_PROXIES, _R.ASK_OPERATOR),
            "proven; or missing, with address and what to power-cycle",
        ),
        _S.WINDOW_OPEN: Ladder(
            "an address is added, or a board leaves the air, within 12 s after the message",
            "stop",
            (_R.STOP_AGAIN,),
            "closed and proven; or partial after 180 s, with the evidence",
        ),
    }
)
