"""Making the Primary Provisioner: one PB-GATT session, AppKey and composition, INFO_SET."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.campaign.planner import plan_run
from fastprovd.campaign.primary import (
    Outcome,
    Start,
    add_app_key,
    provision,
    read_composition,
    start_fast_provisioning,
)
from fastprovd.campaign.states import WAITS
from fastprovd.clock import SystemClock
from fastprovd.errors import ConnectionLost, ResponseTimeout, StatusError, StoreError
from fastprovd.mesh.access import encode_message
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.models.configuration import (
    AppKeyAdd,
    AppKeyStatus,
    CompositionDataGet,
    CompositionDataStatus,
    FoundationStatus,
)
from fastprovd.mesh.models.fast_provisioning import InfoSet, InfoStatus
from fastprovd.mesh.models.fast_provisioning_info import BUSY, SUCCEEDED
from fastprovd.mesh.provisioning.pdus import FailureCode, PduType, ProvisioningData
from fastprovd.mesh.provisioning.provisioner import REPLY_TIMEOUT_S, SEND_DATA_TIMEOUT_S
from fastprovd.mesh.proxy import ProxyPduType
from tests.support.fake_link import (
    FakeDevice,
    FakeLink,
    Fault,
    alter,
    drop,
    hang_up,
    hang_up_after,
    precede,
)
from tests.support.fake_mesh import (
    APP_KEY,
    DEV_KEY,
    IV_INDEX,
    NET_KEY,
    PRIMARY,
    FakeNode,
    Talk,
    talk,
)

CLOCK = SystemClock()
DATA = ProvisioningData(NET_KEY, PRIMARY, IV_INDEX)
COMPOSITION = bytes.fromhex("e502000000003c00030000000302000001000010e5020100e5020000")
GROUP, MATCH = 0xC000, b"\xdd\xdd"

# Our PDUs: Invite 0, Start 1, Public Key 2, Confirmation 3, Random 4, Data 5.
# The device's: Capabilities 0, Public Key 1, Confirmation 2, Random 3, Complete 4.
OUR_DATA = 5
RANDOM, COMPLETE = 3, 4


async def _no_persist(dev_key: DevKey) -> None:
    """Keep nothing."""


async def _provision(
    link: FakeLink, persist: Callable[[DevKey], Awaitable[None]] = _no_persist
) -> tuple[Outcome, str]:
    return await provision(link, DATA, Random(1).randbytes, CLOCK, persist)


def _types(link: FakeLink) -> list[PduType]:
    return [PduType(payload[0]) for _, (_, payload) in link.sent]


async def test_the_dev_key_is_kept_before_data_leaves() -> None:
    """A session completes; the device's own DevKey was committed, and only then Data left."""
    journal: list[str] = []
    kept: list[DevKey] = []

    async def persist(dev_key: DevKey) -> None:
        journal.append("persist begins")
        await asyncio.sleep(1.0)
        kept.append(dev_key)
        journal.append("persist ends")

    device = FakeDevice()
    link = FakeLink(device, watched=lambda pdu: journal.append(PduType(pdu[1][0]).name))
    assert await _provision(link, persist) == (Outcome.COMPLETED, "")
    assert journal == [
        *("INVITE", "START", "PUBLIC_KEY", "CONFIRMATION", "RANDOM"),
        *("persist begins", "persist ends", "DATA"),
    ]
    assert device.provisioned is not None
    assert device.provisioned.dev_key.octets == kept[0].octets
    assert device.provisioned.data.encode() == DATA.encode()


async def test_a_dev_key_that_can_not_be_kept_sends_nothing() -> None:
    """The store's exception comes out, and the device stays unprovisioned."""

    async def persist(dev_key: DevKey) -> None:
        raise StoreError("the disk is full")

    device = FakeDevice()
    link = FakeLink(device)
    with pytest.raises(StoreError):
        await _provision(link, persist)
    assert PduType.DATA not in _types(link)
    assert device.provisioned is None


async def test_a_dev_key_kept_too_late_burns_no_address() -> None:
    """When the device has forgotten the session meanwhile, Data does not leave."""

    async def persist(dev_key: DevKey) -> None:
        await asyncio.sleep(SEND_DATA_TIMEOUT_S)

    link = FakeLink(FakeDevice())
    outcome, reason = await _provision(link, persist)
    assert outcome is Outcome.NOTHING_SENT
    assert "no send_data in time" in reason
    assert PduType.DATA not in _types(link)


