"""The service: a gateway that takes requests and publishes until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, Final

import structlog

from fastprovd import __version__
from fastprovd.audiences import SilentAudience
from fastprovd.campaign.ports import Audience
from fastprovd.campaign.run import Campaign
from fastprovd.campaign.tasks import background
from fastprovd.clock import Clock, SystemClock
from fastprovd.config import Config, MqttConfig, read_password
from fastprovd.edges import guarded
from fastprovd.errors import ConfigError, FastprovdError, RunInProgress, RunsRefused, StoreError
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.publish.client import BrokerSettings
from fastprovd.publish.messages import GatewayInfo
from fastprovd.publish.mqtt import MqttPublisher
from fastprovd.publish.outbox import Outbox
from fastprovd.radio import Radio
from fastprovd.records import Run
from fastprovd.requests import RequestHandler
from fastprovd.sd_notify import Notifier
from fastprovd.store_watch import watch_store
from fastprovd.text_files import has_byte_order_mark

log = structlog.get_logger(__name__)

OUTBOX_NAME: Final = "outbox.db"
# A loop that is this late, or a database that takes this long, does not do its work any more.
_RESPONSIVE_S: Final = 5.0
# A command that was called by hand, such as `fastprovd nodes`, may be at it.
_STATE_IN_USE_S: Final = 15.0
# After a run, before boards that lost their power are looked for again.
_HEAL_PAUSE_S: Final = 1.0
# After a fault of ours, which may be there again; nobody needs any of it sooner.
_SERVE_AGAIN_S: Final = 10.0
# What ends in order has ended by then, also with a bluetoothd or a broker that does not answer.
_CANCEL_AGAIN_S: Final = 8.0
# Of the 15 s that a stop may take: BlueZ needs 2 s for a scan and 2 s for the links. A second later
# each is given up, and the broker gets up to 5 s more.
BLUETOOTH_PATIENCE_S: Final = 6.0
_ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def run_daemon(
    config: Config,
    *,
    radio: Radio | None = None,
    clock: Clock | None = None,
    notifier: Notifier | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then end the run, say goodbye and keep all counters.

    Ready as soon as configuration and state database are: neither a missing adapter nor a missing
    broker keeps it from starting, or ends it.

    Raises:
        ConfigError: password or certificates can not be read.
        StoreError: the state directory can not be used as it is.
    """
    clock, notifier = clock or SystemClock(), notifier or Notifier()
    stop = asyncio.Event()
    with on_signals(stop.set):
        # A service has no terminal: whoever sends it SIGHUP means something else than its end.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload_asked)
        async with open_gateway(
            config, radio=radio, clock=clock, wait_s=_STATE_IN_USE_S
        ) as gateway:
            runs = Runs(gateway)
            async with publisher_for(gateway, runs, clock) as publisher:
                gateway.audiences.members.append(_StatusLine(notifier))
                async with asyncio.TaskGroup() as group:

                    def keep_up(
                        name: str, serve: Callable[[], Awaitable[None]]
                    ) -> asyncio.Task[None]:
                        return group.create_task(_kept_up(name, serve, stop), name=name)

                    workers = [
                        keep_up("watch_store", lambda: watch_store(gateway)),
                        keep_up("left_links", gateway.close_left_links),
                    ]
                    tellers = [
                        keep_up("watchdog", lambda: _feed_watchdog(gateway, notifier, clock))
                    ]
                    if publisher is not None:
                        tellers.append(keep_up("mqtt_publisher", publisher.run))
                    runs.begin(group)
                    try:
                        runs.resume()
                    except StoreError as error:  # the state was whole a moment ago
                        log.error("run_not_resumed", reason=str(error))
                    except Exception:  # at the edge: whoever asks for a run may have more luck
                        log.exception("run_not_resumed")
                    workers.append(keep_up("heal", lambda: _heal(gateway, runs)))
                    notifier.ready()
                    log.info("daemon_ready", version=__version__, gateway_id=config.gateway.id)
                    await stop.wait()
                    log.info("daemon_stopping")
                    notifier.stopping()
                    patience = hurry_later(gateway)
                    await asyncio.gather(runs.end(), _ended(workers))
                    await _ended(tellers)  # how the run ended is to be told
                patience.cancel()
    log.info("daemon_stopped")


def hurry_later(gateway: Gateway) -> asyncio.TimerHandle:
    """Give Bluetooth so long to end what is going on; call it when the program is told to end."""
    loop = asyncio.get_running_loop()
    return loop.call_later(BLUETOOTH_PATIENCE_S, guarded(gateway.hurry))


