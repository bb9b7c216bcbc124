"""Nodes behind one proxy, a store that remembers its order, and a session over both."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastprovd.campaign.proxy_session import ProxySession, TopProvisioner, proxy_session
from fastprovd.clock import SystemClock
from fastprovd.errors import StoreError
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.beacons import SecureNetworkBeacon
from fastprovd.mesh.events import MessageReceived
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from fastprovd.mesh.models.generic_onoff import OnOffGet, OnOffStatus
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu
from fastprovd.mesh.proxy import FilterStatus, FilterType, ProxyPduType
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from fastprovd.records import AddressRange, Node, Run, Step
from tests.support.fake_link import Answer, FakeLink, Fault, Pdu

NET_KEY = NetKey(bytes(range(16)))
APP_KEY = AppKey(bytes(range(16, 32)))
DEV_KEY = DevKey(bytes(range(32, 48)))
TOP, PRIMARY = 0x0001, 0x0005
IV_INDEX = IvIndex(100)

# An answer: a message, an access payload that no message of ours would be, or none.
Handler = Callable[[Any], Message | bytes | None]


class FakeStore:
    """Meets the port `Store`; `journal` is everything but `steps` in the order of its commits.

    `commits` counts those of a run. While `gate` is not set, reserving SEQ waits for it;
    `reserving` says that it does.
    """

    def __init__(self, journal: list[Any] | None = None) -> None:
        self.journal: list[Any] = [] if journal is None else journal
        self.steps: list[Step] = []
        self.iv_index = IV_INDEX
        self.gate = threading.Event()
        self.gate.set()
        self.reserving = asyncio.Event()
        self.fails: set[str] = set()
        self.commits = 0
        self._next_seq: defaultdict[int, int] = defaultdict(int)
        self._loop = asyncio.get_running_loop()

    def reserve_seq_block(self, size: int) -> range:
        self._loop.call_soon_threadsafe(self.reserving.set)
        # The number is taken before the wait: it belongs to the IV Index of that moment.
        self._check("reserve_seq_block")
        iv_index = self.iv_index.transmit
        first = self._next_seq[iv_index]
        self._next_seq[iv_index] = first + size
        assert self.gate.wait(10.0)
        self.journal.append(("seq", iv_index, range(first, first + size)))
        return range(first, first + size)

    def set_iv_index(
        self, iv_index: IvIndex, at: datetime | None = None, *, recovers: bool = False
    ) -> None:
        self._check("set_iv_index")
        self.iv_index = iv_index
        self.journal.append(("iv_index", iv_index))

    def reserve_addresses(self, addresses: AddressRange) -> None:
        self.journal.append(("addresses", addresses))

    def reserved_addresses(self) -> Sequence[AddressRange]:
        return [entry[1] for entry in self.journal if entry[0] == "addresses"]

    def save_dev_key(
        self, address: int, device_uuid: bytes, dev_key: DevKey, step: Step | None = None
    ) -> None:
        self.journal.append(("dev_key", address))
        if step is not None:
            self.steps.append(step)

    def note_conflict(self, reason: str) -> None:
        self._check("note_conflict")
        self.journal.append(("conflict", reason))

    def save_nodes(
        self,
        nodes: Sequence[Node],
        steps: Sequence[Step] = (),
        heard: Iterable[tuple[int, int, int]] = (),
        run: Run | None = None,
    ) -> None:
        self._check("save_nodes")
        self.commits += 1
        self.steps += steps
        self.journal += [("heard", entry) for entry in heard]
        self.journal += [("node", node) for node in nodes]
        if run is not None:
            self.journal.append(("run", run))

    def _check(self, method: str) -> None:
        if method in self.fails:
            raise StoreError("the disk is full")


@dataclass(frozen=True)
class Heard:
    """A message that a node received: when, with which TTL."""

    at_s: float
    ttl: int
    message: Any


@dataclass
class FakeNode:
    """A node that answers by message class, `after_s` later; OnOff Get unless told otherwise."""

    address: int
    after_s: float = 0.0
    answers: dict[type[Any], Handler] = field(
        default_factory=lambda: {OnOffGet: lambda _: OnOffStatus(False)}
    )
    heard: list[Heard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stack = Stack(
            address=self.address,
            net_keys=[NET_KEY],
            iv_index=IV_INDEX,
            sequence=SequenceNumbers(range(1 << 20)),
        )
        self.stack.app_keys[0] = APP_KEY
        self.stack.dev_keys[self.address] = DEV_KEY

    def messages(self, wanted: type[Any]) -> list[Heard]:
        """Return what it heard of one class."""
        return [heard for heard in self.heard if isinstance(heard.message, wanted)]

    def receive(self, pdu: NetworkPdu, now: float) -> list[Pdu]:
        """Take a Network PDU for this node and return its Network PDUs."""
        for event in self.stack.receive(pdu, now):
            if not isinstance(event, MessageReceived):
                continue
            self.heard.append(Heard(now, event.ttl, event.message))
            answer = self.answers.get(type(event.message), lambda _: None)(event.message)
            if answer is not None:
                self._send(answer, event.src, event.key, now)
        return self.take_pdus()

    def say(self, message: Message | bytes, now: float, dst: int = TOP) -> list[Pdu]:
        """Say something unasked, under the AppKey."""
        self._send(message, dst, APP_KEY, now)
        return self.take_pdus()

    def take_pdus(self) -> list[Pdu]:
        return [(ProxyPduType.NETWORK_PDU, out.raw) for out in self.stack.pdus_to_send()]

    def _send(self, message: Message | bytes, dst: int, key: AppKey | DevKey, now: float) -> None:
        payload = message if isinstance(message, bytes) else encode_message(message)
        self.stack.send(payload, dst=dst, key=key, ttl=7, now=now)


class FakeMesh:
    """Nodes by address; the first is the proxy. Everybody hears the Top at once."""

    def __init__(self, *nodes: FakeNode) -> None:
        self.nodes = {node.address: node for node in nodes or (FakeNode(PRIMARY),)}
        self.proxy = next(iter(self.nodes.values()))
        self.filter_types: list[bytes] = []
        self.tells_filter = True
        self.iv_index = IV_INDEX

    def receive(self, pdu: Pdu, now: float) -> Iterable[Answer]:
        pdu_type, payload = pdu
        if pdu_type is ProxyPduType.PROXY_CONFIGURATION:
            return self._configure(payload)
        clear = decode_network_pdu(payload, [NET_KEY], self.iv_index)
        node = None if clear is None else self.nodes.get(clear.dst)
        if clear is None or node is None:
            return []
        return [Answer(said, node.after_s) for said in node.receive(clear, now)]

    def move_iv_index(self, iv_index: IvIndex) -> Pdu:
        """Let all nodes take a new IV Index, and return the beacon that says so."""
        moves = iv_index.transmit != self.iv_index.transmit
        self.iv_index = iv_index
        for node in self.nodes.values():
            node.stack.change_iv_index(iv_index)
            if moves:
                node.stack.sequence.restart(range(1 << 20))
        beacon = SecureNetworkBeacon(False, iv_index, NET_KEY.network_id)
        return ProxyPduType.MESH_BEACON, beacon.encode(NET_KEY)

    def overheard(self, src: int, dst: int, *, device_key: bool) -> Pdu:
        """Return a Network PDU of one node to another, as the proxy passes it on."""
        stack = self.nodes[src].stack
        stack.send(b"\x80\x03", dst=dst, key=DEV_KEY if device_key else APP_KEY, now=0.0)
        (pdu,) = self.nodes[src].take_pdus()
        return pdu

    def _configure(self, payload: bytes) -> list[Answer]:
        clear = decode_network_pdu(payload, [NET_KEY], self.iv_index, proxy_configuration=True)
        assert clear is not None
        self.filter_types.append(clear.transport_pdu)
        return [Answer(self.filter_status())] if self.tells_filter else []

    def filter_status(self) -> Pdu:
        """Return the proxy's Filter Status."""
        status = FilterStatus(FilterType.REJECT_LIST, 0).encode()
        pdu = NetworkPdu(
            1, 0, self.proxy.stack.sequence.take(), self.proxy.address, 0, status,
            self.iv_index.transmit,
        )  # fmt: skip
        raw = encode_network_pdu(pdu, NET_KEY, proxy_configuration=True)
        return ProxyPduType.PROXY_CONFIGURATION, raw


