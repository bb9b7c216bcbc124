"""What the journal says about the world that a run left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.planner import Plan
from fastprovd.campaign.resumption import (
    MOST_RESUMPTIONS,
    Resumption,
    settings_from_json,
    settings_to_json,
)
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.records import Node, Run, RunState, Step, StepKind

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = Run("r-1", RunState.PROVISIONING, NOON, heard=5)
A, B = b"\xaa" * 16, b"\xbb" * 16


def left(*steps: Step, nodes: tuple[Node, ...] = (), run: Run = RUN) -> Resumption:
    return Resumption(run, nodes, steps)


def step(kind: StepKind, address: int | None = None, second: int = 0, **facts: object) -> Step:
    return Step("r-1", kind, NOON + timedelta(seconds=second), address, **facts)  # type: ignore[arg-type]


def offer(address: int, uuid: bytes, second: int = 0) -> Step:
    return step(StepKind.ADDRESS_OFFERED, address, second, device_uuid=uuid, device_address="24:0A")


PLAN = step(StepKind.PLAN, 2, first=4, last=259, node_addr_cnt=1)
SPARE = step(StepKind.PLAN, first=260, last=263)


def test_nothing_was_done() -> None:
    """A run that was only announced is begun anew."""
    found = left(step(StepKind.BEGUN, detail=settings_to_json(RunSettings())))
    assert [found.told, found.offers, found.is_direct] == [frozenset(), {}, False]
    assert found.begun is None


def test_the_last_offer_to_a_board_counts() -> None:
    """What was offered before is burnt; whether it was taken is known or not."""
    found = left(PLAN, offer(2, A), offer(300, A), offer(260, B), step(StepKind.PROVISIONED, 260))
    assert {a: o.is_taken for a, o in found.offers.items()} == {300: False, 260: True}


def test_primaries_and_what_they_were_to_do() -> None:
    """Each plan with the board that was offered its address; INFO_SET counts once it may be out."""
    info_set = step(StepKind.INFO_SET, 2, second=9)
    found = left(PLAN, SPARE, offer(2, A), offer(260, B), info_set)
    ((plan, offered),) = found.primaries
    assert plan == Plan(2, Share(4, 259), 1)
    assert offered.board.uuid == A
    assert found.told == {2}
    assert found.begun == NOON + timedelta(seconds=9)
    assert not found.is_direct


def test_what_we_were_provisioning_ourselves() -> None:
    """Boards without an answer are unfinished; addresses that went to nobody can be used."""
    proven = Node(260, "r-1", proven=True)
    found = left(SPARE, offer(260, A, 1), offer(262, B, 2), nodes=(proven,))
    assert found.is_direct
    assert [o.address for o in found.unfinished] == [262]
    assert found.unoffered == [261, 263]
    assert found.begun == NOON + timedelta(seconds=1)


def test_a_run_is_not_resumed_for_ever() -> None:
    """Three times are enough."""
    resumed = [step(StepKind.RESUMED)] * MOST_RESUMPTIONS
    assert left(*resumed).is_too_often
    assert not left(*resumed[1:]).is_too_often


def test_all_that_were_heard_are_expected() -> None:
    """Most of them are nodes by now and are not heard again."""
    asked = RunSettings(expected=3, method=Method.DIRECT)
    found = left(step(StepKind.BEGUN, detail=settings_to_json(asked)))
    settings = found.settings(RunSettings(links=2, expected=9))
    assert (settings.expected, settings.method, settings.links) == (5, Method.DIRECT, 2)


@given(
    st.builds(
        RunSettings,
        method=st.sampled_from(Method),
        expected=st.none() | st.integers(1, 300),
        match=st.binary(min_size=2, max_size=16),
        allow=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        deny=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        allow_strangers=st.booleans(),
        group=st.integers(0xC000, 0xFEFF),
        close=st.sampled_from(["suspend", "onoff", "leave_open"]),
        run_s=st.floats(30, 86400),
    )
)
def test_settings_come_back(settings: RunSettings) -> None:
    """Every choice of the operator is kept over the crash."""
    assert settings_from_json(settings_to_json(settings), RunSettings()) == settings


def test_unknown_settings_do_no_harm() -> None:
    """The journal of another version is read for what is known; without one it is as configured."""
    configured = RunSettings(expected=4)
    assert settings_from_json(None, configured) == configured
    assert settings_from_json('{"colour": "red", "expected": 2}', configured).expected == 2
