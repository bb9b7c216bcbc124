"""Stalls that the reference derives from the source, and that chance would hardly ever show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stalls:
    """What happens to one board, through its reboots; all off, tests switch them on.

    A number is how often it happens yet, and is counted down.
    """

    pending: bool = False
    """An INFO_SET with an unknown NetKeyIndex came before: STATE_PEND for good (FP 6.7 S6)."""
    busy: int = 0
    """An INFO_SET is still being processed when ours comes: `FF FF` (FP 5.2 row 1)."""
    status_not_queued: bool = False
    """No buffer for INFO_STATUS: ACTIVE, yet proxy on and no device is taken (FP 6.7 S7)."""
    leaked_starts: int = 0
    """prov_start_num was counted up without a link that counts it down (FP 6.7 S8)."""
    proxy_timer_fails: int = 0
    """No timer is free for the proxy's return, as for AppKey Add (OB 17)."""
    complete_lost: bool = False
    """As a device of another board: Provisioning Complete is lost on the air (FP 8 Q8)."""
    spurious_status: bool = False
    """IDLE, its disable timer sends a success to whoever sent the last INFO_SET (FP 8 Q13)."""
    silent_sessions: int = 0
    """Busy with another provisioner when PB-GATT is opened: it says nothing (FP 3)."""
