"""The daemon as a whole: emulated boards, a real broker, real signals, emulated time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from fastprovd.config import TlsConfig, load
from fastprovd.daemon import broker_settings, run_daemon
from fastprovd.emulator.virtual_time import IO_SPEED
from fastprovd.errors import ConfigError
from fastprovd.gateway import open_gateway
from fastprovd.publish.broker import LOOPBACK
from fastprovd.records import Run, RunState
from fastprovd.sd_notify import Notifier
from fastprovd.store.state import StateStore
from tests.support.brokers import NEEDS_MOSQUITTO
from tests.support.emulated import World, config, world
from tests.support.paced import local_broker

# The loop's clock runs this much faster than the broker's.
PATIENCE_S = 10.0 * IO_SPEED
# A run that waits for a board which does not exist goes on until somebody ends it.
FOREVER_S = 3 * PATIENCE_S


class Operator:
    """An MQTT client that asks and listens."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def until(self, topic: str, **fields: Any) -> dict[str, Any]:
        """Return the next payload of `topic` that has these fields."""
        async with asyncio.timeout(PATIENCE_S):
            async for message in self._client.messages:
                if message.topic.value == f"fastprovd/gw1/bridge/{topic}":
                    content: dict[str, Any] = json.loads(message.payload)
                    if fields.items() <= content.items():
                        return content
        raise AssertionError("the broker is gone")

    async def ask(self, command: str, **data: Any) -> dict[str, Any]:
        """Send a request and return its response."""
        topic = f"fastprovd/gw1/bridge/request/{command}"
        await self._client.publish(topic, json.dumps(data), qos=1)
        return await self.until(f"response/{command}")


@asynccontextmanager
async def operator(port: int) -> AsyncIterator[Operator]:
    async with aiomqtt.Client(LOOPBACK, port, timeout=PATIENCE_S) as client:
        await client.subscribe("fastprovd/gw1/#", qos=1)
        yield Operator(client)


@asynccontextmanager
async def daemon(
    scene: World,
    tmp_path: Path,
    notifier: Notifier | None = None,
    *,
    resume: bool = True,
    heal: Any = "off",
    **mqtt: Any,
) -> AsyncIterator[None]:
    """Run the daemon beside the body, then stop it with SIGTERM."""
    mqtt = {"timeout_s": PATIENCE_S, **mqtt} if mqtt else {}
    task = asyncio.create_task(
        run_daemon(
            config(tmp_path, scan_timeout_s=FOREVER_S, resume=resume, heal=heal, **mqtt),
            radio=scene.radio,
            notifier=notifier,
        )
    )
    try:
        yield
        os.kill(os.getpid(), signal.SIGTERM)
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


def unfinished(tmp_path: Path) -> Run:
    """Make the one run of a store one that was cut off while it collected."""
    with StateStore(tmp_path / "state") as store:
        (run,) = store.runs()
        store.save_run(replace(run, state=RunState.PROVISIONING, finished=None))
        return run