class Runs:
    """The runs that requests start, one at a time; none before `begin` and after `end`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._group: asyncio.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Let runs be started; `group` owns their tasks."""
        self._group = group

    def start(self, overrides: Mapping[str, Any]) -> Run:
        """Start a run and return it; raises RunInProgress, RunsRefused, ConfigError."""
        settings = self._gateway.settings(**overrides)
        if self._group is None:
            current = self._gateway.current_run
            if current is not None:
                raise RunInProgress(current.run_id)
            raise RunsRefused("this process starts no run on request")
        return self._begin(self._group, self._gateway.prepare_run(settings))

    def resume(self) -> None:
        """Go on with the run that an earlier process left unfinished, if there is one.

        Raises:
            StoreError: the state can not be read.
        """
        campaign = None if self._group is None else self._gateway.prepare_resumption()
        if campaign is not None and self._group is not None:
            self._begin(self._group, campaign)

    async def idle(self) -> None:
        """Wait until the run that is going on has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _begin(self, group: asyncio.TaskGroup, campaign: Campaign) -> Run:
        run = campaign.run
        self._task = group.create_task(self._execute(campaign), name=f"run[{run.run_id}]")
        return run

    async def end(self) -> None:
        """Interrupt the run that is going on, if any."""
        self._group = None
        if self._task is not None:
            await _ended([self._task])

    async def _execute(self, campaign: Campaign) -> None:
        try:
            await self._gateway.execute(campaign)
            if self._group is not None:
                await self._gateway.restore_groups()
        except FastprovdError as error:  # a full disk, for one: the next run may do better
            log.error("run_not_kept", run_id=campaign.run.run_id, reason=str(error))
        except Exception:  # at the edge: the daemon goes on
            log.exception("run_failed_afterwards", run_id=campaign.run.run_id)


async def _kept_up(name: str, serve: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Serve until that ends by itself; what fails with a fault of ours is begun again.

    Unless we stop: what fails while it is cancelled must not outlive that.
    """
    while True:
        try:
            await serve()
        except Exception:  # at the edge: it must end neither the others nor the daemon
            log.exception("service_failed", service=name, again_in_s=_SERVE_AGAIN_S)
            if stop.is_set():
                return
        else:
            return
        await asyncio.sleep(_SERVE_AGAIN_S)


async def _ended(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their ends.

    A clean-up that fails may take the place of a cancellation, and whoever tries again does so.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_CANCEL_AGAIN_S)


class _StatusLine(SilentAudience):
    """What `systemctl status` shows."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    def run_changed(self, run: Run) -> None:
        """Show the run as it stands."""
        of = "" if run.expected is None else f" of {run.expected}"
        self._notifier.status(f"{run.run_id}: {run.state}, {run.known}{of} addresses known")


class _LinksLine(SilentAudience):
    """Tells in `bridge/info` how many links the adapter bears, when a run has found that out."""

    def __init__(self, gateway: Gateway, publisher: MqttPublisher, info: GatewayInfo) -> None:
        self._gateway = gateway
        self._publisher = publisher
        self._info = info

    def run_changed(self, run: Run) -> None:
        """Look whether it is another number."""
        info = replace(self._info, links=self._gateway.links)
        if info != self._info:
            self._info = info
            self._publisher.info_changed(info)


async def _heal(gateway: Gateway, runs: Runs) -> None:
    """Look for boards that lost their power, and begin a run for them if that is the policy.

    They may have lost it together with us, in the middle of a run that is resumed first. While
    Bluetooth is waited for somebody may ask for runs, which may not get it either.
    """
    while True:
        await runs.idle()
        try:
            returned = await gateway.look_for_returned()
            break
        except RunInProgress:
            await asyncio.sleep(_HEAL_PAUSE_S)
        except FastprovdError as error:
            log.info("not_healed", reason=str(error))
            return
    try:
        if returned and gateway.config.run.heal == "on_start":
            runs.start({"expected": returned})
    except FastprovdError as error:  # somebody else begins a run
        log.info("not_healed", reason=str(error))


async def _feed_watchdog(gateway: Gateway, notifier: Notifier, clock: Clock) -> None:
    """Feed systemd's watchdog as long as the loop is on time and the database answers."""
    interval_s = notifier.watchdog_interval_s
    while interval_s is not None:
        due = clock.monotonic() + interval_s
        await asyncio.sleep(interval_s)
        late_s = clock.monotonic() - due
        try:
            async with asyncio.timeout(_RESPONSIVE_S):
                await gateway.check_store()
        except TimeoutError:
            log.error("watchdog_not_fed", reason="the database does not answer")
            continue
        except StoreError:
            pass  # it answers that it can not; `watch_store` says so, and no restart helps
        if late_s > _RESPONSIVE_S:
            log.error("watchdog_not_fed", reason=f"the event loop was {late_s:.1f} s late")
            continue
        notifier.watchdog()


