"""What a run needs from the world: adapter, links, store, audience.

Bearer, Link and Scan are met by `fastprovd.bearers`, Store by `fastprovd.store`, Audience by the
daemon (MQTT) and the command line; mypy checks the fit where `daemon.py` joins them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from fastprovd.mesh.beacons import Advertisement
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.proxy import ProxyPduType
from fastprovd.records import AdapterLinks, AddressRange, Membership, Node, Run, Step


class Link(Protocol):
    """One GATT link to a board; Proxy PDUs whole, segmentation is the link's business."""

    @property
    def is_connected(self) -> bool:
        """Whether the link was up when last heard of."""
        ...

    async def send(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        """Queue one Proxy PDU for the board; raises ConnectionLost."""
        ...

    async def receive(self) -> tuple[ProxyPduType, bytes]:
        """Return the next Proxy PDU; raises ConnectionLost once the link is gone."""
        ...


class Scan(Protocol):
    """A running scan."""

    def __aiter__(self) -> AsyncIterator[Advertisement]:
        """Yield fresh advertisements, throttled per device; raises BearerError when it breaks."""
        ...


class Bearer(Protocol):
    """The adapter: it never connects while it discovers."""

    @property
    def links(self) -> AdapterLinks:
        """How many links may be open at once; it changes while one connects, more wait inside."""
        ...

    def scan(self, *, gives_way: bool = False) -> AbstractAsyncContextManager[Scan]:
        """Discover until the context ends; if it `gives_way`, until somebody wants to connect."""
        ...

    def provisioning_link(self, device_address: str) -> AbstractAsyncContextManager[Link]:
        """Open PB-GATT; raises BearerError classes."""
        ...

    def kept_proxy_link(self, device_address: str) -> AbstractAsyncContextManager[Link]:
        """Go on as a proxy client on the open PB-GATT link; raises BearerError classes."""
        ...

    def proxy_link(self, device_address: str) -> AbstractAsyncContextManager[Link]:
        """Open the GATT proxy; raises BearerError classes."""
        ...


class Store(Protocol):
    """Durable facts; synchronous, every method returns after the commit."""

    def reserve_seq_block(self, size: int) -> range:
        """Reserve `size` SEQ numbers of the Top Provisioner under the current IV Index."""
        ...

    def set_iv_index(self, iv_index: IvIndex, at: datetime, *, recovers: bool) -> None:
        """Move the IV Index forward; SEQ begins again when the one to transmit with grows."""
        ...

    def reserve_addresses(self, addresses: AddressRange) -> None:
        """Take a range for a run; raises StoreError when any of it is taken."""
        ...

    def reserved_addresses(self) -> Sequence[AddressRange]:
        """Return every range that is taken."""
        ...

    def note_conflict(self, reason: str) -> None:
        """Keep why nothing may be sent any more until the operator has looked."""
        ...

    def save_dev_key(
        self, address: int, device_uuid: bytes, dev_key: DevKey, step: Step | None = None
    ) -> None:
        """Keep the DevKey of a board that we provision, and journal that it is about to leave."""
        ...

    def save_nodes(
        self,
        nodes: Sequence[Node],
        steps: Sequence[Step] = (),
        heard: Iterable[tuple[int, int, int]] = (),
        run: Run | None = None,
    ) -> None:
        """Insert or replace nodes by address and the run, and journal steps, in one commit."""
        ...


class Audience(Protocol):
    """Who is told what happens; calls return at once and never raise."""

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        ...

    def node_changed(self, node: Node) -> None:
        """A node became known, or more is known about it."""
        ...

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list, whole."""
        ...

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group, whole."""
        ...

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened, such as `device_found`; `data` is JSON-ready."""
        ...
