"""What a board advertises for connections, and when: unprovisioned, Node Identity, Network ID."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

from fastprovd.emulator import firmware
from fastprovd.emulator.advertising import Connectable, ConnectableAdvertiser
from fastprovd.emulator.hosts import Host
from fastprovd.emulator.timeline import Happening
from fastprovd.mesh.beacons import NetworkIdentity, NodeIdentity, UnprovisionedDevice

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board


class _Afterglow(Enum):
    """Node Identity that goes on although the proxy is off."""

    NONE = auto()
    FALSE_PROXY = auto()
    STRAY = auto()


class Announcer:
    """Chooses the content of connectable advertising through one boot of a board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.advertiser = ConnectableAdvertiser(
            board.loop,
            board.air.random_for(f"{board.device_address}/advertiser"),
            self._content,
            self._sends_at,
            lambda events: board.air.connectable_event(board, events),
            lambda: board.air.listeners(board),
        )
        self.reset()

    def reset(self) -> None:
        """The board boots: nothing is on the air."""
        self.advertiser.stop()
        self.proxy_enabled = False
        self.identity_is_running = False
        self._is_fast = True
        self._afterglow = _Afterglow.NONE
        self._glows_at_hang_up = False
        self._return_is_news = False
        self._cancel_identity: Callable[[], None] | None = None

    def _sends_at(self, interval_s: float | None) -> None:
        board = self._board
        # What is in the queue is sent as often as the fastest advertising.
        board.air.set_interval(
            board, interval_s if board.queue.is_idle else firmware.FAST_INTERVAL_S
        )

    def update(self) -> None:
        """Begin again, or stop: the queue, the links or the content have changed."""
        board = self._board
        if board.is_on_air and not board.is_silent and board.queue.is_idle:
            self.advertiser.start()
        else:
            self.advertiser.stop()

    def booted(self) -> None:
        """Advertise fast for the first minute."""
        self._board.later(firmware.FAST_ADVERTISING_S, self._slow_down)
        self.update()

    def enable_proxy(self) -> None:
        """The proxy service is there."""
        self.proxy_enabled = True
        self.update()

    def proxy_returns(self) -> None:
        """The proxy service is back after a run, with Node Identity."""
        self._return_is_news = True
        self.proxy_enabled = True
        self.start_identity()

    def disable_proxy(self) -> None:
        """The proxy service is gone; flaws show when the last fragment has left."""
        self._glows_at_hang_up = self.identity_is_running and self._board.link_count > 0
        self.proxy_enabled = False
        self._stop_identity()
        self.update()

    def start_identity(self) -> None:
        """Node Identity for 60 s."""
        self._stop_identity()
        self.identity_is_running = True
        self._cancel_identity = self._board.later(firmware.NODE_IDENTITY_S, self._identity_over)
        self.update()

    def set_identity(self, on: bool) -> None:
        """Node Identity begins or ends because somebody says so."""
        if on:
            self.start_identity()
        else:
            self._stop_identity()
            self.update()

    def hung_up(self) -> None:
        """A link is gone; after INFO_STATUS some boards go on advertising for a moment."""
        if self._glows_at_hang_up:
            self._glows_at_hang_up = False
            host, flaws, random = self._board.host, self._board.flaws, self._board.random
            drawn = random.random()
            if host is Host.BLUEDROID and flaws.false_proxy_advertisement:
                if drawn < firmware.FALSE_PROXY_PROBABILITY:
                    self._glow(_Afterglow.FALSE_PROXY, random.uniform(*firmware.FALSE_PROXY_S))
            elif (
                host is Host.NIMBLE
                and flaws.stray_advertisement
                and drawn < firmware.STRAY_ADVERTISEMENT
            ):
                self._glow(_Afterglow.STRAY, firmware.STRAY_S)
        self.update()

    def _glow(self, afterglow: _Afterglow, lasts_s: float) -> None:
        self._afterglow = afterglow
        self._board.later(lasts_s, self._glow_over)

    def _glow_over(self) -> None:
        self._afterglow = _Afterglow.NONE
        self.update()

    def _slow_down(self) -> None:
        self._is_fast = False
        self.update()

    def _stop_identity(self) -> None:
        self.identity_is_running = False
        if self._cancel_identity is not None:
            self._cancel_identity()
            self._cancel_identity = None

    def _identity_over(self) -> None:
        self._stop_identity()
        board = self._board
        if board.host is Host.BLUEDROID and board.flaws.silence_after_node_identity:
            is_linked = board.link_count > 0
            if board.random.random() < (
                firmware.SILENCE_WITH_LINK if is_linked else firmware.SILENCE_WITHOUT_LINK
            ):
                board.fall_silent("after Node Identity")
        self.update()

    def _content(self, starts: int) -> Connectable | None:
        board = self._board
        if board.link_count >= firmware.MAX_LINKS:
            return None
        fast, slow = firmware.FAST_INTERVAL_S, firmware.SLOW_INTERVAL_S
        node = board.node
        if node is None:
            data = UnprovisionedDevice(board.uuid).encode()
            service = board.host.provisioning_service.uuid
            return Connectable(service, data, fast if self._is_fast else slow)
        service, net_key = board.host.proxy_service.uuid, node.network.net_key
        if self.proxy_enabled and self._return_is_news:
            self._return_is_news = False
            board.record(Happening.PROXY_ON_AIR)
        if self.identity_is_running or self._afterglow is not _Afterglow.NONE:
            # A new random at every start (OB 3), without disturbing the board's other draws.
            random = board.air.octets_for(f"{board.device_address}/identity/{starts}", 8)
            identity = NodeIdentity(net_key.node_identity_hash(random, node.address), random)
            answers = self._afterglow is not _Afterglow.STRAY
            return Connectable(service, identity.encode(), fast, answers)
        if not (self.proxy_enabled and board.gatt_proxy):
            return None
        return Connectable(service, NetworkIdentity(net_key.network_id).encode(), slow)
