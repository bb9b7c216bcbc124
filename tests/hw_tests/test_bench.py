"""What a bench can not do is a reason to skip, and what it must not do is an error."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from hwbench import bench as bench_module
from hwbench.bench import Bench, RealSurroundings
from hwbench.config import BenchConfig, BoardConfig, GatewayConfig, Service
from hwbench.timeline import BenchTimeout

BOARDS = tuple(
    BoardConfig(f"n0{n}", f"/dev/tty{n}", "esp32c3", f"24:0A:C4:00:00:0{n}") for n in (1, 2, 3)
)
CONFIG = BenchConfig("desk-1", GatewayConfig(), "localhost", 1883, "none", BOARDS)


class Unfit(Exception):
    """The test would be skipped."""


def give_up(reason: str) -> NoReturn:
    raise Unfit(reason)


class Switch:
    """Power whose boards boot when they get it, as far as their consoles say."""

    def __init__(self, bench: Bench, *, dead: str = "") -> None:
        self._bench = bench
        self._dead = dead
        self.on: dict[str, bool] = {}

    def cut(self, board: BoardConfig) -> None:
        self.on[board.id] = False

    def restore(self, board: BoardConfig) -> None:
        self.on[board.id] = True
        if board.id != self._dead:
            for text in ("Initializing...", "BLE Mesh Fast Prov Node initialized"):
                self._bench.timeline.add(board.id, f"I (1) EXAMPLE: {text}")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench that is not opened: no port, no broker."""
    made = Bench(CONFIG, RealSurroundings(CONFIG), tmp_path / "session", give_up)
    yield made
    made.timeline.close()


def test_without_power_the_boards_are_taken_as_they_are(bench: Bench) -> None:
    """Once, and all of them; nobody can make them forget or be away."""
    assert bench.fresh_boards(3) == BOARDS
    with pytest.raises(Unfit, match=r"no \[power\] backend to switch 1 boards off"):
        bench.fresh_boards(2)
    bench.is_used = True
    with pytest.raises(Unfit, match=r"no \[power\] backend to make boards forget a run"):
        bench.fresh_boards(3)
    with pytest.raises(Unfit, match=r"no \[power\] backend"):
        bench.cut(BOARDS[0])


def test_fresh_boards_were_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not chosen stay off, and nothing of before is left."""
    monkeypatch.setattr(bench_module, "OFF_S", 0.0)
    bench.timeline.add("n03", "I (1) EXAMPLE: net_idx: 0x0000, unicast_addr: 0x0007")
    power = bench.power = Switch(bench)
    assert bench.fresh_boards(2) == BOARDS[:2]
    assert power.on == {"n01": True, "n02": True, "n03": False}
    assert [view.is_ready for view in bench.consoles.views.values()] == [True, True, False]
    assert bench.consoles.views["n03"].address is None


def test_a_board_that_does_not_boot_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken bench is no reason to skip."""
    monkeypatch.setattr(bench_module, "OFF_S", 0.0)
    monkeypatch.setattr(bench_module, "BOOT_S", 0.01)
    bench.power = Switch(bench, dead="n02")
    with pytest.raises(BenchTimeout, match="3 boards to boot"):
        bench.fresh_boards(3)


def test_programs_are_killed_by_their_commands(tmp_path: Path) -> None:
    """Those of bench.toml; a program without commands is not touched."""
    done = tmp_path / "done"
    service = Service(("cp", "/dev/null", str(done)), ("rm", str(done)))
    config = replace(CONFIG, services={"broker": service})
    bench = Bench(config, RealSurroundings(config), tmp_path / "session", give_up)
    broker = bench.program("broker")
    broker.kill()
    assert done.exists()
    broker.start()
    assert not done.exists()
    with pytest.raises(subprocess.CalledProcessError):
        broker.start()
    with pytest.raises(Unfit, match=r"no \[services\] bluetoothd"):
        bench.program("bluetoothd")
    bench.timeline.close()


def test_a_daemon_that_ends_at_once_is_named(tmp_path: Path) -> None:
    """Its exit status, and where it says why."""
    config = replace(CONFIG, gateway=GatewayConfig(command=("false",)))
    bench = Bench(config, RealSurroundings(config), tmp_path / "session", give_up)
    with (
        pytest.raises(AssertionError, match="the daemon ended with exit status 1, see daemon"),
        bench.daemon(proxy_timeout_s=45.0),
    ):
        pass
    written = (tmp_path / "session" / "daemon-1" / "fastprovd.toml").read_text()
    assert '[gateway]\nid = "hw-desk-1"' in written
    assert '[run]\nmethod = "fast"\nproxy_timeout_s = 45.0' in written
    bench.timeline.close()
