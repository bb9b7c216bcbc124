"""Lower transport PDUs: SEG AKF AID SZMIC SeqZero SegO SegN, big-endian.

Mesh Profile v1.0.1 §3.5.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from fastprovd.errors import DecodeError
from fastprovd.mesh.network import NetworkPdu

ACCESS_SEGMENT_OCTETS: Final = 12
CONTROL_SEGMENT_OCTETS: Final = 8
MAX_SEGMENTS: Final = 32
MAX_UNSEGMENTED_UPPER_OCTETS: Final = 15
_MIN_UPPER_OCTETS: Final = 5


@dataclass(frozen=True, slots=True)
class UnsegmentedAccess:
    """An Upper Transport Access PDU of 5..15 octets; `aid` is 0 when `akf` is 0 (DevKey)."""

    CTL: ClassVar[int] = 0

    akf: int
    aid: int
    upper_pdu: bytes

    def encode(self) -> bytes:
        """Return the Lower Transport PDU."""
        return bytes([self.akf << 6 | self.aid]) + self.upper_pdu


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """SeqZero (13 bits), SegO and SegN (5 bits), and SZMIC (always 0 in control messages)."""

    seq_zero: int
    seg_o: int
    seg_n: int
    szmic: int = 0

    def encode(self) -> bytes:
        """Return 3 octets."""
        return (self.szmic << 23 | self.seq_zero << 10 | self.seg_o << 5 | self.seg_n).to_bytes(
            3, "big"
        )

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Parse 3 octets; raises DecodeError when SegO is beyond SegN."""
        value = int.from_bytes(octets, "big")
        header = cls(value >> 10 & 0x1FFF, value >> 5 & 0x1F, value & 0x1F, value >> 23)
        if header.seg_o > header.seg_n:
            raise DecodeError(f"SegO {header.seg_o} is beyond SegN {header.seg_n}")
        return header


@dataclass(frozen=True, slots=True)
class SegmentedAccess:
    """One segment of an Upper Transport Access PDU: 12 octets, the last one 1..12."""

    CTL: ClassVar[int] = 0

    akf: int
    aid: int
    header: SegmentHeader
    segment: bytes

    def encode(self) -> bytes:
        """Return the Lower Transport PDU."""
        return bytes([0x80 | self.akf << 6 | self.aid]) + self.header.encode() + self.segment


@dataclass(frozen=True, slots=True)
class UnsegmentedControl:
    """An Upper Transport Control PDU of 0..11 octets other than Segment Acknowledgment."""

    CTL: ClassVar[int] = 1

    opcode: int
    parameters: bytes

    def encode(self) -> bytes:
        """Return the Lower Transport PDU."""
        return bytes([self.opcode]) + self.parameters


@dataclass(frozen=True, slots=True)
class SegmentedControl:
    """One segment of an Upper Transport Control PDU: 8 octets, the last one 1..8."""

    CTL: ClassVar[int] = 1

    opcode: int
    header: SegmentHeader
    segment: bytes

    def encode(self) -> bytes:
        """Return the Lower Transport PDU."""
        return bytes([0x80 | self.opcode]) + self.header.encode() + self.segment


@dataclass(frozen=True, slots=True)
class SegmentAcknowledgment:
    """Segment Acknowledgment: OBO, SeqZero, BlockAck (bit n is segment n)."""

    CTL: ClassVar[int] = 1
    OPCODE: ClassVar[int] = 0x00

    seq_zero: int
    block_ack: int
    obo: int = 0

    def encode(self) -> bytes:
        """Return the 7 octets."""
        head = self.obo << 15 | self.seq_zero << 2
        return bytes([self.OPCODE]) + head.to_bytes(2, "big") + self.block_ack.to_bytes(4, "big")

    @classmethod
    def decode(cls, parameters: bytes) -> Self:
        """Parse the 6 octets after the opcode; raises DecodeError."""
        if len(parameters) != 6:
            raise DecodeError(
                f"Segment Acknowledgment has 6 octets after its opcode, got {len(parameters)}"
            )
        head = int.from_bytes(parameters[:2], "big")
        return cls(head >> 2 & 0x1FFF, int.from_bytes(parameters[2:], "big"), head >> 15)


LowerTransportPdu = (
    UnsegmentedAccess
    | SegmentedAccess
    | UnsegmentedControl
    | SegmentedControl
    | SegmentAcknowledgment
)


def decode_lower_transport_pdu(pdu: NetworkPdu) -> LowerTransportPdu:
    """Parse the TransportPDU of `pdu`; raises DecodeError."""
    octets = pdu.transport_pdu
    if not octets:
        raise DecodeError("a Lower Transport PDU has at least one octet, got none")
    first = octets[0]
    if first & 0x80:
        limit = CONTROL_SEGMENT_OCTETS if pdu.ctl else ACCESS_SEGMENT_OCTETS
        if len(octets) < 5:
            raise DecodeError(f"a segment has at least 5 octets, got {len(octets)}")
        header = SegmentHeader.decode(octets[1:4])
        segment = octets[4:]
        if len(segment) > limit or (len(segment) < limit and header.seg_o != header.seg_n):
            raise DecodeError(
                f"segment {header.seg_o} of {header.seg_n} must have {limit} octets, "
                f"got {len(segment)}"
            )
        if pdu.ctl:
            return SegmentedControl(first & 0x7F, header, segment)
        return SegmentedAccess(first >> 6 & 1, first & 0x3F, header, segment)
    if not pdu.ctl:
        if not _MIN_UPPER_OCTETS <= len(octets) - 1 <= MAX_UNSEGMENTED_UPPER_OCTETS:
            raise DecodeError(
                f"an unsegmented access PDU has {_MIN_UPPER_OCTETS}.."
                f"{MAX_UNSEGMENTED_UPPER_OCTETS} octets, got {len(octets) - 1}"
            )
        return UnsegmentedAccess(first >> 6 & 1, first & 0x3F, octets[1:])
    if first == SegmentAcknowledgment.OPCODE:
        return SegmentAcknowledgment.decode(octets[1:])
    return UnsegmentedControl(first, octets[1:])
