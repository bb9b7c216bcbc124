"""A port that bears so many links: who is heard too late is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastprovd.emulator.link_limit import LimitedPort
from fastprovd.emulator.peripheral import Central, PeripheralLink
from tests.support.fake_air import FakeAir, FakeBoard


class _Central(Central):
    """It is told nothing here."""


async def test_links_are_counted_when_the_board_is_heard() -> None:
    """Two of four get a link, the absent one takes nobody's, and no refused board is disturbed."""
    boards = [FakeBoard(f"24:0A:C4:5E:00:{n:02X}") for n in range(5)]
    boards[0].advertising = False
    air = FakeAir(*boards)
    links: list[PeripheralLink] = []
    refused: list[str] = []
    port = LimitedPort(air, lambda opening: len(links) + opening >= 2)
    cancels = [
        port.initiate(b.address, _Central(), links.append, lambda a=b.address: refused.append(a))
        for b in boards
    ]
    await asyncio.sleep(1)
    assert len(links) == 2
    assert refused == [boards[3].address, boards[4].address]
    assert [board.log for board in boards] == [[], ["connected"], ["connected"], [], []]
    assert air.is_used, "the absent board is still waited for"
    for cancel in cancels:
        cancel()
    assert not air.is_used


@pytest.mark.parametrize("after_s", [0.0, 0.01])
async def test_an_attempt_that_is_cancelled_takes_no_link(after_s: float) -> None:
    """Nor is a link refused for its sake."""
    first, second = (FakeBoard(f"24:0A:C4:5E:00:{n:02X}") for n in range(2))
    air = FakeAir(first, second)
    links: list[PeripheralLink] = []
    refused: list[bool] = []
    port = LimitedPort(air, lambda opening: len(links) + opening >= 1)

    def connect(board: FakeBoard) -> Any:
        return port.initiate(board.address, _Central(), links.append, lambda: refused.append(True))

    cancel = connect(first)
    await asyncio.sleep(after_s)
    cancel()
    connect(second)
    await asyncio.sleep(1)
    assert (len(links), refused) == (1, [])
    assert second.log == ["connected"]
