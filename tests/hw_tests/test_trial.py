"""Lights are switched over MQTT, and only the consoles say whether they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from hwbench import trial
from hwbench.config import BoardConfig
from hwbench.consoles import BoardView
from hwbench.records import RunRecord
from hwbench.timeline import Entry
from hwbench.trial import Trial

BOARDS = tuple(
    BoardConfig(f"n0{n}", f"/dev/tty{n}", "esp32c3", f"24:0A:C4:00:00:0{n}") for n in (1, 2)
)
GROUP = "0xc000"


class Network:
    """A bench whose two boards are nodes; it answers requests as the daemon would.

    `deaf` nodes are unreachable, `liars` confirm without doing it, `dark` ones miss the group and
    are silent when they are asked for it.
    """

    def __init__(self, state: str) -> None:
        self.is_used = False
        self.roll_call_after_s = 0.0
        self.runs: list[object] = []
        self.notes: list[str] = []
        self.entries: list[Entry] = []
        self.deaf: set[str] = set()
        self.liars: set[str] = set()
        self.dark: set[str] = set()
        self.proves_nobody = self.has_no_proxy = False
        self.timeline = self.mqtt = self
        self.lights = {f"0x000{n + 1}": BoardView(address=n + 1) for n in (1, 2)}
        self._run = {
            "run_id": "r-1",
            "state": state,
            "group": GROUP,
            "provisioned": 2,
            "proven": 2,
        }

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def wait(self, what: str, timeout_s: float, look: Any) -> Any:
        found = look()
        assert found is not None, what
        return found

    def since(self, time_s: float) -> list[Entry]:
        assert time_s > 0
        return self.entries

    def views(self, boards: object) -> dict[str, BoardView]:
        return {f"n0{n}": view for n, view in enumerate(self.lights.values(), 1)}

    def note(self, what: str) -> None:
        self.notes.append(what)

    def newest(self, topic: str) -> dict[str, Any]:
        if topic == "bridge/run":
            return self._run
        proven = not self.proves_nobody
        nodes = [
            {"addr": address, "uuid": None, "proven": proven, "listed": True}
            for address in self.lights
        ]
        return {"run_id": "r-1", "count": 2, "nodes": nodes}

    def request(self, command: str, data: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if command == "run/start":
            return {"status": "ok", "data": {"run_id": "r-1"}}
        address, on = data["addr"], data["state"] == "ON"
        if address == GROUP:
            reached = sorted(set(self.lights) - self.deaf - self.dark)
            if self.has_no_proxy:
                return {"status": "error", "code": "bluetooth_unavailable"}
            for node in reached:
                self.lights[node].light = on
            told = {"confirmed": reached, "unconfirmed": sorted(set(self.lights) - set(reached))}
            return {"status": "ok", "data": {**data, "acknowledged": True, **told}}
        if address in self.deaf:
            return {"status": "error", "code": "node_unreachable"}
        if address not in self.liars:
            self.lights[address].light = on
        told = {"acknowledged": True, "confirmed": [data["addr"]], "unconfirmed": []}
        return {"status": "ok", "data": {**data, **told}}

    def switch(self) -> None:
        Trial(self, BOARDS, "lights").switch_every_node()  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here needs time."""
    monkeypatch.setattr(trial, "_LIGHT_S", 0.0)


def went_through(*states: str, run_id: str = "r-1") -> list[Entry]:
    said = {"run_id": run_id, "reason": "no board was heard", "provisioned": 1, "proven": 0}
    clocks = dict.fromkeys(("elapsed_s", "t_provisioned_s", "t_known_s", "t_proven_s"), 1.5)
    return [
        Entry(1.0 + n, "mqtt", said | clocks | {"state": state}, "bridge/run")
        for n, state in enumerate(states)
    ]


def begun(network: Network) -> Trial:
    return Trial(network, BOARDS, "a test")  # type: ignore[arg-type]


def test_a_state_that_was_short() -> None:
    """It counts although the run has moved on since; another run's does not."""
    network = Network("done")
    trial = begun(network)
    network.entries = went_through("scanning", "provisioning", "collecting", "done")
    trial.reach("provisioning")
    network.entries = went_through("provisioning", run_id="r-0")
    with pytest.raises(AssertionError, match="r-1: provisioning"):
        trial.reach("provisioning")


