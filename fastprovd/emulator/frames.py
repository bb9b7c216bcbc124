"""Network PDUs on the advertising bearer, and what the boards of one network share about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from fastprovd.errors import DecodeError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu

_KEPT_PDUS: Final = 4096


class Flood:
    """One network message, whatever its TTL: which boards have it in their network cache."""

    __slots__ = ("__weakref__", "heard")

    def __init__(self) -> None:
        self.heard = 0


@dataclass(frozen=True, slots=True)
class MeshFrame:
    """A Network PDU on the advertising bearer, encrypted, and the network it belongs to."""

    raw: bytes
    network: Network
    flood: Flood


class Network:
    """What is shared by the boards that hold one NetKey: the key, who they are, PDUs.

    Sharing changes no answer; it saves decrypting and encrypting the same octets once per board.
    """

    def __init__(self, net_key: NetKey) -> None:
        self.net_key = net_key
        self.members = 0
        self._floods: WeakValueDictionary[tuple[int, int, int], Flood] = WeakValueDictionary()
        self._decoded: dict[tuple[bytes, IvIndex], NetworkPdu | None] = {}
        self._relayed: dict[NetworkPdu, tuple[NetworkPdu, bytes]] = {}

    def frame(self, raw: bytes, pdu: NetworkPdu) -> MeshFrame:
        """Return the frame that carries `raw`, whose clear text is `pdu`."""
        key = (pdu.iv_index, pdu.src, pdu.seq)
        flood = self._floods.get(key)
        if flood is None:
            flood = self._floods[key] = Flood()
        return MeshFrame(raw, self, flood)

    def decode(self, raw: bytes, iv_index: IvIndex) -> NetworkPdu | None:
        """Return the PDU that the network's key opens, `None` for other and malformed ones."""
        key = (raw, iv_index)
        try:
            return self._decoded[key]
        except KeyError:
            pass
        try:
            pdu = decode_network_pdu(raw, (self.net_key,), iv_index)
        except DecodeError:
            pdu = None
        if len(self._decoded) >= _KEPT_PDUS:
            self._decoded.clear()
        self._decoded[key] = pdu
        return pdu

    def relayed(self, pdu: NetworkPdu) -> tuple[NetworkPdu, bytes]:
        """Return `pdu` as a relay sends it on, in the clear and encrypted."""
        relayed = self._relayed.get(pdu)
        if relayed is None:
            if len(self._relayed) >= _KEPT_PDUS:
                self._relayed.clear()
            clear = pdu.relayed()
            relayed = self._relayed[pdu] = clear, encode_network_pdu(clear, self.net_key)
        return relayed
