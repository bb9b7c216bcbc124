"""Network, application, device and proxy nonce, 13 octets each (Mesh Profile v1.0.1 §3.8.5)."""

from __future__ import annotations

import struct

_NETWORK = struct.Struct(">BB3sHHI")
_TRANSPORT = struct.Struct(">BB3sHHI")


def network_nonce(ctl_ttl: int, seq: int, src: int, iv_index: int) -> bytes:
    """Return the nonce of a Network PDU; `ctl_ttl` is its second octet."""
    return _NETWORK.pack(0x00, ctl_ttl, seq.to_bytes(3, "big"), src, 0, iv_index)


def application_nonce(szmic: int, seq: int, src: int, dst: int, iv_index: int) -> bytes:
    """Return the nonce of an Upper Transport PDU under an AppKey; `szmic` 0 when unsegmented."""
    return _TRANSPORT.pack(0x01, szmic << 7, seq.to_bytes(3, "big"), src, dst, iv_index)


def device_nonce(szmic: int, seq: int, src: int, dst: int, iv_index: int) -> bytes:
    """Return the nonce of an Upper Transport PDU under a DevKey."""
    return _TRANSPORT.pack(0x02, szmic << 7, seq.to_bytes(3, "big"), src, dst, iv_index)


def proxy_nonce(seq: int, src: int, iv_index: int) -> bytes:
    """Return the nonce of a proxy configuration PDU."""
    return _NETWORK.pack(0x03, 0x00, seq.to_bytes(3, "big"), src, 0, iv_index)
