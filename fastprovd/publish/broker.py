"""A broker for the demo and the tests: mosquitto as a child, else amqtt in a thread.

It takes anonymous clients, keeps nothing, and listens on the loopback interface only.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastprovd.errors import BrokerUnavailable

LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 10.0  # mosquitto takes 15 ms, amqtt 0.3 s on a fast machine
_STOP_TIMEOUT_S: Final = 5.0
_SYSTEM_PATHS: Final = "/usr/sbin:/usr/local/sbin"  # where Debian keeps it, outside people's PATH
_ATTEMPTS: Final = 3  # a free port may be taken between finding it and listening on it


class LocalBroker(NamedTuple):
    """Where it listens, and `mosquitto` or `amqtt`."""

    host: str
    port: int
    name: str

    @property
    def protocol(self) -> str:
        """The newest MQTT version it speaks, as `BrokerSettings.protocol` names it."""
        return "5" if self.name == "mosquitto" else "3.1.1"


@contextlib.asynccontextmanager
async def local_broker() -> AsyncIterator[LocalBroker]:
    """Run a broker while the context lasts.

    Its time is real time, whatever the clock of the running event loop is.

    Raises:
        BrokerUnavailable: neither broker is installed, or it does not start.
    """
    start = _choose()
    broker, stop = await asyncio.to_thread(start)
    try:
        yield broker
    finally:
        await asyncio.to_thread(stop)


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto program, or None."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATHS}")


def start_mosquitto(program: str) -> tuple[LocalBroker, Callable[[], None]]:
    """Start mosquitto as a child and wait until it listens; return how to stop it. Blocks.

    Raises:
        BrokerUnavailable: it ended, or does not listen in time.
    """
    with contextlib.ExitStack() as cleanup:
        directory = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="fastprovd-broker-"))
        configuration = Path(directory, "mosquitto.conf")
        for _ in range(_ATTEMPTS):
            port = _free_port()
            configuration.write_text(
                f"listener {port} {LOOPBACK}\nallow_anonymous true\npersistence false\n"
                "log_dest stderr\nlog_type error\n",
                encoding="ascii",
            )
            child = subprocess.Popen(  # noqa: S603 - found on PATH, arguments are ours
                [program, "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if _wait_until_listening(port, partial(_is_running, child)):
                cleanup.callback(_stop_child, child)
                return LocalBroker(LOOPBACK, port, "mosquitto"), cleanup.pop_all().close
            _stop_child(child)
    raise BrokerUnavailable(f"{program} does not listen; run it by hand to see why")


def start_amqtt() -> tuple[LocalBroker, Callable[[], None]]:
    """Start amqtt in a thread with a loop of its own; return how to stop it. Blocks.

    Raises:
        BrokerUnavailable: it does not start in time.
    """
    for _ in range(_ATTEMPTS):
        embedded = _EmbeddedBroker(_free_port())
        embedded.start()
        if _wait_until_listening(embedded.port, embedded.is_alive):
            return LocalBroker(LOOPBACK, embedded.port, "amqtt"), embedded.stop
        embedded.stop()
    raise BrokerUnavailable("the embedded broker amqtt does not listen; install mosquitto instead")


class _EmbeddedBroker(threading.Thread):
    def __init__(self, port: int) -> None:
        super().__init__(name="amqtt", daemon=True)
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self.join(_STOP_TIMEOUT_S)

    async def _serve(self) -> None:
        # amqtt is an extra, and slow to import.
        from fastprovd.publish.embedded import ClosingBroker

        # It logs each connection that ends before its first packet as an error.
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        configuration: dict[str, Any] = {
            "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{self.port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
        broker = ClosingBroker(configuration)
        await broker.start()
        await self._stopping.wait()
        await broker.shutdown()


def _choose() -> Callable[[], tuple[LocalBroker, Callable[[], None]]]:
    program = find_mosquitto()
    if program is not None:
        return lambda: start_mosquitto(program)
    if importlib.util.find_spec("amqtt") is None:
        raise BrokerUnavailable(
            "no MQTT broker found: install mosquitto (`sudo apt install mosquitto`) "
            "or the embedded one (`pip install 'fastprovd[demo]'`)"
        )
    return start_amqtt


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _wait_until_listening(port: int, is_alive: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while is_alive() and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1.0):
            return is_alive()
        time.sleep(0.01)
    return False


def _is_running(child: subprocess.Popen[bytes]) -> bool:
    return child.poll() is None


def _stop_child(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
