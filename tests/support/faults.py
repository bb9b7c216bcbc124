"""What may go wrong around a run over D-Bus, and the moments at which it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bleak.exc import BleakDBusError
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.bluez import Bluetoothd
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.records import RunState
from tests.support.scene import Scene, scene
from tests.support.traced import TracedBearer

BOARDS: Final = 20
# bluetoothd restarts in 0.6 to 2.2 s to a powered adapter; a D-Bus daemon with it is no slower.
RESTARTS_IN_S: Final = 2.2


@dataclass(frozen=True)
class Phase:
    """A moment of a run: in `state`, so long after it began, or when something passes."""

    name: str
    state: RunState
    passes: str = ""
    after_s: float = 0.0

    @property
    def has_link(self) -> bool:
        """Whether a link is open then."""
        return self.state not in (RunState.SCANNING, RunState.CONNECTING, RunState.PROVISIONING)


def _pdu(name: str) -> Phase:
    return Phase(name, RunState.PROVISIONING_PRIMARY, name)


PHASES: Final = (
    Phase("scan", RunState.SCANNING, after_s=0.5),
    Phase("connect", RunState.CONNECTING, "connect"),
    _pdu("INVITE sent"),
    _pdu("CAPABILITIES received"),
    _pdu("START sent"),
    _pdu("PUBLIC_KEY sent"),
    _pdu("PUBLIC_KEY received"),
    _pdu("CONFIRMATION sent"),
    _pdu("CONFIRMATION received"),
    _pdu("RANDOM sent"),
    _pdu("RANDOM received"),
    _pdu("DATA sent"),
    _pdu("COMPLETE received"),
    Phase("AppKey Add sent", RunState.CONFIGURING_PRIMARY, "DevKey sent"),
    Phase("AppKey Status received", RunState.CONFIGURING_PRIMARY, "DevKey received"),
    Phase("INFO_SET sent", RunState.CONFIGURING_PRIMARY, "AppKey sent"),
    Phase("waiting", RunState.PROVISIONING, after_s=2.0),
    Phase("collecting", RunState.COLLECTING, after_s=0.5),
    Phase("proving", RunState.PROVING, after_s=0.2),
)


@dataclass
class World:
    """A scene, what is behind its door, and the moment that is waited for.

    `logged` are the names of the events in the log, in the end.
    """

    scene: Scene
    bus: PrivateBus
    bluetoothd: Bluetoothd
    bearer: TracedBearer
    phase: Phase
    passed_in: asyncio.Future[RunState]
    others: AsyncExitStack
    victims: list[Board] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    async def moment(self) -> RunState:
        """Wait for the phase, and return the state of the run at that moment."""
        if self.phase.passes:
            return await self.passed_in
        await self.scene.listener.reached(self.phase.state)
        await asyncio.sleep(self.phase.after_s)
        return self.scene.campaign.run.state

    @property
    def primary(self) -> Board:
        """The board that the run works on, or will work on."""
        boards, air = self.scene.air.boards, self.scene.air
        if self.bearer.partner is not None:
            return air.board(self.bearer.partner)
        return max(boards, key=lambda board: air.adapter().rssi_dbm(board.device_address))

    @property
    def another(self) -> Board:
        """Some other board."""
        return next(b for b in reversed(self.scene.air.boards) if b is not self.primary)


@asynccontextmanager
async def world(bus: PrivateBus, host: Host, phase: Phase, seed: int) -> AsyncIterator[World]:
    """Open a scene with stock boards over D-Bus."""
    passed_in: asyncio.Future[RunState] = asyncio.get_running_loop().create_future()
    behind: list[tuple[Bluetoothd, TracedBearer]] = []

    def passed(name: str) -> None:
        if name == phase.passes and not passed_in.done():
            passed_in.set_result(s.campaign.run.state)

    @asynccontextmanager
    async def door(adapter: EmulatedAdapter) -> AsyncIterator[BleakBearer]:
        async with Bluetoothd(adapter, bus.address) as bluetoothd, TracedBearer(passed) as bearer:
            behind.append((bluetoothd, bearer))
            yield bearer

    async with (
        scene(BOARDS, seed, host=host, door=door) as s,
        AsyncExitStack() as others,
    ):
        bluetoothd, bearer = behind[0]
        bearer.net_keys = list(s.top.stack.net_keys.values())
        yield World(s, bus, bluetoothd, bearer, phase, passed_in, others)


@dataclass(frozen=True)
class Fault:
    """`happen` lasts until it is over; `took_effect` is asked at the end of the run.

    `spares_boards`: the run can lose nothing by it. `needs_link`: it can only happen to one.
    """

    name: str
    happen: Callable[[World], Coroutine[Any, Any, None]]
    took_effect: Callable[[World], bool]
    spares_boards: bool = True
    needs_link: bool = False


async def _killed(w: World) -> None:
    await w.bluetoothd.kill()
    await asyncio.sleep(RESTARTS_IN_S)
    await w.bluetoothd.start()


async def _killed_and_busy(w: World) -> None:
    w.scene.adapter.scan_outlives_crash = True
    await _killed(w)


async def _stopped(w: World) -> None:
    await w.bluetoothd.terminate()
    await asyncio.sleep(RESTARTS_IN_S)
    await w.bluetoothd.start()


async def _bus_gone(w: World) -> None:
    w.bus.kill()
    await asyncio.sleep(RESTARTS_IN_S)
    await asyncio.to_thread(w.bus.start)
    await w.bluetoothd.start()


def _off(seconds: float) -> Callable[[World], Coroutine[Any, Any, None]]:
    async def happen(w: World) -> None:
        w.scene.adapter.power(on=False)
        await asyncio.sleep(seconds)
        w.scene.adapter.power(on=True)

    return happen


async def _unplugged(w: World) -> None:
    await w.bluetoothd.unplug()
    await asyncio.sleep(30)
    w.bluetoothd.plug("hci1")


def _cut(which: Callable[[World], Board]) -> Callable[[World], Coroutine[Any, Any, None]]:
    async def happen(w: World) -> None:
        w.victims.append(which(w))
        w.victims[-1].power_off()

    return happen


async def _primary_reboots(w: World) -> None:
    victim = w.primary  # a second later the run may be at work on another one
    w.victims.append(victim)
    victim.power_off()
    await asyncio.sleep(1)
    victim.power_on()


async def _link_lost(w: World) -> None:
    w.scene.adapter.lose_links()


def _refused(name: str, text: str) -> Callable[[World], Coroutine[Any, Any, None]]:
    async def happen(w: World) -> None:
        w.scene.adapter.fail_connects.extend(BleakDBusError(name, [text]) for _ in range(2))
        w.scene.adapter.lose_links()

    return happen


async def _busy_for_scans(w: World) -> None:
    w.scene.adapter.fail_scans.extend(
        BleakDBusError("org.bluez.Error.InProgress", ["Operation already in progress"])
        for _ in range(6)
    )
    w.scene.adapter.lose_links()


async def _stale_data(w: World) -> None:
    # Until the run listens again: it goes on as a proxy client on the links of PB-GATT.
    w.scene.adapter.hold_data(12)


async def _other_client_scans(w: World) -> None:
    bus = await MessageBus(bus_address=w.bus.address).connect()

    async def leave() -> None:
        bus.disconnect()
        await bus.wait_for_disconnect()

    w.others.push_async_callback(leave)
    begin = Message(
        destination="org.bluez",
        path=f"/org/bluez/{w.scene.adapter.name}",
        interface="org.bluez.Adapter1",
        member="StartDiscovery",
    )
    # It is refused while a connection is being opened.
    while (await bus.call(begin)).message_type is not MessageType.METHOD_RETURN:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def _was_noticed(w: World) -> bool:
    return "bluetooth_lost" in w.logged


def _link_was_missed(w: World) -> bool:
    return not {"link_lost", "write_failed"}.isdisjoint(w.logged)


def _connects_failed(w: World) -> bool:
    return not w.scene.adapter.fail_connects


FAULTS: Final = (
    Fault("bluetoothd killed", _killed, _was_noticed),
    Fault("bluetoothd killed, scan goes on", _killed_and_busy, _was_noticed),
    Fault("bluetoothd stopped", _stopped, _was_noticed),
    Fault("D-Bus gone", _bus_gone, _was_noticed),
    Fault("adapter off for 5 s", _off(5), _was_noticed),
    Fault("adapter off for 30 s", _off(30), _was_noticed),
    Fault("unplugged for 30 s, then hci1", _unplugged, _was_noticed),
    Fault("link lost", _link_lost, _link_was_missed, needs_link=True),
    Fault(
        "connection fails",
        # Not "refused": that is BlueZ's word for an adapter that bears no more links.
        _refused("org.bluez.Error.Failed", "le-connection-unknown"),
        _connects_failed,
    ),
    Fault(
        "le-connection-abort-by-local",
        _refused("org.bluez.Error.Failed", "le-connection-abort-by-local"),
        _connects_failed,
    ),
    Fault(
        "InProgress on connect",
        _refused("org.bluez.Error.InProgress", "In Progress"),
        _connects_failed,
    ),
    Fault("InProgress on scan", _busy_for_scans, lambda w: not w.scene.adapter.fail_scans),
    Fault("stale advertisement data", _stale_data, lambda w: w.scene.adapter.held_reports > 0),
    Fault("another client scans", _other_client_scans, lambda w: w.scene.adapter.discovering),
    Fault(
        "Primary loses power",
        _cut(lambda w: w.primary),
        lambda w: not w.victims[0].is_powered,
        spares_boards=False,
    ),
    Fault(
        "Primary reboots", _primary_reboots, lambda w: w.victims[0].is_powered, spares_boards=False
    ),
    Fault(
        "another board loses power",
        _cut(lambda w: w.another),
        lambda w: not w.victims[0].is_powered,
        spares_boards=False,
    ),
)
