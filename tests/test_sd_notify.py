"""What arrives at systemd's socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastprovd.sd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A datagram socket as systemd offers it, and its NOTIFY_SOCKET."""
    if request.param == "path":
        address = name = str(tmp_path / "notify")
    else:
        name = f"@fastprovd-test-{os.getpid()}"
        address = "\0" + name[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        yield receiver, name


def test_each_message(systemd: tuple[socket.socket, str]) -> None:
    """Each call is one datagram in systemd's words; a status is always one line."""
    receiver, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.status("scanning,\n12/20 nodes")
    notifier.watchdog()
    notifier.stopping()
    assert [receiver.recv(200) for _ in range(4)] == [
        b"READY=1",
        b"STATUS=scanning, 12/20 nodes",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/x"}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    """Without a socket, or with one that is gone, every call returns."""
    notifier = Notifier(environ)
    notifier.ready()
    notifier.status("x")
    notifier.watchdog()
    notifier.stopping()


def test_a_full_socket_does_not_block(tmp_path: Path) -> None:
    """When nobody reads, messages are dropped and the daemon goes on."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        for _ in range(2000):
            notifier.watchdog()
        assert receiver.recv(200) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [({}, None), ({"WATCHDOG_USEC": "30000000"}, 15.0), ({"WATCHDOG_USEC": "0"}, None)],
)
def test_watchdog_interval(environ: dict[str, str], interval_s: float | None) -> None:
    """The watchdog is fed at half of the time that systemd allows."""
    assert Notifier(environ).watchdog_interval_s == interval_s