async def test_a_board_of_several_elements_is_left_alone() -> None:
    """It is not the fast provisioning firmware, and would take more addresses than planned."""
    link = FakeLink(FakeDevice(elements=2))
    outcome, reason = await _provision(link)
    assert outcome is Outcome.NOTHING_SENT
    assert "has 2 elements" in reason
    assert _types(link) == [PduType.INVITE]


@pytest.mark.parametrize(
    ("to_board", "to_top", "outcome"),
    [
        pytest.param({0: hang_up}, {}, Outcome.NOTHING_SENT, id="at the Invite"),
        pytest.param({}, {RANDOM: hang_up}, Outcome.NOTHING_SENT, id="before Random"),
        pytest.param({OUR_DATA: hang_up}, {}, Outcome.DATA_SENT, id="at Data"),
        pytest.param({}, {COMPLETE: hang_up}, Outcome.DATA_SENT, id="before Complete"),
    ],
)
async def test_a_lost_link_tells_whether_the_address_is_burnt(
    to_board: dict[int, Fault], to_top: dict[int, Fault], outcome: Outcome
) -> None:
    """Once Data was handed over the board may have its address."""
    link = FakeLink(FakeDevice(), to_board=to_board, to_top=to_top)
    assert await _provision(link) == (outcome, "the board hung up")


@pytest.mark.parametrize(
    ("heard", "outcome", "awaited"),
    [(0, Outcome.NOTHING_SENT, "CAPABILITIES"), (OUR_DATA, Outcome.DATA_SENT, "COMPLETE")],
)
async def test_a_silent_board_is_given_up(heard: int, outcome: Outcome, awaited: str) -> None:
    """Each answer has its own time limit, and the reason says which one did not come."""
    link = FakeLink(FakeDevice(), deaf_from=heard)
    found, reason = await _provision(link)
    assert found is outcome
    assert f"no {awaited} in time" in reason
    assert CLOCK.monotonic() - link.sent[-1][0] == pytest.approx(REPLY_TIMEOUT_S)


async def test_a_slow_board_is_given_up_in_all() -> None:
    """A board that takes 4 s for each answer keeps every limit but the one of the session."""
    link = FakeLink(FakeDevice(thinks_s=4.0))
    begun = CLOCK.monotonic()
    assert await _provision(link) == (
        Outcome.NOTHING_SENT,
        "provisioning took over 15.0 s",
    )
    assert CLOCK.monotonic() - begun == WAITS["provisioning"].seconds


async def test_a_failed_pdu_is_the_reason() -> None:
    """A board that refuses our Confirmation names its code."""
    spoil = alter(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))
    outcome, reason = await _provision(FakeLink(FakeDevice(), to_board={3: spoil}))
    assert outcome is Outcome.NOTHING_SENT
    assert "Failed 0x04 (CONFIRMATION_FAILED)" in reason


async def test_a_board_that_refuses_data_may_have_its_address() -> None:
    """A Failed instead of Complete leaves the address burnt."""
    failed = alter(lambda _: bytes([PduType.FAILED, FailureCode.UNEXPECTED_ERROR]))
    outcome, reason = await _provision(FakeLink(FakeDevice(), to_top={COMPLETE: failed}))
    assert outcome is Outcome.DATA_SENT
    assert "UNEXPECTED_ERROR" in reason


async def test_pdus_of_other_types_are_ignored() -> None:
    """A beacon or a Network PDU on PB-GATT disturbs nothing."""
    others = [(kind, bytes(22)) for kind in ProxyPduType if kind.name != "PROVISIONING_PDU"]
    faults = dict.fromkeys(range(5), precede(*others))
    outcome, _ = await _provision(FakeLink(FakeDevice(), to_top=faults))
    assert outcome is Outcome.COMPLETED


# AppKey and composition


