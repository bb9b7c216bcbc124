"""Runs in an air that somebody fills: made-up boards, cloned boards, boards of another network."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fastprovd.bearers.scanner import BleakScan
from fastprovd.campaign.air_picture import MAX_BOARDS
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.verdict import MOST_NAMED, NAMESAKE
from fastprovd.clock import SystemClock
from fastprovd.emulator.hosts import Flaws
from fastprovd.gateway import open_gateway
from fastprovd.mesh.beacons import Advertisement, UnprovisionedDevice
from fastprovd.records import RunState
from tests.support.emulated import config, entropy, world
from tests.support.pretended import haunted
from tests.support.scene import scene


def made_up(number: int) -> Iterator[Advertisement]:
    """Yield loud boards of ours, each with a Device UUID and an address of its own."""
    rng = random.Random(5)
    for _ in range(number):
        address = ":".join(f"{octet:02X}" for octet in b"\x66" + rng.randbytes(5))
        uuid = b"\xdd\xdd" + rng.randbytes(14)
        yield Advertisement(address, UnprovisionedDevice(uuid), -20, 0.0)


@pytest.mark.parametrize(
    ("method", "expected", "most_taken"),
    [(Method.AUTO, None, 6), (Method.DIRECT, 5, 6), (Method.FAST, None, 610)],
)
async def test_made_up_boards_cost_neither_addresses_nor_boards(
    monkeypatch: pytest.MonkeyPatch, method: Method, expected: int | None, most_taken: int
) -> None:
    """Ten thousand of them: the real ones are proven, and what is told stays readable."""
    real = BleakScan.__anext__
    crowd = made_up(10_000)

    async def crowded(scan: BleakScan) -> Advertisement:
        fake = next(crowd, None)
        return await real(scan) if fake is None else replace(fake, seen_s=SystemClock().monotonic())

    monkeypatch.setattr(BleakScan, "__anext__", crowded)

    settings = RunSettings(expected=expected, method=method)
    async with scene(5, 1, flaws=Flaws.none(), settings=settings) as s:
        run = await s.campaign.execute()
        assert run.state is RunState.PARTIAL
        assert run.proven == 5
        assert len(run.missing) <= MOST_NAMED + 1
        taken = sum(r.last - r.first + 1 for r in s.store.reserved_addresses())
        assert taken <= most_taken
        found = [data for kind, data in s.listener.events if kind == "device_found"]
        assert len(found) <= MAX_BOARDS


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("expected", [None, 5])
async def test_boards_that_come_and_go_keep_out_nobody(
    method: Method, expected: int | None
) -> None:
    """Twenty made-up ones a second, louder than all, each on the air for 8 s: all real are proven.

    No link can be opened to any of them, which says nothing about the real ones.
    """
    on_air: list[tuple[float, Advertisement]] = []
    crowd = made_up(10_000)

    def pretended() -> list[Advertisement]:
        now = SystemClock().monotonic()
        on_air.extend((now, next(crowd)) for _ in range(2))
        on_air[:] = [(begun, fake) for begun, fake in on_air if now - begun < 8.0]
        return [fake for _, fake in on_air[-2:]] + [fake for _, fake in on_air[::5]]

    settings = RunSettings(expected=expected, method=method)
    door = haunted(pretended)
    async with scene(5, 1, flaws=Flaws.none(), settings=settings, door=door) as s:
        run = await s.campaign.execute()
        assert run.proven == 5
        assert len(s.true_nodes()) == 5
        assert run.elapsed_s < settings.run_s / 2, "it ends when nothing worth a try is left"


@pytest.mark.parametrize("expected", [None, 3])
@pytest.mark.parametrize("method", ["direct", "fast"])
async def test_a_cloned_board_is_named(tmp_path: Path, method: str, expected: int | None) -> None:
    """Never done with it on the air; it has an address and a remedy."""
    here = world(3)
    here.air.boards[1].uuid = here.air.boards[0].uuid
    async with open_gateway(config(tmp_path), radio=here.radio, entropy=entropy()) as gateway:
        settings = gateway.settings(expected=expected, method=method)
        run = await gateway.execute(gateway.prepare_run(settings))
        left = {b.device_address for b in here.air.boards if b.unicast_address is None}
        if left:
            assert run.state is RunState.PARTIAL
            named = {m.device_address for m in run.missing if m.reason.startswith(NAMESAKE)}
            assert left <= named


async def test_nodes_of_another_network_are_told(tmp_path: Path) -> None:
    """All boards are nodes already, and the advice is about them, not about match."""
    here = world(3)
    for number, life in enumerate(("old", "new")):
        directory = tmp_path / life
        directory.mkdir()
        async with open_gateway(
            config(directory), radio=here.radio, entropy=entropy(number)
        ) as gateway:
            settings = gateway.settings(expected=3)
            run = await gateway.execute(gateway.prepare_run(settings))
    assert run.state is RunState.FAILED
    assert run.reason is not None
    assert "proxies of another network are on the air" in run.reason
    assert "power-cycle" in run.reason
