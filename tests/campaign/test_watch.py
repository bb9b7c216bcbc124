"""Scanning until something is heard, through scans that break."""

from __future__ import annotations

import asyncio
import math

import pytest
from structlog.testing import capture_logs

from fastprovd.campaign.air_picture import AirPicture, HeardBoard
from fastprovd.campaign.inventory import Inventory
from fastprovd.campaign.watch import ABSENCE_S, FRESH_S, RESTART_S, Watch
from fastprovd.clock import SystemClock
from fastprovd.errors import BluetoothUnavailable, LocalProtocolError
from fastprovd.mesh.beacons import Advertisement, NetworkIdentity, UnprovisionedDevice
from fastprovd.mesh.keys import NetKey
from tests.support.fake_bearer import FakeBearer, Script

NET_KEY = NetKey(bytes(range(16)))
CLOCK = SystemClock()
BROKEN = BluetoothUnavailable("bluetoothd is gone")


def _board(number: int) -> Advertisement:
    data = UnprovisionedDevice(b"\xdd\xdd" + bytes(13) + bytes([number]))
    return Advertisement(f"24:0A:C4:5E:00:{number:02X}", data, -50, 0.0)


PROXY = Advertisement("24:0A:C4:5E:00:77", NetworkIdentity(NET_KEY.network_id), -50, 0.0)


class Scene:
    """A watch over scripted scans."""

    def __init__(self, *scripts: Script, endless: bool = True, fresh_s: float = math.inf) -> None:
        self.bearer = FakeBearer(*scripts, endless=endless)
        self.picture = AirPicture(Inventory(b"\xdd\xdd"), NET_KEY)
        self.told: list[HeardBoard] = []
        self.restarts: list[str] = []
        self.watch = Watch(
            self.bearer, self.picture, self.told.append, self.restarts.append, fresh_s
        )


def _is_proxy(advertisement: Advertisement) -> bool:
    return isinstance(advertisement.data, NetworkIdentity)


async def test_what_is_wanted_is_returned_and_the_scan_has_ended() -> None:
    """The adapter does not discover any more; all that came before is in the picture."""
    scene = Scene([(1.0, _board(1)), (2.0, PROXY), (3.0, _board(2))])
    found = await scene.watch.until(_is_proxy, 10.0)
    assert found is not None
    assert (found.device_address, found.seen_s) == (PROXY.device_address, 2.0)
    assert not scene.bearer.is_scanning
    assert scene.picture.proxies_since(0.0) == [PROXY.device_address]
    assert [board.device_address for board in scene.told] == [_board(1).device_address]


async def test_nothing_wanted_ends_in_time() -> None:
    """When the seconds are over there is no result, and no scan."""
    scene = Scene([(1.0, _board(1))])
    assert await scene.watch.until(_is_proxy, 7.5) is None
    assert CLOCK.monotonic() == 7.5
    assert not scene.bearer.is_scanning


async def test_a_board_is_told_once() -> None:
    """However often and in however many scans it is heard; others are told as not ours."""
    stranger = Advertisement("11:22:33:44:55:66", UnprovisionedDevice(bytes(16)), -50, 0.0)
    scene = Scene(
        [(0.1, _board(1)), (0.2, stranger), (0.3, _board(1)), (0.4, BROKEN)],
        [(0.1, _board(1)), (0.2, _board(2))],
    )
    await scene.watch.listen(5.0)
    told = [(board.device_address[-2:], board.is_ours) for board in scene.told]
    assert told == [("01", True), ("66", False), ("02", True)]


async def test_the_verdict_comes_before_the_picture() -> None:
    """Who is asked whether an advertisement is new does not find it in the picture."""
    scene = Scene([(1.0, _board(1))])
    known: list[int] = []

    def note(_: Advertisement) -> bool:
        known.append(len(scene.picture.boards))
        return True

    assert await scene.watch.until(note, 5.0) is not None
    assert known == [0]
    assert len(scene.picture.boards) == 1


async def test_a_broken_scan_is_begun_again() -> None:
    """After a second, however often; why it broke is known until something is heard."""
    scene = Scene([(1.0, BROKEN)], [(0.0, BROKEN)], [(4.0, PROXY)])
    seen: list[object] = []

    async def look() -> None:
        for _ in range(2):
            await asyncio.sleep(2.5)
            seen.append(scene.watch.last_error)

    looking = asyncio.create_task(look())
    with capture_logs() as logs:
        assert await scene.watch.until(_is_proxy, 60.0) is not None
    await looking
    assert scene.bearer.scans == [
        [0.0, 1.0],
        [1.0 + RESTART_S, 1.0 + RESTART_S],
        [1.0 + 2 * RESTART_S, 5.0 + 2 * RESTART_S],
    ]
    assert [entry["event"] for entry in logs] == ["scan_broken"] * 2
    assert seen == [BROKEN, BROKEN]
    assert scene.watch.last_error is None


