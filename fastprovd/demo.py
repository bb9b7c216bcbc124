"""The demo: virtual boards on a virtual air, a real broker, and the gateway's own code between."""

from __future__ import annotations

import asyncio
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal, TextIO

import aiomqtt

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.config import Config, GatewayConfig, MeshConfig, MqttConfig, RunConfig, StateConfig
from fastprovd.console import write_line
from fastprovd.emulator import virtual_time
from fastprovd.emulator.air import Air, collides
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.errors import BrokerMismatch, BrokerUnavailable
from fastprovd.foreground import one_run, open_published
from fastprovd.mesh.addresses import format_address
from fastprovd.progress import reporting
from fastprovd.publish.broker import LocalBroker, local_broker
from fastprovd.publish.messages import Topics
from fastprovd.records import Node, Run

HOSTS: Final = {"bluedroid": Host.BLUEDROID, "nimble": Host.NIMBLE}

_GATEWAY_ID: Final = "demo"
_MQTT_TIMEOUT_S: Final = 5.0
# Far more than the outbox needs to drain on a loaded machine; in seconds of real time.
_READ_BACK_S: Final = 10.0
_RUN_TIMEOUT_S: Final = 3600.0  # 300 boards


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to show; `broker` is host and port of one that is there, `None` starts one.

    `boards` counts the Primary Provisioner too; `speed` is in emulated seconds per second.
    """

    boards: int = 20
    seed: int = 1
    speed: float = 5.0
    broker: tuple[str, int] | None = None
    host: Host = field(default=Host.BLUEDROID)
    flaws: bool = False
    method: Literal["fast", "direct", "auto"] = "fast"
    air: Literal["auto", "ideal", "collisions"] = "auto"

    @property
    def collisions(self) -> bool:
        """Whether transmissions collide; with `air` "auto" the number of boards decides."""
        return collides(self.boards) if self.air == "auto" else self.air == "collisions"


def run_demo(options: DemoOptions, stream: TextIO, *, as_json: bool) -> Run:
    """Show one run and return it; the state directory is gone afterwards.

    Raises:
        BrokerUnavailable: there is no broker, and none can be started.
        BrokerMismatch: the broker does not have what was published.
    """
    with tempfile.TemporaryDirectory(prefix="fastprovd-demo-") as directory:
        demo = _Demo(options, Path(directory), stream, as_json)
        return virtual_time.run(demo.run(), options.speed)


class _Demo:
    def __init__(
        self, options: DemoOptions, directory: Path, stream: TextIO, as_json: bool
    ) -> None:
        self._options = options
        self._directory = directory
        self._stream = stream
        self._as_json = as_json
        self._started = time.monotonic()

    async def run(self) -> Run:
        with ExitStack() as signals:
            return await self._run(signals)

    async def _run(self, signals: ExitStack) -> Run:
        options = self._options
        async with AsyncExitStack() as stack:
            if options.broker is None:
                broker = await stack.enter_async_context(local_broker())
            else:
                broker = LocalBroker(*options.broker, "mosquitto")
            air = Air(options.seed, collisions=options.collisions)
            self._add_boards(air)
            adapter = EmulatedAdapter(air.adapter(), seed=options.seed)
            radio = BleakBearer("", scanner_backend(adapter), client_backend(adapter))
            config = self._config(broker)
            self._tell(self._introduction(broker))
            reporter = stack.enter_context(
                reporting(
                    self._stream,
                    as_json=self._as_json,
                    provisioned=lambda: sum(b.unicast_address is not None for b in air.boards),
                )
            )
            gateway = await stack.enter_async_context(
                open_published(
                    config, radio=radio, entropy=Random(f"{options.seed}/gateway").randbytes
                )
            )
            run, nodes = await one_run(gateway, gateway.settings(), reporter, signals)
            try:
                found = await self._read_back(broker, run, nodes)
            except aiomqtt.MqttError as error:
                raise BrokerUnavailable(f"the broker can not be read back: {error}") from error
            wall_s = time.monotonic() - self._started
            reporter.finished(
                run,
                nodes,
                wall_s=round(wall_s, 3),
                peak_memory_mib=round(_peak_memory_mib(), 1),
                addresses_on_broker=len(found),
                seed=options.seed,
                speed=options.speed,
            )
            self._tell(self._conclusion(broker, run, nodes, len(found), wall_s))
        published = {format_address(node.address) for node in nodes}
        if found != published:
            raise BrokerMismatch(
                f"{_topics().nodes} has {len(found)} addresses, {len(published)} were published"
            )
        return run

    def _config(self, broker: LocalBroker) -> Config:
        options = self._options
        return Config(
            gateway=GatewayConfig(id=_GATEWAY_ID),
            # The loop's clock is the emulated one, so its timeouts have to be longer.
            mqtt=MqttConfig(
                host=broker.host,
                port=broker.port,
                protocol="5" if broker.protocol == "5" else "3.1.1",
                timeout_s=_MQTT_TIMEOUT_S * max(1.0, options.speed),
            ),
            mesh=MeshConfig(),
            run=RunConfig(
                method=options.method, expected=options.boards, run_timeout_s=_RUN_TIMEOUT_S
            ),
            state=StateConfig(self._directory / "state"),
        )

    def _add_boards(self, air: Air) -> None:
        options = self._options
        flaws = Flaws() if options.flaws else Flaws.none()
        for number in range(1, options.boards + 1):
            device_address = f"24:0A:C4:5E:{number >> 8:02X}:{number & 0xFF:02X}"
            air.add_board(device_address, host=options.host, flaws=flaws)

    async def _read_back(self, broker: LocalBroker, run: Run, nodes: list[Node]) -> set[str]:
        """Return the addresses that the broker has, as a client of its own sees them."""
        wanted = {format_address(node.address) for node in nodes}
        found: set[str] = set()
        timeout_s = _READ_BACK_S * self._options.speed
        async with aiomqtt.Client(broker.host, broker.port, timeout=timeout_s) as client:
            await client.subscribe(_topics().nodes, qos=1)
            try:
                async with asyncio.timeout(timeout_s):
                    async for message in client.messages:
                        if message.topic.value != _topics().nodes:
                            continue  # amqtt sends retained messages that nobody asked for
                        content = json.loads(message.payload)
                        found = set(content["addresses"])
                        if found == wanted and content["run_id"] == run.run_id:
                            break
            except TimeoutError:
                return found
        return found

    def _tell(self, lines: Iterator[str]) -> None:
        if not self._as_json:
            for line in lines:
                write_line(self._stream, line)

    def _introduction(self, broker: LocalBroker) -> Iterator[str]:
        options = self._options
        yield (
            f"{options.boards} virtual boards ({options.host.name}, flaws "
            f"{'on' if options.flaws else 'off'}) on an air "
            f"{'with' if options.collisions else 'without'} collisions, seed {options.seed}, at "
            f"{options.speed:g} times the speed of real ones."
        )
        yield f"MQTT broker: {broker.host}:{broker.port}. To listen in another terminal:"
        yield f"  {self._subscription(broker)}"
        yield ""

    def _conclusion(
        self, broker: LocalBroker, run: Run, nodes: list[Node], found: int, wall_s: float
    ) -> Iterator[str]:
        topics = _topics()
        yield ""
        yield (
            f"Read back from the broker by a client of its own: {found} addresses in "
            f"{topics.nodes}."
        )
        yield f"{run.elapsed_s:.1f} emulated seconds took {wall_s:.1f} s."
        yield ""
        yield "Topics to look at:"
        for topic, content in (
            (topics.nodes, "the address list, whole"),
            *((topics.node(node.address), "one node") for node in nodes[:1]),
            (topics.run, "the run"),
            (topics.event, "everything as it happens"),
        ):
            yield f"  {topic:<30} {content}"
        yield f"  {self._subscription(broker)}"
        if self._options.broker is None:
            yield "  (this broker ends with the demo; `--broker mqtt://localhost` uses yours)"
        yield ""
        yield (
            "Try next: `fastprovd demo --boards 100 --speed 20`, or `--flaws on` to see what real "
            "firmware does."
        )

    def _subscription(self, broker: LocalBroker) -> str:
        base = _topics().base
        return f"mosquitto_sub -h {broker.host} -p {broker.port} -v -t '{base}/#'"


def _topics() -> Topics:
    return Topics(f"{MqttConfig().base_topic}/{_GATEWAY_ID}")


def _peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
