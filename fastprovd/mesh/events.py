"""Frozen events that the stack returns."""

from __future__ import annotations

from dataclasses import dataclass

from fastprovd.mesh.access import Message, UnknownMessage
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.lower_transport import SegmentAcknowledgment
from fastprovd.mesh.proxy import FilterStatus


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """An access message for us; `seq` is that of its first segment."""

    src: int
    dst: int
    ttl: int
    seq: int
    key: AppKey | DevKey
    message: Message | UnknownMessage


@dataclass(frozen=True, slots=True)
class MessageRejected:
    """A PDU that a key opened and that makes no sense; `reason` is one sentence without secrets."""

    src: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class TransferCompleted:
    """Every segment of a message of ours was acknowledged, or its group rounds are over."""

    transfer_id: int
    dst: int


@dataclass(frozen=True, slots=True)
class TransferFailed:
    """A segmented message of ours was not acknowledged in full."""

    transfer_id: int
    dst: int
    reason: str


@dataclass(frozen=True, slots=True)
class IvIndexChanged:
    """An authenticated beacon moved the IV Index; store it before anything is sent."""

    iv_index: IvIndex


@dataclass(frozen=True, slots=True)
class BeaconReceived:
    """A Secure Network beacon of ours was authenticated."""

    iv_index: IvIndex
    key_refresh: bool


@dataclass(frozen=True, slots=True)
class IvIndexRefused:
    """A beacon told an IV Index that is too far ahead, or too soon after the last change."""

    iv_index: IvIndex


@dataclass(frozen=True, slots=True)
class FilterStatusReceived:
    """The proxy told the state of its filter; `src` is its primary element's address."""

    src: int
    status: FilterStatus


@dataclass(frozen=True, slots=True)
class PduOverheard:
    """A Network PDU of others passed the proxy.

    `device_key`: it carries an unsegmented DevKey message. With such a one a child answers the
    AppKey Add of its provisioner, which is segmented. `acknowledgment` is there if that is what it
    carries.
    """

    src: int
    dst: int
    device_key: bool
    acknowledgment: SegmentAcknowledgment | None = None


@dataclass(frozen=True, slots=True)
class OwnAddressHeard:
    """A Network PDU came from our own address, with a SEQ that we have not used yet.

    Somebody else sends with our address, or what we know of our SEQ is older than the network.
    """

    iv_index: int
    seq: int
    next_seq: int


Event = (
    MessageReceived
    | MessageRejected
    | TransferCompleted
    | TransferFailed
    | IvIndexChanged
    | IvIndexRefused
    | BeaconReceived
    | FilterStatusReceived
    | PduOverheard
    | OwnAddressHeard
)
