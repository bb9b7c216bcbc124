"""Programs that are told to end at random instants: how long they took, and what they left.

bleak's own BlueZ backend, D-Bus, the broker, the disk and the signals are real; the boards are
not. One world serves a chain of programs, each of which goes on with what the last one left.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fastprovd.cli import RUN_EXITS
from fastprovd.emulator.board import Board
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.network import decode_network_pdu
from fastprovd.mesh.proxy import ProxyPduType
from fastprovd.publish.broker import LOOPBACK
from fastprovd.records import Run, RunState, StepKind
from fastprovd.store.database import DATABASE_NAME
from fastprovd.store.state import StateStore
from tests.support.mqtt import Mosquitto
from tests.support.process_world import Boards, boards_on

BOARDS: Final = 3
# What the unit and README promise.
PROMISED_S: Final = 15.0
# Far beyond the promise: what has not ended by then is killed, and says where it hangs.
HANGS_S: Final = 30.0
# How long a program may take to be there, or a run to be done, on a machine that has much to do.
_PATIENCE_S: Final = 60.0
_LOOK_S: Final = 0.01
# BlueZ ends a link two seconds after it was told to.
_LINKS_S: Final = 4.0
_BASE: Final = "fastprovd/gw1"
_ENDS: Final = (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Moment:
    """What a program is at when it is told to end, up to so long after that has begun."""

    name: str
    span_s: float
    method: str = "direct"
    command: str = "run"


START: Final = Moment("start", 2.0)
DIRECT: Final = Moment("direct run", 9.0)
FAST: Final = Moment("fast run", 25.0, method="fast")
REQUESTS: Final = Moment("requests", 5.0)
HEALING: Final = Moment("healing", 12.0)
BROKER: Final = Moment("broker gone", 6.0)
HUNG: Final = Moment("bluetoothd hangs", 9.0)
AGAIN: Final = Moment("told twice", 5.0)
FOREGROUND: Final = Moment("foreground", 9.0, command="provision")
# The moments of one chain of programs, in an order that is drawn.
MOMENTS: Final = (
    START, START, DIRECT, FAST, REQUESTS, HUNG, HEALING, BROKER, AGAIN, FOREGROUND,
)  # fmt: skip


@dataclass
class Stop:
    """One program's end; `told_s` is counted from the begin of the moment."""

    seed: str
    moment: Moment
    told_s: float
    took_s: float = 0.0
    status: int | None = None
    violations: list[str] = field(default_factory=list)

    @property
    def json(self) -> dict[str, Any]:
        """What goes into the table."""
        return {
            "moment": self.moment.name,
            "took_s": self.took_s,
            "status": self.status,
            "violations": len(self.violations),
        }


