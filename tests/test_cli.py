"""The command line: exit codes and sentences."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastprovd import __version__, cli_types
from fastprovd.cli import MEANINGS, RUN_EXITS, Exit, main
from fastprovd.errors import (
    BluetoothUnavailable,
    BrokerMismatch,
    ConfigError,
    CopiedStore,
    CorruptStore,
    GroupsFull,
    LocalProtocolError,
    NoRun,
    ResponseTimeout,
    SchemaTooNew,
    StoreError,
    StoreInUse,
    UnknownGroup,
    UnknownNode,
)
from fastprovd.records import RunState
from fastprovd.store.state import StateStore

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A sound configuration whose state directory lies beside it."""
    path = tmp_path / "fastprovd.toml"
    path.write_text(f'[state]\ndirectory = "{tmp_path / "state"}"\n[mqtt]\nenabled = false\n')
    return path


def fastprovd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program as its users do."""
    return subprocess.run(
        [sys.executable, "-m", "fastprovd", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def usage_error(*arguments: str) -> int:
    """Return the code with which the parser leaves."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_version() -> None:
    """The program tells its version and succeeds."""
    done = fastprovd("--version")
    assert (done.returncode, done.stdout) == (0, f"fastprovd {__version__}\n")


def test_help_has_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Every exit code is in the one table that --help shows."""
    assert usage_error("--help") == 0
    shown = capsys.readouterr().out
    assert set(MEANINGS) == set(Exit)
    for code, meaning in MEANINGS.items():
        assert f"{code.value}  {meaning}" in shown


def test_only_done_is_success() -> None:
    """Each end of a run has an exit code, and only `done` is 0."""
    assert set(RUN_EXITS) == {state for state in RunState if state.is_end}
    assert [state for state, code in RUN_EXITS.items() if code is Exit.OK] == [RunState.DONE]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly",),
        ("provision",),
        ("provision", "--expected", "0"),
        ("provision", "--expected", "many"),
        ("plan",),
        ("plan", "--boards", "0"),
        ("plan", "--boards", "10001"),
        ("plan", "--boards", "5", "--primaries", "0"),
        ("plan", "--boards", "5", "--unicast-max", "0x8000"),
        ("demo", "--boards", "301"),
        ("demo", "--speed", "0"),
        ("demo", "--speed", "fast"),
        ("demo", "--host", "zephyr"),
        ("demo", "--broker", "http://localhost"),
        ("demo", "--broker", "mqtt://me:secret@localhost"),
        ("demo", "--broker", "mqtt://localhost:99999"),
        ("demo", "--broker", "mqtt://localhost#1"),
        ("demo", "--broker", "mqtt://[::1"),
        ("demo", "--broker", "mqtt://256.0.0.1"),
        ("onoff", "0x8000", "on"),
        ("onoff", "0xff00", "on"),
        ("onoff", "0x0006", "maybe"),
        ("onoff", "kitchen", "on"),
        ("scan", "--seconds", "-1"),
        ("group", "0xc010", "add", "0x0006"),
        ("group", "add", "0x0006", "0x0007"),
        ("group", "add", "0xc010"),
        ("group", "remove", "0xc010", "all"),
        ("state", "forget"),
        ("journal", "r-1", "r-2"),
    ],
)
def test_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line is one sentence on standard error and exit code 64."""
    assert usage_error(*arguments) == Exit.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fastprovd: ")
    assert captured.err.count("\n") == 1


def test_brokers() -> None:
    """A broker is a URL, its port may be left out."""
    assert cli_types.broker("mqtt://localhost") == ("localhost", 1883)
    assert cli_types.broker("mqtt://10.0.0.1:1884/") == ("10.0.0.1", 1884)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["a: wrong", "b: wrong"]), 78),
        (UnknownNode(6), 64),
        (UnknownGroup(0xC010), 64),
        (GroupsFull("no room"), 64),
        (NoRun("none"), 64),
        (CorruptStore("damaged"), 65),
        (CopiedStore("a copy"), 65),
        (SchemaTooNew("newer"), 65),
        (StoreInUse("taken"), 75),
        (StoreError("full"), 74),
        (BluetoothUnavailable("no adapter"), 69),
        (ResponseTimeout("silent"), 69),
        (BrokerMismatch("other"), 69),
        (PermissionError(13, "Permission denied"), 73),
        (OSError(28, "No space left on device"), 74),
    ],
)
def test_errors_are_sentences(
    error: Exception,
    code: int,
    config_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error has its exit code and its own words, each line with our name."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fastprovd.foreground.list_nodes", fail)
    assert main(["nodes", "--config", str(config_file)]) == code
    assert capsys.readouterr().err == "".join(
        f"fastprovd: {line}\n" for line in str(error).splitlines()
    )


