"""What is on the air, as far as the adapter hears it: boards by UUID, proxies; pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from fastprovd.campaign.inventory import Inventory
from fastprovd.campaign.node_times import ANY_TIME, Span
from fastprovd.mesh.beacons import (
    RSSI_UNKNOWN,
    Advertisement,
    NetworkIdentity,
    NodeIdentity,
    UnprovisionedDevice,
)
from fastprovd.mesh.keys import NetKey
from fastprovd.recent import keep_latest

# Network ID comes twice a second; this covers the seconds anybody asks about.
_PROXY_REPORTS_KEPT: Final = 16
# Boards of ours in one run, unless the operator expects more, and as many others.
MAX_BOARDS: Final = 300
MAX_PROXIES: Final = 1000
MAX_NAMESAKES: Final = 50
# A board advertises each 0.1 s, and a scan may be told of it each 10.24 s: two addresses within
# this are two boards, and no board that changed its address.
NAMESAKE_S: Final = 15.0


@dataclass(slots=True)
class HeardBoard:
    """An unprovisioned board, heard in so many `reports`; times in seconds of the loop's clock."""

    uuid: bytes
    device_address: str
    rssi_dbm: int
    last_seen_s: float
    first_seen_s: float = 0.0
    is_ours: bool = True
    reports: int = 1

    @property
    def rank(self) -> tuple[bool, int]:
        """Who is preferred: boards that go on advertising, the loudest of them first."""
        return self.reports > 1, self.rssi_dbm


def quietest_first(boards: Iterable[HeardBoard]) -> list[HeardBoard]:
    """Sort boards by what is received of them; where that is unknown nobody knows how far it is."""
    return sorted(boards, key=lambda b: (b.rssi_dbm == RSSI_UNKNOWN, b.rssi_dbm))


