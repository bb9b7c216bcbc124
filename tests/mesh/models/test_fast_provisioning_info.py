"""INFO_SET and INFO_STATUS."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.models.fast_provisioning_info import (
    BUSY,
    ENTER_AS_PRIMARY,
    PENDING,
    STOPPING,
    SUCCEEDED,
    Action,
    InfoSet,
    InfoStatus,
    InfoStatusBit,
)

START = InfoSet(
    node_addr_cnt=1,
    unicast_min=0x0010,
    unicast_max=0x0400,
    flags=0,
    iv_index=0,
    net_idx=0,
    group_addr=0xC000,
    match_val=b"\xdd\xdd",
    action=ENTER_AS_PRIMARY,
)
TO_CHILD = InfoSet(
    unicast_min=0x0016,
    unicast_max=0x00BD,
    flags=0,
    iv_index=0,
    net_idx=0,
    group_addr=0xC000,
    pri_prov_addr=0x0005,
    match_val=b"\xdd\xdd",
    action=Action.ENTER,
)
PHONE = InfoSet(
    node_addr_cnt=100,
    unicast_min=0x0400,
    group_addr=0xC000,
    pri_prov_addr=0x0001,
    match_val=b"\xdd\xdd",
    action=ENTER_AS_PRIMARY,
)
SENT_FORMS = [
    pytest.param(START, "7f030100100000040000000000000000c0dddd81", id="start"),
    pytest.param(TO_CHILD, "fe031600bd000000000000000000c00500dddd01", id="to child"),
    pytest.param(PHONE, "c3036400000400c00100dddd81", id="phone"),
    pytest.param(InfoSet(group_addr=0xC000), "400000c0", id="group only"),
    pytest.param(InfoSet(action=Action.SUSPEND), "000202", id="suspend"),
    pytest.param(InfoSet(action=Action.EXIT), "000203", id="exit"),
    pytest.param(
        replace(START, group_addr=0xFF00), "7f030100100000040000000000000000ffdddd81", id="FF00"
    ),
    pytest.param(
        replace(START, match_val=bytes(range(16))),
        "7f030100100000040000000000000000c0000102030405060708090a0b0c0d0e0f81",
        id="longest match",
    ),
]

octet = st.integers(0, 0xFF)
uint16 = st.integers(0, 0xFFFF)
info_sets = st.builds(
    InfoSet,
    node_addr_cnt=st.none() | uint16,
    unicast_min=st.none() | uint16,
    unicast_max=st.none() | uint16,
    flags=st.none() | octet,
    iv_index=st.none() | st.integers(0, 0xFFFFFFFF),
    net_idx=st.none() | uint16,
    group_addr=st.none() | uint16,
    pri_prov_addr=st.none() | uint16,
    match_val=st.none() | st.binary(max_size=20),
    action=st.none() | octet,
    undefined_flags=st.integers(0, 0x3F).map(lambda bits: bits << 10),
)


@pytest.mark.parametrize(("message", "parameters"), SENT_FORMS)
def test_the_forms_that_boards_handle_are_sent(message: InfoSet, parameters: str) -> None:
    """Enter, stop and group only are encoded octet by octet and decoded to equal messages."""
    octets = bytes.fromhex(parameters)
    assert message.encode_parameters() == octets
    assert InfoSet.decode_parameters(octets) == message


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(InfoSet(), id="nothing"),
        pytest.param(replace(START, match_val=None), id="no match"),
        pytest.param(replace(START, match_val=b""), id="match of every board"),
        pytest.param(replace(START, match_val=bytes(17)), id="match too long"),
        pytest.param(replace(START, group_addr=None), id="no group"),
        pytest.param(replace(START, group_addr=0x0000), id="unassigned group"),
        pytest.param(replace(START, group_addr=0x0010), id="unicast group"),
        pytest.param(replace(START, group_addr=0x8000), id="virtual group"),
        pytest.param(replace(START, group_addr=0xFF01), id="fixed group"),
        pytest.param(replace(START, group_addr=0xFFFF), id="all nodes"),
        pytest.param(replace(START, group_addr=0x1C000), id="group of 17 bits"),
        pytest.param(replace(START, action=None), id="no action"),
        pytest.param(replace(START, action=Action.NONE), id="action none"),
        pytest.param(replace(START, action=0x80), id="role only"),
        pytest.param(replace(START, action=0x82), id="suspend as primary"),
        pytest.param(replace(START, action=0x41), id="undefined action bits"),
        pytest.param(replace(START, action=Action.SUSPEND), id="suspend with fields"),
        pytest.param(replace(START, unicast_min=0x0000), id="unassigned minimum"),
        pytest.param(replace(START, unicast_max=0x8000), id="virtual maximum"),
        pytest.param(replace(START, unicast_min=0x0401), id="empty range"),
        pytest.param(replace(START, pri_prov_addr=0xC000), id="group as primary"),
        pytest.param(replace(START, undefined_flags=0x0400), id="undefined flag"),
        pytest.param(replace(START, node_addr_cnt=0x10000), id="count of 17 bits"),
        pytest.param(replace(START, iv_index=-1), id="negative IV Index"),
        pytest.param(InfoSet(group_addr=0xFFFF), id="group only, all nodes"),
        pytest.param(InfoSet(action=Action.NONE), id="stop that is none"),
        pytest.param(InfoSet(action=0x82), id="stop with role"),
    ],
)
def test_what_a_board_would_misread_is_never_sent(message: InfoSet) -> None:
    """Every other form, and a value that is not valid, is refused before it leaves."""
    with pytest.raises(LocalProtocolError):
        message.encode_parameters()


@given(info_sets)
def test_nothing_but_the_allowed_forms_can_be_sent(message: InfoSet) -> None:
    """Whatever is sent carries a valid group and match, or is a stop request."""
    try:
        octets = message.encode_parameters()
    except LocalProtocolError:
        return
    assert len(octets) >= 3
    if octets in (b"\x00\x02\x02", b"\x00\x02\x03"):
        return
    assert message.group_addr is not None
    assert 0xC000 <= message.group_addr <= 0xFF00
    if message.ctx_flags != 0x0040:
        assert 1 <= len(message.match_val or b"") <= 16
        assert message.action in (0x01, 0x81)


@given(info_sets)
def test_every_field_comes_back(message: InfoSet) -> None:
    """Decoding takes any combination of fields, sound or not."""
    octets = message.encode_unchecked()
    if len(octets) >= 3:
        assert InfoSet.decode_parameters(octets) == message


@given(st.binary(max_size=48))
def test_any_octets_give_a_message_or_a_decode_error(parameters: bytes) -> None:
    """Whatever decodes is a prefix of what came, and all of it when a match is present."""
    try:
        message = InfoSet.decode_parameters(parameters)
    except DecodeError:
        return
    octets = message.encode_unchecked()
    assert parameters.startswith(octets)
    assert message.match_val is None or octets == parameters


def test_every_truncation_without_match_is_refused() -> None:
    """An INFO_SET that ends inside its announced fields raises DecodeError."""
    octets = replace(START, match_val=None).encode_unchecked()
    for length in range(len(octets)):
        with pytest.raises(DecodeError):
            InfoSet.decode_parameters(octets[:length])


def test_a_truncation_inside_the_fields_is_refused_with_match_too() -> None:
    """A match takes what is left, so only its absence and the fields before it can be missed."""
    octets = START.encode_unchecked()
    for length in range(len(octets) - len(b"\xdd\xdd\x81") + 1):
        with pytest.raises(DecodeError):
            InfoSet.decode_parameters(octets[:length])


def test_octets_after_the_last_field_are_ignored_without_match() -> None:
    """The board does not look at them either."""
    assert InfoSet.decode_parameters(bytes.fromhex("000202ffff")) == InfoSet(action=2)


def test_the_action_octet_has_a_code_and_a_role() -> None:
    """Bits 0 and 1 say what to do, bit 7 who the receiver becomes."""
    assert START.action_code is Action.ENTER
    assert START.makes_primary
    assert TO_CHILD.action_code is Action.ENTER
    assert not TO_CHILD.makes_primary
    assert InfoSet().action_code is None
    assert not InfoSet().makes_primary


@pytest.mark.parametrize(
    ("parameters", "statuses", "reason"),
    [
        ("ffff", {}, "an INFO_SET is still in processing"),
        (
            "7f0001010101010101",
            dict.fromkeys(InfoStatusBit, 1),
            "the board waits for a NetKey until it is restarted",
        ),
        ("010001", {InfoStatusBit.CTX_FLAGS: 1}, "INFO_SET carries nothing"),
        ("200001", {InfoStatusBit.MATCH: 1}, "the UUID match was refused"),
        ("400000", {InfoStatusBit.ACTION: 0}, ""),
        ("400004", {InfoStatusBit.ACTION: 4}, "fast provisioning is already in progress"),
        ("020001", {InfoStatusBit.UNICAST: 1}, "the range is not of unicast addresses"),
        ("020002", {InfoStatusBit.UNICAST: 2}, "unicast_min is above unicast_max"),
        (
            "020004",
            {InfoStatusBit.UNICAST: 4},
            "unicast_min is not above the board's own address",
        ),
        ("080001", {InfoStatusBit.GROUP: 1}, "the group is no group address"),
        ("080002", {InfoStatusBit.GROUP: 2}, "the board could not subscribe to the group"),
        (
            "100001",
            {InfoStatusBit.PRI_PROV: 1},
            "the Primary Provisioner's address is not unicast",
        ),
        ("400003", {InfoStatusBit.ACTION: 3}, "no action was asked for"),
        ("400001", {InfoStatusBit.ACTION: 1}, "the action was refused"),
        (
            "2600010101",
            {InfoStatusBit.UNICAST: 1, InfoStatusBit.NET_IDX: 1, InfoStatusBit.MATCH: 1},
            "the range is not of unicast addresses; the NetKeyIndex is unknown to the board; "
            "the UUID match was refused",
        ),
        (
            "22000300",
            {InfoStatusBit.UNICAST: 3, InfoStatusBit.MATCH: 0},
            "unicast_min is not above the range of an earlier run",
        ),
        (
            "44000102",
            {InfoStatusBit.NET_IDX: 1, InfoStatusBit.ACTION: 2},
            "the NetKeyIndex is unknown to the board; "
            "the board waits for a NetKey until it is restarted",
        ),
        ("7f0000000000000000", dict.fromkeys(InfoStatusBit, 0), ""),
        (
            "7f0000000000000001",
            {**dict.fromkeys(InfoStatusBit, 0), InfoStatusBit.ACTION: 1},
            "the action was refused",
        ),
        ("080009", {InfoStatusBit.GROUP: 9}, "GROUP has status 0x09"),
    ],
)
def test_every_branch_of_the_firmware_is_read(
    parameters: str, statuses: dict[InfoStatusBit, int], reason: str
) -> None:
    """Each mask is decoded, encoded again, and its octets are found by bit and said in words."""
    octets = bytes.fromhex(parameters)
    message = InfoStatus.decode_parameters(octets)
    assert message.encode_parameters() == octets
    assert {
        bit: message.status(bit) for bit in InfoStatusBit if message.status(bit) is not None
    } == (statuses)
    assert message.reason == reason
    if statuses:
        assert InfoStatus.of(statuses) == message


@pytest.mark.parametrize(
    ("parameters", "holds"),
    [
        ("7f0000000000000000", {"succeeded"}),
        ("7f0001010101010101", {"pending"}),
        ("7f0000000000000001", set()),
        ("7f00000000000000", set()),
        ("400000", {"stopping"}),
        ("400001", set()),
        ("400003", set()),
        ("400004", {"already_in_progress"}),
        ("44000102", {"pending"}),
        ("ffff", {"busy"}),
        ("7f00", set()),
    ],
)
def test_only_the_right_property_holds(parameters: str, holds: set[str]) -> None:
    """What a run decides on is told apart, short forms included."""
    message = InfoStatus.decode_parameters(bytes.fromhex(parameters))
    names = {"succeeded", "pending", "stopping", "already_in_progress", "busy"}
    assert {name for name in names if getattr(message, name)} == holds


def test_the_board_has_names_for_its_usual_answers() -> None:
    """The constants encode to the four answers of the firmware."""
    answers = [SUCCEEDED, PENDING, BUSY, STOPPING]
    assert [answer.encode_parameters().hex() for answer in answers] == [
        "7f0000000000000000",
        "7f0001010101010101",
        "ffff",
        "400000",
    ]


@pytest.mark.parametrize("parameters", [b"", b"\x7f"])
def test_a_cut_mask_is_refused(parameters: bytes) -> None:
    """A status without its whole mask raises DecodeError."""
    with pytest.raises(DecodeError, match="at least 2 octets"):
        InfoStatus.decode_parameters(parameters)


@given(st.binary(min_size=2, max_size=20))
def test_any_status_can_be_asked_anything(parameters: bytes) -> None:
    """Every mask with any number of octets is readable and encodes again."""
    message = InfoStatus.decode_parameters(parameters)
    assert message.encode_parameters() == parameters
    assert isinstance(message.reason, str)
    assert sum(message.status(bit) is not None for bit in InfoStatusBit) <= len(message.octets)
    assert InfoSet.STATUS is InfoStatus
