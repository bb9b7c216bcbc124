"""What an operator chooses about a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from fastprovd.campaign.inventory import Inventory

Close = Literal["suspend", "onoff", "leave_open"]


class Method(StrEnum):
    """Who provisions the boards: they each other, we all of them, or whoever is faster."""

    FAST = "fast"
    DIRECT = "direct"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """`expected` counts all boards, the Primary too; `None`: as many as are heard.

    `match` is the start of the Device UUIDs to provision, 2..16 octets; `group` is what every
    board subscribes to; `unicast_min`..`unicast_max` bound the addresses handed out; `links` is how
    many GATT links the adapter bears at once; `primaries` how many Primaries to make, `None`: as
    many as suit the boards. `allow`, `deny` and `allow_strangers` say which boards are ours, see
    Inventory; `close` how the boards are stopped from taking more.

    Times in seconds: `scan_s`, how long to look for boards before giving up; `primary_return_s`,
    how long the Primary's proxy may stay off the air (it came back as late as 67 s at 24 boards);
    `settle_s`, how long nothing may change before the list counts as complete (a Temporary
    Provisioner reports 5 s after its last child, then repeats every 4 s); `run_s`, all in all.
    """

    method: Method = Method.FAST
    links: int = 5
    primaries: int | None = None
    expected: int | None = None
    match: bytes = b"\xdd\xdd"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    allow_strangers: bool = False
    group: int = 0xC000
    unicast_min: int = 0x0002
    unicast_max: int = 0x7FFF
    scan_s: float = 30.0
    primary_return_s: float = 90.0
    settle_s: float = 10.0
    run_s: float = 600.0
    close: Close = "suspend"

    @property
    def inventory(self) -> Inventory:
        """Which boards are ours."""
        return Inventory(self.match, self.allow, self.deny)
