"""The demo from end to end, with a real broker."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Literal

import pytest

from fastprovd import demo
from fastprovd.demo import DemoOptions, run_demo
from fastprovd.emulator.hosts import Host
from fastprovd.errors import BrokerMismatch, BrokerUnavailable
from fastprovd.records import RunState
from tests.support.brokers import NEEDS_MOSQUITTO


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@NEEDS_MOSQUITTO
@pytest.mark.parametrize("host", [Host.BLUEDROID, Host.NIMBLE], ids=lambda host: host.name)
def test_five_boards(host: Host) -> None:
    """Every board is done, and an independent client finds every address on the broker."""
    stream = io.StringIO()
    run = run_demo(DemoOptions(5, seed=1, speed=100, host=host), stream, as_json=True)
    assert run.state is RunState.DONE
    told = lines(stream)
    end = told[-1]
    assert (end["event"], end["state"], end["expected"]) == ("run_finished", "done", 5)
    assert len(set(end["addresses"])) == end["proven"] == end["addresses_on_broker"] == 5
    assert "0x0002" in end["addresses"]
    assert 0.0 < end["t_provisioned_s"] <= end["t_known_s"] <= end["t_proven_s"]
    assert end["wall_s"] > 0
    assert end["peak_memory_mib"] > 1
    kinds = [one["event"] for one in told]
    assert kinds.count("device_found") == kinds.count("node_added") == 5
    assert kinds.count("run_finished") == 1
    assert {"run_started", "run_changed"} <= set(kinds)


@NEEDS_MOSQUITTO
def test_what_people_see() -> None:
    """The words name the broker, the addresses, the clocks, the topics, and what to try next."""
    stream = io.StringIO()
    run_demo(DemoOptions(1, speed=100), stream, as_json=False)
    text = stream.getvalue()
    for shown in (
        "1 virtual boards",
        "mosquitto_sub -h 127.0.0.1 -p ",
        "0x0002   Primary Provisioner",
        "1 addresses in fastprovd/demo/bridge/nodes",
        "emulated seconds took",
        "Try next: `fastprovd demo",
    ):
        assert shown in text


@NEEDS_MOSQUITTO
def test_the_state_directory_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays behind on the disk."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_demo(DemoOptions(1, speed=100), io.StringIO(), as_json=True)
    assert list(tmp_path.iterdir()) == []


@NEEDS_MOSQUITTO
def test_a_broker_that_has_other_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not read back is an error, after the end was told."""

    async def read_less(self: Any, *_: Any) -> set[str]:
        return {"0x0002"}

    monkeypatch.setattr(demo._Demo, "_read_back", read_less)
    stream = io.StringIO()
    with pytest.raises(BrokerMismatch, match="1 addresses, 2 were published"):
        run_demo(DemoOptions(2, speed=100), stream, as_json=True)
    assert lines(stream)[-1]["addresses_on_broker"] == 1


def test_a_broker_that_is_not_there() -> None:
    """The run ends, and then the broker can not be read back."""
    with pytest.raises(BrokerUnavailable):
        run_demo(DemoOptions(1, speed=100, broker=("127.0.0.1", 9)), io.StringIO(), as_json=True)


@pytest.mark.parametrize(
    ("boards", "air", "collisions"),
    [
        (19, "auto", False),
        (20, "auto", True),
        (100, "ideal", False),
        (2, "collisions", True),
    ],
)
def test_the_air_is_chosen_by_number_unless_asked(
    boards: int, air: Literal["auto", "ideal", "collisions"], collisions: bool
) -> None:
    """From 20 boards on transmissions collide; `--air` decides otherwise."""
    assert DemoOptions(boards, air=air).collisions is collisions