class Operator:
    """Knows what is retained and asks for things, as long as there is a broker."""

    def __init__(self, port: int) -> None:
        self.retained: dict[str, Any] = {}
        self.answers: list[tuple[str, Any]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{_BASE}/#", 1)
        self._client.on_message = self._received
        self._client.connect_async(LOOPBACK, port)
        self._client.loop_start()

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, command: str, **data: Any) -> None:
        """Publish a request, if there is a broker, and wait for nothing."""
        self._client.publish(f"{_BASE}/bridge/request/{command}", json.dumps(data), qos=0)

    def _received(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        topic = message.topic.removeprefix(f"{_BASE}/bridge/")
        content = json.loads(message.payload) if message.payload else None
        if topic.startswith("response/"):
            self.answers.append((topic.removeprefix("response/"), content))
        else:
            self.retained[topic] = content


class Chain:
    """A world, and programs that live in it one after the other."""

    def __init__(self, directory: Path, bus: PrivateBus, boards: Boards, seed: int) -> None:
        self.random = Random(f"stops {seed}")
        self.boards = boards
        self.broker = Mosquitto(directory, "allow_anonymous true")
        self.broker.start()
        self.operator = Operator(self.broker.port)
        self.stops: list[Stop] = []
        self._seed = seed
        self._directory = directory
        self.state = directory / "state"
        self._environ = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        self._offers: set[tuple[int | None, str | None]] = set()
        self._sent: list[tuple[ProxyPduType, bytes]] = []
        for board in boards.air.boards:
            self._listen_to(board)

    def close(self) -> None:
        """Leave the broker, and end it."""
        self.operator.close()
        self.broker.kill()

    def _listen_to(self, board: Board) -> None:
        receive = board.receive_proxy_pdu

        def heard(link: Any, pdu_type: ProxyPduType, payload: bytes) -> None:
            self._sent.append((pdu_type, payload))
            receive(link, pdu_type, payload)

        board.receive_proxy_pdu = heard  # type: ignore[method-assign]

    def network_of_boards(self) -> None:
        """Do a run that nobody disturbs."""
        child = self._start(FOREGROUND, "provision")
        assert child.wait(_PATIENCE_S) == 0, self._log("provision").read_text()
        self._keep_offers()

    def stop(self, number: int, moment: Moment) -> Stop:
        """Let a program get to a moment, tell it to end, and look at what it left."""
        told_s = self.random.uniform(0.0, moment.span_s)
        stop = Stop(f"{self._seed}/{number}", moment, told_s)
        self.stops.append(stop)
        if moment in (DIRECT, FAST, HEALING, HUNG, AGAIN, FOREGROUND) or self.random.random() < 0.2:
            self._power_cycle()
        self.operator.retained.pop("state", None)
        child = self._start(moment, stop.seed.replace("/", "-"))
        thaw = threading.Event()
        try:
            self._begin(moment, child, stop)
            self._until(stop, child)
            if moment is HUNG:
                thaw = self.boards.freeze()
            # While Python itself starts, SIGINT is an exception of Python's and may get lost.
            number = self.random.choice(_ENDS)
            child.send_signal(signal.SIGTERM if moment is START else number)
            begun = time.monotonic()
            if moment is AGAIN:
                self._tell_again(child)
            stop.status = child.wait(HANGS_S)
            stop.took_s = time.monotonic() - begun
        except subprocess.TimeoutExpired:
            stop.took_s = time.monotonic() - begun
        except AssertionError as error:
            stop.violations.append(str(error))
        finally:
            thaw.set()
            child.kill()
            child.wait()
        self._look(stop)
        return stop

    def _power_cycle(self) -> None:
        def cycle() -> None:
            for board in self.boards.air.boards:
                board.power_off()
                board.power_on()

        self.boards.call(cycle)

    def _config(self, moment: Moment) -> Path:
        heal = "on_start" if moment is HEALING else "off"
        path = self._directory / "fastprovd.toml"
        path.write_text(
            f'[gateway]\nid = "gw1"\n[mqtt]\nhost = "{LOOPBACK}"\nport = {self.broker.port}\n'
            f'[log]\nformat = "json"\n[run]\nmethod = "{moment.method}"\nheal = "{heal}"\n'
            f'[state]\ndirectory = "{self.state}"\n'
        )
        return path

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _start(self, moment: Moment, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fastprovd", moment.command]
        command += ["--config", str(self._config(moment))]
        if moment is FOREGROUND:
            command += ["--expected", str(BOARDS), "--json"]
        with self._log(name).open("ab") as out, self._log(f"{name}.err").open("ab") as err:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self._environ
            )

    def _begin(self, moment: Moment, child: subprocess.Popen[bytes], stop: Stop) -> None:
        """Come to where the moment begins."""
        if moment is START:
            return
        if moment is FOREGROUND:
            self._wait(child, stop, lambda: b'"run_changed"' in self._log_of(stop))
            return
        self._wait(child, stop, lambda: b'"mqtt_connected"' in self._log_of(stop))
        if moment in (DIRECT, FAST, HUNG, AGAIN):
            self.operator.ask("run/start", expected=BOARDS)
            self._wait(child, stop, lambda: b'"run_started"' in self._log_of(stop))

    def _log_of(self, stop: Stop) -> bytes:
        """Return what a service says on standard error, a foreground command on its output."""
        name = stop.seed.replace("/", "-")
        return self._log(name if stop.moment is FOREGROUND else f"{name}.err").read_bytes()

    def _wait(
        self, child: subprocess.Popen[bytes], stop: Stop, happened: Callable[[], bool]
    ) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not happened():
            assert child.poll() is None, f"ended by itself: {self._log_of(stop).decode()[-2000:]}"
            assert time.monotonic() < end, "did not come so far"
            time.sleep(_LOOK_S)

    def _until(self, stop: Stop, child: subprocess.Popen[bytes]) -> None:
        """Let time go by, with all that somebody may ask of the program meanwhile."""
        moment = stop.moment
        begun = time.monotonic()
        is_loaded = moment in (REQUESTS, BROKER) or self.random.random() < 0.3
        gone_s = self.random.uniform(0.0, stop.told_s) if moment is BROKER else None
        back_s = self.random.uniform(0.0, 1.5 * moment.span_s)
        reload_s = self.random.uniform(0.0, 2 * stop.told_s)
        while (now := time.monotonic() - begun) < stop.told_s:
            if gone_s is not None and now > gone_s:
                self.broker.kill()
                gone_s = None
            if not self.broker.is_up and now > back_s:
                self.broker.start()
            if now > reload_s and moment.command == "run" and moment is not START:
                child.send_signal(signal.SIGHUP)
                reload_s = moment.span_s
            if is_loaded:
                self._ask_something()
            time.sleep(min(0.05, max(0.0, stop.told_s - now)))
        if is_loaded:  # as close to the signal as can be
            for _ in range(self.random.randrange(8)):
                self._ask_something()

    def _ask_something(self) -> None:
        address = f"0x{self.random.randrange(2, 20):04x}"
        command, data = self.random.choice(
            (
                ("node/set", {"addr": "0xffff", "state": "ON"}),
                ("node/set", {"addr": address, "state": "OFF"}),
                ("node/get", {"addr": address}),
                ("nodes/get", {}),
                ("group/add", {"group": "0xc010", "members": [address]}),
                ("run/get", {}),
                ("nonsense", {}),
            )
        )
        self.operator.ask(command, **data)

    def _tell_again(self, child: subprocess.Popen[bytes]) -> None:
        for _ in range(self.random.randrange(1, 4)):
            time.sleep(self.random.uniform(0.0, 1.0))
            if child.poll() is None:
                child.send_signal(
                    self.random.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
                )

    # What must never be

    def _look(self, stop: Stop) -> None:
        found = stop.violations
        log = self._log_of(stop)
        if stop.took_s > PROMISED_S:
            found.append(f"took {stop.took_s:.1f} s")
        found += _bad_lines(log)
        had_begun = (self.state / DATABASE_NAME).exists()
        runs, next_clean = stored(self.state) if had_begun else ((), 0)
        if had_begun:
            self._keep_offers()
        found += [f"{run.run_id} is {run.state}" for run in runs if not run.state.is_end]
        if next_clean is None:
            found.append("the SEQ that were reserved and not used were not given back")
        if stop.moment is FOREGROUND:
            wanted = {int(RUN_EXITS[runs[0].state])}
        else:
            # Before its first line Python itself has not started.
            wanted = {0} if log else {0, -signal.SIGTERM}
        if stop.status not in wanted:
            found.append(f"exit status {stop.status}, not {wanted}")
        end = time.monotonic() + _LINKS_S
        adapter = self.boards.adapter
        while (adapter.linked or adapter.discovering) and time.monotonic() < end:
            time.sleep(_LOOK_S)
        # Those that a hung bluetoothd keeps are the next program's to close.
        if (adapter.linked or adapter.discovering) and stop.moment is not HUNG:
            found.append(f"left links {set(adapter.linked)}, scans {adapter.discovering}")
        if not self.broker.is_up:
            self.broker.start()
        elif stop.moment is not BROKER and b"mqtt_connected" in log:
            self._look_at_broker(stop, runs)

    def _keep_offers(self) -> None:
        """Read what the journal says of the newest runs; older ones are not kept."""
        with StateStore(self.state) as store:
            steps = [step for run in store.runs()[:2] for step in store.steps(run.run_id)]
        self._offers |= {
            (step.address, step.device_address)
            for step in steps
            if step.kind is StepKind.ADDRESS_OFFERED
        }

    def _look_at_broker(self, stop: Stop, runs: Sequence[Run]) -> None:
        wanted = {"state": "offline", "run": runs[0].state.value if runs else "idle"}
        end = time.monotonic() + _LINKS_S
        while True:
            told = {
                topic: (self.operator.retained.get(topic) or {}).get("state") for topic in wanted
            }
            if told == wanted:
                return
            if time.monotonic() > end:
                stop.violations.append(f"the broker has {told}, not {wanted}")
                return
            time.sleep(_LOOK_S)

    def finish(self) -> list[str]:
        """Let a last program do a run undisturbed; return what must never be, over all of them."""
        self._power_cycle()
        child = self._start(DIRECT, "last")
        found: list[str] = []
        try:
            last = Stop("last", DIRECT, 0.0)
            self._wait(child, last, lambda: b'"mqtt_connected"' in self._log_of(last))
            self.operator.ask("run/start", expected=BOARDS)
            self._wait(child, last, lambda: b'"run_finished"' in self._log_of(last))
            child.terminate()
            child.wait(HANGS_S)
        except AssertionError as error:
            found.append(str(error))
        finally:
            child.kill()
            child.wait()
        self._keep_offers()
        with StateStore(self.state) as store:
            run = store.runs()[0]
            net_key = store.network().net_key
        if run.state is not RunState.DONE:
            found.append(f"the last run is {run.state}: {run.reason}")
        by_us = {
            (entry.address, entry.device_address)
            for entry in self.boards.air.timeline
            if entry.what is Happening.PROVISIONED and not entry.detail
        }
        found += [f"{entry} is not in the journal" for entry in by_us - self._offers]
        nonces: dict[tuple[int, int, int], bytes] = {}
        for pdu_type, payload in self._sent:
            is_configuration = pdu_type is ProxyPduType.PROXY_CONFIGURATION
            if not is_configuration and pdu_type is not ProxyPduType.NETWORK_PDU:
                continue
            pdu = decode_network_pdu(
                payload, [net_key], IvIndex(), proxy_configuration=is_configuration
            )
            assert pdu is not None
            if nonces.setdefault((pdu.iv_index, pdu.src, pdu.seq), payload) != payload:
                found.append(f"SEQ {pdu.seq} was used twice")
        return found


def stored(state: Path) -> tuple[Sequence[Run], int | None]:
    """Return all runs, newest first, and the SEQ to go on with; `None` after no clean end."""
    with StateStore(state) as store:
        runs = store.runs()
    connection = sqlite3.connect(state / DATABASE_NAME)
    try:
        row = connection.execute("select next_clean from seq order by iv_index desc").fetchone()
    finally:
        connection.close()
    return runs, 0 if row is None else row[0]


def _bad_lines(log: bytes) -> list[str]:
    """Return the lines that no program writes that ends in order."""
    found = []
    for line in log.decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(f"log: {line}")
            continue
        if entry.get("logger") == "mqtt":  # paho's own word for a broker that was killed
            continue
        if "dbus_fast/aio/message_bus.py" in entry.get("exception", ""):
            continue  # a message of bleak's that met the end of its bus, whose future nobody has
        if entry.get("level") in ("error", "critical") or "exception" in entry:
            found.append(f"log: {line}")
    return found


@contextmanager
def chain(directory: Path, bus: PrivateBus, seed: int) -> Iterator[Chain]:
    """Have boards, a broker and a network of all boards."""
    with boards_on(bus.address, BOARDS) as boards:
        made = Chain(directory, bus, boards, seed)
        try:
            made.network_of_boards()
            yield made
        finally:
            made.close()


class StopTable:
    """A plugin of pytest that writes the table at the end of the session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stops: list[Mapping[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what came of the stops of a test."""
        told: dict[str, Any] = dict(report.user_properties)
        if report.when == "call" and "stops" in told:
            self._stops.extend(told["stops"])

    def pytest_sessionfinish(self) -> None:
        """Write what there is."""
        self._path.write_text("\n".join(lines(self._stops)) + "\n")


def lines(stops: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a row for each moment, and one for all."""
    columns = ("instants", "p50 s", "p99 s", "longest s", "exits", "violations")
    rows = {name: [s for s in stops if s["moment"] == name] for name in _names()}
    rows["all"] = list(stops)
    width = max(map(len, rows))
    told = [" " * width + "".join(f"{name:>12}" for name in columns)]
    for row, found in rows.items():
        took = sorted(stop["took_s"] for stop in found) or [0.0]
        exits = Counter(stop["status"] for stop in found)
        figures = [
            str(len(found)),
            *(f"{took[min(len(took) - 1, int(share * len(took)))]:.2f}" for share in (0.5, 0.99)),
            f"{took[-1]:.2f}",
            " ".join(f"{status}:{count}" for status, count in exits.most_common()),
            str(sum(stop["violations"] for stop in found)),
        ]
        told.append(row.ljust(width) + "".join(f"{figure:>12}" for figure in figures))
    return told


def _names() -> Sequence[str]:
    return tuple(dict.fromkeys(moment.name for moment in MOMENTS))
