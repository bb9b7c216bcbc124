"""Network PDU: IVI NID | CTL TTL SEQ SRC | DST TransportPDU | NetMIC, big-endian.

Mesh Profile v1.0.1 §3.4.4 (layout), §3.8.7 (encryption and obfuscation).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh import addresses
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetworkCredentials
from fastprovd.mesh.nonces import network_nonce, proxy_nonce

MIN_OCTETS: Final = 14
MAX_OCTETS: Final = 29
MAX_TTL: Final = 0x7F
_HEADER_END: Final = 7


@dataclass(frozen=True, slots=True)
class NetworkPdu:
    """A Network PDU in the clear; `iv_index` is the one it was or will be encrypted under."""

    ctl: int
    ttl: int
    seq: int
    src: int
    dst: int
    transport_pdu: bytes
    iv_index: int = 0
    net_key_index: int = 0

    def relayed(self) -> NetworkPdu:
        """Return the PDU as a relay sends it on: TTL one less."""
        return replace(self, ttl=self.ttl - 1)


def encode_network_pdu(
    pdu: NetworkPdu, credentials: NetworkCredentials, *, proxy_configuration: bool = False
) -> bytes:
    """Return the PDU encrypted and obfuscated.

    Raises:
        LocalProtocolError: a field does not fit its width, or the PDU not into 14..29 octets.
    """
    if not (0 <= pdu.ttl <= MAX_TTL and 0 <= pdu.seq < 1 << 24 and pdu.ctl in (0, 1)):
        raise LocalProtocolError(f"CTL {pdu.ctl}, TTL {pdu.ttl} or SEQ {pdu.seq} does not fit")
    ctl_ttl = pdu.ctl << 7 | pdu.ttl
    header = bytes([ctl_ttl]) + pdu.seq.to_bytes(3, "big") + pdu.src.to_bytes(2, "big")
    if proxy_configuration:
        nonce = proxy_nonce(pdu.seq, pdu.src, pdu.iv_index)
    else:
        nonce = network_nonce(ctl_ttl, pdu.seq, pdu.src, pdu.iv_index)
    encrypted = credentials.encrypt(
        nonce, pdu.dst.to_bytes(2, "big") + pdu.transport_pdu, ctl=pdu.ctl
    )
    octets = _HEADER_END + len(encrypted)
    if not MIN_OCTETS <= octets <= MAX_OCTETS:
        raise LocalProtocolError(
            f"a Network PDU has {MIN_OCTETS}..{MAX_OCTETS} octets, this one {octets}"
        )
    pecb = credentials.pecb(pdu.iv_index, encrypted[:7])
    obfuscated = int.from_bytes(header, "big") ^ int.from_bytes(pecb, "big")
    ivi_nid = (pdu.iv_index & 1) << 7 | credentials.nid
    return bytes([ivi_nid]) + obfuscated.to_bytes(6, "big") + encrypted


def decode_network_pdu(
    raw: bytes,
    net_keys: Iterable[NetworkCredentials],
    iv_index: IvIndex,
    *,
    proxy_configuration: bool = False,
) -> NetworkPdu | None:
    """Return the PDU that one of `net_keys` opens, `None` when none does.

    Raises:
        DecodeError: wrong length, or authentic and yet with addresses that can not be.
    """
    if not MIN_OCTETS <= len(raw) <= MAX_OCTETS:
        raise DecodeError(f"a Network PDU has {MIN_OCTETS}..{MAX_OCTETS} octets, got {len(raw)}")
    for net_key in net_keys:
        if net_key.nid == raw[0] & 0x7F:
            pdu = _open(raw, net_key, iv_index, proxy_configuration)
            if pdu is not None:
                return pdu
    return None


def _open(
    raw: bytes,
    credentials: NetworkCredentials,
    iv_index: IvIndex,
    proxy_configuration: bool,
) -> NetworkPdu | None:
    iv = iv_index.for_ivi(raw[0] >> 7)
    if iv is None:
        return None
    encrypted = raw[_HEADER_END:]
    pecb = credentials.pecb(iv, encrypted[:7])
    header = int.from_bytes(raw[1:_HEADER_END], "big") ^ int.from_bytes(pecb, "big")
    ctl_ttl, seq, src = header >> 40, header >> 16 & 0xFFFFFF, header & 0xFFFF
    if proxy_configuration:
        nonce = proxy_nonce(seq, src, iv)
    else:
        nonce = network_nonce(ctl_ttl, seq, src, iv)
    ctl = ctl_ttl >> 7
    if len(encrypted) < 2 + (8 if ctl else 4):
        return None  # a header that can not be right: another key's PDU
    plain = credentials.decrypt(nonce, encrypted, ctl=ctl)
    if plain is None:
        return None
    dst = int.from_bytes(plain[:2], "big")
    if not addresses.is_unicast(src):
        raise DecodeError(f"SRC of a Network PDU must be unicast, got 0x{src:04x}")
    if (dst == addresses.UNASSIGNED) is not proxy_configuration:
        raise DecodeError(f"DST 0x{dst:04x} is not allowed in this Network PDU")
    return NetworkPdu(ctl, ctl_ttl & 0x7F, seq, src, dst, plain[2:], iv, credentials.index)
