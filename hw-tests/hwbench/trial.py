"""One run at the bench: started over MQTT, watched, disturbed, judged by the consoles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from hwbench import oracles
from hwbench.bench import Bench
from hwbench.config import BoardConfig
from hwbench.records import RunRecord

REQUEST_S: Final = 30.0  # a link to the mesh and an answer; three times what a bad one takes
# A run ends by its own limit, `run_s`; this much later it must have said so.
_LATE_S: Final = 15.0
_LIST_S: Final = 5.0  # the list is published with the end of the run
_LIGHT_S: Final = 5.0  # from the response to the line on the console
_GROUP_ATTEMPTS: Final = 3  # nobody confirms a group message, and one may be lost on the air
# Who is silent is asked 20 s and 0.8 s a node, through as many proxies as there are.
_ROLL_CALL_S: Final = 180.0
_CLOCKS: Final = ("elapsed_s", "t_provisioned_s", "t_known_s", "t_proven_s", "proven", "reason")


def run_s(boards: int) -> float:
    """Return the limit of a run: three minutes, of which the Primary's absence may take half."""
    return 180.0 + 10.0 * boards


class Trial:
    """One run of `boards`, from its start; the record is kept however it ends."""

    def __init__(self, bench: Bench, boards: Sequence[BoardConfig], test: str) -> None:
        self._bench = bench
        bench.is_used = True
        self.boards = tuple(boards)
        with bench.timeline.locked():
            for view in bench.views(boards).values():
                view.begin_trial()
        self._limit_s = run_s(len(boards))
        begun_s = time.monotonic()
        answer = bench.mqtt.request(
            "run/start",
            {"expected": len(boards), "timeout_s": self._limit_s},
            REQUEST_S,
        )
        assert answer["status"] == "ok", answer
        self.run_id: str = answer["data"]["run_id"]
        self.record = RunRecord(test, self.run_id, len(boards), begun_s)
        bench.runs.append(self.record)

    # The run

    @property
    def run(self) -> dict[str, Any]:
        """The newest `bridge/run`, if it is about this run."""
        run = self._bench.newest("bridge/run")
        return run if run.get("run_id") == self.run_id else {}

    def reach(self, state: str) -> None:
        """Wait until the run is or was in this state; a run that ended before that fails."""
        run = self._wait_for({state, *oracles.ENDED}, state, self._limit_s + _LATE_S)
        ended = run["state"] in oracles.ENDED
        assert not ended, f"ended as {run['state']} before {state}: {run['reason']}"

    def end(self) -> dict[str, Any]:
        """Wait for the end of the run and return it; the record knows it from now on."""
        run = self._wait_for(set(oracles.ENDED), "the end of the run", self._limit_s + _LATE_S)
        record = self.record
        record.ended_s = time.monotonic()
        record.state, record.known = run["state"], run["provisioned"]
        for name in _CLOCKS:
            setattr(record, name, run[name])
        return run

    def _wait_for(self, states: set[str], what: str, timeout_s: float) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            for entry in self._bench.timeline.since(self.record.begun_s):
                if entry.topic == "bridge/run" and entry.said.get("run_id") == self.run_id:
                    run: dict[str, Any] = entry.said
                    if run["state"] in states:
                        return run
            return None

        return self._bench.timeline.wait(f"{self.run_id}: {what}", timeout_s, look)

    def disturb(self, what: str, fault: Callable[[], None]) -> None:
        """Do something bad to the run, and write it down."""
        self.record.faults.append(f"{what} while {self.run.get('state')}")
        self._bench.note(f"fault: {what}")
        fault()

    # Its verdict

    def nodes(self) -> dict[str, Any]:
        """Return the address list of this run as published after its end."""

        def look() -> dict[str, Any] | None:
            nodes = self._bench.newest("bridge/nodes")
            return nodes if oracles.is_final(nodes, self.run) else None

        return self._bench.timeline.wait("bridge/nodes that fits the run", _LIST_S, look)

    def judge(self) -> dict[str, Any]:
        """Wait for the end, hold it against the consoles, and return the run.

        Raises:
            AssertionError: every lie in it.
        """
        run = self.end()
        nodes = self.nodes()
        with self._bench.timeline.locked():
            self.record.problems = oracles.problems(
                run,
                nodes,
                self._bench.views(self.boards),
                {board.id: board.mac for board in self.boards},
            )
        assert not self.record.problems, "\n".join(self.record.problems)
        return run

    def call_again(self) -> None:
        """Ask all that were proven once more, some time after the end of the run.

        A board may be a node when the run ends, and dead a minute later.

        Raises:
            AssertionError: a node is silent whose board has not lost its power.
        """
        bench, record = self._bench, self.record
        proven = {node["addr"] for node in self.nodes()["nodes"] if node["proven"]}
        if not proven:
            record.alive = 0
            return
        time.sleep(max(0.0, record.ended_s + bench.roll_call_after_s - time.monotonic()))
        bench.note(f"second roll-call of {self.run_id}")
        # Each member of the group is asked by name whether it is off.
        data = {"addr": self.run["group"], "state": "OFF"}
        answer = bench.mqtt.request("node/set", data, _ROLL_CALL_S)
        confirmed = set(answer["data"]["confirmed"]) if answer["status"] == "ok" else set()
        with bench.timeline.locked():
            views = bench.views(self.boards).values()
            up = {f"0x{view.address:04x}" for view in views if view.address is not None}
        record.alive = len(proven & confirmed)
        record.silent = sorted(proven & up - confirmed)
        assert not record.silent, f"{', '.join(record.silent)} answered in the run, and no more"

    # Lights

    def switch_every_node(self) -> None:
        """Switch all nodes on by their group, then each off; the consoles must say so.

        At once, and the Primary first: with the stock firmware's default host a proxy that nobody
        connects to falls silent after a minute. The search of a partial run may take longer than
        that, so after one a node may be out of reach.
        """
        addresses = [node["addr"] for node in self.nodes()["nodes"] if node["proven"]]
        may_miss = self.run["state"] != oracles.DONE
        for _ in range(_GROUP_ATTEMPTS):
            self._set({"addr": self.run["group"], "state": "ON"})
            if self._lights_are(True, addresses):
                break
        else:
            assert may_miss, self._wrong_lights(True, addresses)
        missed = [a for a in addresses if not self._switch_off(a, may_miss=may_miss)]
        assert len(missed) < len(addresses), "no node does as it is told"

    def _switch_off(self, address: str, *, may_miss: bool) -> bool:
        data = {"addr": address, "state": "OFF"}
        answer = self._set(data, may_miss=may_miss)
        if answer["status"] == "error":
            assert answer["code"] == "node_unreachable", answer
            self._bench.note(f"{address} is out of reach")
            return False
        told = {"acknowledged": True, "confirmed": [address], "unconfirmed": []}
        assert answer["data"] == {**data, **told}
        assert self._lights_are(False, [address]), self._wrong_lights(False, [address])
        return True

    def _set(self, data: dict[str, str], *, may_miss: bool = False) -> dict[str, Any]:
        answer = self._bench.mqtt.request("node/set", data, REQUEST_S)
        assert may_miss or answer["status"] == "ok", answer
        return answer

    def _lights_are(self, on: bool, addresses: Iterable[str]) -> bool:
        end = time.monotonic() + _LIGHT_S
        while self._wrong_lights(on, addresses):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def _wrong_lights(self, on: bool, addresses: Iterable[str]) -> str:
        wanted = {int(address, 16) for address in addresses}
        with self._bench.timeline.locked():
            views = self._bench.views(self.boards)
            right = {view.address for view in views.values() if view.light is on}
        wrong = [f"0x{address:04x}" for address in sorted(wanted - right)]
        state = "on" if on else "off"
        return f"no console says that it is {state}: {', '.join(wrong)}" if wrong else ""
