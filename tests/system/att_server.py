"""The ATT side of an emulated board: answers a real host's discovery from the board's services.

It only translates between ATT PDUs and `peripheral.PeripheralLink`; what the board does is
decided behind that seam.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from fastprovd.emulator.peripheral import AttError, PeripheralLink, Service

_PRIMARY_SERVICE: Final = 0x2800
_CHARACTERISTIC: Final = 0x2803
_CCCD: Final = 0x2902
_SERVICE_CHANGED: Final = 0x2A05
_LAST_HANDLE: Final = 0xFFFF
_PROPERTY_BITS: Final = {
    "read": 0x02,
    "write-without-response": 0x04,
    "write": 0x08,
    "notify": 0x10,
    "indicate": 0x20,
}


class Opcode(IntEnum):
    """ATT opcodes (Core v5.0 Vol 3 Part F §3.4.8)."""

    ERROR_RSP = 0x01
    MTU_REQ = 0x02
    MTU_RSP = 0x03
    FIND_INFORMATION_REQ = 0x04
    FIND_INFORMATION_RSP = 0x05
    FIND_BY_TYPE_VALUE_REQ = 0x06
    FIND_BY_TYPE_VALUE_RSP = 0x07
    READ_BY_TYPE_REQ = 0x08
    READ_BY_TYPE_RSP = 0x09
    READ_REQ = 0x0A
    READ_BY_GROUP_TYPE_REQ = 0x10
    READ_BY_GROUP_TYPE_RSP = 0x11
    WRITE_REQ = 0x12
    WRITE_RSP = 0x13
    NOTIFICATION = 0x1B
    INDICATION = 0x1D
    CONFIRMATION = 0x1E
    WRITE_COMMAND = 0x52


class ErrorCode(IntEnum):
    """ATT error codes (Core v5.0 Vol 3 Part F §3.4.1.1)."""

    INVALID_HANDLE = 0x01
    READ_NOT_PERMITTED = 0x02
    WRITE_NOT_PERMITTED = 0x03
    INVALID_PDU = 0x04
    REQUEST_NOT_SUPPORTED = 0x06
    ATTRIBUTE_NOT_FOUND = 0x0A
    UNSUPPORTED_GROUP_TYPE = 0x10


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row of the attribute table; `value` is `None` where nothing can be read.

    `group_end` is the last handle of a service, 0 for what is no service.
    """

    handle: int
    type: int
    value: bytes | None = None
    group_end: int = 0


def attributes(services: tuple[Service, ...]) -> list[Attribute]:
    """Return the attribute table of services, by handle."""
    rows = []
    for service in services:
        handles = [service.start_handle]
        for characteristic in service.characteristics:
            value_handle = characteristic.value_handle
            bits = sum(_PROPERTY_BITS[name] for name in characteristic.properties)
            declared = struct.pack("<BHH", bits, value_handle, characteristic.uuid)
            rows.append(Attribute(value_handle - 1, _CHARACTERISTIC, declared))
            rows.append(Attribute(value_handle, characteristic.uuid))
            handles.append(value_handle)
            if characteristic.cccd_handle is not None:
                rows.append(Attribute(characteristic.cccd_handle, _CCCD))
                handles.append(characteristic.cccd_handle)
        uuid = service.uuid.to_bytes(2, "little")
        rows.append(Attribute(service.start_handle, _PRIMARY_SERVICE, uuid, max(handles)))
    return sorted(rows, key=lambda row: row.handle)


