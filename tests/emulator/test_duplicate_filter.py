"""What a controller calls a duplicate."""

from __future__ import annotations

import pytest

from fastprovd.emulator.duplicate_filter import DuplicateFilter, Reported
from fastprovd.emulator.peripheral import Report

A, B = "24:0A:C4:5E:00:01", "24:0A:C4:5E:00:02"
BOARD = Report(A, -50, connectable=True, service_data={0x1827: bytes(18)})
NODE = Report(A, -50, connectable=True, service_data={0x1828: bytes(17)})
LOUDER = Report(A, -40, connectable=True, service_data={0x1827: bytes(18)})
MESH_PDU = Report(A, -50, connectable=False)
OTHER = Report(B, -50, connectable=True, service_data={0x1827: bytes(18)})


@pytest.mark.parametrize(
    ("kind", "passed"),
    [
        (DuplicateFilter.BY_ADDRESS, [BOARD, MESH_PDU, OTHER]),
        (DuplicateFilter.BY_DATA, [BOARD, NODE, MESH_PDU, OTHER]),
        (DuplicateFilter.OFF, [BOARD, BOARD, LOUDER, NODE, MESH_PDU, MESH_PDU, OTHER, BOARD]),
    ],
)
def test_duplicates_are_held_back(kind: DuplicateFilter, passed: list[Report]) -> None:
    """By address and type of event, and by the data too or not; never by the RSSI."""
    reported = Reported()
    heard = [BOARD, BOARD, LOUDER, NODE, MESH_PDU, MESH_PDU, OTHER, BOARD]
    assert [report for report in heard if reported.is_new(report, kind)] == passed
    reported.restart()
    assert reported.is_new(BOARD, kind)
