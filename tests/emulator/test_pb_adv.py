"""PB-ADV between boards: what is sent, what is lost, who wins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.pb_adv import CloseReason, GenericPdu, Kind
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.provisioning.pdus import PduType
from tests.conftest import RunVirtual
from tests.emulator.top import Top, address_of


class ListeningAir(Air):
    """Remembers every PB-ADV PDU, and loses those that `lost` names."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sent: list[tuple[float, Board, GenericPdu]] = []
        self.lost: Callable[[Board, GenericPdu], bool] = lambda sender, pdu: False

    def send_pb_adv(
        self, sender: Board, pdu: GenericPdu, receiver: Board, times: list[float]
    ) -> None:
        self.sent.append((times[0], sender, pdu))
        if not self.lost(sender, pdu):
            super().send_pb_adv(sender, pdu, receiver, times)


async def started(boards: int = 2, seed: int = 1) -> tuple[ListeningAir, Top, Board]:
    air = ListeningAir(seed)
    for number in range(1, boards + 1):
        air.add_board(address_of(number), flaws=Flaws.none())
    await asyncio.sleep(3.0)
    top = Top(air)
    primary = air.board(await top.prepare())
    await top.start(count=boards - 1)
    return air, top, primary


def times_of(air: ListeningAir, wanted: Callable[[Board, GenericPdu], bool]) -> list[float]:
    return [t for t, sender, pdu in air.sent if wanted(sender, pdu)]


async def test_a_session_has_the_recorded_pdus() -> None:
    """Each provisioning PDU in its fragments, each transaction acknowledged, four Link Close."""
    air, _, primary = await started()
    await asyncio.sleep(15.0)
    device = next(board for board in air.boards if board is not primary)
    fragments = Counter(
        (sender is primary, pdu.message) for _, sender, pdu in air.sent if pdu.kind is Kind.FRAGMENT
    )
    assert fragments == {
        (True, PduType.INVITE): 1,
        (True, PduType.START): 1,
        (True, PduType.PUBLIC_KEY): 3,
        (True, PduType.CONFIRMATION): 2,
        (True, PduType.RANDOM): 2,
        (True, PduType.DATA): 2,
        (False, PduType.CAPABILITIES): 1,
        (False, PduType.PUBLIC_KEY): 3,
        (False, PduType.CONFIRMATION): 2,
        (False, PduType.RANDOM): 2,
        (False, PduType.COMPLETE): 1,
    }
    assert len(times_of(air, lambda _, pdu: pdu.kind is Kind.LINK_CLOSE)) == 4
    acknowledged = {
        (sender is primary, pdu.transaction) for _, sender, pdu in air.sent if pdu.kind is Kind.ACK
    }
    assert acknowledged == {(False, n) for n in range(6)} | {(True, 0x80 + n) for n in range(5)}
    assert device.unicast_address == 0x0010
    assert device.parent == primary.device_address


async def test_link_close_comes_four_times() -> None:
    """Each 100 ms after the end of the one before; then the slot is free."""
    air, _, _ = await started()
    await asyncio.sleep(15.0)
    closes = times_of(air, lambda _, pdu: pdu.kind is Kind.LINK_CLOSE)
    gaps = [b - a for a, b in pairwise(closes)]
    assert all(gap >= 0.180 for gap in gaps)
    closed = next(e.time_s for e in air.timeline if e.what is Happening.LINK_CLOSED)
    assert closed - closes[-1] == pytest.approx(0.19, abs=0.02)


async def test_what_is_not_acknowledged_is_repeated_for_3_s() -> None:
    """Link Open every 0.45 s, then Link Close for timeout; the next beacon begins anew."""
    air, _, primary = await started()
    air.lost = lambda _, pdu: pdu.kind is Kind.LINK_ACK
    await asyncio.sleep(5.0)
    first = next(e.time_s for e in air.timeline if e.what is Happening.LINK_OPENED)
    await asyncio.sleep(4.0)
    opens = [t for t in times_of(air, lambda _, pdu: pdu.kind is Kind.LINK_OPEN) if t < first + 4.5]
    gaps = [b - a for a, b in pairwise(opens)]
    assert all(gap == pytest.approx(0.45, abs=0.02) for gap in gaps)
    assert opens[-1] - first == pytest.approx(3.0, abs=0.5)
    reasons = {pdu.reason for _, _, pdu in air.sent if pdu.kind is Kind.LINK_CLOSE}
    assert reasons == {CloseReason.TIMEOUT}
    air.lost = lambda _, pdu: False
    await asyncio.sleep(15.0)
    assert len(primary.children) == 1