class AirPicture:
    """Remembers advertisements; it decides nothing.

    `boards` are ours; `latecomers` are ours too, but came when no more were taken. `namesakes` have
    the Device UUID of another one, `foreign` are the device addresses of proxies of other networks.
    Anybody can advertise anything, so each is bounded: a board that was heard once only makes room
    for the next, and whoever goes on advertising stays; `overlooked` counts who did.
    """

    def __init__(self, inventory: Inventory, net_key: NetKey, capacity: int = MAX_BOARDS) -> None:
        self._inventory = inventory
        self._net_key = net_key
        self._capacity = capacity
        self.boards: dict[bytes, HeardBoard] = {}
        self.latecomers: dict[bytes, HeardBoard] = {}
        self.strangers: dict[bytes, HeardBoard] = {}
        self.namesakes: dict[str, HeardBoard] = {}
        self.foreign: dict[str, NodeIdentity | NetworkIdentity] = {}
        self.overlooked = 0
        self._heard_once: dict[bytes, None] = {}
        self._proxies: dict[str, deque[float]] = {}
        self._became: dict[str, Span] = {}
        self._were_proxies: dict[str, None] = {}
        self._randoms: dict[bytes, None] = {}
        self._stale: set[bytes] = set()

    def receive(self, advertisement: Advertisement) -> HeardBoard | None:
        """Take an advertisement; return the unprovisioned board when it is new."""
        data, address = advertisement.data, advertisement.device_address
        if isinstance(data, UnprovisionedDevice):
            return self._take_unprovisioned(data.uuid, advertisement)
        keep_latest(self._were_proxies, address, None, MAX_PROXIES)
        if isinstance(data, NodeIdentity):
            keep_latest(self._randoms, data.random, None, MAX_PROXIES)
            keep_latest(self.foreign, address, data, MAX_NAMESAKES)
        elif not data.matches(self._net_key):
            keep_latest(self.foreign, address, data, MAX_NAMESAKES)
        else:
            self.foreign.pop(address, None)
            self._shown(address, advertisement.seen_s)
            reports = self._proxies.get(address) or deque(maxlen=_PROXY_REPORTS_KEPT)
            reports.append(advertisement.seen_s)
            keep_latest(self._proxies, address, reports, MAX_PROXIES)
        return None

    def _take_unprovisioned(self, uuid: bytes, advertisement: Advertisement) -> HeardBoard | None:
        now, address = advertisement.seen_s, advertisement.device_address
        board = self._known(uuid)
        if board is None:
            return self._add(uuid, advertisement)
        if board.device_address != address:
            was_node = board.device_address in self._were_proxies
            if was_node or now - board.last_seen_s <= NAMESAKE_S:
                self._take_namesake(uuid, advertisement)
            else:
                self._move(board, advertisement)
            return None
        board.reports += 1
        self._heard_once.pop(uuid, None)
        self._became.pop(address, None)
        board.last_seen_s = now
        board.rssi_dbm = max(board.rssi_dbm, advertisement.rssi_dbm)
        return None

    def _move(self, board: HeardBoard, advertisement: Advertisement) -> None:
        """A board that left the air came back with another device address.

        Whoever works with the board as it was is not misled: it may be another device.
        """
        anew = replace(
            board,
            device_address=advertisement.device_address,
            rssi_dbm=advertisement.rssi_dbm,
            last_seen_s=advertisement.seen_s,
        )
        for boards in (self.boards, self.strangers, self.latecomers):
            if board.uuid in boards:
                boards[board.uuid] = anew

    def _add(self, uuid: bytes, advertisement: Advertisement) -> HeardBoard | None:
        is_ours = self._inventory.is_ours(uuid)
        boards = self.boards if is_ours else self.strangers
        if len(boards) >= self._capacity:
            self.overlooked += 1
            fleeting = next((other for other in self._heard_once if other in boards), None)
            if fleeting is None:
                return None
            del boards[fleeting], self._heard_once[fleeting]
        now = advertisement.seen_s
        board = boards[uuid] = HeardBoard(
            uuid, advertisement.device_address, advertisement.rssi_dbm, now, now, is_ours
        )
        self._heard_once[uuid] = None
        return board

    def _take_namesake(self, uuid: bytes, advertisement: Advertisement) -> None:
        """Remember a second board of one Device UUID, on the air at the same time."""
        now, address = advertisement.seen_s, advertisement.device_address
        known = self.namesakes.get(address)
        if known is None or known.uuid != uuid:
            known = HeardBoard(uuid, address, advertisement.rssi_dbm, now, now, reports=0)
        known.last_seen_s = now
        known.reports += 1
        keep_latest(self.namesakes, address, known, MAX_NAMESAKES)

    def all_of_ours(self) -> list[HeardBoard]:
        """Return every board of ours that was heard unprovisioned, and not as our proxy since."""
        namesakes = [b for b in self.namesakes.values() if self._inventory.is_ours(b.uuid)]
        return [b for b in (*self.boards.values(), *namesakes) if not self.became_proxy(b)]

    def namesakes_on_air(self, now: float, within_s: float) -> list[HeardBoard]:
        """Return boards of ours that share the Device UUID of another, and went on advertising."""
        return [
            board
            for board in self.namesakes.values()
            if board.reports > 1
            and now - board.last_seen_s <= within_s
            and self._inventory.is_ours(board.uuid)
            and not self.became_proxy(board)
        ]

    def set_apart(self, board: HeardBoard) -> None:
        """Count a board of ours as a namesake: it has the Device UUID of a node of ours."""
        del self.boards[board.uuid]
        keep_latest(self.namesakes, board.device_address, board, MAX_NAMESAKES)

    def _shown(self, device_address: str, now: float) -> None:
        """Note when a board became a node, now that its proxy is heard."""
        if device_address in self._became:
            return
        board = self.board_at(device_address)
        if board is None:
            return
        # What comes unprovisioned after a proxy may be old data: it says nothing of the time.
        earliest_s = -math.inf if device_address in self._proxies else board.last_seen_s
        self._became[device_address] = Span(earliest_s, now)

    def _known(self, uuid: bytes) -> HeardBoard | None:
        for boards in (self.boards, self.strangers, self.latecomers):
            if uuid in boards:
                return boards[uuid]
        return None

    def set_aside(self, board: HeardBoard) -> None:
        """Count a board of ours as a latecomer from now on."""
        self.latecomers[board.uuid] = self.boards.pop(board.uuid)

    def beginning_with(self, match: bytes) -> list[HeardBoard]:
        """Return every board that was heard unprovisioned and that this match value lets in."""
        heard = (self.boards, self.strangers, self.latecomers)
        return [b for boards in heard for b in boards.values() if b.uuid.startswith(match)]

    def mark_stale(self) -> None:
        """Distrust every Node Identity heard so far: its board is about to leave the air.

        bleak reports the service data of an earlier advertisement again when the board sends
        anything else, so a Random from before proves nothing.
        """
        self._stale.update(self._randoms)

    def is_identity(self, advertisement: Advertisement, address: int) -> bool:
        """Whether it is the Node Identity of `address`, and not a stale one."""
        data = advertisement.data
        return (
            isinstance(data, NodeIdentity)
            and data.random not in self._stale
            and data.matches(self._net_key, address)
        )

    def is_network(self, advertisement: Advertisement) -> bool:
        """Whether it is the Network ID of our network."""
        data = advertisement.data
        return isinstance(data, NetworkIdentity) and data.matches(self._net_key)

    def is_proxy(self, advertisement: Advertisement, address: int, device_address: str) -> bool:
        """Whether it is the proxy of node `address`, a board with that device address.

        It is known by its Node Identity, or by our Network ID from its device address.
        """
        return self.is_identity(advertisement, address) or (
            advertisement.device_address == device_address and self.is_network(advertisement)
        )

    def unprovisioned(self, now: float, within_s: float) -> list[HeardBoard]:
        """Return our boards that advertised 0x1827 within the last `within_s` seconds.

        Not those that were heard as proxies of our network since: BlueZ tells old data once more
        when a scan begins.
        """
        return [
            board
            for board in self.boards.values()
            if now - board.last_seen_s <= within_s and not self.became_proxy(board)
        ]

    def became_proxy(self, board: HeardBoard) -> bool:
        """Tell whether the board was heard as a proxy of our network since."""
        times = self._proxies.get(board.device_address)
        return times is not None and times[-1] >= board.last_seen_s

    def became_node(self, board: HeardBoard) -> Span:
        """Return when the board became a node: after it was unprovisioned, before it was a proxy.

        Of one that was not heard as a proxy since, BlueZ may repeat that it is unprovisioned for as
        long as it sends.
        """
        return self._became.get(board.device_address, ANY_TIME)

    def restarted(self, advertisement: Advertisement, board: HeardBoard) -> bool:
        """Tell whether a board that was heard as a proxy is unprovisioned again.

        Before that it proves nothing: BlueZ tells what a board was with whatever a node sends.
        """
        data = advertisement.data
        return (
            isinstance(data, UnprovisionedDevice)
            and data.uuid == board.uuid
            and advertisement.device_address == board.device_address
            and board.device_address in self._were_proxies
        )

    def proxies_since(self, begin_s: float) -> list[str]:
        """Return device addresses that advertised our Network ID since then, most heard first."""
        counts = {
            address: sum(at >= begin_s for at in times) for address, times in self._proxies.items()
        }
        return sorted((a for a in counts if counts[a]), key=lambda a: (-counts[a], a))

    def board_at(self, device_address: str) -> HeardBoard | None:
        """Return the board that advertised 0x1827 from this device address.

        `None` if there are several: all but one pretend to be at this address.
        """
        found = [b for b in self.boards.values() if b.device_address == device_address]
        return found[0] if len(found) == 1 else None

    def most_lasting(
        self, passed_over: set[bytes], now: float, within_s: float
    ) -> HeardBoard | None:
        """Return the unprovisioned board that is on the air for longest and not passed over."""
        boards = [b for b in self.unprovisioned(now, within_s) if b.uuid not in passed_over]
        return min(boards, key=lambda board: board.first_seen_s, default=None)

    def strongest(self, passed_over: set[bytes], now: float, within_s: float) -> HeardBoard | None:
        """Return the loudest unprovisioned board that is not passed over."""
        boards = [b for b in self.unprovisioned(now, within_s) if b.uuid not in passed_over]
        return max(boards, key=lambda board: board.rank, default=None)
