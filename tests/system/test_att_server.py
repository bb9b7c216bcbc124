"""The ATT side of emulated boards, without Bumble and a kernel."""

from __future__ import annotations

import asyncio
import struct

import pytest

from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.peripheral import PeripheralLink
from tests.system.att_server import AttServer, ErrorCode, Opcode, attributes

BOARD = "24:0A:C4:5E:00:01"
BOTH = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda host: host.name)


class Conversation:
    """A host that asks an `AttServer`; it is the board's central too."""

    def __init__(self) -> None:
        self.pdus: list[bytes] = []
        self.link: PeripheralLink | None = None
        self.opened = asyncio.Event()

    def open(self, link: PeripheralLink) -> None:
        """Take the link."""
        self.link = link
        self.server = AttServer(link, self.pdus.append)
        self.opened.set()

    def ask(self, opcode: Opcode, body: bytes) -> bytes:
        """Return the answer to a request."""
        before = len(self.pdus)
        self.server.receive(bytes([opcode]) + body)
        (answer,) = self.pdus[before:]
        return answer

    def notified(self, value_handle: int, value: bytes) -> None:
        """Pass it to the server, as the bridge does."""
        self.server.notify(value_handle, value)

    def services_changed(self) -> None:
        """Pass it to the server, as the bridge does."""
        self.server.indicate_services_changed()

    def disconnected(self, reason: int) -> None:
        """Nothing to do."""


async def connect(host: Host = Host.NIMBLE) -> Conversation:
    """Connect to an unprovisioned board."""
    air = Air(1)
    air.add_board(BOARD, host=host, flaws=Flaws.none())
    conversation = Conversation()
    air.adapter().initiate(BOARD, conversation, conversation.open)
    await conversation.opened.wait()
    return conversation


def error(opcode: Opcode, handle: int, code: ErrorCode) -> bytes:
    """Return the Error Response."""
    return struct.pack("<BBHB", Opcode.ERROR_RSP, opcode, handle, code)


def walk(conversation: Conversation, opcode: Opcode, body: bytes, entry_octets: int) -> list[bytes]:
    """Repeat a request over all handles, as a discovery does, and return the entries."""
    entries: list[bytes] = []
    first = 1
    while True:
        answer = conversation.ask(opcode, struct.pack("<HH", first, 0xFFFF) + body)
        assert len(answer) <= 23
        if answer[0] == Opcode.ERROR_RSP:
            assert answer == error(opcode, first, ErrorCode.ATTRIBUTE_NOT_FOUND)
            return entries
        assert answer[1] == entry_octets
        found = [answer[i : i + entry_octets] for i in range(2, len(answer), entry_octets)]
        entries += found
        last = 2 if opcode is Opcode.READ_BY_GROUP_TYPE_REQ else 0
        first = int.from_bytes(found[-1][last : last + 2], "little") + 1


@BOTH
async def test_discovery_finds_services_and_characteristics(host: Host) -> None:
    """Whoever walks the handles at MTU 23 finds every service and characteristic once."""
    conversation = await connect(host)
    services = (*host.base_services, host.provisioning_service)
    found = walk(conversation, Opcode.READ_BY_GROUP_TYPE_REQ, b"\x00\x28", 6)
    assert [struct.unpack("<HHH", entry)[::2] for entry in found] == [
        (service.start_handle, service.uuid)
        for service in sorted(services, key=lambda service: service.start_handle)
    ]
    found = walk(conversation, Opcode.READ_BY_TYPE_REQ, b"\x03\x28", 7)
    assert {struct.unpack("<HBHH", entry)[2:] for entry in found} == {
        (c.value_handle, c.uuid) for service in services for c in service.characteristics
    }


async def test_find_information_finds_the_cccd() -> None:
    """Behind Data Out there is a CCCD."""
    conversation = await connect()
    answer = conversation.ask(Opcode.FIND_INFORMATION_REQ, struct.pack("<HH", 0x19, 0x19))
    assert answer == struct.pack("<BBHH", Opcode.FIND_INFORMATION_RSP, 1, 0x19, 0x2902)


async def test_a_service_is_found_by_its_uuid() -> None:
    """Find By Type Value gives first and last handle."""
    conversation = await connect()
    body = struct.pack("<HHHH", 1, 0xFFFF, 0x2800, 0x1827)
    answer = conversation.ask(Opcode.FIND_BY_TYPE_VALUE_REQ, body)
    assert answer == struct.pack("<BHH", Opcode.FIND_BY_TYPE_VALUE_RSP, 0x14, 0x19)


async def test_the_mtu_is_the_boards() -> None:
    """Whatever the host asks for, the answer is 23."""
    conversation = await connect()
    answer = conversation.ask(Opcode.MTU_REQ, struct.pack("<H", 517))
    assert answer == struct.pack("<BH", Opcode.MTU_RSP, 23)


async def test_a_cccd_is_written_and_the_board_refuses_a_hidden_one() -> None:
    """The board's own error code and handle come back."""
    conversation = await connect()
    enable = b"\x01\x00"
    answer = conversation.ask(Opcode.WRITE_REQ, struct.pack("<H", 0x19) + enable)
    assert answer == bytes([Opcode.WRITE_RSP])
    answer = conversation.ask(Opcode.WRITE_REQ, struct.pack("<H", 0x13) + enable)
    assert answer == error(Opcode.WRITE_REQ, 0x13, ErrorCode.INVALID_HANDLE)


@pytest.mark.parametrize(
    ("opcode", "body", "handle", "code"),
    [
        (Opcode.READ_REQ, b"\x16\x00", 0x16, ErrorCode.READ_NOT_PERMITTED),
        (Opcode.READ_REQ, b"\x30\x00", 0x30, ErrorCode.INVALID_HANDLE),
        (Opcode.WRITE_REQ, b"\x16\x00\x00", 0x16, ErrorCode.WRITE_NOT_PERMITTED),
        (Opcode.FIND_INFORMATION_REQ, b"\x00\x00\x09\x00", 0, ErrorCode.INVALID_HANDLE),
        (Opcode.FIND_INFORMATION_REQ, b"\x01", 0, ErrorCode.INVALID_PDU),
        (Opcode.CONFIRMATION + 2, b"", 0, ErrorCode.REQUEST_NOT_SUPPORTED),
    ],
)
async def test_what_can_not_be_is_answered_with_its_error(
    opcode: Opcode, body: bytes, handle: int, code: ErrorCode
) -> None:
    """No request is left without an answer, which would block the host for 30 s."""
    conversation = await connect()
    assert conversation.ask(opcode, body) == error(opcode, handle, code)


async def test_service_changed_covers_the_whole_table() -> None:
    """The indication names the handles 0x0001 to 0xFFFF; a confirmation is not answered."""
    conversation = await connect(Host.BLUEDROID)
    conversation.services_changed()
    expected = struct.pack("<BHHH", Opcode.INDICATION, 0x0003, 1, 0xFFFF)
    assert conversation.pdus[-1] == expected
    before = len(conversation.pdus)
    conversation.server.receive(bytes([Opcode.CONFIRMATION]))
    assert len(conversation.pdus) == before


def test_an_attribute_table_is_in_order() -> None:
    """Handles of a table rise, and none is there twice."""
    for host in (Host.NIMBLE, Host.BLUEDROID):
        services = (*host.base_services, host.provisioning_service)
        handles = [row.handle for row in attributes(services)]
        assert handles == sorted(set(handles))
