"""What is known to go wrong in a run: how we keep it away, or how it shows and ends; pure.

S and Q are the stalls and quirks that were read in the firmware's source (FP 6.7, FP 8), H what
was seen of it with either Bluetooth host (OB). FP is the protocol reference, OB what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fastprovd.campaign.ladder import Symptom
from fastprovd.records import RunState

_KEPT_AWAY: Final = "tests/end_to_end/test_kept_away.py::"
_LADDER: Final = "tests/end_to_end/test_ladder.py::"


@dataclass(frozen=True, slots=True)
class Cause:
    """One row; `scenario` is the test that runs into it, `ends` in what the run ends there.

    `prevented` says what we do so that it can not happen, or does no harm. With a `symptom` the
    ladder of that symptom follows, after the deadline `wait`: a row of WAITS or a setting.
    """

    what: str
    source: str
    scenario: str
    ends: RunState = RunState.DONE
    end: str = ""
    prevented: str = ""
    symptom: Symptom | None = None
    seen_as: str = ""
    wait: str = ""
    cost: str = ""


_Y = Symptom
_PARTIAL, _FAILED = RunState.PARTIAL, RunState.FAILED


def _avoided(what: str, source: str, scenario: str, prevented: str) -> Cause:
    return Cause(what, source, scenario, prevented=prevented)


CAUSES: Final[Mapping[str, Cause]] = MappingProxyType(
    {
        # Stalls of FP 6.7
        "S1": _avoided(
            "with a count above 6 the Primary's proxy returns only after a report, and no board "
            "below it finds anybody to report",
            "FP 6.7, OB 8",
            _KEPT_AWAY + "test_a_primary_without_grandchildren_comes_back",
            "node_addr_cnt is always 1: the proxy returns 3 s after INFO_SET, whatever happens",
        ),
        "S2": _avoided(
            "with a count of 0 or 2 to 6 the Primary's proxy returns only after a child, and "
            "there is none",
            "FP 6.7",
            _KEPT_AWAY + "test_a_primary_alone_comes_back",
            "node_addr_cnt is always 1",
        ),
        "S3": _avoided(
            "a Temporary Provisioner does not hear the acknowledgment of its report, repeats it "
            "every 4 s, and so starts the Primary's 10 s timer again for ever",
            "FP 6.7",
            _KEPT_AWAY + "test_reports_that_nobody_acknowledges_delay_nothing",
            "node_addr_cnt is always 1: once the proxy is back that timer does nothing",
        ),
        "S4": Cause(
            "Temporary Provisioners are not in direct reach of the Primary, and their reports have "
            "TTL 0",
            "FP 6.7, FP 7",
            _LADDER + "test_boards_that_can_not_report_are_found",
            symptom=_Y.ADDRESSES_MISSING,
            seen_as="the list has fewer addresses than boards were heard or announced",
            wait="[run] settle_s",
            cost="10 s of settling, then 0.2 s for each predicted address that exists and 2 s, "
            "four at a time, for each that does not",
            end="the predicted addresses answer over other nodes, which relay with TTL 3 and more",
        ),
        "S5": _avoided(
            "an INFO_SET without a valid group makes every child refuse its own",
            "FP 6.7, FP 5.1",
            _KEPT_AWAY + "test_every_node_is_in_the_group",
            "mesh.group is checked to be 0xC000 to 0xFEFF, and always sent",
        ),
        "S6": Cause(
            "an INFO_SET with an unknown NetKeyIndex leaves the board pending until it is rebooted",
            "FP 6.7, FP 5.2",
            _LADDER + "test_a_pending_board_fails_the_run",
            _FAILED,
            prevented="net_idx is never sent, so the board takes the one of its own NetKey",
            symptom=_Y.START_UNCONFIRMED,
            seen_as="INFO_STATUS refuses with seven ones",
            wait="info_status",
            cost="two links, 5 s",
            end="the reason is what the board says; no board was begun with",
        ),
        "S7": Cause(
            "INFO_STATUS can not be queued: the board counts as active, takes no board, and its "
            "proxy stays on",
            "FP 6.7",
            _LADDER + "test_a_status_that_is_not_queued_costs_time",
            symptom=_Y.BOARDS_LEFT,
            seen_as="INFO_SET is answered 40 00 04 at the second attempt, and nobody takes the "
            "boards that are left",
            wait="list_stuck",
            cost="2 s for the second INFO_SET, 30 s until the boards count as left, 24 s for "
            "stopping, then 2 s for each board and link",
            end="we provision the boards ourselves",
        ),
        "S8": Cause(
            "the Primary counts devices that it never began with, and begins with fewer than six, "
            "or with none",
            "FP 6.7",
            _LADDER + "test_a_primary_that_begins_with_nobody_costs_time",
            symptom=_Y.BOARDS_LEFT,
            seen_as="boards stay on the air as unprovisioned devices",
            wait="list_stuck",
            cost="30 s until the boards count as left, 24 s for stopping, then 2 s for each board "
            "and link",
            end="we provision the boards ourselves",
        ),
        "S9": Cause(
            "the Primary loses power, and its list is gone",
            "FP 6.7",
            _LADDER + "test_a_primary_without_power_is_named",
            _PARTIAL,
            symptom=_Y.PRIMARY_SILENT,
            seen_as="no advertisement of its Node Identity, or of our Network ID from its BD_ADDR",
            wait="[run] proxy_timeout_s",
            cost="90 s of waiting, then as over its own proxy",
            end="the others are proven over another proxy; the Primary is named",
        ),
        # Quirks of FP 8
        "Q1": _avoided(
            "the board hangs up within milliseconds of INFO_STATUS",
            "FP 8, OB 5",
            _KEPT_AWAY + "test_an_undisturbed_run_is_done",
            "a lost link after INFO_SET counts as begun, and INFO_SET is sent again over the next",
        ),
        "Q2": _avoided(
            "INFO_STATUS may be short, or FF FF without octets while another INFO_SET is under way",
            "FP 8, FP 5.2",
            _KEPT_AWAY + "test_a_busy_board_is_asked_again",
            "missing octets are tolerated; after FF FF INFO_SET is sent again 0.5 s later",
        ),
        "Q3": _avoided(
            "an active board answers every INFO_SET with 40 00 04",
            "FP 8",
            _KEPT_AWAY + "test_a_swallowed_status_is_asked_for_again",
            "we take it as proof that the run has begun",
        ),
        "Q4": Cause(
            "one board occurs under two addresses: it restarted and another provisioner took it",
            "FP 8",
            _LADDER + "test_a_board_under_two_addresses_is_told",
            symptom=_Y.NODES_SILENT,
            seen_as="an address is silent, though as many boards answer as were announced",
            wait="answer",
            cost="five questions of 2 s to the old address, and waiting for a calm mesh between",
            end="the reason of the run names the former address; without an announced number "
            "partial, since the address may be of a board that nobody heard",
        ),
        "Q5": Cause(
            "a listed board has no AppKey or group yet",
            "FP 8",
            _KEPT_AWAY + "test_an_undisturbed_run_is_done",
            prevented="the list counts for nothing until the board itself has answered",
            symptom=_Y.NODES_SILENT,
            seen_as="no answer to OnOff Get",
            wait="answer",
            cost="2 s for each question that comes too early, up to five",
            end="it answers once it was configured",
        ),
        "Q6": Cause(
            "nodes are missing in the list: their provisioner is out of reach, the list of 120 or "
            "the Primary's replay list of 60 sources is full",
            "FP 8, FP 6.4",
            _LADDER + "test_full_tables_of_the_primary_hide_nobody",
            symptom=_Y.ADDRESSES_MISSING,
            seen_as="the list does not grow any more, and has fewer addresses than boards",
            wait="[run] settle_s",
            cost="10 s of settling, then 0.2 s for each predicted address that exists",
            end="the predicted addresses answer",
        ),
        "Q7": Cause(
            "a provisioner ignores a board that it provisioned before and that restarted",
            "FP 8",
            _LADDER + "test_a_child_that_only_its_parent_hears_is_provisioned_by_us",
            symptom=_Y.BOARDS_LEFT,
            seen_as="a board stays on the air as an unprovisioned device",
            wait="list_stuck",
            cost="30 s until it counts as left, 24 s for stopping, then 2 s",
            end="another provisioner takes it, or we do; its former address is named",
        ),
        "Q8": Cause(
            "Provisioning Complete is lost: the board is a node that its provisioner does not know",
            "FP 8",
            _LADDER + "test_a_lost_complete_is_named",
            _PARTIAL,
            symptom=_Y.ADDRESSES_MISSING,
            seen_as="a board left the air as an unprovisioned device, and no address came of it",
            wait="[run] settle_s",
            cost="searching the predicted addresses, then 1 s for asking its proxy, which is on",
            end="it is named with both addresses: power-cycle it, since nobody has its device key",
        ),
        "Q9": _avoided(
            "a board with three groups takes a fourth without a word, and does nothing",
            "FP 8",
            "tests/test_controls.py::test_a_fourth_group_is_not_sent",
            "a run uses one group, and a fourth is refused before it is sent",
        ),
        "Q10": _avoided(
            "the count is a mode, and never compared with the list",
            "FP 8, FP 6.5",
            _KEPT_AWAY + "test_the_count_is_always_one",
            "node_addr_cnt is always 1; the number of boards is counted by ourselves",
        ),
        "Q11": _avoided(
            "pri_prov_addr of our INFO_SET is checked, and not used",
            "FP 8",
            _KEPT_AWAY + "test_the_count_is_always_one",
            "it is not sent",
        ),
        "Q12": _avoided(
            "segmented answers are repeated up to four times when nobody acknowledges them",
            "FP 8",
            _KEPT_AWAY + "test_an_undisturbed_run_is_done",
            "complete segmented messages are acknowledged",
        ),
        "Q13": _avoided(
            "a node that was never active may send a success unasked when its timer ends",
            "FP 8",
            _KEPT_AWAY + "test_an_unasked_success_changes_nothing",
            "an INFO_STATUS counts only from the node that was asked, while it is asked",
        ),
        "Q14": _avoided(
            "two provisioners chase one board, and one of them loses 4 s",
            "FP 8, OB 3",
            _KEPT_AWAY + "test_we_provision_only_when_nobody_else_does",
            "we provision nobody between INFO_SET and the moment when all boards have stopped, "
            "unless there is no other way into the network",
        ),
        "Q15": _avoided(
            "a child whose proxy is on the air drops our link when it becomes a provisioner",
            "FP 8",
            _KEPT_AWAY + "test_only_the_primary_is_connected_to_while_boards_join",
            "as long as addresses come we connect only to a Primary's own proxy, which we tell by "
            "its Node Identity or its BD_ADDR",
        ),
        "Q16": _avoided(
            "Service Changed comes right after every connection",
            "FP 8, OB 17",
            _KEPT_AWAY + "test_an_undisturbed_run_is_done",
            "services are read again before Data Out is enabled",
        ),
        "Q17": _avoided(
            "PB-GATT is dead after a pause of 6 s, and the link stays",
            "FP 8, FP 3",
            _KEPT_AWAY + "test_silent_sessions_are_tried_again",
            "a session without an answer ends by our own deadline, and is begun again over a new "
            "link; there are three boards to try, twice each",
        ),
        # Seen with the NimBLE host
        "H1": _avoided(
            "a list of 56 addresses and more aborts a Primary with the NimBLE host",
            "OB 11",
            "tests/end_to_end/test_matrix.py::test_run_tells_the_truth",
            "the list is read while at most 40 boards can be in it; all else is found by asking "
            "the predicted addresses",
        ),
        "H2": _avoided(
            "answers to an OnOff Get for the group abort a Primary with the NimBLE host, from a "
            "dozen boards on",
            "OB 10",
            "tests/end_to_end/test_matrix.py::test_run_tells_the_truth",
            "nodes are asked one by one, four under way, at most five a second",
        ),
        "H3": _avoided(
            "acknowledging single segments of a list makes a Primary with the NimBLE host repeat "
            "all others at once, and abort",
            "OB 11",
            "tests/mesh/test_segmentation.py::test_no_partial_acknowledgment_while_segments_arrive",
            "only complete messages are acknowledged",
        ),
        "H4": _avoided(
            "with the NimBLE host, once in 25 starts, one more proxy advertisement that answers no "
            "connection",
            "OB 5",
            _KEPT_AWAY + "test_a_stray_advertisement_costs_seconds",
            "the proxy is not believed in the first second, and each attempt to connect has a "
            "deadline",
        ),
        # Seen with the Bluedroid host
        "H5": _avoided(
            "with the Bluedroid host a proxy that is gone is advertised for up to 0.41 s",
            "OB 17",
            _KEPT_AWAY + "test_a_false_proxy_advertisement_is_not_believed",
            "the proxy is not believed in the first second, nor a Random heard before it",
        ),
        "H6": _avoided(
            "with the Bluedroid host a board is mostly dead for good when its Node Identity ends "
            "after 60 s, without a link and with one",
            "OB 18",
            _KEPT_AWAY + "test_silence_after_node_identity_is_not_met",
            "AppKey and INFO_SET follow at once; Node Identity Set 0 goes to each board that we "
            "configure, and to a Primary with each link to it, within its 60 s",
        ),
        "H7": Cause(
            "with the Bluedroid host AppKey Add to a child fails locally and is not repeated",
            "OB 17",
            _LADDER + "test_boards_without_app_key_are_named",
            _PARTIAL,
            symptom=_Y.NODES_SILENT,
            seen_as="a listed address answers nothing",
            wait="answer",
            cost="five questions of 2 s, waiting for a calm mesh, and 1 s for asking its proxy",
            end="it is named with both addresses: power-cycle it and run again",
        ),
        "H8": Cause(
            "the Primary is stuck: seen with the Bluedroid host and 20 boards, its proxy was "
            "enabled and never came on the air",
            "OB 17",
            _LADDER + "test_a_primary_that_falls_silent_is_named",
            _PARTIAL,
            symptom=_Y.PRIMARY_SILENT,
            seen_as="no advertisement of its Node Identity, or of our Network ID from its BD_ADDR; "
            "or its proxy answers nothing",
            wait="[run] proxy_timeout_s",
            cost="90 s of waiting, then as over its own proxy",
            end="all others are proven over another proxy; the Primary is named: power-cycle it",
        ),
        "H9": Cause(
            "no timer is left for the return of the proxy: the Primary works, and stays off the "
            "air as a proxy; assumed, since AppKey Add fails for that reason",
            "OB 17, FP 6.7",
            _LADDER + "test_a_primary_without_a_timer_is_woken",
            symptom=_Y.PRIMARY_SILENT,
            seen_as="no advertisement of its Node Identity, or of our Network ID from its BD_ADDR",
            wait="[run] proxy_timeout_s",
            cost="90 s of waiting, 10 s from NODE_ADDR to the proxy",
            end="NODE_ADDR over another proxy starts its timer again; without any other proxy "
            "partial",
        ),
        "H10": _avoided(
            "with the Bluedroid host some 34 notifications of a list get through: 120 addresses "
            "may never arrive",
            "OB 17",
            "tests/end_to_end/test_matrix.py::test_run_tells_the_truth",
            "the list is read while at most 40 boards can be in it",
        ),
        # Seen with both
        "H11": _avoided(
            "INFO_STATUS is swallowed by the hang-up",
            "OB 5",
            _KEPT_AWAY + "test_a_swallowed_status_is_asked_for_again",
            "a lost link after INFO_SET counts as begun, and INFO_SET is sent again over the next",
        ),
        "H12": Cause(
            "the Primary's only advertising queue is full of other traffic, so its proxy can not "
            "be connected to for up to 37 s",
            "OB 7",
            _LADDER + "test_a_full_queue_is_waited_for",
            symptom=_Y.PRIMARY_SILENT,
            seen_as="no connectable advertisement, or a connection that does not come about",
            wait="[run] proxy_timeout_s",
            cost="as long as it lasts, and 5 s for each attempt to connect",
            end="the proxy is waited for: 67 s were seen, 90 s are allowed",
        ),
        "H13": Cause(
            "a board that joins within 10 s of the message to stop was never told, and takes "
            "others",
            "OB 9",
            "tests/end_to_end/test_closing.py::"
            "test_late_joiners_are_run_members_and_are_stopped_too",
            symptom=_Y.WINDOW_OPEN,
            seen_as="an address is added, or a board leaves the air as an unprovisioned device",
            wait="stop",
            cost="12 s for each message more",
            end="the newcomers are told too, proven and listed",
        ),
        "H14": _avoided(
            "BlueZ tells an old Node Identity again when the board sends anything else",
            "OB 16",
            _KEPT_AWAY + "test_a_stale_identity_is_not_connected_to",
            "a Random that was heard before INFO_STATUS proves nothing",
        ),
        "H15": _avoided(
            "a list may be incomplete when the proxy is back: 3 of 6 was seen",
            "OB 7, OB 15",
            _KEPT_AWAY + "test_an_undisturbed_run_is_done",
            "it is read every 2 s until all boards are in it, or nothing changes for 10 s",
        ),
        "H16": _avoided(
            "while provisioners run, a board that is switched on is always theirs: PB-GATT loses",
            "OB 3, OB 8",
            _KEPT_AWAY + "test_we_provision_only_when_nobody_else_does",
            "Primaries are made before the first INFO_SET, boards that are left after all have "
            "stopped",
        ),
        "H17": _avoided(
            "with HMAC provisioning a board may send garbage instead of Random",
            "OB 3",
            "tests/mesh/provisioning/test_provisioner.py::"
            "test_algorithm_0_is_preferred_and_unknown_ones_are_tolerated",
            "we choose the algorithm with CMAC",
        ),
        "H18": _avoided(
            "INFO_SET may come before the AppKey is bound, and is dropped without a word",
            "OB 5, FP 4.3",
            _KEPT_AWAY + "test_an_undisturbed_run_is_done",
            "Composition Data is read in between, and INFO_SET is sent again after 2 s",
        ),
        "H19": _avoided(
            "an address that NODE_ADDR names is added to the list of who gets it",
            "OB 8",
            _LADDER + "test_a_primary_without_a_timer_is_woken",
            "it names the proxy that we send it through, which is a node",
        ),
        "H20": _avoided(
            "boards that find no addresses left stay plain nodes, and provision nobody",
            "OB 13, FP 6.3",
            _KEPT_AWAY + "test_every_node_is_in_the_group",
            "a run takes six addresses for each board, 256 at the least",
        ),
        "H21": _avoided(
            "we hear our own message to all nodes again, and answers once over each link",
            "OB 9, OB 10",
            _KEPT_AWAY + "test_an_undisturbed_run_is_done",
            "our own address as SRC, and a SEQ that was heard before, are ignored",
        ),
        "H22": Cause(
            "a board is out of every other board's reach",
            "FP 7",
            _LADDER + "test_boards_that_nobody_takes_are_provisioned_by_us",
            symptom=_Y.BOARDS_LEFT,
            seen_as="it stays on the air as an unprovisioned device",
            wait="list_stuck",
            cost="30 s until it counts as left, 24 s for stopping, then 2 s",
            end="we provision it ourselves",
        ),
        "H23": Cause(
            "boards are out of our reach",
            "FP 7",
            _LADDER + "test_boards_that_we_do_not_hear_are_found",
            symptom=_Y.BOARDS_UNHEARD,
            seen_as="more boards are expected than were heard",
            wait="[run] scan_timeout_s",
            cost="30 s of listening",
            end="the boards that we hear provision them; those beyond their reach, too, are "
            "counted as missing",
        ),
        "H24": Cause(
            "the Primary restarts, and forgets the network and its list",
            "FP 6.7",
            _LADDER + "test_a_primary_that_restarts_is_taken_again",
            symptom=_Y.PRIMARY_SILENT,
            seen_as="it is on the air as an unprovisioned device",
            wait="[run] proxy_timeout_s",
            cost="nothing when it is heard unprovisioned, else 90 s of waiting",
            end="another board or we provision it again; its former address is named",
        ),
        "H25": Cause(
            "the Primary gets out of our reach, and not out of the others'",
            "FP 6.7",
            _LADDER + "test_a_primary_out_of_our_reach_is_gone_around",
            symptom=_Y.PRIMARY_SILENT,
            seen_as="no advertisement of its Node Identity, or of our Network ID from its BD_ADDR",
            wait="[run] proxy_timeout_s",
            cost="90 s of waiting, then as over its own proxy",
            end="over another proxy it answers like all others",
        ),
        "H26": Cause(
            "boards are out of our reach, and we provision the others ourselves",
            "FP 7",
            _LADDER + "test_nodes_of_ours_reach_boards_that_we_do_not_hear",
            symptom=_Y.BOARDS_UNHEARD,
            seen_as="more boards are expected than were heard",
            wait="[run] scan_timeout_s",
            cost="30 s of listening, and then a run of the boards among each other",
            end="with method auto some of our nodes become Primaries for them; with direct they "
            "are counted as missing",
        ),
    }
)
