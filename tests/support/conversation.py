"""What the Top said over its link in a recording, and what the board answered to each of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.lower_transport import (
    SegmentedAccess,
    UnsegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu
from fastprovd.mesh.segmentation import seq_auth
from tests.support.data import recording
from tests.support.listener import HeardMessage, keys, listen


@dataclass
class Step:
    """One message of the Top, `gap_s` after the one before, and the answers until the next one.

    `delays_s` are the times from the message to each answer.
    """

    t: float
    gap_s: float
    dst: int
    ttl: int
    key: AppKey | DevKey
    payload: bytes
    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)


def conversation(name: str, device_address: str) -> list[Step]:
    """Return the steps on the link to one board, in order."""
    known, heard = keys(name), listen(name)
    steps: list[Step] = []
    seen: set[tuple[str, int, int]] = set()
    for event in recording(name).of("proxy_tx", "proxy_rx"):
        if event["type"] != 0 or event["addr"] != device_address:
            continue
        pdu = decode_network_pdu(bytes.fromhex(event["pdu"]), [known.net_key], known.iv_index)
        assert pdu is not None
        message = _message(pdu, heard.messages)
        if message is None or message.key is None or message.payload is None:
            continue
        identity = (event["ev"], message.src, message.seq)
        if identity in seen:
            continue
        seen.add(identity)
        t = event["t"]
        if event["ev"] == "proxy_tx":
            gap_s = t - steps[-1].t if steps else 0.0
            steps.append(Step(t, gap_s, pdu.dst, pdu.ttl, message.key, message.payload))
        else:
            steps[-1].answers.append((message.src, pdu.ttl, message.payload))
            steps[-1].delays_s.append(t - steps[-1].t)
    return steps


def _message(pdu: NetworkPdu, messages: dict[tuple[int, int], HeardMessage]) -> HeardMessage | None:
    lower = decode_lower_transport_pdu(pdu)
    if isinstance(lower, SegmentedAccess):
        return messages.get((pdu.src, seq_auth(pdu.seq, lower.header.seq_zero)))
    if isinstance(lower, UnsegmentedAccess):
        return messages.get((pdu.src, pdu.seq))
    return None