class Nonces:
    """Checks before each PDU leaves that its SEQ was reserved under its IV Index, and is new."""

    def __init__(self, journal: list[Any]) -> None:
        self._journal = journal
        self.used: list[tuple[int, int]] = []

    def check(self, pdu: Pdu) -> None:
        pdu_type, payload = pdu
        configuration = pdu_type is ProxyPduType.PROXY_CONFIGURATION
        known = [IV_INDEX, *(entry[1] for entry in self._journal if entry[0] == "iv_index")]
        # The newest first: which one an IVI bit means depends on it.
        for iv_index in reversed(known):
            clear = decode_network_pdu(
                payload, [NET_KEY], iv_index, proxy_configuration=configuration
            )
            if clear is not None:
                break
        assert clear is not None, "sent under an IV Index that was not stored before"
        nonce = (clear.iv_index, clear.seq)
        assert nonce not in self.used
        self.used.append(nonce)
        reserved = [entry for entry in self._journal if entry[:2] == ("seq", clear.iv_index)]
        assert any(clear.seq in entry[2] for entry in reserved), f"{nonce} was not reserved"


def top_provisioner(store: FakeStore) -> TopProvisioner:
    """Return our side of the mesh, without a single SEQ."""
    stack = Stack(address=TOP, net_keys=[NET_KEY], iv_index=IV_INDEX, sequence=SequenceNumbers())
    stack.app_keys[0] = APP_KEY
    stack.dev_keys[PRIMARY] = DEV_KEY
    return TopProvisioner(stack, store)


