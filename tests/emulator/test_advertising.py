"""The advertising queue and what lives in its gaps."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from fastprovd.emulator import firmware
from fastprovd.emulator.advertising import AdvertisingQueue, QueuedPdu
from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.peripheral import Report
from fastprovd.emulator.timeline import Happening
from tests.emulator.top import PROVISIONING, PROXY, Top, address_of


async def test_pdus_leave_one_after_the_other() -> None:
    """90 ms each, three to five transmissions, mostly four, over about 87 ms."""
    air = Air(1)
    changes: list[bool] = []
    queue = AdvertisingQueue(
        air.loop, air.random_for("queue"), lambda: changes.append(queue.is_idle)
    )
    sent: list[list[float]] = []
    for _ in range(40):
        assert queue.put(QueuedPdu(sent.append))
    await asyncio.sleep(5.0)
    assert len(sent) == 40
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(sent)]
    assert all(0.080 <= gap <= 0.100 for gap in gaps)
    assert sum(gaps) / len(gaps) == pytest.approx(0.090, abs=0.002)
    assert {len(times) for times in sent} <= {3, 4, 5}
    assert sum(len(times) == 4 for times in sent) > 30
    assert changes == [False, True]


async def test_a_cancelled_pdu_takes_no_time() -> None:
    """What is cancelled before its turn is skipped; the callbacks of the others run."""
    air = Air(1)
    queue = AdvertisingQueue(air.loop, air.random_for("queue"), lambda: None)
    log: list[tuple[str, float]] = []

    def pdu(name: str) -> QueuedPdu:
        return QueuedPdu(
            lambda times: None,
            started=lambda: log.append((f"{name} started", air.loop.time())),
            ended=lambda: log.append((f"{name} ended", air.loop.time())),
        )

    first, second, third = pdu("first"), pdu("second"), pdu("third")
    for one in (first, second, third):
        queue.put(one)
    second.cancelled = True
    await asyncio.sleep(1.0)
    assert [what for what, _ in log] == [
        "first started",
        "first ended",
        "third started",
        "third ended",
    ]
    assert log[-1][1] == pytest.approx(2 * firmware.SLOT_S)


async def test_without_a_buffer_a_pdu_is_lost() -> None:
    """The queue holds 200 PDUs besides the one on the air."""
    air = Air(1)
    queue = AdvertisingQueue(air.loop, air.random_for("queue"), lambda: None)
    taken = [queue.put(QueuedPdu(lambda times: None)) for _ in range(203)]
    assert taken == [True] * 201 + [False] * 2
    queue.stop()
    assert queue.is_idle


async def heard(air: Air, seconds: float) -> list[tuple[float, Report]]:
    reports: list[tuple[float, Report]] = []
    stop = air.adapter().observe(lambda report: reports.append((air.loop.time(), report)))
    await asyncio.sleep(seconds)
    stop()
    return reports


async def test_an_unprovisioned_board_is_heard_as_measured() -> None:
    """On the air within 3 s, a beacon every 5.0 s, connectable about every 100 ms in between."""
    air = Air(7)
    board = air.add_board(address_of(1))
    reports = await heard(air, 23.0)
    assert 0.0 < reports[0][0] < 3.1
    beacons = [t for t, report in reports if not report.connectable]
    assert len(beacons) in (4, 5)
    gaps = [b - a for a, b in pairwise(beacons)]
    assert all(gap == pytest.approx(5.0, abs=0.01) for gap in gaps)
    connectable = [t for t, report in reports if report.connectable]
    assert all(b - a < 0.21 for a, b in pairwise(connectable))
    assert len(connectable) > 150
    report = next(report for _, report in reports if report.connectable)
    assert report.service_data == {PROVISIONING: board.uuid + b"\x00\x00"}
    assert not any(report.service_data for _, report in reports if not report.connectable)


async def test_a_running_provisioner_is_hardly_heard() -> None:
    """With count 1 the proxy is on at 3 s, but the full queue leaves few connectable events."""
    air = Air(2)
    for number in range(1, 13):
        air.add_board(address_of(number), flaws=Flaws.none())
    await asyncio.sleep(5.0)  # first beacons, hence first links, soon after INFO_SET
    top = Top(air)
    primary = await top.prepare()
    begun = await top.start(count=1)
    reports = await heard(air, 40.0)
    proxy_on = next(e.time_s for e in air.timeline if e.what is Happening.PROXY_ON)
    assert proxy_on - begun == pytest.approx(3.0, abs=0.1)
    times = [
        t - begun
        for t, report in reports
        if report.device_address == primary and PROXY in report.service_data
    ]
    assert sum(3.0 <= t < 9.0 for t in times) < 15
    assert sum(t > 25.0 for t in times) > 50
