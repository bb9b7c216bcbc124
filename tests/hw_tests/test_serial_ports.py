"""One reader per console, for a whole session, through pyserial."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from hwbench import serial_ports
from hwbench.serial_ports import SerialPort
from hwbench.timeline import Timeline

PATIENCE_S = 10.0  # far beyond what a loaded machine needs


class Terminal:
    """A pseudo terminal behind a name that stays when it is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.plug()

    def plug(self) -> None:
        self.master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self._path.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        self._path.unlink()
        os.close(self._slave)
        os.close(self.master)


class Desk:
    """One terminal and its reader."""

    def __init__(self, directory: Path) -> None:
        self.terminal = Terminal(directory / "tty")
        self.timeline = Timeline(directory / "timeline.jsonl")
        self.log = directory / "n01.log"
        self.port = SerialPort("n01", str(directory / "tty"), self.log, self.timeline)
        self.port.start()

    def lines(self) -> list[str]:
        return [entry.said for entry in self.timeline.since()]

    def expect(self, line: str) -> None:
        self.timeline.wait(f"the line {line!r}", PATIENCE_S, lambda: line in self.lines())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.port.stop()
    made.timeline.close()
    made.terminal.unplug()


def test_lines_are_stamped_and_kept(desk: Desk) -> None:
    """Each whole line goes into the timeline and, with the same stamp, into the board's file."""
    os.write(desk.terminal.master, b"one\r\ntwo \xff\r\npart")
    desk.expect("two \\xff")
    assert desk.lines() == ["one", "two \\xff"]
    os.write(desk.terminal.master, b"ial\r\n")
    desk.expect("partial")
    desk.port.stop()
    stamps = [entry.time_s for entry in desk.timeline.since()]
    assert desk.log.read_text().splitlines() == [
        f"{stamp:.4f} {line}" for stamp, line in zip(stamps, desk.lines(), strict=True)
    ]


def test_noise_without_an_end_is_cut(desk: Desk) -> None:
    """A board that boots at another baud rate does not fill the memory."""
    for _ in range(9):
        os.write(desk.terminal.master, b"x" * 512)
    desk.timeline.wait("a cut line", PATIENCE_S, lambda: len("".join(desk.lines())) > 4096)


def test_a_port_that_vanishes_comes_back(desk: Desk) -> None:
    """A hub port without power takes the serial port with it; its reader waits."""
    desk.terminal.unplug()
    desk.timeline.wait("the loss", PATIENCE_S, lambda: "no serial port" in "".join(desk.lines()))
    desk.terminal.plug()
    desk.expect("(serial port is back)")
    os.write(desk.terminal.master, b"hello\r\n")
    desk.expect("hello")


def test_opening_does_not_reset_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """RTS falls before DTR, because RTS high with DTR low is reset; both are low in the end."""
    happened: list[object] = []

    class Recorded:
        def __init__(self, **_: object) -> None:
            pass

        def __setattr__(self, name: str, value: object) -> None:
            if name in ("dtr", "rts"):
                happened.append((name, value))

        def open(self) -> None:
            happened.append("open")

    monkeypatch.setattr(serial, "Serial", Recorded)
    serial_ports.open_quietly("/dev/ttyUSB0")
    assert happened == [("dtr", True), ("rts", False), "open", ("dtr", False)]


def test_a_missing_port_is_an_error_at_the_start(tmp_path: Path) -> None:
    """A bench whose board is not there does not begin."""
    timeline = Timeline(tmp_path / "timeline.jsonl")
    port = SerialPort("n01", str(tmp_path / "none"), tmp_path / "n01.log", timeline)
    with pytest.raises(serial.SerialException, match="none"):
        port.start()
    port.stop()
    timeline.close()