@dataclass
class Talk:
    """An open session and everything around it."""

    session: ProxySession
    link: FakeLink
    mesh: FakeMesh
    top: TopProvisioner
    store: FakeStore
    nonces: Nonces


@asynccontextmanager
async def talk(
    *nodes: FakeNode,
    store: FakeStore | None = None,
    to_board: Mapping[int, Fault] | None = None,
    to_top: Mapping[int, Fault] | None = None,
) -> AsyncIterator[Talk]:
    """Open a session over a link to the first node; Set Filter Type is PDU 0 both ways."""
    mesh = FakeMesh(*nodes)
    store = store or FakeStore()
    nonces = Nonces(store.journal)
    top = top_provisioner(store)
    link = FakeLink(mesh, to_board=to_board, to_top=to_top, watched=nonces.check)
    async with proxy_session(link, top, SystemClock()) as session:
        yield Talk(session, link, mesh, top, store, nonces)


@asynccontextmanager
async def two_links(first: FakeMesh, second: FakeMesh) -> AsyncIterator[tuple[Talk, Talk]]:
    """Open sessions of one Top Provisioner over links to two proxies."""
    store = FakeStore()
    nonces = Nonces(store.journal)
    top = top_provisioner(store)
    talks: list[Talk] = []
    async with AsyncExitStack() as stack:
        for mesh in (first, second):
            link = FakeLink(mesh, watched=nonces.check)
            session = await stack.enter_async_context(proxy_session(link, top, SystemClock()))
            await session.server_address
            talks.append(Talk(session, link, mesh, top, store, nonces))
        yield talks[0], talks[1]