@contextmanager
def on_signals(call: Callable[[], object]) -> Iterator[None]:
    """Call back at SIGTERM, SIGINT and SIGHUP, the end of a terminal, instead of ending."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number in _ENDS:
        loop.add_signal_handler(number, guarded(call))
    try:
        yield
    finally:
        for number in _ENDS:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number] or signal.SIG_DFL)


def _reload_asked() -> None:
    log.info("sighup_ignored", advice="restart the service to have the configuration read again")


@asynccontextmanager
async def publisher_for(
    gateway: Gateway, runs: Runs, clock: Clock
) -> AsyncIterator[MqttPublisher | None]:
    """Make the publisher, told of the last run, and let it hear of everything; its task is yours.

    `None` when the configuration says so.

    Raises:
        ConfigError: password or certificates can not be read.
        StoreError: the outbox can not be opened.
    """
    config = gateway.config
    if not config.mqtt.enabled:
        log.warning("mqtt_disabled", advice="set [mqtt] enabled to publish and to take requests")
        yield None
        return
    settings = broker_settings(config)
    outbox = await asyncio.to_thread(Outbox, config.state.directory / OUTBOX_NAME)
    try:
        handler = RequestHandler(gateway, runs.start)
        info = gateway_info(gateway, clock)
        publisher = MqttPublisher(settings, outbox, handler.answer, info, clock)
        run, _ = await gateway.last_run()
        if run is not None:
            publisher.run_changed(run)
            made, nodes = await gateway.address_list()
            publisher.nodes_changed(nodes, made)
            publisher.groups_changed(await gateway.controls.groups())
        members: list[Audience] = [publisher, _LinksLine(gateway, publisher, info)]
        gateway.audiences.members.extend(members)
        yield publisher
        for member in members:
            gateway.audiences.members.remove(member)
    finally:
        outbox.close()


@asynccontextmanager
async def published(gateway: Gateway, clock: Clock) -> AsyncIterator[None]:
    """Publish while the context lasts, and answer requests, but start no run; raises as above."""
    async with publisher_for(gateway, Runs(gateway), clock) as publisher:
        if publisher is None:
            yield
            return
        async with background(publisher.run(), "mqtt_publisher"):
            yield


def broker_settings(config: Config) -> BrokerSettings:
    """Return where the broker is and how to speak to it.

    Raises:
        ConfigError: with each file that can not be used and the place of the value that names it.
    """
    mqtt = config.mqtt
    password, tls, problems = None, None, []
    try:
        password = read_password(mqtt)
    except ConfigError as error:
        problems += config.placed(error.problems)
    try:
        tls = _tls_context(mqtt)
    except ConfigError as error:
        problems += config.placed(error.problems)
    if problems:
        raise ConfigError(problems)
    return BrokerSettings(
        mqtt.host,
        mqtt.port,
        config.gateway.id,
        mqtt.protocol,
        mqtt.username or None,
        password,
        tls,
        mqtt.base_topic,
        mqtt.keepalive_s,
        mqtt.timeout_s,
    )


def gateway_info(gateway: Gateway, clock: Clock) -> GatewayInfo:
    """Return the public facts for `bridge/info`."""
    config, network = gateway.config, gateway.network
    adapter = config.bluetooth.adapter
    return GatewayInfo(
        version=__version__,
        gateway_id=config.gateway.id,
        started=clock.utc_now(),
        adapter=adapter if adapter and ":" not in adapter else None,
        adapter_address=adapter if ":" in adapter else None,
        mesh_uuid=network.mesh_uuid,
        network_id=network.net_key.network_id,
        net_key_index=network.net_key.index,
        app_key_index=network.app_key.index,
        iv_index=network.iv_index.value,
        provisioner_address=network.address,
        unicast_min=config.mesh.unicast_min,
        unicast_max=config.mesh.unicast_max,
        links=gateway.links,
    )


def _tls_context(mqtt: MqttConfig) -> ssl.SSLContext | None:
    if not mqtt.tls.enabled:
        return None
    problems = []
    for name in ("ca", "cert", "key"):
        file = getattr(mqtt.tls, name)
        try:
            if file is not None and has_byte_order_mark(file.read_bytes()):
                reason = (
                    "begins with a byte order mark, which OpenSSL can not read: save it as ASCII"
                )
                problems.append(f"mqtt.tls.{name}: {file}: {reason}")
        except OSError as error:  # OpenSSL does not say which
            problems.append(f"mqtt.tls.{name}: {file}: {error.strerror}")
    if problems:
        raise ConfigError(problems)
    try:
        context = ssl.create_default_context(cafile=mqtt.tls.ca)
    except ssl.SSLError as error:
        raise ConfigError([f"mqtt.tls.ca: {mqtt.tls.ca}: {error}"]) from error
    if mqtt.tls.cert is not None:
        try:
            context.load_cert_chain(mqtt.tls.cert, mqtt.tls.key, _refuse_pass_phrase)
        except _PassPhraseAsked:
            raise ConfigError(
                [
                    f"mqtt.tls.key: {mqtt.tls.key}: it has a pass phrase, which a daemon can not "
                    "be asked for; write a key without one, with `openssl pkey -in OLD -out NEW`"
                ]
            ) from None
        except ssl.SSLError as error:
            reason = str(error)
            if error.reason == "KEY_VALUES_MISMATCH":
                reason = f"the key in {mqtt.tls.key} does not belong to it"
            raise ConfigError([f"mqtt.tls.cert: {mqtt.tls.cert}: {reason}"]) from error
    return context


class _PassPhraseAsked(Exception):
    pass


def _refuse_pass_phrase() -> str:
    raise _PassPhraseAsked  # without this OpenSSL would ask on the terminal, and wait
