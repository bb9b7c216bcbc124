"""The other eight messages of the fast provisioning model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.models.fast_provisioning import (
    GROUP_MAX_ADDRESSES,
    LIST_MAX_ADDRESSES,
    MESSAGES,
    NetKeyAdd,
    NetKeyStatus,
    NodeAddr,
    NodeAddrAck,
    NodeAddrGet,
    NodeAddrStatus,
    NodeGroupAdd,
    NodeGroupDelete,
)

ON_AIR = [
    (NetKeyStatus(1, 1), "c3e5020101"),
    (NodeAddr((0x0010, 0x0011)), "c4e50210001100"),
    (NodeAddrAck(), "c5e502"),
    (NodeAddrGet(), "c6e502"),
    (NodeAddrStatus(()), "c7e502"),
    (NodeAddrStatus((0x0010, 0x00BE, 0x0166)), "c7e5021000be006601"),
    (NodeGroupAdd(0xC010, (0x0010, 0x0011)), "c8e50210c010001100"),
    (NodeGroupDelete(0xC000, (0x0011,)), "c9e50200c01100"),
]
UNICAST = st.integers(0x0001, 0x7FFF)


@pytest.mark.parametrize(("message", "payload"), ON_AIR)
def test_each_message_has_its_octets_both_ways(message: Message, payload: str) -> None:
    """The payloads seen on the air are encoded octet by octet and decoded to equal messages."""
    octets = bytes.fromhex(payload)
    assert encode_message(message) == octets
    assert type(message).decode_parameters(octets[3:]) == message


def test_net_key_add_is_read_but_never_sent() -> None:
    """The emulated board can decode it; whoever encodes it has a bug."""
    message = NetKeyAdd.decode_parameters(bytes(range(16)) + b"ignored")
    assert message.net_key.octets == bytes(range(16))
    assert bytes(range(16)).hex() not in repr(message)
    with pytest.raises(LocalProtocolError, match="must not be sent"):
        encode_message(message)


@pytest.mark.parametrize(
    ("message", "parameters"),
    [
        (NetKeyAdd, "00" * 15),
        (NetKeyStatus, "01"),
        (NodeAddr, ""),
        (NodeAddr, "10"),
        (NodeAddr, "100011"),
        (NodeAddrStatus, "10"),
        (NodeAddrStatus, "100011"),
        (NodeGroupAdd, ""),
        (NodeGroupAdd, "00c010"),
        (NodeGroupDelete, "c0"),
        (NodeGroupDelete, "00c010001100ff"),
    ],
)
def test_short_messages_and_odd_lists_are_refused(message: type[Message], parameters: str) -> None:
    """What the board drops, or would run past the end of, raises DecodeError."""
    with pytest.raises(DecodeError):
        message.decode_parameters(bytes.fromhex(parameters))


@pytest.mark.parametrize("message", [NodeAddrAck, NodeAddrGet])
def test_octets_behind_an_empty_message_are_ignored(message: type[Message]) -> None:
    """The firmware sets a minimum length only."""
    assert message.decode_parameters(b"\x00\x01") == message()


@pytest.mark.parametrize(
    "message",
    [
        NetKeyStatus(0x100, 0),
        NetKeyStatus(0, -1),
        NodeAddr(()),
        NodeAddr((1, 2, 3, 4, 5)),
        NodeAddr((0x0000,)),
        NodeAddr((0x8000,)),
        NodeAddrStatus(tuple(range(1, LIST_MAX_ADDRESSES + 2))),
        NodeAddrStatus((0xC000,)),
        NodeGroupAdd(0xC000, ()),
        NodeGroupAdd(0x0000, (1,)),
        NodeGroupAdd(0xFFFF, (1,)),
        NodeGroupAdd(0xC000, (0xC001,)),
        NodeGroupDelete(0x8000, (1,)),
        NodeGroupDelete(0xC000, tuple(range(1, GROUP_MAX_ADDRESSES + 2))),
    ],
)
def test_lists_and_groups_that_are_not_valid_are_never_sent(message: Message) -> None:
    """Too few, too many, too big, not unicast, not a group: a bug of ours."""
    with pytest.raises(LocalProtocolError):
        message.encode_parameters()


def test_the_longest_lists_fit_an_access_payload() -> None:
    """A full list and a full group are one message each."""
    assert len(encode_message(NodeAddrStatus(tuple(range(1, LIST_MAX_ADDRESSES + 1))))) == 243
    group = NodeGroupAdd(0xC000, tuple(range(1, GROUP_MAX_ADDRESSES + 1)))
    assert len(encode_message(group)) <= 380


@given(st.lists(UNICAST, max_size=LIST_MAX_ADDRESSES).map(tuple))
def test_every_list_comes_back_in_order(addresses: tuple[int, ...]) -> None:
    """The order of arrival survives."""
    encoded = NodeAddrStatus(addresses).encode_parameters()
    assert NodeAddrStatus.decode_parameters(encoded).addresses == addresses


@given(st.integers(0xC000, 0xFF00), st.lists(UNICAST, min_size=1, max_size=9).map(tuple))
def test_every_group_comes_back(group: int, addresses: tuple[int, ...]) -> None:
    """Group and members survive, added or deleted."""
    for kind in (NodeGroupAdd, NodeGroupDelete):
        message = kind(group, addresses)
        assert kind.decode_parameters(message.encode_parameters()) == message


def test_ten_messages_and_their_statuses() -> None:
    """All ten opcodes are listed; a request knows the class of its answer."""
    assert [message.OPCODE for message in MESSAGES] == [0xC0E502 + (n << 16) for n in range(10)]
    requests: list[tuple[Any, type[Message]]] = [
        (NetKeyAdd, NetKeyStatus),
        (NodeAddr, NodeAddrAck),
        (NodeAddrGet, NodeAddrStatus),
    ]
    for request, status in requests:
        assert request.STATUS is status
