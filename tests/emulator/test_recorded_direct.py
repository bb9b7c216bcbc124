"""The direct way and the end of the Node Identity minute: recorded scripts over emulated boards.

What the recorded Top did is done again: each connection, each message, each hang-up, each scan.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest

from fastprovd.emulator import firmware
from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.frames import MeshFrame
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.peripheral import Report
from fastprovd.mesh.beacons import decode_service_data
from fastprovd.mesh.keys import DevKey
from tests.conftest import RunVirtual
from tests.emulator.top import PROXY, payload_of, top_of
from tests.support.conversation import Step, conversation
from tests.support.data import recording
from tests.support.tally import place_boards

FLAWS = replace(Flaws.none(), silence_after_node_identity=True)
DIED = ("direct-proxy-off-only-bluedroid", "primary-identity-minute-bluedroid")
NAMES = (
    "direct-proxy-off-only-bluedroid",
    "direct-proxy-off-only-nimble",
    "direct-single-bluedroid",
    "direct-single-nimble",
    "primary-identity-minute-bluedroid",
    "primary-identity-off-bluedroid",
)
# A Node Identity that ends earlier was ended by the Top.
ENDED_BY_TOP_S = 30.0
# From the last event of a recording on nothing more is to come.
REST_S = 1.0


class _ListeningAir(Air):
    """Remembers who sent mesh PDUs."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.sent: list[tuple[float, str]] = []

    def send_mesh(self, sender: Board, frame: MeshFrame, times: list[float]) -> None:
        self.sent.append((times[0], sender.device_address))
        super().send_mesh(sender, frame, times)


@dataclass
class Story:
    """What came of a script, recorded or emulated; times in seconds since the last Complete."""

    answers: list[list[tuple[int, int, bytes]]] = field(default_factory=list)
    senders: list[set[str]] = field(default_factory=list)
    advertised: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    last_identity: dict[str, float] = field(default_factory=dict)
    hung_up_by_board: int = 0

    def heard(self, device_address: str, service: int, data: bytes, at: float) -> None:
        """Take an advertisement; repetitions of a kind are one."""
        kind = type(decode_service_data(service, data)).__name__
        kinds = self.advertised[device_address]
        if kinds[-1:] != [kind]:
            kinds.append(kind)
        if kind == "NodeIdentity":
            self.last_identity[device_address] = at


@dataclass
class _Move:
    """One thing the Top did: connect, disconnect, send or scan; `until` is when the next came."""

    t: float
    what: str
    address: str
    step: Step | None = None
    until: float = 0.0


def _script(name: str) -> list[_Move]:
    """Return all that the Top did, in order."""
    moves: list[_Move] = []
    for device in recording(name).header["devices"]:
        address = device["bd_addr"]
        moves += [_Move(step.t, "send", address, step) for step in conversation(name, address)]
    for event in recording(name).of("connect", "disconnect", "note"):
        if event["ev"] == "connect" or event.get("by") == "top":
            moves.append(_Move(event["t"], event["ev"], event["addr"]))
        elif event.get("text") == "scan on":
            moves.append(_Move(event["t"], "scan", ""))
    moves.sort(key=lambda move: move.t)
    for move, following in pairwise(moves):
        move.until = following.t
    return moves


def _recorded(name: str) -> Story:
    story = Story()
    on_air = [(event["t"], event["addr"]) for event in recording(name).of("air_mesh")]
    for move in _script(name):
        if move.step is not None:
            story.answers.append(move.step.answers)
            story.senders.append({sender for t, sender in on_air if move.t <= t < move.until})
    completes = [
        e["t"] for e in recording(name).of("proxy_rx") if (e["type"], e["pdu"]) == (3, "08")
    ]
    for event in recording(name).of("adv"):
        data = bytes.fromhex(event["data"])
        # Flags, list of services, service data: all of them in every advertisement.
        service = int.from_bytes(data[9:11], "little")
        at = event.get("t_last", event["t"]) - completes[-1]
        story.heard(event["addr"], service, data[11:], at)
    story.hung_up_by_board = sum(
        event["by"] == "board" for event in recording(name).of("disconnect")
    )
    return story


