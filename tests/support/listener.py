"""Everybody's ears: each Network PDU of a recording through the layers, whoever it is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from fastprovd.mesh.lower_transport import (
    LowerTransportPdu,
    SegmentedAccess,
    UnsegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu
from fastprovd.mesh.segmentation import IncomingTransfer, SegmentationTimers, seq_auth
from fastprovd.mesh.upper_transport import MessageContext, decrypt_access
from tests.support.data import recording


class Keys:
    """The keys of a recording's header."""

    def __init__(self, header: dict[str, Any]) -> None:
        self.net_key = NetKey(bytes.fromhex(header["netkey"]), header["netkey_index"])
        self.app_key = AppKey(bytes.fromhex(header["appkey"]), header["appkey_index"])
        self.dev_keys = {
            int(device["unicast"], 16): DevKey(bytes.fromhex(device["devkey"]))
            for device in header["devices"]
        }
        self.iv_index = IvIndex(header["iv_index"], bool(header["iv_update"]))


@cache
def keys(name: str) -> Keys:
    """Return the keys of a recording, the same objects every time."""
    return Keys(recording(name).header)


@dataclass(frozen=True)
class HeardMessage:
    """An access message once per SRC and SEQ; key and payload are None when no key opens it."""

    src: int
    dst: int
    seq: int
    key: AppKey | DevKey | None
    payload: bytes | None


@dataclass
class Heard:
    """What a recording holds on `proxy_*` and `air_mesh`."""

    pdus: list[tuple[NetworkPdu, LowerTransportPdu]] = field(default_factory=list)
    messages: dict[tuple[int, int], HeardMessage] = field(default_factory=dict)
    unfinished: int = 0


@cache
def listen(name: str) -> Heard:
    """Decode every Network PDU of a recording; any failure is raised."""
    known, heard = keys(name), Heard()
    transfers: dict[tuple[int, int, int], IncomingTransfer] = {}
    for event in recording(name).of("proxy_tx", "proxy_rx", "air_mesh"):
        if event.get("type", 0) != 0:
            continue
        raw = bytes.fromhex(event["data"] if event["ev"] == "air_mesh" else event["pdu"])
        pdu = decode_network_pdu(raw, [known.net_key], known.iv_index)
        assert pdu is not None, event
        lower = decode_lower_transport_pdu(pdu)
        heard.pdus.append((pdu, lower))
        seq, szmic = pdu.seq, 0
        if isinstance(lower, SegmentedAccess):
            seq, szmic = seq_auth(pdu.seq, lower.header.seq_zero), lower.header.szmic
            transfer = transfers.setdefault(
                (pdu.src, pdu.dst, seq), _transfer(pdu, seq, lower, event["t"])
            )
            transfer.receive(lower, pdu.seq, event["t"])
            upper = transfer.upper_pdu() if transfer.is_complete else None
        else:
            upper = lower.upper_pdu if isinstance(lower, UnsegmentedAccess) else None
        if upper is None or (pdu.src, seq) in heard.messages:
            continue
        context = MessageContext(seq, pdu.src, pdu.dst, pdu.iv_index, szmic)
        assert isinstance(lower, SegmentedAccess | UnsegmentedAccess)
        heard.messages[pdu.src, seq] = _open(known, lower, upper, context)
    heard.unfinished = sum(not transfer.is_complete for transfer in transfers.values())
    return heard


def _transfer(pdu: NetworkPdu, seq: int, first: SegmentedAccess, now: float) -> IncomingTransfer:
    return IncomingTransfer(
        pdu.src,
        pdu.dst,
        seq,
        pdu.iv_index,
        first,
        ttl=pdu.ttl,
        acknowledged=False,
        timers=SegmentationTimers(),
        now=now,
    )


def _open(
    known: Keys,
    lower: SegmentedAccess | UnsegmentedAccess,
    upper: bytes,
    context: MessageContext,
) -> HeardMessage:
    candidates: list[AppKey | DevKey | None]
    if lower.akf:
        candidates = [known.app_key] if known.app_key.aid == lower.aid else []
    else:
        candidates = [known.dev_keys.get(context.src), known.dev_keys.get(context.dst)]
    for key in candidates:
        payload = None if key is None else decrypt_access(key, upper, context)
        if payload is not None:
            return HeardMessage(context.src, context.dst, context.seq, key, payload)
    return HeardMessage(context.src, context.dst, context.seq, None, None)
