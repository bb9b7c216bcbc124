"""What the ladders of a run say to people: how a symptom is seen, what rungs cost, the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fastprovd.campaign.ladder import Rung, Symptom

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
    end: str


TOLD: Final[Mapping[Symptom, Ladder]] = MappingProxyType(
    {
        _S.START_UNCONFIRMED: Ladder(
            "the request times out, or the link is lost before its answer",
            "info_status",
            "started, or failed: the board refuses, or neither starts nor hangs up",
        ),
        _S.PRIMARY_SILENT: Ladder(
            "no advertisement of its Node Identity, or of our Network ID from its BD_ADDR",
            "[run] proxy_timeout_s",
            "collected over its own proxy or another; without any proxy partial, at once",
        ),
        _S.ADDRESSES_MISSING: Ladder(
            "fewer addresses than boards, and no news",
            "[run] settle_s",
            "every address is known, or the board is named as missing",
        ),
        _S.BOARDS_LEFT: Ladder(
            "advertisements with 0x1827 and a UUID of ours, once the provisioners have stopped",
            "list_stuck",
            "they are nodes; or each is named with the reason why it can not be provisioned",
        ),
        _S.BOARDS_UNHEARD: Ladder(
            "[run] expected is higher than the number of boards that were heard",
            "[run] scan_timeout_s",
            "nodes that we hear provision those that we do not; or so many boards are missing",
        ),
        _S.NODES_SILENT: Ladder(
            "no answer to OnOff Get, asked one by one with back-off",
            "answer",
            "proven; or missing, with address and what to power-cycle",
        ),
        _S.WINDOW_OPEN: Ladder(
            "an address is added, or a board leaves the air, within 12 s after the message",
            "stop",
            "closed and proven; or partial after 180 s, with the evidence",
        ),
    }
)
