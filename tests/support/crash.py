"""A gateway that is killed at an instant, and the one that is started after it.

The boards, the air and BlueZ live on. Nothing of the killed process acts any more: its calls into
BlueZ fail, and the state directory goes back to what it was on the disk at that instant. What
leaves over the links of all lives is kept, and held against what must never happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from bleak.exc import BleakError

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.bearers.gatt import GattLink
from fastprovd.clock import SystemClock
from fastprovd.config import Config, GatewayConfig, MqttConfig, RunConfig, StateConfig
from fastprovd.emulator.air import Air, collides
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.network import decode_network_pdu
from fastprovd.mesh.proxy import ProxyPduType
from fastprovd.records import Node, Run, Step
from fastprovd.store import high_water
from fastprovd.store.state import StateStore
from tests.support.scene import device_address

_DATABASE: Final = ("state.db", "state.db-wal", high_water.FILE_NAME)
# In memory, if there is such a place: a thousand lives write a lot.
_FAST_DISK: Final = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BleakError):
    """What a dead process meets."""


class Death(Enum):
    """What happens to the links of a process that dies."""

    LINKS_STAY = "BlueZ keeps them until somebody hangs up"
    LINKS_GO = "BlueZ hangs up"
    POWER_CUT = "the adapter goes as well"


@dataclass
class Life:
    """One process; it dies when its `dies_at`-th step is in the journal, or when it is told to.

    Or when the `dies_at_pdu`-th Proxy PDU was given to BlueZ.
    """

    number: int
    dies_at: int | None = None
    dies_at_pdu: int | None = None
    is_dead: bool = False
    steps: int = 0
    pdus: int = 0
    image: dict[str, bytes] = field(default_factory=dict)
    death: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        """Raise Killed once it is dead."""
        if self.is_dead:
            raise Killed(f"process {self.number} was killed")

    def die(self, directory: Path) -> None:
        """Keep what is on the disk now."""
        if not self.is_dead:
            self.is_dead = True
            paths = [directory / name for name in _DATABASE]
            self.image = {path.name: path.read_bytes() for path in paths if path.exists()}


@dataclass
class World:
    """Boards and BlueZ, and what was sent by all lives."""

    air: Air
    adapter: EmulatedAdapter
    directory: Path
    settings: dict[str, Any]
    random: Random
    death: Death
    sent: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    seqs_sent: int = 0
    violations: list[str] = field(default_factory=list)
    gateway: Gateway | None = None
    events: list[str] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """The configuration of every life."""
        return Config(
            gateway=GatewayConfig(id="gw1"),
            mqtt=MqttConfig(enabled=False),
            run=RunConfig(**self.settings),
            state=StateConfig(self.directory),
        )

    def left(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Take a Proxy PDU that is about to leave."""
        if pdu_type not in (ProxyPduType.NETWORK_PDU, ProxyPduType.PROXY_CONFIGURATION):
            return
        assert self.gateway is not None
        net_key = self.gateway.network.net_key
        pdu = decode_network_pdu(
            payload,
            [net_key],
            IvIndex(),
            proxy_configuration=pdu_type is ProxyPduType.PROXY_CONFIGURATION,
        )
        assert pdu is not None
        self.seqs_sent += 1
        before = self.sent.setdefault((pdu.iv_index, pdu.src, pdu.seq), payload)
        if before != payload:
            self.violations.append(f"SEQ {pdu.seq} was used twice")


