"""A message bus of one's own: Debian's dbus-daemon on a socket in a directory of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_PROGRAM: Final = "dbus-daemon"
_CONFIG: Final = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class PrivateBus:
    """Runs from `with` to its end, which takes milliseconds; anybody on the machine may connect.

    Its start blocks the caller, so start it outside the event loop.
    """

    def __init__(self) -> None:
        self.address = ""
        self._directory = tempfile.TemporaryDirectory(prefix="fastprovd-bus-")
        self._daemon: subprocess.Popen[str] | None = None

    @staticmethod
    def missing() -> str | None:
        """Return why there can be no private bus here, `None` when there can."""
        if shutil.which(_PROGRAM) is None:
            return f"{_PROGRAM} is missing: sudo apt-get install dbus-daemon"
        return None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        """Start the bus, at the same address as the one that was killed before."""
        directory = Path(self._directory.name)
        config = directory / "bus.conf"
        config.write_text(_CONFIG.format(socket=directory / "bus"))
        self._daemon = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
            [
                shutil.which(_PROGRAM) or _PROGRAM,
                f"--config-file={config}",
                "--nofork",
                "--nopidfile",
                "--print-address",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it complains about limits that it may not raise
            text=True,
        )
        assert self._daemon.stdout is not None  # noqa: S101 - PIPE was asked for
        listening = self._daemon.stdout.readline().strip()
        if not listening:
            self.kill()
            raise OSError(f"{_PROGRAM} did not start, exit status {self._daemon.returncode}")
        self.address = listening.partition(",guid=")[0]  # another one at each start

    def kill(self) -> None:
        """End the bus without a word to anybody; idempotent."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            if self._daemon.stdout is not None:
                self._daemon.stdout.close()