def test_a_fault_of_ours(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug is 70, in one sentence; its traceback is for those who ask."""

    def fail(*_: object, **__: object) -> None:
        raise LocalProtocolError("a bug")

    monkeypatch.setattr("fastprovd.foreground.list_nodes", fail)
    assert main(["nodes", "--config", str(config_file)]) == Exit.INTERNAL
    quiet = capsys.readouterr().err
    assert "--debug" in quiet
    assert "Traceback" not in quiet
    assert main(["nodes", "--debug", "--config", str(config_file)]) == Exit.INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_check_config(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound configuration is shown with the place of each value."""
    assert main(["check-config", "--config", str(config_file)]) == Exit.OK
    assert f"# {config_file}:2" in capsys.readouterr().out


def test_doubts_are_told(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """check-config warns beside what it shows, the other commands in their log."""
    monkeypatch.setenv("FASTPROVD_COLOUR", "green")
    assert main(["check-config", "--config", str(config_file)]) == Exit.OK
    shown = capsys.readouterr()
    assert shown.err.startswith("fastprovd: warning: FASTPROVD_COLOUR: no name of a key")
    assert "FASTPROVD_COLOUR" not in shown.out
    done = fastprovd("nodes", "--config", str(config_file))
    assert "config_doubtful" in done.stderr
    assert "FASTPROVD_COLOUR: no name of a key" in done.stderr


def test_without_a_broker_nobody_needs_its_files(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """check-config refuses what the daemon refuses, and no more."""
    mqtt = '[mqtt]\nenabled = {}\nusername = "u"\npassword_file = "/nowhere/password"\n'
    for enabled, code in (("true", Exit.CONFIG), ("false", Exit.OK)):
        config_file.write_text(mqtt.format(enabled))
        assert main(["check-config", "--config", str(config_file)]) == code
    assert f"{config_file}:4: mqtt.password_file: /nowhere" in capsys.readouterr().err


def test_plan(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan is printed for people or as one line of JSON; too few addresses are exit code 78."""
    told = ["plan", "--boards", "7", "--method", "fast", "--config", str(config_file)]
    assert main(told) == Exit.OK
    assert capsys.readouterr().out.startswith("7 boards, method fast, addresses 0x0002..0x0103")
    assert main([*told, "--json", "--method", "direct", "--links", "2"]) == Exit.OK
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["method"] == "direct"
    assert main([*told, "--unicast-max", "0x0006"]) == Exit.CONFIG
    assert "no 7 free addresses in a row" in capsys.readouterr().err


def test_a_wrong_configuration(tmp_path: Path) -> None:
    """Every mistake is told with its place, nothing on standard output, exit code 78."""
    path = tmp_path / "wrong.toml"
    path.write_text('[mqtt]\nport = 0\n[mehs]\n[log]\nlevel = "loud"\n')
    done = fastprovd("check-config", "--config", str(path))
    assert (done.returncode, done.stdout) == (Exit.CONFIG, "")
    assert sorted(line.split(": ")[1] for line in done.stderr.splitlines()) == [
        f"{path}:2",
        f"{path}:3",
        f"{path}:5",
    ]
    assert "mqtt.port" in done.stderr


@pytest.mark.waits
def test_no_adapter(config_file: Path) -> None:
    """Without Bluetooth, `provision` tells a failed run as JSON, the log goes elsewhere."""
    config_file.write_text(config_file.read_text() + '[bluetooth]\nadapter = "hci99"\n')
    done = fastprovd("provision", "--expected", "3", "--json", "--config", str(config_file))
    assert done.returncode == Exit.UNAVAILABLE
    end = json.loads(done.stdout.splitlines()[-1])
    assert (end["event"], end["state"], end["expected"]) == ("run_finished", "failed", 3)
    assert end["reason"]
    assert (end["addresses"], end["missing"], end["proven"]) == ([], [], 0)


def test_two_at_once(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state directory that a daemon holds is a reason to try again."""
    with StateStore(tmp_path / "state"):
        assert main(["nodes", "--config", str(config_file)]) == Exit.TRY_AGAIN
    assert "in use" in capsys.readouterr().err


def test_an_unknown_node(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Switching a node that no run has made is a mistake of the command line."""
    assert main(["onoff", "0x0006", "on", "--config", str(config_file)]) == Exit.USAGE
    assert capsys.readouterr().err == "fastprovd: no node 0x0006 is known\n"


def test_demo() -> None:
    """`fastprovd demo --json` ends with status 0 when every board is done, on either broker."""
    done = fastprovd("demo", "--boards", "2", "--speed", "100", "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr
    end = json.loads(done.stdout.splitlines()[-1])
    assert (end["state"], end["seed"], end["speed"]) == ("done", 7, 100.0)
    assert end["addresses_on_broker"] == 2


FULL = """
import os, sys
from fastprovd import lasting, radio
from fastprovd.cli import main
lasting.PATIENCE_S = 0.2
radio._ADAPTER_PAUSES_S = ()
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def unread_pipe(*, is_closed: bool = False) -> Iterator[int]:
    """Return the end to write to of a pipe that is full, or that nobody will ever read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while not is_closed:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    if is_closed:
        os.close(reader)
    yield writer
    os.close(writer)
    if not is_closed:
        os.close(reader)


@pytest.mark.parametrize("is_closed", [False, True], ids=["full", "closed"])
def test_nobody_reads_what_a_run_says(config_file: Path, is_closed: bool) -> None:
    """Neither output is read: the run comes to its end, and a failed one is no success."""
    config_file.write_text(
        config_file.read_text() + '[bluetooth]\nadapter = "hci99"\n[log]\nlevel = "debug"\n'
    )
    command = [sys.executable, "-c", FULL, "provision", "--debug", "--expected", "3"]
    command += ["--config", str(config_file)]
    environ = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere"}
    with unread_pipe(is_closed=is_closed) as pipe:
        ended = subprocess.run(
            command, stdout=pipe, stderr=pipe, check=False, timeout=60, env=environ
        )
    assert ended.returncode == Exit.UNAVAILABLE
    with StateStore(config_file.parent / "state") as store:
        assert store.runs()[0].state is RunState.FAILED


@pytest.mark.parametrize("is_closed", [False, True], ids=["full", "closed"])
def test_nobody_reads_the_log_of_the_service(
    config_file: Path, tmp_path: Path, is_closed: bool
) -> None:
    """A journal that hangs neither keeps it from being ready nor from its end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30.0)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        environ["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=/nowhere"
        command = [sys.executable, "-c", FULL, "run", "--debug", "--config", str(config_file)]
        with unread_pipe(is_closed=is_closed) as pipe:
            child = subprocess.Popen(command, stderr=pipe, env=environ)
            assert systemd.recv(4096) == b"READY=1"
            child.terminate()
            assert child.wait(30) == Exit.OK


def test_a_broken_pipe_inside_is_no_success(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D-Bus may break too; only whoever reads a list may have seen enough of it."""

    def fail(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("fastprovd.foreground.set_onoff", fail)
    assert main(["onoff", "0x0006", "on", "--config", str(config_file)]) == Exit.IO
    assert "Broken pipe" in capsys.readouterr().err


def test_whoever_reads_a_list_may_have_seen_enough(config_file: Path) -> None:
    """`| head` is a success, and leaves no complaint."""
    command = f"{sys.executable} -m fastprovd plan --boards 9999 --config {config_file}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    closed = subprocess.run(["bash", "-c", f"{command} >&-"], capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "told", "status"),
    [
        ("run", [signal.SIGHUP, signal.SIGTERM], 0),
        ("run", [signal.SIGINT], 0),
        ("nodes", [signal.SIGTERM], 75),
        ("nodes", [signal.SIGHUP], 75),
    ],
)
def test_told_to_end_before_anything_has_begun(
    tmp_path: Path, command: str, told: list[signal.Signals], status: int
) -> None:
    """A service just ends, and SIGHUP means something else to it."""
    config = tmp_path / "fastprovd.toml"
    os.mkfifo(config)  # it is read for as long as nobody writes it
    child = subprocess.Popen(
        [sys.executable, "-m", "fastprovd", command, "--config", str(config)],
        stderr=subprocess.PIPE,
    )
    descriptor = os.open(config, os.O_WRONLY)  # once it has been opened for reading
    for number in told:
        child.send_signal(number)
        time.sleep(0.05)
    _, complaint = child.communicate(timeout=30)
    os.close(descriptor)
    assert (child.returncode, complaint) == (status, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["fastprovd.toml"]
