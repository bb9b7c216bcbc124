"""When a board that was provisioned can be spoken to as a proxy."""

from __future__ import annotations

import asyncio

import pytest
from bleak.uuids import normalize_uuid_16

from fastprovd.bearers.swaps import UNSEEN_S, Swaps

BOARD, OTHER = "24:0A:C4:5E:00:01", "24:0A:C4:5E:00:02"


def path_of(device_address: str) -> str:
    return f"/org/bluez/hci0/dev_{device_address.replace(':', '_')}/service000e/char0011"


async def test_the_proxys_data_out_is_what_counts() -> None:
    """Neither another characteristic nor another board, and not what was shown before."""
    swaps = Swaps()
    swaps.characteristic(path_of(BOARD), normalize_uuid_16(0x2ADE))
    swaps.forget(BOARD)
    waiting = asyncio.create_task(swaps.shown(BOARD, seen=True))
    await asyncio.sleep(0.1)
    swaps.characteristic(path_of(BOARD), normalize_uuid_16(0x2ADD))
    swaps.characteristic(path_of(OTHER), normalize_uuid_16(0x2ADE))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    swaps.characteristic(path_of(BOARD), normalize_uuid_16(0x2ADE))
    await waiting
    await swaps.shown(BOARD, seen=True)


async def test_a_board_that_never_tells_is_given_up() -> None:
    """After the time limit; where nothing can be seen the usual time is waited."""
    swaps = Swaps()
    with pytest.raises(TimeoutError):
        await swaps.shown(BOARD, seen=True)
    begun = asyncio.get_running_loop().time()
    await swaps.shown(BOARD, seen=False)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(UNSEEN_S)
