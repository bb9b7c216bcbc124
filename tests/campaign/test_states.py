"""The table of states."""

from __future__ import annotations

import pytest

from fastprovd.campaign.states import TRANSITIONS, WAITS, Trigger, next_state
from fastprovd.errors import LocalProtocolError
from fastprovd.records import RunState


def test_every_state_but_the_ends_can_be_left_and_reached() -> None:
    """No state is a dead end or an island; the ends have no way out."""
    for state in RunState:
        ways_out = [row for row in TRANSITIONS if row[0] is state]
        assert bool(ways_out) is not state.is_end
    reached = set(TRANSITIONS.values()) | {RunState.SCANNING}
    assert reached == set(RunState)


@pytest.mark.parametrize("state", [state for state in RunState if not state.is_end])
def test_a_run_can_end_from_everywhere(state: RunState) -> None:
    """Stop, interruption and deadline have a row in each state, and each leads to an end."""
    assert next_state(state, Trigger.STOP) is RunState.STOPPED
    assert next_state(state, Trigger.INTERRUPT) is RunState.INTERRUPTED
    assert next_state(state, Trigger.BROKEN) is RunState.FAILED
    assert next_state(state, Trigger.DEADLINE).is_end


def test_the_straight_way_is_in_the_table() -> None:
    """A run without incidents passes through every working state to done."""
    state = RunState.SCANNING
    for trigger in (
        Trigger.BOARDS_HEARD,
        Trigger.LINK_OPEN,
        Trigger.NODE_MADE,
        Trigger.STARTED,
        Trigger.PROXY_BACK,
        Trigger.SETTLED,
        Trigger.ALL_PROVEN,
    ):
        state = next_state(state, trigger)
    assert state is RunState.DONE


def test_unknown_row_is_our_bug() -> None:
    """What the table does not have is refused by name."""
    with pytest.raises(LocalProtocolError, match="scanning knows no ALL_PROVEN"):
        next_state(RunState.SCANNING, Trigger.ALL_PROVEN)


def test_every_wait_has_an_end_and_a_reason() -> None:
    """Each time limit is positive and explained."""
    for name, wait in WAITS.items():
        assert wait.seconds > 0, name
        assert len(wait.reason) > 20, name


@pytest.mark.parametrize("trigger", [Trigger.NO_ADDRESS_LEFT, Trigger.NOT_KEPT, Trigger.CONFLICT])
def test_what_runs_out_ends_a_run_wherever_it_is(trigger: Trigger) -> None:
    """Before boards provision each other it failed; from then on there is a part."""
    fruitless = {
        RunState.SCANNING,
        RunState.CONNECTING,
        RunState.PROVISIONING_PRIMARY,
        RunState.CONFIGURING_PRIMARY,
    }
    for state in RunState:
        if not state.is_end:
            end = RunState.FAILED if state in fruitless else RunState.PARTIAL
            assert next_state(state, trigger) is end


def test_a_resumed_run_goes_on_where_its_journal_says() -> None:
    """From each state that it can be left in, to each that work begins in, and from no end."""
    resumed = {
        Trigger.NOTHING_OFFERED: RunState.SCANNING,
        Trigger.NODES_TO_FIND: RunState.CONNECTING,
        Trigger.PRIMARY_OFFERED: RunState.PROVISIONING_PRIMARY,
        Trigger.PRIMARY_MADE: RunState.CONFIGURING_PRIMARY,
        Trigger.STARTED_BEFORE: RunState.PROVISIONING,
    }
    for trigger, state in resumed.items():
        left = {before for before, on in TRANSITIONS if on is trigger}
        assert left == {before for before in RunState if not before.is_end}
        assert {next_state(before, trigger) for before in left} == {state}
