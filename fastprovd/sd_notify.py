"""Tell systemd how we are, by datagram; does nothing where no systemd listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Speaks to $NOTIFY_SOCKET, a path or (with a leading @) an abstract socket; see sd_notify(3).

    A lost message is not worth a failure: a socket that is gone or full is ignored.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_us = int(environ.get("WATCHDOG_USEC", "0"))

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often to call `watchdog`: half of what systemd allows; `None` without watchdog."""
        return self._watchdog_us / 2e6 if self._watchdog_us else None

    def ready(self) -> None:
        """The service is up."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The service is on its way down."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send("STATUS=" + " ".join(text.splitlines()))

    def watchdog(self) -> None:
        """The service is alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
            try:
                channel.sendto(message.encode(), self._address)
            except OSError:
                return