class _Store(StateStore):
    """Tells the life of each step, once it is committed."""

    def __init__(
        self,
        directory: Path,
        entropy: Callable[[int], bytes],
        life: Life,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(directory, entropy)
        self._directory = directory
        self._life = life
        self._loop = loop

    def save_step(self, step: Step) -> None:
        super().save_step(step)
        self._journalled()

    def save_dev_key(
        self, address: int, device_uuid: bytes, dev_key: DevKey, step: Step | None = None
    ) -> None:
        super().save_dev_key(address, device_uuid, dev_key, step)
        if step is not None:
            self._journalled()

    def save_nodes(
        self,
        nodes: Sequence[Node],
        steps: Sequence[Step] = (),
        heard: Iterable[tuple[int, int, int]] = (),
        run: Run | None = None,
    ) -> None:
        super().save_nodes(nodes, steps, heard, run)
        for _ in steps:
            self._journalled()

    def _journalled(self) -> None:
        life = self._life
        with self._database._lock:
            if life.is_dead:
                raise Killed("nobody is there any more")
            life.steps += 1
            if life.steps == life.dies_at:
                life.die(self._directory)
                self._loop.call_soon_threadsafe(life.death.set)

    def kill(self) -> None:
        """Die now."""
        with self._database._lock:
            self._life.die(self._directory)


class _Bearer(BleakBearer):
    """A radio of one life."""

    def __init__(self, world: World, life: Life) -> None:
        super().__init__(
            "", _scanner(world.adapter, life), _client(world.adapter, life), max_links=5
        )
        self._world = world
        self._life = life

    async def close_left_links(self) -> None:
        """Hang up what the life before left at BlueZ."""
        adapter = self._world.adapter
        left = adapter.linked - {c.device_address for c in self._connections}
        for address in left:
            device = adapter.device(address)
            if device is not None:
                adapter.request_disconnect(device)
        while left & adapter.linked:  # noqa: ASYNC110 - BlueZ tells nobody
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def provisioning_link(self, device_address: str) -> AsyncIterator[GattLink]:
        async with super().provisioning_link(device_address) as link:
            yield self._traced(link)

    @asynccontextmanager
    async def proxy_link(self, device_address: str) -> AsyncIterator[GattLink]:
        async with super().proxy_link(device_address) as link:
            yield self._traced(link)

    @asynccontextmanager
    async def kept_proxy_link(self, device_address: str) -> AsyncIterator[GattLink]:
        async with super().kept_proxy_link(device_address) as link:
            yield self._traced(link)

    def _traced(self, link: GattLink) -> GattLink:
        return cast(GattLink, _TracedLink(link, self._world, self._life))


class _TracedLink:
    """A Link for the campaign that tells what is sent."""

    def __init__(self, link: GattLink, world: World, life: Life) -> None:
        self._link = link
        self._world = world
        self._life = life

    @property
    def is_connected(self) -> bool:
        return self._link.is_connected

    async def send(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        self._life.check()
        self._world.left(pdu_type, payload)
        await self._link.send(pdu_type, payload)
        self._life.pdus += 1
        if self._life.pdus == self._life.dies_at_pdu:
            self._life.death.set()
            await asyncio.Event().wait()

    async def receive(self) -> tuple[ProxyPduType, bytes]:
        return await self._link.receive()


def _client(adapter: EmulatedAdapter, life: Life) -> type[Any]:
    base: type[Any] = client_backend(adapter)

    class Client(base):  # type: ignore[misc]
        async def connect(self, pair: bool, **kwargs: Any) -> None:
            life.check()
            await super().connect(pair, **kwargs)

        async def disconnect(self) -> None:
            life.check()
            await super().disconnect()

        async def write_gatt_char(self, *args: Any, **kwargs: Any) -> None:
            life.check()
            await super().write_gatt_char(*args, **kwargs)

        async def start_notify(self, *args: Any, **kwargs: Any) -> None:
            life.check()
            await super().start_notify(*args, **kwargs)

    return Client


def _scanner(adapter: EmulatedAdapter, life: Life) -> type[Any]:
    base: type[Any] = scanner_backend(adapter, f"life {life.number}")

    class Scanner(base):  # type: ignore[misc]
        async def start(self) -> None:
            life.check()
            await super().start()

        async def stop(self) -> None:
            life.check()
            await super().stop()

    return Scanner


@contextlib.contextmanager
def _directory() -> Any:
    base = _FAST_DISK if _FAST_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as directory:
        state = Path(directory) / "state"
        state.mkdir(mode=0o700)
        yield state


@asynccontextmanager
async def crash_world(
    boards: int,
    seed: int,
    *,
    host: Host = Host.BLUEDROID,
    flaws: Flaws | None = None,
    death: Death = Death.LINKS_STAY,
    **settings: Any,
) -> AsyncIterator[World]:
    """Place boards, which boot now; `settings` are those of `[run]`."""
    air = Air(seed, collisions=collides(boards))
    for number in range(1, boards + 1):
        air.add_board(device_address(number), host=host, flaws=flaws)
    random = Random(f"{seed}/crash")
    with _directory() as directory:
        yield World(
            air,
            EmulatedAdapter(air.adapter(), seed=seed),
            directory,
            {"expected": boards, **settings},
            random,
            death,
        )


async def live(
    world: World, life: Life, work: Callable[[Gateway], Any], dies_after_s: float | None = None
) -> Any:
    """Live one life: `work` with an open gateway. Return its result, or None if it died."""
    stores: list[_Store] = []

    loop = asyncio.get_running_loop()

    def open_store(directory: Path, entropy: Callable[[int], bytes]) -> StateStore:
        stores.append(_Store(directory, entropy, life, loop))
        return stores[0]

    async def process() -> Any:
        async with open_gateway(
            world.config,
            radio=_Bearer(world, life),
            clock=_WorldClock(),
            entropy=Random(f"{world.air.seed}/{life.number}").randbytes,
            open_store=open_store,
        ) as gateway:
            world.gateway = gateway
            gateway.audiences.members.append(_Events(world))
            return await work(gateway)

    task = asyncio.create_task(process(), name=f"process[{life.number}]")
    watcher = asyncio.create_task(life.death.wait())
    await asyncio.wait({task, watcher}, timeout=dies_after_s, return_when=asyncio.FIRST_COMPLETED)
    watcher.cancel()
    await asyncio.wait({watcher})
    if task.done() and not life.is_dead:
        return task.result()
    if stores:
        stores[0].kill()
    life.is_dead = True
    task.cancel()
    # What the dead process would still do fails at once.
    await asyncio.wait({task})
    await _let_bluez_notice(world, life)
    task.cancelled() or task.exception()
    if stores:
        stores[0].close()
    _put_back(world.directory, life.image)
    return None


async def _let_bluez_notice(world: World, life: Life) -> None:
    adapter = world.adapter
    # A scan that the process was just asking for begins a moment later, and ends with it.
    await asyncio.sleep(max(adapter.timing.scan_start_s))
    if adapter.has_session(f"life {life.number}"):
        await adapter.stop_discovery(f"life {life.number}")
    if world.death is Death.POWER_CUT:
        adapter.forget_everything()
    if world.death is Death.LINKS_GO:
        for address in adapter.linked:
            device = adapter.device(address)
            if device is not None:
                adapter.request_disconnect(device)


def _put_back(directory: Path, image: dict[str, bytes]) -> None:
    """Make the state what it was at the death, in the same files."""
    for name in ("state.db-wal", "state.db-shm", high_water.FILE_NAME):
        (directory / name).unlink(missing_ok=True)
    for name, content in image.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)


class _WorldClock(SystemClock):
    """Wall clock time goes as the emulated time does."""

    def utc_now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self.monotonic())


class _Events:
    """An audience that keeps the kinds of events."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None

    def event(self, kind: str, data: Any, run_id: str | None) -> None:
        """Keep it."""
        self._world.events.append(kind)


async def run_or_resume(gateway: Gateway) -> Run | None:
    """Do what the daemon does: go on with a run that was left; else begin one, once."""
    await gateway.close_left_links()
    campaign = gateway.prepare_resumption()
    if campaign is None:
        last, _ = await gateway.last_run()
        if last is not None:
            return last
        campaign = gateway.prepare_run(gateway.settings())
    return await gateway.execute(campaign)