def _board(**answers: Any) -> FakeNode:
    """Return a board of the demo; an answer replaces that to the message of its name."""
    usual: dict[str, Any] = {
        "app_key": AppKeyStatus(FoundationStatus.SUCCESS, 0, 0),
        "composition": CompositionDataStatus(0, COMPOSITION),
        "info": SUCCEEDED,
    }
    chosen = usual | answers
    return FakeNode(
        PRIMARY,
        answers={
            AppKeyAdd: lambda _: chosen["app_key"],
            CompositionDataGet: lambda _: chosen["composition"],
            InfoSet: lambda _: chosen["info"],
        },
    )


async def test_the_board_gets_the_app_key_and_tells_its_composition() -> None:
    """One AppKey Add, then one Composition Data Get, both for the proxy itself (TTL 0)."""
    async with talk(_board()) as t:
        await add_app_key(t.session, PRIMARY, DEV_KEY, APP_KEY)
        composition = await read_composition(t.session, PRIMARY, DEV_KEY)
        assert composition is not None
        assert (composition.cid, len(composition.elements)) == (0x02E5, 1)
        added, got = t.mesh.proxy.heard
        assert added.message.app_key.octets == APP_KEY.octets
        assert got.message == CompositionDataGet(0)
        assert (added.ttl, got.ttl) == (0, 0)


async def test_a_refused_app_key_is_told_with_its_status() -> None:
    """Nothing else is asked of a board that refuses the key."""
    full = AppKeyStatus(FoundationStatus.INSUFFICIENT_RESOURCES, 0, 0)
    async with talk(_board(app_key=full)) as t:
        with pytest.raises(StatusError, match="INSUFFICIENT_RESOURCES") as caught:
            await add_app_key(t.session, PRIMARY, DEV_KEY, APP_KEY)
        assert caught.value.status == FoundationStatus.INSUFFICIENT_RESOURCES
        assert not t.mesh.proxy.messages(CompositionDataGet)


@pytest.mark.parametrize("page", [CompositionDataStatus(0, COMPOSITION[:-1]), b"\x02\x05"])
async def test_an_unsound_composition_stops_nothing(page: CompositionDataStatus | bytes) -> None:
    """A page that is cut, or another page, is logged and read as none."""
    async with talk(_board(composition=page)) as t:
        with capture_logs() as logs:
            assert await read_composition(t.session, PRIMARY, DEV_KEY) is None
        assert "composition_unreadable" in [entry["event"] for entry in logs]


@pytest.mark.parametrize("silent", ["app_key", "composition"])
async def test_a_board_that_does_not_answer_is_asked_three_times(silent: str) -> None:
    """Then the request is named in the error."""
    async with talk(_board(**{silent: None})) as t:
        asking = (
            add_app_key(t.session, PRIMARY, DEV_KEY, APP_KEY)
            if silent == "app_key"
            else read_composition(t.session, PRIMARY, DEV_KEY)
        )
        with pytest.raises(ResponseTimeout):
            await asking
        asked = AppKeyAdd if silent == "app_key" else CompositionDataGet
        assert len(t.mesh.proxy.messages(asked)) == 3


# INFO_SET

PLAN = plan_run(7, PRIMARY, 0x7FFF, []).plans[0]


async def _start(t: Talk) -> Start:
    return await start_fast_provisioning(t.session, PLAN, APP_KEY, GROUP, MATCH)


async def test_info_set_says_what_the_plan_says() -> None:
    """The octets on the air: count, range, group, match, enter as Primary; to the proxy only."""
    async with talk(_board()) as t:
        assert await _start(t) is Start.STARTED
        (heard,) = t.mesh.proxy.heard
        # ctx_flags: node_addr_cnt, unicast_min, unicast_max, group_addr, match_val, action.
        assert encode_message(heard.message).hex() == (
            "c0e502"
            "4703"
            + PLAN.node_addr_cnt.to_bytes(2, "little").hex()
            + PLAN.share.first.to_bytes(2, "little").hex()
            + PLAN.share.last.to_bytes(2, "little").hex()
            + "00c0"
            + "dddd"
            + "81"
        )
        assert heard.ttl == 0


async def test_a_board_that_is_at_it_already_has_started() -> None:
    """The answer to an INFO_SET whose predecessor's answer was lost."""
    async with talk(_board(info=InfoStatus(0x40, b"\x04"))) as t:
        assert await _start(t) is Start.ALREADY_STARTED


