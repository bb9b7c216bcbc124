"""Boards, an emulated adapter and the bearer under test, joined."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.duplicate_filter import DuplicateFilter
from tests.support.fake_air import FakeAir, FakeBoard


def now() -> float:
    return asyncio.get_running_loop().time()


class BearerBench:
    """Without arguments one board; `bearer()` is to be entered by the test."""

    def __init__(self, *boards: FakeBoard) -> None:
        self.boards = boards or (FakeBoard(),)
        self.board = self.boards[0]
        self.air = FakeAir(*self.boards)
        self.adapter = EmulatedAdapter(self.air)

    def bearer(self, **kwargs: Any) -> BleakBearer:
        return BleakBearer(
            scanner_backend=scanner_backend(self.adapter),
            client_backend=client_backend(self.adapter),
            **kwargs,
        )

    def filter_duplicates(self, kind: DuplicateFilter) -> None:
        """Have the controller filter like that; by default it goes by the address."""
        self.adapter.quirks = replace(self.adapter.quirks, duplicate_filter=kind)

    def is_quiet(self) -> bool:
        """Whether nothing is left: no link, no attempt, no discovery."""
        return not (
            self.adapter.connections
            or self.adapter.discovering
            or self.air.is_used
            or any(board.central for board in self.boards)
        )
