"""The bench: boards, consoles, power, broker and daemon joined, real or emulated."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from hwbench.config import BenchConfig, BoardConfig, Service
from hwbench.consoles import POWER_CUT, BoardView, Consoles
from hwbench.daemon import Daemon
from hwbench.mqtt import GatewayOverMqtt
from hwbench.power import Power, power_for
from hwbench.records import RunRecord
from hwbench.serial_ports import SerialPort
from hwbench.timeline import BENCH, Entry, Timeline

OFF_S: Final = 1.0  # until the capacitors of a board are empty
BOOT_S: Final = 20.0  # firmware boots in 3 s, its port takes a few more to come back
ONLINE_S: Final = 20.0  # the daemon starts in 1 s; ten times that on a loaded Raspberry Pi
ROLL_CALL_AFTER_S: Final = 120.0  # what the end of a Node Identity kills is dead after 60
_COMMAND_S: Final = 30.0  # systemctl waits for the program's end


class ProgramOfTheGateway(Protocol):
    """bluetoothd or the broker: something to kill and to start again."""

    def kill(self) -> None:
        """End it as by SIGKILL."""
        ...

    def start(self) -> None:
        """Start it again."""
        ...


class ServiceByCommand:
    """A service of the gateway, killed and started by the commands of bench.toml."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def kill(self) -> None:
        """Run its kill command."""
        subprocess.run(self._service.kill, check=True, timeout=_COMMAND_S)

    def start(self) -> None:
        """Run its start command."""
        subprocess.run(self._service.start, check=True, timeout=_COMMAND_S)


class Surroundings(Protocol):
    """What a real bench and an emulated one do not have in common."""

    @property
    def environ(self) -> Mapping[str, str]:
        """What is added to the daemon's environment."""
        ...

    @property
    def programs(self) -> Mapping[str, ProgramOfTheGateway]:
        """`bluetoothd` and `broker`, those that can be killed."""
        ...

    def power(self, ports: Mapping[str, SerialPort]) -> Power | None:
        """Return what switches boards, None if nothing does."""
        ...


class RealSurroundings:
    """As bench.toml says."""

    def __init__(self, config: BenchConfig) -> None:
        self._config = config
        self.environ: dict[str, str] = {}
        self.programs = {
            name: ServiceByCommand(service) for name, service in config.services.items()
        }

    def power(self, ports: Mapping[str, SerialPort]) -> Power | None:
        """Return the backend of `[power]`."""
        return power_for(self._config, ports)