class _Player:
    """Does a script over emulated boards; `shift` is how much later it is than it was."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.air = _ListeningAir(name)
        self.top = top_of(self.air, name)
        self.story = Story()
        self.shift = 0.0
        self.completed = 0.0
        self._nodes: set[str] = set()
        self._stop_scan: Callable[[], None] | None = None

    async def play(self) -> Story:
        place_boards(self.air, self.name, FLAWS)
        for move in _script(self.name):
            await self._until(move.t)
            if move.what == "scan":
                self._stop_scan = self._stop_scan or self.top.port.observe(self._heard)
            elif move.what == "connect":
                await self._connect(move.t, move.address)
            elif move.what == "disconnect":
                self.top.disconnect()
            elif move.step is not None:
                await self._send(move.step, move.until)
        await self._until(recording(self.name).events[-1]["t"] + REST_S)
        if self._stop_scan is not None:
            self._stop_scan()
        self.story.hung_up_by_board = len(self.top.disconnections)
        return self.story

    async def _until(self, t: float) -> None:
        await asyncio.sleep(t + self.shift - self.top.loop.time())

    def _heard(self, report: Report) -> None:
        for service, data in report.service_data.items():
            at = self.top.loop.time() - self.completed
            self.story.heard(report.device_address, service, data, at)

    async def _connect(self, t: float, address: str) -> None:
        await self.top.find(
            lambda report: report.device_address == address and bool(report.service_data), 60.0
        )
        if self._stop_scan is not None:
            self._stop_scan()
            self._stop_scan = None
        await self.top.connect(address)
        self.shift = self.top.loop.time() - t
        if address not in self._nodes:
            self._nodes.add(address)
            device = next(
                d for d in recording(self.name).header["devices"] if d["bd_addr"] == address
            )
            session = device["provisioning"]
            await self.top.provision(
                int(device["unicast"], 16),
                private=bytes.fromhex(session["private_key"]),
                random=bytes.fromhex(session["random"]).ljust(32, b"\x00"),
            )
            self.completed = self.top.loop.time()
        self.top.subscribe(PROXY)

    async def _send(self, step: Step, until: float) -> None:
        top, before, began = self.top, len(self.top.received), self.top.loop.time()
        key = top.stack.dev_keys[step.dst] if isinstance(step.key, DevKey) else top.app_key
        top.send(step.payload, dst=step.dst, key=key, ttl=step.ttl)
        with contextlib.suppress(TimeoutError):  # the comparison will tell what is missing
            await top.until(lambda: len(top.received) >= before + len(step.answers), 3.0)
        self.shift = max(self.shift, top.loop.time() - until)
        await self._until(until)
        self.story.answers.append(
            [(e.src, e.ttl, payload_of(e.message)) for e in top.received[before:]]
        )
        self.story.senders.append({sender for t, sender in self.air.sent if t >= began})


@pytest.fixture(autouse=True)
def _as_recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "BOOT_JITTER_S", 0.0)
    died = request.getfixturevalue("name") in DIED
    monkeypatch.setattr(firmware, "SILENCE_WITHOUT_LINK", float(died))
    monkeypatch.setattr(firmware, "SILENCE_WITH_LINK", float(died))


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_script_has_the_recorded_answers(
    run_virtual: RunVirtual[Any], name: str
) -> None:
    """Message by message the same answers, octet by octet, and the same boards on the air."""

    async def main() -> Story:
        return await _Player(name).play()

    recorded, own = _recorded(name), run_virtual(main())
    assert own.answers == recorded.answers
    assert own.hung_up_by_board == recorded.hung_up_by_board
    assert own.senders == recorded.senders


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_script_has_the_recorded_advertisements(
    run_virtual: RunVirtual[Any], name: str
) -> None:
    """What was heard of each board while the Top scanned, and when its Node Identity ended."""

    async def main() -> Story:
        return await _Player(name).play()

    recorded, own = _recorded(name), run_virtual(main())
    assert own.advertised == recorded.advertised
    assert set(own.last_identity) == set(recorded.last_identity)
    for address, at in recorded.last_identity.items():
        if name.startswith("direct") and at > ENDED_BY_TOP_S:
            assert at == pytest.approx(60.0, abs=0.2)
            assert own.last_identity[address] == pytest.approx(at, abs=0.2)
