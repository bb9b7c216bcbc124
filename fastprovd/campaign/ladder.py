"""What a run does when something stays away: symptoms, and the rungs of their ladders; pure."""

from __future__ import annotations

from collections.abc import Mapping
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

# What is tried, in this order, until the symptom is gone.
LADDERS: Final[Mapping[Symptom, tuple[Rung, ...]]] = MappingProxyType(
    {
        _S.START_UNCONFIRMED: (_R.SEND_AGAIN, _R.LINK_AGAIN),
        _S.PRIMARY_SILENT: (_R.ANOTHER_PROXY, _R.SPARE_PROXY, _R.WAKE_PRIMARY, _R.ROLL_CALL),
        _S.ADDRESSES_MISSING: (_R.POLL_AGAIN, _R.IDENTIFY_PROXIES, _R.ROLL_CALL),
        _S.BOARDS_LEFT: (_R.PROVISION_DIRECTLY, _R.ASK_OPERATOR),
        _S.BOARDS_UNHEARD: (_R.FURTHER_PRIMARY, _R.ASK_OPERATOR),
        _S.NODES_SILENT: (_R.ROLL_CALL, _R.IDENTIFY_PROXIES, _R.ASK_OPERATOR),
        _S.WINDOW_OPEN: (_R.STOP_AGAIN,),
    }
)
