"""What BlueZ and the kernel do and nobody expects."""

from __future__ import annotations

from dataclasses import dataclass

from fastprovd.emulator.duplicate_filter import DuplicateFilter


@dataclass(frozen=True, slots=True)
class BlueZQuirks:
    """What BlueZ does and nobody expects; each can be switched off alone."""

    # A report without service data refreshes the RSSI, and the old service data is told again.
    stale_service_data: bool = True
    # The first report of a device may be a beacon: no service data yet.
    bare_first_report: bool = True
    # Service UUIDs of earlier advertisements stay.
    accumulating_service_uuids: bool = True
    # Without DuplicateData the service data of earlier advertisements stays, too.
    accumulating_service_data: bool = True
    # After Service Changed the client goes on offering the old services; writes fail.
    stale_services: bool = True
    # A write that meets a link just gone fails; otherwise it is lost without a word.
    racing_writes_fail: bool = True
    # Connecting to a board that does not advertise takes for ever; otherwise it fails after 2 s.
    silent_connect: bool = True
    # Discovery can not be started while a connection is pending.
    no_discovery_while_connecting: bool = True
    # A connect during discovery may have to wait until the kernel restarts its scan.
    slow_connect_while_discovering: bool = True
    # The kernel has the controller filter duplicates, whatever DuplicateData says, and BlueZ has
    # it begin its scan anew every `discovery_restart_s`: what the filter holds back until then is
    # not heard of. Measured with kernels 6.1 and 6.12.
    duplicate_filter: DuplicateFilter = DuplicateFilter.BY_ADDRESS