def test_a_run_that_ended_too_early() -> None:
    """What was to be disturbed is over: say how, and do not go on."""
    network = Network("failed")
    trial = begun(network)
    network.entries = went_through("scanning", "failed")
    with pytest.raises(AssertionError, match="failed before provisioning: no board was heard"):
        trial.reach("provisioning")


def test_the_record_of_a_run() -> None:
    """State, counts and clocks are those of its last message, faults those of the test."""
    network = Network("partial")
    trial = begun(network)
    network.entries = went_through("scanning", "partial")
    done: list[bool] = []
    trial.disturb("power cut", lambda: done.append(True))
    trial.end()
    record = trial.record
    assert (record.state, record.known, record.proven, record.t_known_s) == ("partial", 1, 0, 1.5)
    assert record.faults == ["power cut while partial"]
    assert done == [True]
    assert network.notes == ["fault: power cut"]
    assert record.ended_s >= record.begun_s > 0


def test_every_node_obeys() -> None:
    """All on by their group, each off by itself."""
    network = Network("done")
    network.switch()
    assert [view.light for view in network.lights.values()] == [False, False]
    assert (network.is_used, len(network.runs)) == (True, 1)


def test_a_confirmation_that_no_console_knows_of() -> None:
    """What MQTT says does not count without the board."""
    network = Network("done")
    network.liars = {"0x0003"}
    with pytest.raises(AssertionError, match="no console says that it is off: 0x0003"):
        network.switch()


def test_a_group_that_does_not_reach_everybody() -> None:
    """Repeated, because one message may be lost; then it counts."""
    network = Network("done")
    network.dark = {"0x0002"}
    with pytest.raises(AssertionError, match="no console says that it is on: 0x0002"):
        network.switch()


def test_a_node_out_of_reach() -> None:
    """After a run that is done it fails; after a partial one it is noted."""
    network = Network("done")
    network.deaf = {"0x0002"}
    network.lights["0x0002"].light = True
    with pytest.raises(AssertionError, match="node_unreachable"):
        network.switch()
    network = Network("partial")
    network.deaf = {"0x0002"}
    network.switch()
    assert network.notes == ["0x0002 is out of reach"]


def test_no_node_at_all() -> None:
    """Nothing that obeys is no pass."""
    network = Network("partial")
    network.deaf = set(network.lights)
    with pytest.raises(AssertionError, match="no node does as it is told"):
        network.switch()


def asked_again(network: Network) -> Trial:
    """Return a trial whose run has ended and whose nodes are asked again."""
    trial = begun(network)
    network.entries = went_through("scanning", "done")
    trial.end()
    trial.call_again()
    return trial


def test_everybody_answers_again() -> None:
    """The record counts them, and when they were asked is on the timeline."""
    network = Network("done")
    record = asked_again(network).record
    assert (record.alive, record.silent) == (2, [])
    assert network.notes == ["second roll-call of r-1"]


def test_a_node_that_fell_silent_after_the_run() -> None:
    """It fails and is named; one that lost its power is nobody's fault."""
    network = Network("done")
    network.dark = {"0x0003"}
    with pytest.raises(AssertionError, match="0x0003 answered in the run, and no more"):
        asked_again(network)
    (record,) = network.runs
    assert isinstance(record, RunRecord)
    assert (record.alive, record.silent) == (1, ["0x0003"])
    network = Network("done")
    network.dark = {"0x0003"}
    network.lights["0x0003"].address = None
    assert asked_again(network).record.alive == 1


def test_a_network_without_a_way_in() -> None:
    """Then all are silent."""
    network = Network("done")
    network.has_no_proxy = True
    with pytest.raises(AssertionError, match="0x0002, 0x0003 answered"):
        asked_again(network)


def test_nobody_to_ask_again() -> None:
    """A run that proved nobody has nobody to lose."""
    network = Network("partial")
    network.proves_nobody = True
    network._run["proven"] = 0
    record = asked_again(network).record
    assert (record.alive, record.silent, network.notes) == (0, [], [])