@contextmanager
def systemd(tmp_path: Path, watchdog_us: int = 0) -> Iterator[tuple[Notifier, socket.socket]]:
    """Listen as systemd does."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(watchdog_us)}
        yield Notifier(environ), listener


def told(listener: socket.socket) -> list[str]:
    """Return what systemd was told so far."""
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            return messages


@NEEDS_MOSQUITTO
async def test_a_run_over_mqtt(tmp_path: Path) -> None:
    """A request starts a run, its addresses reach the broker, then nodes can be switched."""
    scene = world(3)
    async with (
        local_broker() as broker,
        operator(broker.port) as you,
        daemon(scene, tmp_path, port=broker.port, protocol=broker.protocol),
    ):
        await you.until("run", state="idle")
        answer = await you.ask("run/start", expected=3, transaction="a")
        assert answer["status"] == "ok"
        assert answer["transaction"] == "a"
        run_id = answer["data"]["run_id"]
        nodes = await you.until("nodes", run_id=run_id, complete=True)
        assert nodes["addresses"][0] == "0x0002"
        assert nodes["count"] == 3
        one = nodes["addresses"][1]
        switched = await you.ask("node/set", addr=one, state="ON")
        assert switched["data"] == {
            "addr": one,
            "state": "ON",
            "acknowledged": True,
            "confirmed": [one],
            "unconfirmed": [],
        }
        grouped = await you.ask("group/add", group="0xc010", members=[one])
        assert grouped["data"]["unproven"] == []
        assert 0xC010 in scene.board(int(one, 16)).groups
        assert scene.board(int(one, 16)).onoff
        listed = await you.ask("nodes/get")
        assert listed["data"]["addresses"] == nodes["addresses"]
        assert (await you.ask("run/stop"))["code"] == "no_run"


@NEEDS_MOSQUITTO
async def test_sigterm_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """The run ends as interrupted, the gateway says offline, no SEQ is wasted."""
    async with local_broker() as broker, operator(broker.port) as you:
        mqtt = {"port": broker.port, "protocol": broker.protocol}
        async with daemon(world(2), tmp_path, **mqtt):
            await you.until("run", state="idle")
            await you.ask("run/start", expected=2)
            await you.until("run", state="done")
            assert (await you.ask("run/start", expected=5))["status"] == "ok"
            await you.until("run", state="scanning")
        assert (await you.until("run", state="interrupted"))["reason"]
        await you.until("state", state="offline")
    with StateStore(tmp_path / "state") as store:
        assert store.runs()[0].state is RunState.INTERRUPTED
        # A clean stop knows the exact next number, which is no multiple of a block.
        assert store.reserve_seq_block(256).start % 256 != 0


@NEEDS_MOSQUITTO
async def test_a_restart_tells_what_was(tmp_path: Path) -> None:
    """A run that a killed daemon left is published as interrupted, if it is not to be resumed."""
    async with local_broker() as broker:
        mqtt = {"port": broker.port, "protocol": broker.protocol}
        async with operator(broker.port) as you, daemon(world(2), tmp_path, **mqtt):
            await you.until("run", state="idle")
            await you.ask("run/start", expected=2)
            await you.until("run", state="done")
        run = unfinished(tmp_path)
        async with (
            operator(broker.port) as you,
            daemon(world(2), tmp_path, resume=False, **mqtt),
        ):
            assert (await you.until("run", state="interrupted"))["run_id"] == run.run_id


@NEEDS_MOSQUITTO
@pytest.mark.parametrize("restarts", [False, True])
async def test_a_run_without_a_node_leaves_the_list_alone(tmp_path: Path, restarts: bool) -> None:
    """Before and after a restart, with the run that made it."""
    async with local_broker() as broker, AsyncExitStack() as daemons:
        mqtt = {"port": broker.port, "protocol": broker.protocol}
        scene = world(2)
        await daemons.enter_async_context(daemon(scene, tmp_path, **mqtt))
        async with operator(broker.port) as you:
            await you.until("run", state="idle")
            await you.ask("run/start", expected=2)
            done = await you.until("run", state="done")
            made = await you.until("nodes", complete=True)
            for board in scene.air.boards:
                board.power_off()
            await you.ask("run/start", expected=2)
            assert (await you.until("run", state="failed"))["run_id"] != done["run_id"]
        if restarts:
            await daemons.aclose()
            await daemons.enter_async_context(daemon(scene, tmp_path, **mqtt))
        async with operator(broker.port) as you:
            nodes = await you.until("nodes")
            while restarts and nodes["revision"] <= made["revision"]:
                nodes = await you.until("nodes")
            assert (nodes["count"], nodes["run_id"]) == (2, done["run_id"])
            assert nodes["complete"]


@NEEDS_MOSQUITTO
async def test_a_restart_resumes_what_was(tmp_path: Path) -> None:
    """The daemon goes on by itself with the run that was cut off, under the same name."""
    async with local_broker() as broker:
        mqtt = {"port": broker.port, "protocol": broker.protocol}
        scene = world(2)
        async with operator(broker.port) as you, daemon(scene, tmp_path, **mqtt):
            await you.until("run", state="idle")
            await you.ask("run/start", expected=2)
            await you.until("run", state="done")
        run = unfinished(tmp_path)
        async with operator(broker.port) as you, daemon(scene, tmp_path, **mqtt):
            assert (await you.until("event", type="run_resumed"))["run_id"] == run.run_id
            assert (await you.until("run", state="done"))["proven"] == 2
            assert (await you.ask("node/get", addr="0x0002"))["status"] == "ok"


@NEEDS_MOSQUITTO
@pytest.mark.parametrize("heal", ["on_start", "off"])
async def test_boards_that_lost_their_power(tmp_path: Path, heal: str) -> None:
    """They are recognised at the start; by policy a run gives them fresh addresses."""
    async with local_broker() as broker:
        mqtt = {"port": broker.port, "protocol": broker.protocol}
        scene = world(3)
        async with operator(broker.port) as you, daemon(scene, tmp_path, **mqtt):
            await you.until("run", state="idle")
            await you.ask("run/start", expected=3, method="direct")
            await you.until("run", state="done")
            await you.ask("group/add", group="0xc010", members=["0x0002"])
        for board in scene.air.boards:
            board.power_off()
            board.power_on()
        async with operator(broker.port) as you, daemon(scene, tmp_path, heal=heal, **mqtt):
            returned = (await you.until("event", type="nodes_returned"))["data"]
            assert (returned["boards"], returned["unplaced"]) == (3, 0)
            assert returned["forgotten"] == ["0x0002", "0x0003", "0x0004"]
            if heal == "off":
                nodes = await you.until("nodes", count=0)
                assert not nodes["complete"]
                assert (await you.ask("node/get", addr="0x0002"))["code"] == "unknown_node"
                return
            healed = await you.until("run", state="done")
            nodes = await you.until("nodes", run_id=healed["run_id"], complete=True)
            assert nodes["count"] == 3
            assert not set(nodes["addresses"]) & set(returned["forgotten"])
            groups = await you.until("groups")
            while "0xc010" not in json.dumps(groups):
                groups = await you.until("groups")


@NEEDS_MOSQUITTO
@pytest.mark.parametrize("late_s", [12.0, 75.0])
async def test_bluetooth_comes_late_at_the_boot(tmp_path: Path, late_s: float) -> None:
    """Boards that lost their power are healed all the same, whatever is asked for meanwhile."""
    async with local_broker() as broker:
        mqtt = {"port": broker.port, "protocol": broker.protocol}
        scene = world(2)
        async with operator(broker.port) as you, daemon(scene, tmp_path, **mqtt):
            await you.until("run", state="idle")
            await you.ask("run/start", expected=2, method="direct")
            await you.until("run", state="done")
        for board in scene.air.boards:
            board.power_off()
            board.power_on()
        scene.adapter.power(False)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        async with (
            operator(broker.port) as you,
            daemon(scene, tmp_path, heal="on_start", **mqtt),
        ):
            warning = await you.until("event", type="warning", run_id=None)
            assert warning["data"]["about"] == "Bluetooth"
            answer = await you.ask("node/get", addr="0x0002")
            assert answer["code"] == "adapter_unavailable"
            started = (await you.ask("run/start", expected=2))["data"]["run_id"]
            failed = await you.until("run", state="failed", run_id=started)
            assert "switch it on" in failed["reason"]
            loop.call_at(begun_s + late_s, scene.adapter.power, True)
            assert (await you.until("event", type="nodes_returned"))["data"]["boards"] == 2
            assert (await you.until("run", state="done"))["proven"] == 2


@NEEDS_MOSQUITTO
async def test_a_resumed_run_waits_for_bluetooth(tmp_path: Path) -> None:
    """Meanwhile the daemon answers that a run goes on, and says what it waits for."""
    async with local_broker() as broker:
        mqtt = {"port": broker.port, "protocol": broker.protocol}
        scene = world(1)
        async with operator(broker.port) as you, daemon(scene, tmp_path, **mqtt):
            await you.until("run", state="idle")
            await you.ask("run/start", expected=1, method="direct")
            await you.until("run", state="done")
        run_id = unfinished(tmp_path).run_id
        scene.adapter.power(False)
        async with operator(broker.port) as you, daemon(scene, tmp_path, **mqtt):
            warning = await you.until("event", type="warning", run_id=run_id)
            assert "switch it on" in warning["data"]["reason"]
            answer = await you.ask("run/start", expected=1)
            assert (answer["code"], answer["data"]) == ("run_in_progress", {"run_id": run_id})
            assert (await you.ask("node/get", addr="0x0002"))["code"] == "busy"
            scene.adapter.power(True)
            await you.until("event", type="run_resumed", run_id=run_id)
            assert (await you.until("run", state="done"))["run_id"] == run_id


@NEEDS_MOSQUITTO
async def test_while_a_run_goes_on(tmp_path: Path) -> None:
    """Another run is refused, the mesh is busy; `run/stop` ends the run as stopped."""
    async with (
        local_broker() as broker,
        operator(broker.port) as you,
        daemon(world(1), tmp_path, port=broker.port, protocol=broker.protocol),
    ):
        await you.until("run", state="idle")
        run_id = (await you.ask("run/start", expected=2))["data"]["run_id"]
        again = await you.ask("run/start")
        assert (again["code"], again["data"]) == ("run_in_progress", {"run_id": run_id})
        for command, data in (
            ("node/get", {"addr": "0x0003"}),
            ("node/set", {"addr": "0xc000", "state": "ON"}),
            ("nodes/get", {}),
        ):
            answer = await you.ask(command, **data)
            assert (answer["code"], answer["data"]) == ("busy", {"run_id": run_id})
        assert (await you.ask("run/stop"))["data"]["run_id"] == run_id
        await you.until("run", state="stopped", run_id=run_id)


@NEEDS_MOSQUITTO
async def test_no_adapter(tmp_path: Path) -> None:
    """A run without an adapter fails with its reason, and the daemon answers on."""
    scene = world(1)
    scene.adapter.power(False)
    async with (
        local_broker() as broker,
        operator(broker.port) as you,
        daemon(scene, tmp_path, port=broker.port, protocol=broker.protocol),
    ):
        await you.until("run", state="idle")
        await you.ask("run/start", expected=1)
        assert "switch it on" in (await you.until("run", state="failed"))["reason"]
        answer = await you.ask("node/set", addr="0xc000", state="ON")
        assert answer["code"] == "unknown_group"


async def test_no_broker(tmp_path: Path) -> None:
    """Without a broker the daemon is ready all the same, and ends cleanly."""
    with socket.socket() as nobody, systemd(tmp_path) as (notifier, listener):
        nobody.bind((LOOPBACK, 0))
        port = nobody.getsockname()[1]
        async with daemon(world(1), tmp_path, notifier, port=port):
            await asyncio.sleep(30.0)
            assert told(listener) == ["READY=1"]
        assert told(listener) == ["STOPPING=1"]


async def test_the_watchdog_is_fed(tmp_path: Path) -> None:
    """Twice in each period systemd hears that loop and database are well."""
    with systemd(tmp_path, watchdog_us=30_000_000) as (notifier, listener):
        async with daemon(world(1), tmp_path, notifier):
            await asyncio.sleep(61.0)
            assert told(listener) == ["READY=1", *["WATCHDOG=1"] * 4]


async def test_a_late_loop_does_not_feed_the_watchdog(tmp_path: Path) -> None:
    """A loop that something held up for longer than 5 s is not called well."""
    with systemd(tmp_path, watchdog_us=30_000_000) as (notifier, listener):
        async with daemon(world(1), tmp_path, notifier):
            await asyncio.sleep(14.0)
            asyncio.get_running_loop()._virtual.now += 10.0  # type: ignore[attr-defined]
            await asyncio.sleep(2.0)
            assert told(listener) == ["READY=1"]
            await asyncio.sleep(16.0)
            assert told(listener) == ["WATCHDOG=1"]


async def test_a_store_that_says_no_feeds_the_watchdog(tmp_path: Path) -> None:
    """A restart would not repair it, and begin a new network where the directory is gone."""
    with systemd(tmp_path, watchdog_us=30_000_000) as (notifier, listener):
        async with daemon(world(1), tmp_path, notifier):
            await asyncio.sleep(1.0)
            moved = (tmp_path / "state").rename(tmp_path / "gone")
            with capture_logs() as logs:
                await asyncio.sleep(60.0)
            assert told(listener) == ["READY=1", *["WATCHDOG=1"] * 4]
            assert [entry["event"] for entry in logs] == ["state_failing"]
            moved.rename(tmp_path / "state")


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_certificate_with_a_byte_order_mark_is_named(tmp_path: Path, name: str) -> None:
    """OpenSSL would leave out what stands in its first line, and say something else."""
    marked, other = tmp_path / "marked.pem", tmp_path / "other.pem"
    marked.write_bytes(b"\xef\xbb\xbf-----BEGIN CERTIFICATE-----\n")
    other.write_bytes(b"")
    files = {"cert": other, "key": other} | {name: marked}
    base = config(tmp_path, port=8883)
    tls = TlsConfig(True, **files)
    with pytest.raises(ConfigError, match=rf"tls\.{name}: .*marked\.pem.*byte order mark"):
        broker_settings(replace(base, mqtt=replace(base.mqtt, tls=tls)))


def test_what_can_not_be_read_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    """Certificates and the password file are named when they can not be read."""
    missing = tmp_path / "missing.pem"
    base = config(tmp_path, port=8883)
    for tls in (TlsConfig(True, ca=missing), TlsConfig(True, cert=missing, key=missing)):
        with pytest.raises(ConfigError, match=r"missing\.pem"):
            broker_settings(replace(base, mqtt=replace(base.mqtt, tls=tls)))
    secret = replace(base.mqtt, username="me", password_file=tmp_path / "secret")
    with pytest.raises(ConfigError, match="password_file"):
        broker_settings(replace(base, mqtt=secret))


def test_all_files_that_can_not_be_read_at_once(tmp_path: Path) -> None:
    """Each with the place of the value that names it."""
    file = tmp_path / "fastprovd.toml"
    file.write_text(
        f'[mqtt]\nusername = "u"\npassword_file = "{tmp_path}/p"\n[mqtt.tls]\nenabled = true\n'
        f'ca = "{tmp_path}"\ncert = "{file}"\nkey = "{tmp_path}/key"\n'
    )
    with pytest.raises(ConfigError) as caught:
        broker_settings(load(file, {}, "gw1"))
    assert caught.value.problems == [
        f"{file}:3: mqtt.password_file: {tmp_path}/p: No such file or directory",
        f"{file}:6: mqtt.tls.ca: {tmp_path}: Is a directory",
        f"{file}:8: mqtt.tls.key: {tmp_path}/key: No such file or directory",
    ]


def test_a_key_with_a_pass_phrase_is_refused(tmp_path: Path) -> None:
    """OpenSSL would ask for it on the terminal, and wait; a key of another one is named too."""
    clear, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(clear.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1))  # noqa: DTZ001 - what the builder takes for UTC
        .not_valid_after(datetime(2036, 1, 1))  # noqa: DTZ001
        .sign(clear, hashes.SHA256())
    )
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    file = tmp_path / "fastprovd.toml"
    file.write_text(f'[mqtt.tls]\nenabled = true\ncert = "{cert}"\nkey = "{key}"\n')
    said = {}
    for private, encryption in (
        (clear, serialization.BestAvailableEncryption(b"secret")),
        (other, serialization.NoEncryption()),
    ):
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        with pytest.raises(ConfigError) as caught:
            broker_settings(load(file, {}, "gw1"))
        (said[private],) = caught.value.problems
    assert f"mqtt.tls.key: {key}: it has a pass phrase" in said[clear]
    assert f"mqtt.tls.cert: {cert}: the key in {key} does not belong to it" in said[other]


def test_certificates_that_are_none(tmp_path: Path) -> None:
    """What OpenSSL says of them is told with the place."""
    file = tmp_path / "fastprovd.toml"
    for key in ("ca", "cert"):
        other = f'key = "{file}"\n' if key == "cert" else ""
        file.write_text(f'[mqtt.tls]\nenabled = true\n{key} = "{file}"\n{other}')
        with pytest.raises(ConfigError) as caught:
            broker_settings(load(file, {}, "gw1"))
        (problem,) = caught.value.problems
        assert problem.startswith(f"{file}:3: mqtt.tls.{key}: {file}: [")


def test_broker_settings(tmp_path: Path) -> None:
    """What is configured is what the client gets; the password is its file's first line."""
    (tmp_path / "secret").write_text("hush\n")
    base = config(
        tmp_path, host="broker", port=8883, username="me", password_file=tmp_path / "secret"
    )
    settings = broker_settings(replace(base, mqtt=replace(base.mqtt, tls=TlsConfig(True))))
    assert (settings.host, settings.port, settings.gateway_id) == ("broker", 8883, "gw1")
    assert (settings.username, settings.password) == ("me", "hush")
    assert settings.tls_context is not None
    assert broker_settings(base).tls_context is None


