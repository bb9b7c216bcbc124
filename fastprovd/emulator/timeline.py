"""What really happened on the air, for tests and the demo; no board reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Happening(Enum):
    """Kinds of entries."""

    POWERED_ON = "powered on"
    POWERED_OFF = "powered off"
    ON_AIR = "on air"
    LINK_OPENED = "PB-ADV link opened"
    LINK_CLOSED = "PB-ADV link closed"
    PROVISIONED = "provisioned"
    COMPLETE_HEARD = "Complete heard by the provisioner"
    APP_KEY_FAILED = "AppKey Add to a child failed locally"
    APP_KEY_STORED = "AppKey stored"
    RUN_STARTED = "run started"
    CONFIGURED = "configured by its provisioner"
    LISTED = "listed by the Primary"
    PROXY_OFF = "proxy off"
    PROXY_ON = "proxy on"
    PROXY_ON_AIR = "proxy on air"
    SUSPENDED = "suspended"
    SWITCHED = "light switched"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ABORTED = "aborted"
    SILENT = "fell silent"


@dataclass(frozen=True, slots=True)
class Entry:
    """One happening: seconds of the loop's clock, the board's BD_ADDR, what, and with whom."""

    time_s: float
    device_address: str
    what: Happening
    detail: str = ""
    address: int | None = None
