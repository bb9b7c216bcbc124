"""Each backend switches the right outlet."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hwbench.config import Backend, BenchConfig, BoardConfig, GatewayConfig, HubPort, Relay
from hwbench.power import Tasmota, Uhubctl, power_for


def board(power: HubPort | Relay | None) -> BoardConfig:
    return BoardConfig("n01", "/dev/ttyUSB0", "esp32", "24:0A:C4:00:00:01", power=power)


@pytest.fixture
def uhubctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program before the real one that only writes down how it was called."""
    calls = tmp_path / "calls"
    program = tmp_path / "uhubctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ntest "$2" != 9-9\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return calls


def test_a_hub_port(uhubctl: Path) -> None:
    """One port of one hub is switched off and on."""
    one = board(HubPort("1-2", 3))
    Uhubctl().cut(one)
    Uhubctl().restore(one)
    assert uhubctl.read_text().splitlines() == ["-l 1-2 -p 3 -a off", "-l 1-2 -p 3 -a on"]


def test_a_hub_that_does_not_switch(uhubctl: Path) -> None:
    """When uhubctl fails, so does the test that needed it."""
    with pytest.raises(subprocess.CalledProcessError):
        Uhubctl().cut(board(HubPort("9-9", 1)))


@pytest.fixture
def plug() -> Iterator[tuple[str, list[str]]]:
    """Answer as a Tasmota plug does, and keep what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"POWER":"OFF"}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_plug(plug: tuple[str, list[str]]) -> None:
    """One relay is switched over HTTP."""
    url, asked = plug
    one = board(Relay(url, 2))
    Tasmota().cut(one)
    Tasmota().restore(one)
    assert asked == ["/cm?cmnd=Power2%20Off", "/cm?cmnd=Power2%20On"]


@pytest.mark.parametrize(
    ("backend", "kind"),
    [("uhubctl", "Uhubctl"), ("tasmota", "Tasmota"), ("rts", "ResetLine"), ("none", "NoneType")],
)
def test_the_backend_is_that_of_the_bench(backend: Backend, kind: str) -> None:
    """Each name has its own, and none has none."""
    config = BenchConfig("b", GatewayConfig(), "localhost", 1883, backend, (board(None),))
    assert type(power_for(config, {})).__name__ == kind


def test_the_reset_line() -> None:
    """Without a switch the board is held in reset."""
    held: list[bool] = []

    class Port:
        def hold_in_reset(self, on: bool) -> None:
            held.append(on)

    config = BenchConfig("b", GatewayConfig(), "localhost", 1883, "rts", (board(None),))
    power = power_for(config, {"n01": Port()})  # type: ignore[dict-item]
    assert power is not None
    power.cut(config.boards[0])
    power.restore(config.boards[0])
    assert held == [True, False]