async def test_sighup_ends_no_service(tmp_path: Path) -> None:
    """Some send it to have the configuration read again; it is said that this needs a restart."""
    scene = world(1)
    with capture_logs() as logs:
        async with daemon(scene, tmp_path):
            await asyncio.sleep(5.0)
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(5.0)
            assert [entry["event"] for entry in logs if "sighup" in entry["event"]] == [
                "sighup_ignored"
            ]
            assert "daemon_stopping" not in [entry["event"] for entry in logs]


@pytest.mark.parametrize("error", [KeyError("chaos"), BrokenPipeError("chaos")], ids=repr)
async def test_a_fault_of_ours_ends_no_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What fails is begun again after a while, and ends with the others when we stop."""
    calls: list[float] = []

    async def watch(_: Any) -> None:
        calls.append(asyncio.get_running_loop().time())
        if len(calls) > 1:
            try:
                await asyncio.Event().wait()
            finally:
                raise error
        raise error

    async def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr("fastprovd.daemon.watch_store", watch)
    monkeypatch.setattr("fastprovd.gateway.Gateway.look_for_returned", fail)
    monkeypatch.setattr("fastprovd.gateway.Gateway.close_left_links", fail)

    with capture_logs() as logs:
        async with daemon(world(1), tmp_path):
            await asyncio.sleep(15.0)
    told = [entry["service"] for entry in logs if entry["event"] == "service_failed"]
    assert set(told) == {"watch_store", "heal", "left_links"}
    assert logs[-1]["event"] == "daemon_stopped"
    assert len(calls) == 2
    assert calls[1] - calls[0] == pytest.approx(10.0)


@pytest.mark.parametrize("hangs", ["disconnect", "stop", "start"])
@pytest.mark.parametrize("after_s", [0.5, 3.0, 6.0, 20.0])
async def test_a_bluetoothd_that_hangs_delays_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str, after_s: float
) -> None:
    """Also then all is stored in the time that is promised."""

    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    scene = world(3)
    settings = config(tmp_path, method="direct", heal="on_start")
    async with open_gateway(settings, radio=scene.radio) as gateway:
        await gateway.execute(gateway.prepare_run(gateway.settings(expected=3)))
    for board in scene.air.boards:
        board.power_off()
        board.power_on()
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(run_daemon(settings, radio=scene.radio))
    await asyncio.sleep(after_s)
    radio: Any = scene.radio
    backend = radio._client_backend if hangs == "disconnect" else radio._scanner_backend
    monkeypatch.setattr(backend, hangs, hang)
    await asyncio.sleep(1.0)
    told_s = loop.time()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait([serving], timeout=60.0)
    serving.result()
    assert loop.time() - told_s <= 10.0  # the broker may take 5 s more
    with StateStore(tmp_path / "state") as store:
        assert all(run.state.is_end for run in store.runs())


async def test_a_cancellation_that_got_lost_delays_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clean-up that fails may take its place, and whoever tries again goes on; not for long."""

    async def stubborn(_: Any) -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    monkeypatch.setattr("fastprovd.daemon.watch_store", stubborn)

    loop = asyncio.get_running_loop()
    async with daemon(world(1), tmp_path):
        await asyncio.sleep(5.0)
        begun_s = loop.time()
    assert loop.time() - begun_s <= 10.0
