"""Lower transport PDUs: sample data, round trips, fuzz."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    SegmentedAccess,
    SegmentedControl,
    SegmentHeader,
    UnsegmentedAccess,
    UnsegmentedControl,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.network import NetworkPdu
from tests.support.data import vectors


def _carried(ctl: int, transport_pdu: bytes) -> NetworkPdu:
    return NetworkPdu(ctl, 0, 1, 1, 2, transport_pdu)


@pytest.mark.parametrize("entry", vectors("messages"), ids=lambda entry: entry["id"])
def test_sample_pdus_are_parsed_and_made(entry: dict[str, Any]) -> None:
    """Each published Lower Transport PDU is parsed into its fields and encoded back."""
    for number, row in enumerate(entry["network"]):
        raw = bytes.fromhex(row["transport_pdu"])
        lower = decode_lower_transport_pdu(_carried(entry["ctl"], raw))
        assert lower.encode() == raw
        if entry["kind"] == "access":
            assert isinstance(lower, SegmentedAccess | UnsegmentedAccess)
            assert (lower.akf, lower.aid) == (
                entry["upper"]["akf"],
                int(entry["upper"]["aid"], 16),
            )
            if isinstance(lower, SegmentedAccess):
                assert lower.header == SegmentHeader(
                    int(entry["lower"]["seq_zero"], 16),
                    number,
                    entry["lower"]["seg_n"],
                    entry["upper"]["szmic"],
                )


@given(st.integers(0, 1), st.binary(max_size=24))
def test_any_input_gives_a_pdu_or_decode_error(ctl: int, raw: bytes) -> None:
    """No octets break the decoder, and what it takes it gives back (reserved bits aside)."""
    try:
        lower = decode_lower_transport_pdu(_carried(ctl, raw))
    except DecodeError:
        return
    assert len(lower.encode()) == len(raw)


@given(st.integers(0, 0x1FFF), st.integers(0, (1 << 32) - 1), st.integers(0, 1))
def test_acknowledgment_round_trip(seq_zero: int, block_ack: int, obo: int) -> None:
    """SeqZero, BlockAck and OBO survive."""
    ack = SegmentAcknowledgment(seq_zero, block_ack, obo)
    assert decode_lower_transport_pdu(_carried(1, ack.encode())) == ack


@pytest.mark.parametrize(
    ("ctl", "raw"),
    [
        pytest.param(0, "", id="empty"),
        pytest.param(0, "4011223344", id="upper PDU of 4 octets"),
        pytest.param(0, "40" + "11" * 16, id="upper PDU of 16 octets"),
        pytest.param(0, "80000000", id="segment without data"),
        pytest.param(0, "80000020" + "11" * 12, id="SegO beyond SegN"),
        pytest.param(0, "80000001" + "11" * 11, id="short segment that is not the last"),
        pytest.param(0, "80000000" + "11" * 13, id="long access segment"),
        pytest.param(1, "81000000" + "11" * 9, id="long control segment"),
        pytest.param(1, "000102", id="short acknowledgment"),
    ],
)
def test_malformed_pdu_is_refused(ctl: int, raw: str) -> None:
    """Each rule of the layout is enforced."""
    with pytest.raises(DecodeError):
        decode_lower_transport_pdu(_carried(ctl, bytes.fromhex(raw)))


def test_control_pdus_are_told_apart() -> None:
    """Unsegmented and segmented control messages keep opcode and octets."""
    plain = UnsegmentedControl(0x0A, b"\x01\x02")
    assert decode_lower_transport_pdu(_carried(1, plain.encode())) == plain
    segment = SegmentedControl(0x0A, SegmentHeader(5, 1, 1), b"\x01")
    assert decode_lower_transport_pdu(_carried(1, segment.encode())) == segment