class Bench(AbstractContextManager["Bench"]):
    """One session at a bench; everything it sees is in `directory`.

    `give_up` skips the test, or fails it where the bench is required. `roll_call_after_s` is how
    long after the end of a run its nodes are asked again.
    """

    def __init__(
        self,
        config: BenchConfig,
        surroundings: Surroundings,
        directory: Path,
        give_up: Callable[[str], NoReturn],
        *,
        roll_call_after_s: float = ROLL_CALL_AFTER_S,
    ) -> None:
        self.config = config
        self.directory = directory
        self.give_up = give_up
        self.roll_call_after_s = roll_call_after_s
        self.runs: list[RunRecord] = []
        self._surroundings = surroundings
        self._stack = ExitStack()
        self.is_used = False  # whether boards were told to provision each other
        self._daemons = 0
        (directory / "serial").mkdir(parents=True)
        self.timeline = Timeline(directory / "timeline.jsonl")
        self.consoles = Consoles(board.id for board in config.boards)
        self.timeline.on_entry(self.consoles.hear)
        self.gateway_id = f"hw-{config.name}"
        self.mqtt = GatewayOverMqtt(
            config.mqtt_host, config.mqtt_port, self.gateway_id, self.timeline
        )
        self._ports = {
            board.id: SerialPort(
                board.id, board.port, directory / "serial" / f"{board.id}.log", self.timeline
            )
            for board in config.boards
        }
        self.power = surroundings.power(self._ports)

    def __enter__(self) -> Bench:
        """Open every port and the connection to the broker; raises OSError, BenchTimeout."""
        with ExitStack() as stack:
            stack.callback(self.timeline.close)
            for port in self._ports.values():
                stack.callback(port.stop)
                port.start()
            stack.callback(self.mqtt.close)
            self.mqtt.connect()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._stack.close()

    # Boards

    def views(self, boards: Sequence[BoardConfig]) -> dict[str, BoardView]:
        """Return what those boards have printed, by their ids."""
        return {board.id: self.consoles.views[board.id] for board in boards}

    def fresh_boards(self, count: int) -> tuple[BoardConfig, ...]:
        """Return `count` unprovisioned boards, just booted; all others are without power."""
        chosen, others = self.config.boards[:count], self.config.boards[count:]
        if self.power is None:
            self._expect_fresh_boards(len(others))
            return chosen
        self.note(f"power-cycling {len(chosen)} boards, {len(others)} stay off")
        for board in self.config.boards:
            self.power.cut(board)
        time.sleep(OFF_S)
        for board in self.config.boards:
            self.timeline.add(board.id, POWER_CUT)
        for board in chosen:
            self.power.restore(board)
        self._wait_ready(chosen)
        return chosen

    def _expect_fresh_boards(self, others: int) -> None:
        name = self.config.name
        if others:
            self.give_up(f"bench '{name}' has no [power] backend to switch {others} boards off")
        if self.is_used:
            self.give_up(f"bench '{name}' has no [power] backend to make boards forget a run")

    def cut(self, board: BoardConfig) -> None:
        """Take the power of one board away."""
        self._switch().cut(board)
        self.timeline.add(board.id, POWER_CUT)

    def restore(self, board: BoardConfig) -> None:
        """Give it back and wait until the board is up."""
        self._switch().restore(board)
        self._wait_ready([board])

    def _switch(self) -> Power:
        if self.power is None:
            self.give_up(f"bench '{self.config.name}' has no [power] backend")
        return self.power

    def _wait_ready(self, boards: Sequence[BoardConfig]) -> None:
        views = self.views(boards)

        def are_ready() -> bool:
            return all(view.is_ready for view in views.values())

        self.timeline.wait(f"{len(boards)} boards to boot", BOOT_S, are_ready)

    # The gateway

    def program(self, name: str) -> ProgramOfTheGateway:
        """Return `bluetoothd` or `broker`, to be killed."""
        program = self._surroundings.programs.get(name)
        if program is None:
            self.give_up(f"bench '{self.config.name}' has no [services] {name}")
        return program

    @property
    def daemon_environ(self) -> Mapping[str, str]:
        """What a `fastprovd` of this bench needs in its environment."""
        adapter = {"FASTPROVD_BLUETOOTH__ADAPTER": self.config.gateway.adapter}
        return {**self._surroundings.environ, **adapter}

    @contextmanager
    def daemon(self, **run_settings: float) -> Iterator[Daemon]:
        """Let a daemon with a new network run, and see that it ends well.

        The boards provision each other, since that is what their consoles are held against.
        """
        self._daemons += 1
        daemon = Daemon(
            self.config.gateway.command,
            {
                "gateway": {"id": self.gateway_id},
                "mqtt": {"host": self.config.mqtt_host, "port": self.config.mqtt_port},
                "bluetooth": {"adapter": self.config.gateway.adapter},
                "run": {"method": "fast", **run_settings},
            },
            self.directory / f"daemon-{self._daemons}",
            self.directory / "daemon.jsonl",
            self._surroundings.environ,
        )
        try:
            self.start_daemon(daemon)
            yield daemon
            self.note("stopping the daemon")
            status = daemon.stop()
            assert status == 0, f"the daemon ended with exit status {status}, see daemon.jsonl"
        finally:
            daemon.kill()

    def start_daemon(self, daemon: Daemon) -> None:
        """Start it and wait until it is online."""
        begun = self.note("starting the daemon").time_s
        daemon.start()

        def is_online() -> bool:
            status = daemon.exit_status
            assert status is None, f"the daemon ended with exit status {status}, see daemon.jsonl"
            return any(
                entry.topic == "bridge/state" and entry.said["state"] == "online"
                for entry in self.timeline.since(begun)
            )

        self.timeline.wait("the daemon to be online", ONLINE_S, is_online)

    def note(self, what: str) -> Entry:
        """Write down what the bench does."""
        return self.timeline.add(BENCH, what)

    def newest(self, topic: str) -> dict[str, Any]:
        """Return the newest payload of a topic, empty if none came."""
        found: dict[str, Any] = self.mqtt.newest.get(topic, {})
        return found
