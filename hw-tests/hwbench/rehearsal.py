"""An emulated bench: boards, serial consoles, bluetoothd and broker for the same scenarios.

The boards live in a thread with an event loop of its own, at the speed of real ones. Their
consoles are pseudo terminals, which have no RTS: resets go by the emulated power. The daemon is a
program of its own and meets them over D-Bus; the broker is a mosquitto.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pty
import threading
import tty
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from fastprovd.emulator import virtual_time
from fastprovd.emulator.air import Air
from fastprovd.emulator.bluez import Bluetoothd
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.board import Board
from fastprovd.emulator.console import ELF_SHA256, Console
from fastprovd.emulator.private_bus import PrivateBus
from fastprovd.publish.broker import LOOPBACK, find_mosquitto
from hwbench.bench import ProgramOfTheGateway
from hwbench.config import BenchConfig, BoardConfig, GatewayConfig
from hwbench.flashing import APP_DESC_MAGIC, ELF_SHA256_AT
from hwbench.power import Power
from hwbench.serial_ports import SerialPort
from tests.support.mqtt import Mosquitto

T = TypeVar("T")

_CALL_S: Final = 10.0  # what is asked of the thread takes milliseconds
_FIRMWARE: Final = "fast_prov_server"
_CHIP: Final = "esp32c3"


def missing() -> str | None:
    """Return why there can be no rehearsal here, None when there can."""
    if find_mosquitto() is None:
        return "mosquitto is missing: sudo apt-get install mosquitto"
    return PrivateBus.missing()


@contextmanager
def rehearsal(boards: int, seed: int, directory: Path) -> Iterator[tuple[BenchConfig, Rehearsal]]:
    """Run an emulated bench while the context lasts; `directory` is for its files."""
    with ExitStack() as stack:
        broker = Mosquitto(directory, "allow_anonymous true")
        broker.start()
        stack.callback(broker.kill)
        bus = stack.enter_context(PrivateBus())
        world = World(boards, seed, bus.address)
        stack.callback(world.stop)
        world.start()
        config = BenchConfig(
            name="rehearsal",
            gateway=GatewayConfig(),
            mqtt_host=LOOPBACK,
            mqtt_port=broker.port,
            power="emulated",
            boards=world.boards,
            manifest=_write_manifest(directory),
        )
        yield config, Rehearsal(world, broker, bus.address)


class Rehearsal:
    """The surroundings of an emulated bench."""

    def __init__(self, world: World, broker: Mosquitto, bus_address: str) -> None:
        self._world = world
        self.environ: dict[str, str] = {"DBUS_SYSTEM_BUS_ADDRESS": bus_address}
        self.programs: Mapping[str, ProgramOfTheGateway] = {
            "bluetoothd": _EmulatedBluetoothd(world),
            "broker": broker,
        }

    def power(self, ports: Mapping[str, SerialPort]) -> Power:
        """Return the emulated switches."""
        return _EmulatedPower(self._world)


class World:
    """The thread of the emulated boards; all methods are for other threads."""

    def __init__(self, boards: int, seed: int, bus_address: str) -> None:
        self._seed = seed
        self._bus_address = bus_address
        self._started = threading.Event()
        self._ending = asyncio.Event()
        self._failure: BaseException | None = None
        self._terminals = ExitStack()
        self._masters: dict[str, int] = {}
        self.boards = tuple(self._board(number) for number in range(1, boards + 1))
        self._thread = threading.Thread(target=self._run, name="emulated boards", daemon=True)

    def start(self) -> None:
        """Power all boards on."""
        self._thread.start()
        self._started.wait(_CALL_S)
        if self._failure is not None:
            raise RuntimeError("the emulated boards did not start") from self._failure

    def stop(self) -> None:
        """End all of it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(_CALL_S)
        self._terminals.close()
        if self._failure is not None:
            raise RuntimeError("the emulated boards failed") from self._failure

    def call(self, do: Callable[[World], T]) -> T:
        """Do something in the thread of the boards."""

        async def done() -> T:
            return do(self)

        return self.run(done())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread of the boards."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_S)

    def board(self, config: BoardConfig) -> Board:
        """Return the emulated board; for use in its thread."""
        return self._air.board(config.mac)

    @property
    def bluetoothd(self) -> Bluetoothd:
        """The emulated bluetoothd; for use in its thread."""
        return self._bluetoothd

    def _board(self, number: int) -> BoardConfig:
        master, slave = pty.openpty()
        self._terminals.callback(os.close, master)
        # Kept open, so that the console goes on when nobody reads.
        self._terminals.callback(os.close, slave)
        tty.setraw(slave)
        os.set_blocking(master, False)
        board_id = f"n{number:02d}"
        self._masters[board_id] = master
        return BoardConfig(
            id=board_id,
            port=os.ttyname(slave),
            chip=_CHIP,
            mac=f"24:0A:C4:5E:{number >> 8:02X}:{number & 0xFF:02X}",
            firmware=_FIRMWARE,
        )

    def _run(self) -> None:
        try:
            # Its timers for one moment fire in order; what is sent in order arrives so.
            virtual_time.run(self._live(), speed=1.0)
        except BaseException as error:  # noqa: BLE001 - raised again by start or stop
            self._failure = error
        finally:
            self._started.set()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._air = Air(self._seed)
        for config in self.boards:
            board = self._air.add_board(config.mac, power_on=False)
            Console(self._air, board, self._printer(self._masters[config.id]))
            board.power_on()
        adapter = EmulatedAdapter(self._air.adapter(), seed=self._seed)
        async with Bluetoothd(adapter, self._bus_address) as self._bluetoothd:
            self._started.set()
            await self._ending.wait()
            for config in self.boards:
                self.board(config).power_off()

    def _printer(self, master: int) -> Callable[[bytes], None]:
        def put(octets: bytes) -> None:
            # A UART does not wait for its reader.
            with contextlib.suppress(BlockingIOError):
                os.write(master, octets)

        return put


class _EmulatedPower:
    def __init__(self, world: World) -> None:
        self._world = world

    def cut(self, board: BoardConfig) -> None:
        """Take its power away; it forgets everything."""
        self._world.call(lambda world: world.board(board).power_off())

    def restore(self, board: BoardConfig) -> None:
        """Let it boot."""
        self._world.call(lambda world: world.board(board).power_on())


class _EmulatedBluetoothd:
    def __init__(self, world: World) -> None:
        self._world = world

    def kill(self) -> None:
        """End it as by SIGKILL."""
        self._world.run(self._world.bluetoothd.kill())

    def start(self) -> None:
        """Start it again."""
        self._world.run(self._world.bluetoothd.start())


def _write_manifest(directory: Path) -> Path:
    """Write a firmware image that names the emulated boards' firmware, and its manifest."""
    image = directory / f"{_FIRMWARE}.bin"
    described = APP_DESC_MAGIC.ljust(ELF_SHA256_AT, b"\0") + bytes.fromhex(ELF_SHA256)
    image.write_bytes(bytes(32) + described)
    manifest = directory / "manifest.toml"
    manifest.write_text(
        f'[[image]]\nname = "{_FIRMWARE}"\nchip = "{_CHIP}"\nfile = "{image.name}"\n'
        f'offset = 0x10000\nsha256 = "{hashlib.sha256(image.read_bytes()).hexdigest()}"\n',
        "utf-8",
    )
    return manifest