async def test_a_scan_that_just_ends_is_begun_again() -> None:
    """It is no error, and no reason to spin."""
    scene = Scene([(0.5, _board(1))], endless=False)
    await scene.watch.listen(3.2)
    assert [begin for begin, _ in scene.bearer.scans] == [0.0, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert scene.watch.last_error is None


async def test_a_scan_that_never_works_leaves_its_reason() -> None:
    """The caller can say why nothing was heard."""
    scene = Scene(*[[(0.0, BROKEN)]] * 20)
    assert await scene.watch.until(_is_proxy, 8.0) is None
    assert scene.watch.last_error is BROKEN


async def test_scans_begin_anew() -> None:
    """A controller may tell an unchanged advertiser once in a scan; none lasts for long."""
    scene = Scene(*[[(0.1, _board(1))]] * 10, fresh_s=FRESH_S)
    await scene.watch.listen(2.5 * FRESH_S)
    ends = [FRESH_S, 2 * FRESH_S, 2.5 * FRESH_S]
    assert scene.bearer.scans == [[0.0, ends[0]], ends[:2], ends[1:]]
    (board,) = scene.told
    assert board.last_seen_s == 2 * FRESH_S + 0.1
    assert scene.restarts == []


async def test_what_is_wanted_may_come_in_a_later_scan() -> None:
    """The wait goes on over the scans, and ends with the one that brings it."""
    scene = Scene([(0.1, _board(1))], [(0.5, PROXY)], fresh_s=FRESH_S)
    found = await scene.watch.until(_is_proxy, 10.0)
    assert found is not None
    assert found.seen_s == FRESH_S + 0.5
    assert not scene.bearer.is_scanning


async def test_a_series_of_broken_scans_is_one_warning() -> None:
    """The next series, after something was heard, is another one."""
    broken: Script = [(0.0, BROKEN)]
    scene = Scene(broken, broken, [(1.0, _board(1)), (2.0, BROKEN)], broken, ())
    with capture_logs() as logs:
        await scene.watch.listen(10.0)
    assert [entry["log_level"] for entry in logs] == ["warning", "debug", "warning", "debug"]


async def test_a_bug_in_the_verdict_is_no_broken_scan() -> None:
    """Other exceptions come out, and the scan has ended."""
    scene = Scene([(1.0, PROXY)])

    def wrong(_: Advertisement) -> bool:
        raise LocalProtocolError("no plan was made")

    with pytest.raises(LocalProtocolError):
        await scene.watch.until(wrong, 5.0)
    assert not scene.bearer.is_scanning


async def test_watching_goes_on_while_it_is_needed() -> None:
    """Beside a link, scan after scan; then the adapter rests until it is needed again."""
    scene = Scene([(1.0, _board(1))], [(1.0, _board(2))], fresh_s=FRESH_S)
    needed = True
    watching = asyncio.create_task(scene.watch.run(lambda: needed))
    await asyncio.sleep(60.0)
    assert len(scene.told) == 2
    assert scene.bearer.is_scanning
    needed = False
    await asyncio.sleep(2 * FRESH_S)
    scans = len(scene.bearer.scans)
    await asyncio.sleep(60.0)
    assert len(scene.bearer.scans) == scans
    needed = True
    await asyncio.sleep(1.0)
    assert scene.bearer.is_scanning
    watching.cancel()
    await asyncio.wait([watching])
    assert watching.cancelled()
    assert not scene.bearer.is_scanning


async def test_time_without_a_scan_does_not_count() -> None:
    """What is heard after an absence is heard in time."""
    scene = Scene([(9.0, PROXY)])
    scene.bearer.refuses_scans_until_s = 30.0
    assert await scene.watch.until(_is_proxy, 10.0) is not None
    assert CLOCK.monotonic() == 39.0
    assert scene.watch.deaf_s == 30.0


async def test_an_absence_that_lasts_is_not_waited_for() -> None:
    """Nor by the waits after the one in which it began."""
    scene = Scene()
    scene.bearer.refuses_scans_until_s = 3600.0
    assert await scene.watch.until(_is_proxy, 10.0) is None
    assert CLOCK.monotonic() == 10.0 + ABSENCE_S
    assert await scene.watch.until(_is_proxy, 10.0) is None
    assert CLOCK.monotonic() == 20.0 + ABSENCE_S
    assert scene.watch.deaf_s == ABSENCE_S
    assert scene.restarts == [str(BROKEN)]