async def test_two_provisioners_chase_one_device() -> None:
    """One wins, the other gets no answer and times out; no address is given twice."""
    air, _, _ = await started(3)
    await asyncio.sleep(25.0)
    provisioners = [board for board in air.boards if board.is_provisioning]
    assert len(provisioners) == 3
    late = air.add_board(address_of(0x80), flaws=Flaws.none())
    await asyncio.sleep(15.0)
    links = {
        sender.device_address
        for _, sender, pdu in air.sent
        if pdu.kind is Kind.LINK_OPEN and pdu.link.device is late
    }
    assert len(links) >= 2
    assert late.parent in links
    winners = [board for board in air.boards if late.device_address in board.children]
    assert len(winners) == 1
    completes = [e for e in air.timeline if e.what is Happening.COMPLETE_HEARD]
    assert len({e.address for e in completes}) == len(completes) == 3


async def test_a_lost_complete_leaves_a_ghost() -> None:
    """The device is a node that its provisioner does not know; its address is burnt."""
    air, _, primary = await started()
    air.lost = lambda _, pdu: pdu.message is PduType.COMPLETE
    await asyncio.sleep(90.0)
    ghost = next(board for board in air.boards if board is not primary)
    assert ghost.unicast_address == 0x0010
    assert primary.children == ()
    assert primary.listed_addresses == ()
    assert not ghost.has_app_key
    air.lost = lambda _, pdu: False
    air.add_board(address_of(0x80), flaws=Flaws.none())
    await asyncio.sleep(20.0)
    assert primary.listed_addresses == (0x0011,)


async def test_a_lost_data_burns_an_address() -> None:
    """The device stays unprovisioned, and gets the next address at the next attempt."""
    air, _, primary = await started()
    air.lost = lambda _, pdu: pdu.message is PduType.DATA
    while not times_of(air, lambda _, pdu: pdu.message is PduType.DATA):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await asyncio.sleep(40.0)
    air.lost = lambda _, pdu: False
    await asyncio.sleep(40.0)
    device = next(board for board in air.boards if board is not primary)
    assert device.parent == primary.device_address
    assert device.unicast_address is not None
    assert device.unicast_address > 0x0010


async def test_all_addresses_burnt_ends_provisioning() -> None:
    """After six lost Data the Primary opens no more links, although the device still beacons."""
    air, _, primary = await started()
    air.lost = lambda _, pdu: pdu.message is PduType.DATA
    await asyncio.sleep(400.0)
    data = {
        pdu.payload.unicast_address
        for _, _, pdu in air.sent
        if pdu.message is PduType.DATA and pdu.payload is not None
    }
    assert data == set(range(0x0010, 0x0016))
    air.lost = lambda _, pdu: False
    await asyncio.sleep(60.0)
    assert primary.children == ()


def test_a_transaction_is_repeated_by_one_timer(run_virtual: RunVirtual[None]) -> None:
    """What was still on the air when a transaction began does not repeat it early."""

    async def main(seed: int) -> list[float]:
        air, _, _ = await started(5, seed)
        await asyncio.sleep(20.0)
        capabilities: dict[Board, list[float]] = {}
        for t, sender, pdu in air.sent:
            if pdu.message is PduType.CAPABILITIES:
                capabilities.setdefault(sender, []).append(t)
        return [b - a for times in capabilities.values() for a, b in pairwise(times)]

    gaps = [gap for seed in range(12) for gap in run_virtual(main(seed))]
    assert gaps
    assert min(gaps) > 0.43
