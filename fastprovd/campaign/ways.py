"""Ways into our network outside of a run: which proxy is taken, and which is not taken again.

A node whose proxy we switched off may be on the air for some time, and answers for itself; nothing
that is sent to others through it arrives (OB 18). BlueZ repeats the last service data of such a
node with each PDU that it sends, so not even its Network ID says that it is a proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.clock import Clock
from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.addresses import format_address, is_unicast
from fastprovd.mesh.beacons import Advertisement, NetworkIdentity, NodeIdentity
from fastprovd.mesh.keys import NetKey
from fastprovd.records import Node, NodeRole

# So many nodes behind a proxy that do not answer, while none did, are no coincidence.
SILENT_NODES: Final = 3
# A proxy that forwarded nothing may have been out of reach of the others for the moment.
_REMEMBERED_S: Final = 300.0


class Standing(IntEnum):
    """What a proxy is worth as a way in; the lowest is the best."""

    FORWARDS = 0
    """It advertises our Network ID, or it is known to have its proxy on, as a Primary has."""
    UNKNOWN = 1
    """It advertises its Node Identity, which a node does for a minute whatever its proxy is."""
    SILENT_LATELY = 2
    """A short time ago nobody answered through it, it did not answer, or could not be reached."""
    SWITCHED_OFF = 3
    """We switched its proxy off: it answers for itself."""


@dataclass(frozen=True, order=True, slots=True)
class Candidate:
    """A proxy that was heard; the least is the best."""

    standing: Standing
    device_address: str


Judge = Callable[[Advertisement], Standing | None]
"""Tell what the sender of an advertisement is worth as a way in; `None`: it is no proxy of ours."""


class ForwardsNothing(Exception):
    """Through this proxy nobody answers but the proxy itself; another one is to be tried."""


class Proxies:
    """What the process has seen of proxies, by BD_ADDR, beyond what is stored of nodes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[bool, float]] = {}

    def note(self, device_address: str, *, forwards: bool) -> None:
        """Take that somebody, or nobody, answered through a proxy."""
        self._seen[device_address] = forwards, self._clock.monotonic()

    def forwards(self, device_address: str) -> bool | None:
        """Return what was seen lately, `None` when there is nothing."""
        forwards, seen_s = self._seen.get(device_address, (None, 0.0))
        return forwards if self._clock.monotonic() - seen_s <= _REMEMBERED_S else None


def standing_of(net_keys: Collection[NetKey], nodes: Iterable[Node], proxies: Proxies) -> Judge:
    """Return what judges advertisements by what is known of `nodes` and was seen of `proxies`.

    Raises:
        LocalProtocolError: one of `nodes` has no unicast address.
    """
    known = {node.address: node for node in nodes}
    for address in known:
        if not is_unicast(address):
            raise LocalProtocolError(f"{format_address(address)} is no node's address")
    by_device = {node.device_address: node for node in known.values() if node.device_address}

    def judge(advertisement: Advertisement) -> Standing | None:
        data, device_address = advertisement.data, advertisement.device_address
        node = by_device.get(device_address)
        match data:
            case NetworkIdentity():
                if not any(data.matches(net_key) for net_key in net_keys):
                    return None
                said = Standing.FORWARDS
            case NodeIdentity():
                found = (
                    each
                    for net_key in net_keys
                    for each in known.values()
                    if data.matches(net_key, each.address)
                )
                node = next(found, None)
                if node is None:
                    return None
                said = Standing.UNKNOWN
            case _:
                return None
        told = None if node is None else node.gatt_proxy
        if told is False:
            return Standing.SWITCHED_OFF
        seen = proxies.forwards(device_address)
        if seen is False:
            return Standing.SILENT_LATELY
        is_on = told or seen or (node is not None and node.role is NodeRole.PRIMARY_PROVISIONER)
        return Standing.FORWARDS if is_on else said

    return judge


