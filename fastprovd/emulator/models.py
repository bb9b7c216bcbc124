"""The models of one node, and which of them gets a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastprovd.emulator.config_server import ConfigServer, OnOffServer
from fastprovd.emulator.vendor_server import VendorServer
from fastprovd.mesh import addresses
from fastprovd.mesh.events import MessageReceived
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffSet, OnOffSetUnacknowledged

if TYPE_CHECKING:
    from fastprovd.emulator.board import Board
    from fastprovd.emulator.node import MeshNode


class Models:
    """Configuration Server, OnOff Server and the vendor model of one node."""

    def __init__(self, board: Board, node: MeshNode, dev_key: DevKey) -> None:
        self._node = node
        self._dev_key = dev_key
        self.config = ConfigServer(board, node)
        self.vendor = VendorServer(board, node)
        self.onoff = OnOffServer(board, node, self.vendor.start_disable_timer)

    @property
    def latest_app_key(self) -> AppKey | None:
        """The AppKey that was bound last."""
        index = self.config.latest_app_key
        return None if index is None else self._node.stack.app_keys[index]

    def receive(self, event: MessageReceived) -> None:
        """Take a message that the stack has opened."""
        if isinstance(event.key, DevKey):
            # Under a child's DevKey comes what a client waits for.
            model = self.config if event.key is self._dev_key else self.vendor
            model.receive(event)
        elif event.key.index not in self.config.bound_app_keys:
            return  # the bind race: dropped without a word (FP 4.3)
        elif isinstance(event.message, OnOffGet | OnOffSet | OnOffSetUnacknowledged):
            self.onoff.receive(event)
        elif event.dst in (self._node.address, addresses.ALL_NODES):
            # Only the OnOff Server subscribes to groups.
            self.vendor.receive(event)