async def test_a_busy_board_is_asked_again() -> None:
    """`FFFF` means that an INFO_SET is in processing; half a second later it is told."""
    board = _board()
    replies = iter([BUSY, SUCCEEDED])
    board.answers[InfoSet] = lambda _: next(replies)
    async with talk(board) as t:
        assert await _start(t) is Start.STARTED
        first, second = board.heard
        assert second.at_s - first.at_s >= 0.5


async def test_a_board_that_stays_busy_is_given_up() -> None:
    """Three times busy is not a start."""
    async with talk(_board(info=BUSY)) as t:
        with pytest.raises(ResponseTimeout, match="did not start in 3 INFO_SET"):
            await _start(t)
        assert len(t.mesh.proxy.heard) == 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("020002", "unicast_min is above unicast_max"),
        ("020003", "unicast_min is not above the range of an earlier run"),
        ("020004", "unicast_min is not above the board's own address"),
        ("080001", "the group is no group address"),
        ("200001", "the UUID match was refused"),
        ("400001", "the action was refused"),
        ("400003", "no action was asked for"),
        ("44000102", "the NetKeyIndex is unknown to the board; the board waits for a NetKey"),
        ("7f0001010101010101", "the board waits for a NetKey until it is restarted"),
        ("020077", "UNICAST has status 0x77"),
        ("0200", "it does not say why"),
    ],
)
async def test_a_refusal_says_why(status: str, reason: str) -> None:
    """INFO_STATUS in words, asked for once."""
    async with talk(_board(info=bytes.fromhex("c1e502" + status))) as t:
        with pytest.raises(StatusError, match=f"refuses INFO_SET: {reason}") as caught:
            await _start(t)
        assert caught.value.status == int.from_bytes(bytes.fromhex(status[:4]), "little")
        assert len(t.mesh.proxy.heard) == 1


async def test_a_hang_up_without_status_is_a_start() -> None:
    """The board disconnects right after its answer, which a controller may swallow."""
    board = _board()
    async with talk(board) as t:
        board.answers[InfoSet] = lambda _: t.link.hang_up_later(0.0)
        assert await _start(t) is Start.HUNG_UP


async def test_a_status_right_before_the_hang_up_is_taken() -> None:
    """Both in the same instant: what the board said counts."""
    # INFO_STATUS has two segments; 0 is the Filter Status, 1 the acknowledgment of INFO_SET.
    async with talk(_board(), to_top={3: hang_up_after}) as t:
        assert await _start(t) is Start.STARTED
        assert not t.link.is_connected


async def test_a_hang_up_that_meets_the_write_is_a_start() -> None:
    """The link goes while the last segment is handed over: the board has it all."""
    async with talk(_board(), to_board={2: hang_up_after}) as t:
        assert await _start(t) is Start.HUNG_UP
        assert len(t.mesh.proxy.heard) == 1


async def test_a_link_lost_before_info_set_is_no_start() -> None:
    """Nothing was sent, so nothing can have begun."""
    async with talk(_board()) as t:
        t.link.hang_up()
        await t.session.lost.wait()
        with pytest.raises(ConnectionLost):
            await _start(t)
        assert t.mesh.proxy.heard == []


async def test_an_info_set_that_is_lost_is_sent_again() -> None:
    """The bind race: the board ignores the first one, and starts at the second."""
    board = _board()
    replies = iter([None, SUCCEEDED])
    board.answers[InfoSet] = lambda _: next(replies)
    async with talk(board) as t:
        assert await _start(t) is Start.STARTED
        assert len(board.heard) == 2


@pytest.mark.parametrize(
    ("info", "to_top"),
    [
        pytest.param(None, {}, id="silent"),
        pytest.param(SUCCEEDED, dict.fromkeys(range(1, 99), drop), id="all it says is lost"),
    ],
)
async def test_a_board_that_never_answers_is_a_timeout(
    info: InfoStatus | None, to_top: dict[int, Fault]
) -> None:
    """Three attempts, and the link stays up."""
    async with talk(_board(info=info), to_top=to_top) as t:
        with pytest.raises(ResponseTimeout, match="did not start in 3 INFO_SET"):
            await _start(t)
        assert len(t.mesh.proxy.heard) == 3
        assert not t.session.lost.is_set()
