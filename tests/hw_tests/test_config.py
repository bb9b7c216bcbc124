"""bench.toml: the example is right, and every mistake is named with file, key and what fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastprovd.errors import ConfigError
from hwbench.config import HubPort, Relay, load

EXAMPLE = Path(__file__).parents[2] / "hw-tests" / "bench.example.toml"

SMALL = """
name = "desk-1"
[mqtt]
url = "mqtt://localhost"
[power]
backend = "BACKEND"
[[board]]
id = "n01"
port = "/dev/ttyUSB0"
chip = "esp32"
mac = "24:0a:c4:00:00:01"
"""


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "bench.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert all(problem.startswith(f"{path}: ") for problem in error.value.problems)
    return [problem.removeprefix(f"{path}: ") for problem in error.value.problems]


def test_the_example_is_a_bench() -> None:
    """The example loads, with everything in it."""
    bench = load(EXAMPLE)
    assert bench.name == "desk-1"
    assert (bench.mqtt_host, bench.mqtt_port) == ("localhost", 1883)
    assert [board.id for board in bench.boards] == ["n01", "n02", "n03"]
    assert bench.boards[1].power == HubPort("1-2", 2)
    assert set(bench.services) == {"bluetoothd", "broker"}
    assert bench.services["broker"].start[-1] == "mosquitto"
    assert bench.manifest is None


def test_the_least_bench(tmp_path: Path) -> None:
    """Name, broker and one board are enough; addresses are compared in capitals."""
    path = tmp_path / "bench.toml"
    path.write_text(SMALL.replace("BACKEND", "rts"))
    bench = load(path)
    assert bench.boards[0].mac == "24:0A:C4:00:00:01"
    assert bench.gateway.command[-2:] == ("-m", "fastprovd")


def test_a_manifest_is_relative_to_the_bench(tmp_path: Path) -> None:
    """Files are found from wherever pytest was started."""
    path = tmp_path / "bench.toml"
    text = SMALL.replace("BACKEND", "none") + 'firmware = "demo"\n'
    path.write_text(text + '[firmware]\nmanifest = "firmware/manifest.toml"\n')
    assert load(path).manifest == tmp_path / "firmware" / "manifest.toml"


def test_a_plug_per_board(tmp_path: Path) -> None:
    """Tasmota's relay is the first one unless told."""
    path = tmp_path / "bench.toml"
    path.write_text(SMALL.replace("BACKEND", "tasmota") + 'power = { url = "http://plug-1" }\n')
    assert load(path).boards[0].power == Relay("http://plug-1", 1)


@pytest.mark.parametrize(
    ("backend", "replaced", "by", "named"),
    [
        ("none", 'name = "desk-1"', "", "name: required key is missing"),
        ("none", 'name = "desk-1"', 'nam = "x"', "nam: unknown key, did you mean 'name'?"),
        ("none", "mqtt://localhost", "mqtts://x", "mqtt.url: expected mqtt://HOST or"),
        ("none", "mqtt://localhost", "mqtt://u:p@x", "mqtt.url: expected mqtt://HOST or"),
        ("none", "mqtt://localhost", "mqtt://x:99999", "mqtt.url: expected mqtt://HOST or"),
        ("usb", "", "", "power.backend: expected one of 'uhubctl', 'tasmota', 'rts', 'none'"),
        ("none", '"esp32"', '"stm32"', "board[1].chip: expected a chip such as esp32c3"),
        ("none", "24:0a:c4:00:00:01", "1", "board[1].mac: expected an address such as"),
        ("none", '"/dev/ttyUSB0"', '"COM1"', "board[1].port: expected the path of a serial port"),
        ("uhubctl", "", "", "board[1].power: required with [power] backend = 'uhubctl'"),
    ],
)
def test_each_mistake_is_named(
    tmp_path: Path, backend: str, replaced: str, by: str, named: str
) -> None:
    """A wrong value is named by its key, with what is allowed."""
    text = SMALL.replace("BACKEND", backend)
    found = problems(tmp_path, text.replace(replaced, by, 1) if replaced else text)
    assert any(problem.startswith(named) for problem in found), found


@pytest.mark.parametrize(
    ("added", "named"),
    [
        ("power = 1", "board[1].power: not allowed with [power] backend = 'none'"),
        ('firmware = "x"', "firmware.manifest: required, because a board names its firmware"),
        ("[services]\nshop = 1", "services.shop: unknown key, known are bluetoothd, broker"),
        ("[services]\nbroker = 1", "services.broker: expected a table of the two commands"),
        (
            '[services]\nbroker = { kill = [], start = ["x"] }',
            "services.broker.kill: expected a list of texts",
        ),
        ('[gateway]\ncommand = "fastprovd"', "gateway.command: expected a list of texts"),
        ("[gateway]\nadaptr = 1", "gateway.adaptr: unknown key, did you mean 'adapter'?"),
        (
            '[[board]]\nid = "n01"\nport = "/dev/x"\nchip = "esp32"\nmac = "24:0A:C4:00:00:02"',
            "board.id: n01 has that of another board: n01",
        ),
        (
            '[[board]]\nid = "n02"\nport = "/dev/x"\nchip = "esp32"\nmac = "24:0A:C4:00:00:01"',
            "board.mac: n02 has that of another board: 24:0A:C4:00:00:01",
        ),
    ],
)
def test_each_addition_that_does_not_fit_is_named(tmp_path: Path, added: str, named: str) -> None:
    """Unknown keys, what contradicts another key, and what two boards can not share."""
    found = problems(tmp_path, SMALL.replace("BACKEND", "none") + added + "\n")
    assert any(problem.startswith(named) for problem in found), found


def test_a_bench_has_boards(tmp_path: Path) -> None:
    """Without any there is nothing to test."""
    text = SMALL.replace("BACKEND", "none").partition("[[board]]")[0]
    assert problems(tmp_path, text) == ["board: expected at least one [[board]]"]


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """One look is enough to correct the file."""
    text = SMALL.replace("BACKEND", "usb").replace("mqtt:", "http:").replace('"esp32"', "1")
    assert len(problems(tmp_path, text)) == 3


def test_what_is_not_toml_is_named(tmp_path: Path) -> None:
    """A file that can not be read says why."""
    assert "Invalid" in problems(tmp_path, "name = ")[0]
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")