class AttServer:
    """Serves one link; `send` takes the PDUs for the host."""

    def __init__(self, link: PeripheralLink, send: Callable[[bytes], None]) -> None:
        self._link = link
        self._send = send
        self._answers: dict[int, Callable[[bytes], bytes]] = {
            Opcode.MTU_REQ: self._mtu,
            Opcode.FIND_INFORMATION_REQ: self._find_information,
            Opcode.FIND_BY_TYPE_VALUE_REQ: self._find_by_type_value,
            Opcode.READ_BY_TYPE_REQ: self._read_by_type,
            Opcode.READ_REQ: self._read,
            Opcode.READ_BY_GROUP_TYPE_REQ: self._read_by_group_type,
            Opcode.WRITE_REQ: self._write,
        }

    def receive(self, pdu: bytes) -> None:
        """Take one PDU of the host, and answer it if it is a request."""
        opcode = pdu[0]
        if opcode == Opcode.WRITE_COMMAND:
            self._link.write_command(int.from_bytes(pdu[1:3], "little"), pdu[3:])
        elif opcode != Opcode.CONFIRMATION:
            self._send(self._answer(opcode, pdu[1:]))

    def notify(self, value_handle: int, value: bytes) -> None:
        """Send a notification."""
        self._send(struct.pack("<BH", Opcode.NOTIFICATION, value_handle) + value)

    def indicate_services_changed(self) -> None:
        """Send Service Changed for the whole table."""
        for service in self._link.services():
            for characteristic in service.characteristics:
                if characteristic.uuid == _SERVICE_CHANGED:
                    handle = characteristic.value_handle
                    self._send(struct.pack("<BHHH", Opcode.INDICATION, handle, 1, _LAST_HANDLE))

    def _answer(self, opcode: int, body: bytes) -> bytes:
        answer = self._answers.get(opcode)
        try:
            if answer is None:
                raise AttError(ErrorCode.REQUEST_NOT_SUPPORTED, 0)
            return answer(body)
        except AttError as error:
            return struct.pack("<BBHB", Opcode.ERROR_RSP, opcode, error.handle, error.code)
        except struct.error:
            return struct.pack("<BBHB", Opcode.ERROR_RSP, opcode, 0, ErrorCode.INVALID_PDU)

    def _between(self, first: int, last: int) -> Iterator[Attribute]:
        if not 0 < first <= last:
            raise AttError(ErrorCode.INVALID_HANDLE, first)
        return (row for row in attributes(self._link.services()) if first <= row.handle <= last)

    def _list(self, header: bytes, entries: Iterator[bytes], first: int) -> bytes:
        """Join entries of one length, as many as the MTU takes."""
        pdu = header
        length = None
        for entry in entries:
            if length not in (None, len(entry)) or len(pdu) + len(entry) > self._link.mtu_octets:
                break
            length = len(entry)
            pdu += entry
        if length is None:
            raise AttError(ErrorCode.ATTRIBUTE_NOT_FOUND, first)
        return pdu

    def _mtu(self, body: bytes) -> bytes:
        return struct.pack("<BH", Opcode.MTU_RSP, self._link.mtu_octets)

    def _find_information(self, body: bytes) -> bytes:
        first, last = struct.unpack("<HH", body)
        entries = (struct.pack("<HH", row.handle, row.type) for row in self._between(first, last))
        return self._list(bytes([Opcode.FIND_INFORMATION_RSP, 1]), entries, first)

    def _find_by_type_value(self, body: bytes) -> bytes:
        first, last, wanted = struct.unpack_from("<HHH", body)
        entries = (
            struct.pack("<HH", row.handle, row.group_end or row.handle)
            for row in self._between(first, last)
            if row.type == wanted and row.value == body[6:]
        )
        return self._list(bytes([Opcode.FIND_BY_TYPE_VALUE_RSP]), entries, first)

    def _read_by_type(self, body: bytes) -> bytes:
        first, last = struct.unpack_from("<HH", body)
        rows = [row for row in self._between(first, last) if _is_type(row, body[4:])]
        if rows and rows[0].value is None:
            raise AttError(ErrorCode.READ_NOT_PERMITTED, rows[0].handle)
        entries = (
            row.handle.to_bytes(2, "little") + row.value for row in rows if row.value is not None
        )
        length = 2 + len(rows[0].value) if rows and rows[0].value else 0
        return self._list(bytes([Opcode.READ_BY_TYPE_RSP, length]), entries, first)

    def _read_by_group_type(self, body: bytes) -> bytes:
        first, last = struct.unpack_from("<HH", body)
        if body[4:] != _PRIMARY_SERVICE.to_bytes(2, "little"):
            raise AttError(ErrorCode.UNSUPPORTED_GROUP_TYPE, first)
        entries = (
            struct.pack("<HH", row.handle, row.group_end) + row.value
            for row in self._between(first, last)
            if row.type == _PRIMARY_SERVICE and row.value is not None
        )
        return self._list(bytes([Opcode.READ_BY_GROUP_TYPE_RSP, 6]), entries, first)

    def _read(self, body: bytes) -> bytes:
        (handle,) = struct.unpack("<H", body)
        known = any(row.handle == handle for row in attributes(self._link.services()))
        code = ErrorCode.READ_NOT_PERMITTED if known else ErrorCode.INVALID_HANDLE
        raise AttError(code, handle)

    def _write(self, body: bytes) -> bytes:
        (handle,) = struct.unpack_from("<H", body)
        types = {row.handle: row.type for row in attributes(self._link.services())}
        if types.get(handle, _CCCD) != _CCCD:
            raise AttError(ErrorCode.WRITE_NOT_PERMITTED, handle)
        self._link.write_cccd(handle, body[2:])
        return bytes([Opcode.WRITE_RSP])


def _is_type(row: Attribute, uuid: bytes) -> bool:
    return len(uuid) == 2 and row.type == int.from_bytes(uuid, "little")