class Ways:
    """The proxies that one request takes, one after the other.

    `proxies` is what the process knows of all, `taken` the one whose link was opened last.
    `is_last`: it is taken for the second time, and has to do.
    """

    def __init__(self, proxies: Proxies) -> None:
        self.proxies = proxies
        self.taken: Candidate | None = None
        self.is_last = False
        self._tried: set[Candidate] = set()
        self._hopeless: set[str] = set()
        self._dead: set[str] = set()

    @property
    def passed_over(self) -> Collection[str]:
        """The BD_ADDRs that are not taken again."""
        return self._hopeless | {candidate.device_address for candidate in self._tried}

    @property
    def is_first(self) -> bool:
        """Whether none was taken in vain."""
        return not self._tried

    @property
    def is_trusted(self) -> bool:
        """Whether the one that was taken last is one of those that forward."""
        return self.taken is not None and self.taken.standing is Standing.FORWARDS

    def take(self, candidate: Candidate) -> None:
        """Note whose link is open now."""
        self.taken = candidate

    @property
    def tried(self) -> int:
        """How many were taken in vain, besides those that are dead."""
        return len(set(self.passed_over) - self._dead)

    def not_reached(self, candidate: Candidate) -> None:
        """Pass over a proxy to which no link could be opened, or that says nothing.

        Others that need a way in try it last for some time.
        """
        self._hopeless.add(candidate.device_address)
        self._dead.add(candidate.device_address)
        self.proxies.note(candidate.device_address, forwards=False)

    def did_not_help(self, *, for_good: bool = False) -> None:
        """Pass over the proxy that was taken last; `for_good`: nor is it gone back to."""
        if self.taken is None:
            return
        self._tried.add(self.taken)
        if for_good or self.taken.standing is Standing.SWITCHED_OFF:
            self._hopeless.add(self.taken.device_address)

    def lost(self) -> None:
        """Pass over the proxy that was taken last, whose link went; it may be gone back to."""
        if self.taken is not None:
            self._tried.add(self.taken)
            self._dead.add(self.taken.device_address)
            self.proxies.note(self.taken.device_address, forwards=False)

    def helped(self) -> None:
        """Remember that somebody else answered through the proxy that was taken last."""
        if self.taken is not None:
            self.proxies.note(self.taken.device_address, forwards=True)

    def go_back(self) -> Candidate | None:
        """Return the best of those that did not help, once; none that we know to forward nothing.

        What looked like a proxy that forwards nothing may be nodes that have no power.
        """
        left = [c for c in self._tried if c.device_address not in self._hopeless]
        if self.is_last or not left:
            return None
        self.is_last = True
        return min(left)


def is_with(session: ProxySession, address: int) -> bool:
    """Whether the proxy of a session is node `address`, as far as it told."""
    proxy = session.server_address
    return proxy.done() and proxy.result() == address


class Witness:
    """Sees whether anybody but the proxy itself answers through a session."""

    def __init__(self, session: ProxySession, ways: Ways) -> None:
        self._session = session
        self._ways = ways
        self._silent = 0
        self._forwards = False

    @property
    def forwards(self) -> bool:
        """Whether somebody else did."""
        return self._forwards

    def saw(self, address: int, *, answered: bool) -> bool:
        """Take whether a node that was asked answered, or acknowledged, and return it.

        Raises:
            ForwardsNothing: nobody else did, so far; not of a proxy that has to do.
        """
        if answered:
            self._heard(address)
        elif not self._forwards:
            self._silent += 1
            if self._silent >= SILENT_NODES and not self._ways.is_last:
                self._note()
                raise ForwardsNothing
        return answered

    def _heard(self, address: int) -> None:
        # A session begins when the proxy has told its address.
        if not self._forwards and not is_with(self._session, address):
            self._forwards = True
            self._note()

    def _note(self) -> None:
        if self._ways.taken is not None:
            device_address = self._ways.taken.device_address
            self._ways.proxies.note(device_address, forwards=self._forwards)
