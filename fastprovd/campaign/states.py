"""Which RunState follows which, on what: one table; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from fastprovd.errors import LocalProtocolError
from fastprovd.records import RunState


class Trigger(Enum):
    """What moves a run; the value says it in words for the log."""

    BOARDS_HEARD = "matching boards are on the air"
    NOTHING_HEARD = "no matching board is on the air"
    LINK_OPEN = "PB-GATT is open"
    STRANGERS_HEARD = "boards that are not ours would be provisioned too"
    NO_BOARD_LEFT = "no board could be provisioned"
    BY_OURSELVES = "we provision boards ourselves"
    ALL_TRIED = "every board was provisioned, or tried in vain"
    NODE_MADE = "the board is a node"
    SESSION_FAILED = "provisioning the board failed"
    STARTED = "the Primary Provisioner took INFO_SET"
    REFUSED = "the Primary Provisioner can not be configured"
    PROXY_BACK = "a proxy of the network is back"
    PRIMARY_SILENT = "the Primary Provisioner's proxy can not be reached"
    SETTLED = "nothing changes any more"
    LINK_LOST = "the link to the Primary Provisioner is lost"
    ASKED = "everybody was asked"
    ALL_PROVEN = "every board answered"
    SOME_MISSING = "some boards did not answer"
    WINDOW_OPEN = "boards may still take others"
    DEADLINE = "the run took too long"
    STOP = "the operator stopped the run"
    INTERRUPT = "the daemon ended"
    CONFLICT = "somebody else sends with our address"
    NO_ADDRESS_LEFT = "the range of unicast addresses has none left"
    NOT_KEPT = "the state directory does not take what must be kept"
    BROKEN = "something went wrong in the daemon itself"
    NOTHING_OFFERED = "resumed: no address was offered to anybody"
    PRIMARY_OFFERED = "resumed: boards were offered the addresses of Primary Provisioners"
    PRIMARY_MADE = "resumed: a Primary Provisioner was made and not started"
    STARTED_BEFORE = "resumed: a Primary Provisioner may have been started"
    NODES_TO_FIND = "resumed: it is to be seen which boards are nodes"


class RunEnd(Exception):
    """The run ends here, with this trigger and reason."""

    def __init__(self, trigger: Trigger, reason: str) -> None:
        super().__init__(reason)
        self.trigger = trigger
        self.reason = reason


_S, _T = RunState, Trigger

_STEPS: Final = {
    (_S.SCANNING, _T.BOARDS_HEARD): _S.CONNECTING,
    (_S.SCANNING, _T.NOTHING_HEARD): _S.FAILED,
    (_S.CONNECTING, _T.STRANGERS_HEARD): _S.FAILED,
    (_S.CONNECTING, _T.LINK_OPEN): _S.PROVISIONING_PRIMARY,
    (_S.CONNECTING, _T.NO_BOARD_LEFT): _S.FAILED,
    (_S.CONNECTING, _T.BY_OURSELVES): _S.PROVISIONING,
    (_S.PROVISIONING, _T.ALL_TRIED): _S.PROVING,
    (_S.PROVING, _T.BY_OURSELVES): _S.PROVISIONING,
    (_S.CLOSING, _T.BY_OURSELVES): _S.PROVISIONING,
    (_S.PROVING, _T.STARTED): _S.PROVISIONING,
    (_S.PROVING, _T.WINDOW_OPEN): _S.PARTIAL,
    (_S.PROVISIONING_PRIMARY, _T.NODE_MADE): _S.CONFIGURING_PRIMARY,
    (_S.PROVISIONING_PRIMARY, _T.SESSION_FAILED): _S.CONNECTING,
    (_S.CONFIGURING_PRIMARY, _T.STARTED): _S.PROVISIONING,
    (_S.CONFIGURING_PRIMARY, _T.REFUSED): _S.FAILED,
    (_S.CONFIGURING_PRIMARY, _T.NO_BOARD_LEFT): _S.FAILED,
    (_S.CONFIGURING_PRIMARY, _T.STRANGERS_HEARD): _S.FAILED,
    (_S.PROVISIONING, _T.PROXY_BACK): _S.COLLECTING,
    (_S.PROVISIONING, _T.PRIMARY_SILENT): _S.PARTIAL,
    (_S.COLLECTING, _T.SETTLED): _S.PROVING,
    (_S.COLLECTING, _T.LINK_LOST): _S.PROVISIONING,
    (_S.PROVING, _T.LINK_LOST): _S.PROVISIONING,
    (_S.PROVING, _T.ALL_PROVEN): _S.DONE,
    (_S.PROVING, _T.SOME_MISSING): _S.PARTIAL,
    (_S.PROVING, _T.ASKED): _S.CLOSING,
    (_S.CLOSING, _T.LINK_LOST): _S.PROVISIONING,
    (_S.CLOSING, _T.ALL_PROVEN): _S.DONE,
    (_S.CLOSING, _T.SOME_MISSING): _S.PARTIAL,
    (_S.CLOSING, _T.WINDOW_OPEN): _S.PARTIAL,
}
# Before the boards provision each other there is nothing that a deadline could leave partial.
_FRUITLESS: Final = (_S.SCANNING, _S.CONNECTING, _S.PROVISIONING_PRIMARY, _S.CONFIGURING_PRIMARY)
_ANYWHERE: Final = {
    (state, trigger): end
    for state in RunState
    if not state.is_end
    for trigger, end in (
        (_T.STOP, _S.STOPPED),
        (_T.INTERRUPT, _S.INTERRUPTED),
        (_T.BROKEN, _S.FAILED),
        (_T.DEADLINE, _S.FAILED if state in _FRUITLESS else _S.PARTIAL),
        (_T.CONFLICT, _S.FAILED if state in _FRUITLESS else _S.PARTIAL),
        (_T.NO_ADDRESS_LEFT, _S.FAILED if state in _FRUITLESS else _S.PARTIAL),
        (_T.NOT_KEPT, _S.FAILED if state in _FRUITLESS else _S.PARTIAL),
    )
}
# Whatever state a run was left in, its journal says where it goes on.
_RESUMED: Final = {
    (state, trigger): resumed
    for state in RunState
    if not state.is_end
    for trigger, resumed in (
        (_T.NOTHING_OFFERED, _S.SCANNING),
        (_T.PRIMARY_OFFERED, _S.PROVISIONING_PRIMARY),
        (_T.PRIMARY_MADE, _S.CONFIGURING_PRIMARY),
        (_T.STARTED_BEFORE, _S.PROVISIONING),
        (_T.NODES_TO_FIND, _S.CONNECTING),
    )
}

TRANSITIONS: Final[Mapping[tuple[RunState, Trigger], RunState]] = MappingProxyType(
    _STEPS | _ANYWHERE | _RESUMED
)


def next_state(state: RunState, trigger: Trigger) -> RunState:
    """Return the state that follows; raises LocalProtocolError for a row that is not there."""
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise LocalProtocolError(f"a run in state {state} knows no {trigger.name}") from None


@dataclass(frozen=True, slots=True)
class Wait:
    """A time limit in seconds, and why it is what it is."""

    seconds: float
    reason: str


WAITS: Final[Mapping[str, Wait]] = MappingProxyType(
    {
        "boards_settle": Wait(
            3.5, "a board is on the air up to 3 s after power-on; nothing new for longer is all"
        ),
        "provisioning": Wait(
            15.0, "Invite to Complete takes 0.5 s; a board is dead after 6 s of silence"
        ),
        "invite": Wait(2.0, "Capabilities come within 0.1 s, and a busy board needs 0.5 s"),
        "invites": Wait(
            120.0, "a hundred boards over five links take 62 s; one that is not there costs 20 s"
        ),
        "identity": Wait(
            10.0, "Node Identity is on the air before Complete arrives, and stays for 60 s"
        ),
        "identity_ends": Wait(
            30.0,
            "Node Identity ends after 60 s, and a board with the Bluedroid host with it; a vain "
            "attempt at the next board takes 17 s",
        ),
        "configuration": Wait(2.0, "AppKey Status and Composition Data come within 0.5 s"),
        "info_status": Wait(
            2.0, "INFO_STATUS comes within 0.1 s; a lost one means a hang-up, or the bind race"
        ),
        "quiet_after_start": Wait(
            1.0, "the stale advertisement after INFO_SET lasts 0.4 s; nothing is true before 3 s"
        ),
        "wake": Wait(
            12.0, "NODE_ADDR starts the Primary's timer of 10 s, then its proxy is on the air"
        ),
        "poll": Wait(2.0, "NODE_ADDR_GET every 2 s was always answered"),
        "list": Wait(3.0, "a list of 50 addresses takes 0.14 s, its last repetition 2 s"),
        "list_stuck": Wait(
            30.0, "provisioners take a board within 3 s; one that stays has nobody to take it"
        ),
        "stale_report": Wait(
            1.0, "BlueZ tells what it heard before within the first moment of a scan"
        ),
        "board_quiet": Wait(
            2.5,
            "a free board is told in each scan, and they begin anew each 1.5 s; where another "
            "program keeps its own scan going it may seem to have left, which costs a round more",
        ),
        "board_gone": Wait(
            11.0,
            "a controller that filters duplicates tells an unchanged advertiser every 10.24 s, if "
            "another program keeps a scan of its own going",
        ),
        "quiet_air": Wait(
            3.0, "Network ID comes every 0.5 s; while nodes send nothing, no report is stale"
        ),
        "another_address": Wait(
            15.0, "four addresses each 2 s: the likely ones of a board that restarted unheard"
        ),
        "answer": Wait(
            2.0, "a node answers within 0.3 s, and within 2 s while all others are busy"
        ),
        "calm": Wait(
            1.0, "a mesh whose queues are not empty lets an overheard PDU through every 0.1 s"
        ),
        "calm_at_last": Wait(
            60.0, "200 buffers of 90 ms each are empty after 18 s; copies may go round three times"
        ),
        "power_on": Wait(
            3.5, "a board that has power is on the air within 3 s; before that nobody can hear it"
        ),
        "last_look": Wait(
            1.0, "a board advertises every 20 ms; before INFO_SET nobody may go unheard"
        ),
        "stop_repetition": Wait(
            0.3, "three transmissions of a PDU take 0.1 s; the next must meet another moment"
        ),
        "stop": Wait(
            12.0, "a provisioner stops 10 s after the message, and whom it took is listed 5 s later"
        ),
        "closing": Wait(
            180.0, "fifteen stop messages; only boards switched on one after the other need more"
        ),
        "onoff": Wait(1.0, "over its own link a node answers within 0.1 s"),
        "identify": Wait(
            240.0, "an open proxy tells its address in 1 s, one that is gone costs 16 s"
        ),
    }
)
