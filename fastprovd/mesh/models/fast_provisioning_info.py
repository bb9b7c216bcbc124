"""INFO_SET and INFO_STATUS of the fast provisioning model: start, stop, and what the board says.

Little-endian, sent under the AppKey. ESP-BLE-MESH `fast_prov_server`: the board does not check
the length of an INFO_SET, so what it would misread must never leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.access import check_range
from fastprovd.mesh.addresses import format_address, is_unicast

# The board refuses other fixed groups than FF00 and everything that is no group.
GROUP_MIN: Final = 0xC000
GROUP_MAX: Final = 0xFF00
MATCH_MAX_OCTETS: Final = 16


class Action(IntEnum):
    """Bits 0 and 1 of the action octet."""

    NONE = 0
    ENTER = 1
    SUSPEND = 2
    EXIT = 3


# Bit 7 of the action octet: the receiver becomes the Primary Provisioner.
PRIMARY_ROLE: Final = 0x80
ENTER_AS_PRIMARY: Final = PRIMARY_ROLE | Action.ENTER


class InfoStatusBit(IntFlag):
    """Bits of the mask of INFO_STATUS; each is answered by one octet, in this order."""

    CTX_FLAGS = 0x01
    UNICAST = 0x02
    NET_IDX = 0x04
    GROUP = 0x08
    PRI_PROV = 0x10
    MATCH = 0x20
    ACTION = 0x40


_ALL_BITS: Final = 0x7F
_BUSY_MASK: Final = 0xFFFF
_WAITS_FOR_NET_KEY: Final = 0x02
_NO_ACTION: Final = 0x03
_ALREADY_IN_PROGRESS: Final = 0x04

_MEANINGS: Final = {
    (InfoStatusBit.CTX_FLAGS, 0x01): "INFO_SET carries nothing",
    (InfoStatusBit.UNICAST, 0x01): "the range is not of unicast addresses",
    (InfoStatusBit.UNICAST, 0x02): "unicast_min is above unicast_max",
    (InfoStatusBit.UNICAST, 0x03): "unicast_min is not above the range of an earlier run",
    (InfoStatusBit.UNICAST, 0x04): "unicast_min is not above the board's own address",
    (InfoStatusBit.NET_IDX, 0x01): "the NetKeyIndex is unknown to the board",
    (InfoStatusBit.GROUP, 0x01): "the group is no group address",
    (InfoStatusBit.GROUP, 0x02): "the board could not subscribe to the group",
    (InfoStatusBit.PRI_PROV, 0x01): "the Primary Provisioner's address is not unicast",
    (InfoStatusBit.MATCH, 0x01): "the UUID match was refused",
    (InfoStatusBit.ACTION, 0x01): "the action was refused",
    (
        InfoStatusBit.ACTION,
        _WAITS_FOR_NET_KEY,
    ): "the board waits for a NetKey until it is restarted",
    (InfoStatusBit.ACTION, _NO_ACTION): "no action was asked for",
    (InfoStatusBit.ACTION, _ALREADY_IN_PROGRESS): "fast provisioning is already in progress",
}


@dataclass(frozen=True, slots=True)
class InfoStatus:
    """INFO_STATUS: a mask, then one octet per set bit, 0 for success.

    Boards send it short too: `FFFF` has no octets. What is missing reads as `None`.
    """

    OPCODE: ClassVar[int] = 0xC1E502

    mask: int
    octets: bytes

    @classmethod
    def of(cls, statuses: Mapping[InfoStatusBit, int]) -> Self:
        """Return the status with these octets; the emulated board's constructor."""
        bits = sorted(statuses)
        return cls(sum(bits), bytes(statuses[bit] for bit in bits))

    def encode_parameters(self) -> bytes:
        """Return the mask and the octets."""
        check_range("mask", self.mask, 0xFFFF)
        return self.mask.to_bytes(2, "little") + self.octets

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse a mask and whatever octets follow; raises DecodeError when the mask is cut."""
        if len(parameters) < 2:
            raise DecodeError(f"INFO_STATUS must have at least 2 octets, got {len(parameters)}")
        return cls(int.from_bytes(parameters[:2], "little"), bytes(parameters[2:]))

    def status(self, bit: InfoStatusBit) -> int | None:
        """Return the octet of `bit`, `None` when it is not set or its octet is missing."""
        if not self.mask & bit:
            return None
        at = (self.mask & (bit - 1)).bit_count()
        return self.octets[at] if at < len(self.octets) else None

    @property
    def succeeded(self) -> bool:
        """Whether the run started just now: every octet there and zero."""
        return self == SUCCEEDED

    @property
    def already_in_progress(self) -> bool:
        """Whether the board had started before, which is as good as success."""
        return self.status(InfoStatusBit.ACTION) == _ALREADY_IN_PROGRESS

    @property
    def pending(self) -> bool:
        """Whether the board waits for a NetKey for ever; only a restart helps."""
        return self == PENDING or self.status(InfoStatusBit.ACTION) == _WAITS_FOR_NET_KEY

    @property
    def busy(self) -> bool:
        """Whether an INFO_SET is still in processing; its own answer may never come."""
        return self.mask == _BUSY_MASK

    @property
    def stopping(self) -> bool:
        """Whether the board takes the stop request: it suspends 10 s after its first one."""
        return self == STOPPING

    @property
    def reason(self) -> str:
        """What the board objects to, in words; empty when it objects to nothing."""
        if self.busy:
            return "an INFO_SET is still in processing"
        if self == PENDING:
            return _MEANINGS[InfoStatusBit.ACTION, _WAITS_FOR_NET_KEY]
        objections = []
        for bit in InfoStatusBit:
            status = self.status(bit)
            if status:
                unknown = f"{bit.name or bit} has status 0x{status:02x}"
                objections.append(_MEANINGS.get((bit, status), unknown))
        return "; ".join(objections)


SUCCEEDED: Final = InfoStatus(_ALL_BITS, bytes(7))
PENDING: Final = InfoStatus(_ALL_BITS, b"\x01" * 7)
BUSY: Final = InfoStatus(_BUSY_MASK, b"")
STOPPING: Final = InfoStatus(InfoStatusBit.ACTION, b"\x00")

# Bits 0 to 7 of ctx_flags: attribute and width in octets, in the order on the air.
_FIELDS: Final = (
    ("node_addr_cnt", 2),
    ("unicast_min", 2),
    ("unicast_max", 2),
    ("flags", 1),
    ("iv_index", 4),
    ("net_idx", 2),
    ("group_addr", 2),
    ("pri_prov_addr", 2),
)
_MATCH_BIT: Final = 1 << 8
_ACTION_BIT: Final = 1 << 9
_UNDEFINED_BITS: Final = 0xFC00


@dataclass(frozen=True, slots=True)
class InfoSet:
    """INFO_SET; a field that is `None` is absent and takes the board's default.

    `node_addr_cnt` selects when the Primary's proxy comes back, `match_val` is compared with the
    start of Device UUIDs, `action` is an `Action`, with PRIMARY_ROLE or without.
    `undefined_flags` are bits 10 to 15 as received. Decoding accepts what the board accepts, so a
    value may be one that `encode_parameters` refuses.
    """

    OPCODE: ClassVar[int] = 0xC0E502
    STATUS: ClassVar[type[InfoStatus]] = InfoStatus

    node_addr_cnt: int | None = None
    unicast_min: int | None = None
    unicast_max: int | None = None
    flags: int | None = None
    iv_index: int | None = None
    net_idx: int | None = None
    group_addr: int | None = None
    pri_prov_addr: int | None = None
    match_val: bytes | None = None
    action: int | None = None
    undefined_flags: int = 0

    @property
    def ctx_flags(self) -> int:
        """Which fields are present, bit by bit."""
        present = self.undefined_flags & _UNDEFINED_BITS
        for bit, (name, _) in enumerate(_FIELDS):
            present |= (getattr(self, name) is not None) << bit
        present |= _MATCH_BIT if self.match_val is not None else 0
        return present | (_ACTION_BIT if self.action is not None else 0)

    @property
    def action_code(self) -> Action | None:
        """What to do, without the role bit."""
        return None if self.action is None else Action(self.action & 3)

    @property
    def makes_primary(self) -> bool:
        """Whether the receiver becomes the Primary Provisioner."""
        return self.action is not None and bool(self.action & PRIMARY_ROLE)

    def encode_parameters(self) -> bytes:
        """Return one of the forms that boards handle: enter, stop, or group only.

        Raises:
            LocalProtocolError: any other form, a range, group, match or address that is not
                valid, or an "enter" without group or without UUID match.
        """
        self._check()
        return self.encode_unchecked()

    def encode_unchecked(self) -> bytes:
        """Return what a board would send, sound or not: only for the emulated firmware.

        Raises:
            LocalProtocolError: a number does not fit its field.
        """
        octets = bytearray(self.ctx_flags.to_bytes(2, "little"))
        for name, width in _FIELDS:
            value: int | None = getattr(self, name)
            if value is not None:
                check_range(name, value, (1 << 8 * width) - 1)
                octets += value.to_bytes(width, "little")
        octets += self.match_val or b""
        if self.action is not None:
            check_range("action", self.action, 0xFF)
            octets.append(self.action)
        return bytes(octets)

    @classmethod
    def decode_parameters(cls, parameters: bytes) -> Self:
        """Parse ctx_flags and the fields it announces; raises DecodeError when any is cut.

        Octets after the last announced field are ignored, as the board does.
        """
        # The board's access layer drops what is shorter than 3 octets.
        if len(parameters) < 3:
            raise DecodeError(f"INFO_SET must have at least 3 octets, got {len(parameters)}")
        ctx_flags = int.from_bytes(parameters[:2], "little")
        at = 2
        numbers: list[int | None] = []
        for bit, (_, width) in enumerate(_FIELDS):
            if ctx_flags >> bit & 1:
                numbers.append(int.from_bytes(parameters[at : at + width], "little"))
                at += width
            else:
                numbers.append(None)
        has_action = bool(ctx_flags & _ACTION_BIT)
        match_val = None
        if ctx_flags & _MATCH_BIT:
            match_end = max(at, len(parameters) - has_action)
            match_val = bytes(parameters[at:match_end])
            at = match_end
        if len(parameters) < at + has_action:
            raise DecodeError(
                f"INFO_SET with ctx_flags 0x{ctx_flags:04x} is cut after {len(parameters)} octets"
            )
        count, minimum, maximum, flags, iv_index, net_idx, group, primary = numbers
        return cls(
            node_addr_cnt=count,
            unicast_min=minimum,
            unicast_max=maximum,
            flags=flags,
            iv_index=iv_index,
            net_idx=net_idx,
            group_addr=group,
            pri_prov_addr=primary,
            match_val=match_val,
            action=parameters[at] if has_action else None,
            undefined_flags=ctx_flags & _UNDEFINED_BITS,
        )

    def _check(self) -> None:
        if self in _STOP_FORMS:
            return
        if self.group_addr is None or not GROUP_MIN <= self.group_addr <= GROUP_MAX:
            group = "none" if self.group_addr is None else format_address(self.group_addr)
            raise LocalProtocolError(
                f"INFO_SET needs a group within 0x{GROUP_MIN:04x}..0x{GROUP_MAX:04x}, got {group}"
            )
        if self == InfoSet(group_addr=self.group_addr):
            return
        if self.action not in (Action.ENTER, ENTER_AS_PRIMARY) or self.undefined_flags:
            raise LocalProtocolError(
                "INFO_SET is either enter, a stop request or a group only, got ctx_flags "
                f"0x{self.ctx_flags:04x} and action {self.action}"
            )
        if not self.match_val or len(self.match_val) > MATCH_MAX_OCTETS:
            raise LocalProtocolError(
                f"INFO_SET needs a UUID match of 1..{MATCH_MAX_OCTETS} octets, "
                f"got {len(self.match_val or b'')}; without one every device in reach is taken"
            )
        for name in ("unicast_min", "unicast_max", "pri_prov_addr"):
            address: int | None = getattr(self, name)
            if address is not None and not is_unicast(address):
                raise LocalProtocolError(f"{name} must be a unicast address, got 0x{address:04x}")
        if (
            self.unicast_min is not None
            and self.unicast_max is not None
            and self.unicast_min > self.unicast_max
        ):
            raise LocalProtocolError(
                f"unicast_min {format_address(self.unicast_min)} is above "
                f"unicast_max {format_address(self.unicast_max)}"
            )


_STOP_FORMS: Final = (InfoSet(action=Action.SUSPEND), InfoSet(action=Action.EXIT))
