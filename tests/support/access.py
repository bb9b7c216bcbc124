"""Access payloads of the recordings, opened with the keys of their headers and nothing above."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from fastprovd.mesh import nonces
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from tests.support.data import recording

IV_INDEX = 0


@dataclass(frozen=True)
class AccessPayload:
    """One access payload and who said it to whom."""

    src: int
    dst: int
    payload: bytes


@cache
def access_payloads(name: str) -> tuple[AccessPayload, ...]:
    """Return every access payload of a recording that its header's keys open, in order."""
    return tuple(_open(name))


def _open(name: str) -> Iterator[AccessPayload]:
    header = recording(name).header
    net_key = NetKey(bytes.fromhex(header["netkey"]))
    app_key = AppKey(bytes.fromhex(header["appkey"]))
    dev_keys = {
        int(device["unicast"], 16): DevKey(bytes.fromhex(device["devkey"]))
        for device in header["devices"]
    }
    segments: dict[tuple[int, int, int], dict[int, bytes]] = {}
    heard = set()
    for event in recording(name).of("proxy_tx", "proxy_rx", "air_mesh"):
        if event.get("type", 0) != 0:
            continue
        pdu = bytes.fromhex(event["pdu"] if "pdu" in event else event["data"])
        pecb = net_key.pecb(IV_INDEX, pdu[7:14])
        head = bytes(octet ^ mask for octet, mask in zip(pdu[1:7], pecb, strict=True))
        ctl, seq, src = head[0] >> 7, int.from_bytes(head[1:4], "big"), head[4] << 8 | head[5]
        nonce = nonces.network_nonce(head[0], seq, src, IV_INDEX)
        clear = net_key.decrypt(nonce, pdu[7:], ctl=ctl)
        assert clear is not None
        if ctl or (src, seq) in heard:
            continue
        heard.add((src, seq))
        dst, transport = clear[0] << 8 | clear[1], clear[2:]
        upper, seq_auth, szmic = transport[1:], seq, 0
        if transport[0] & 0x80:
            fields = int.from_bytes(transport[1:4], "big")
            szmic, seq_zero = fields >> 23, fields >> 10 & 0x1FFF
            seg_o, seg_n = fields >> 5 & 0x1F, fields & 0x1F
            seq_auth = seq - (seq - seq_zero) % 0x2000
            parts = segments.setdefault((src, dst, seq_auth), {})
            parts[seg_o] = transport[4:]
            if len(parts) <= seg_n:
                continue
            upper = b"".join(parts[number] for number in range(seg_n + 1))
            parts.clear()
        payload = None
        if transport[0] & 0x40:
            nonce = nonces.application_nonce(szmic, seq_auth, src, dst, IV_INDEX)
            payload = app_key.decrypt(nonce, upper, szmic=szmic)
        else:
            nonce = nonces.device_nonce(szmic, seq_auth, src, dst, IV_INDEX)
            for dev_key in (dev_keys.get(dst), dev_keys.get(src)):
                if dev_key is not None and payload is None:
                    payload = dev_key.decrypt(nonce, upper, szmic=szmic)
        if payload is not None:
            yield AccessPayload(src, dst, payload)
