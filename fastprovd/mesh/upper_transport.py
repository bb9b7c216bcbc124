"""Upper transport: the access payload under an AppKey or DevKey (Mesh Profile v1.0.1 §3.6.4)."""

from __future__ import annotations

from dataclasses import dataclass

from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.nonces import application_nonce, device_nonce

MIC_32_OCTETS = 4
MIC_64_OCTETS = 8


@dataclass(frozen=True, slots=True)
class MessageContext:
    """What the nonce of an access message is made of; `seq` is that of the first segment."""

    seq: int
    src: int
    dst: int
    iv_index: int
    szmic: int = 0


def _nonce(key: AppKey | DevKey, context: MessageContext) -> bytes:
    make = application_nonce if isinstance(key, AppKey) else device_nonce
    return make(context.szmic, context.seq, context.src, context.dst, context.iv_index)


def encrypt_access(
    key: AppKey | DevKey, payload: bytes, context: MessageContext, label_uuid: bytes | None = None
) -> bytes:
    """Return the Upper Transport Access PDU; `label_uuid` when DST is a virtual address."""
    return key.encrypt(_nonce(key, context), payload, szmic=context.szmic, label=label_uuid)


def decrypt_access(
    key: AppKey | DevKey,
    upper_pdu: bytes,
    context: MessageContext,
    label_uuid: bytes | None = None,
) -> bytes | None:
    """Return the access payload, `None` when `key` does not open it."""
    if len(upper_pdu) <= (MIC_64_OCTETS if context.szmic else MIC_32_OCTETS):
        return None
    return key.decrypt(_nonce(key, context), upper_pdu, szmic=context.szmic, label=label_uuid)
