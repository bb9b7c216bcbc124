"""What a session put on the air, counted alike in a recording and over emulated boards."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import pytest

from fastprovd.emulator import firmware
from fastprovd.emulator.air import Air, Reach
from fastprovd.emulator.board import Board
from fastprovd.emulator.frames import MeshFrame
from fastprovd.emulator.hosts import Flaws
from fastprovd.emulator.pb_adv import GenericPdu, Kind
from fastprovd.mesh.keys import AppKey
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    SegmentedAccess,
    UnsegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.models.configuration import AppKeyAdd
from fastprovd.mesh.models.fast_provisioning import NodeAddr, NodeAddrAck
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu
from fastprovd.mesh.provisioning.pdus import PduType
from fastprovd.mesh.upper_transport import MessageContext, decrypt_access
from tests.emulator.top import PROXY, Top
from tests.support.data import recording
from tests.support.listener import keys

# Group runs in which all boards were switched on at the beginning.
SESSIONS: Final = (
    "group-add-delete-n4",
    "info-status-lost-n3",
    "n12-cnt1-polled",
    "n12-cnt11",
    "n12-cnt11-loss30",
    "n20-cnt19",
    "n3-cnt2",
    "n7-cnt6",
    "n7-cnt6-loss30",
    "small-range-plain-nodes-n5",
    "suspend-info-set-n4",
)

REPEATED: Final = "repeated segments"
REPORTS: Final = "NODE_ADDR"
UNFINISHED: Final = "PB-ADV links without Complete"
CUT: Final = "INFO_STATUS of which a segment is missing"
ACKNOWLEDGMENTS: Final = "Segment Acknowledgments"
LAST: Final = "seconds until the last is provisioned"
_GENERIC_START: Final = 0


@dataclass
class Tally:
    """Counts by name, relayed copies left out; `began` is the time of INFO_SET."""

    app_key: AppKey
    began: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    last_provisioned: float = 0.0
    _messages: set[tuple[int, int]] = field(default_factory=set)
    _segments: set[tuple[int, int, int, int]] = field(default_factory=set)
    _answers: dict[tuple[int, int, int], set[int]] = field(default_factory=dict)
    _links: dict[object, bool] = field(default_factory=dict)

    def mesh(self, pdu: NetworkPdu) -> None:
        """Count a Network PDU."""
        if (pdu.src, pdu.seq) in self._messages:
            return
        self._messages.add((pdu.src, pdu.seq))
        lower = decode_lower_transport_pdu(pdu)
        if isinstance(lower, SegmentAcknowledgment):
            self.counts[ACKNOWLEDGMENTS] += 1
        elif isinstance(lower, SegmentedAccess):
            self._segment(pdu, lower)
        elif isinstance(lower, UnsegmentedAccess) and lower.akf:
            context = MessageContext(pdu.seq, pdu.src, pdu.dst, pdu.iv_index)
            payload = decrypt_access(self.app_key, lower.upper_pdu, context) or b""
            opcode = int.from_bytes(payload[:3], "big")
            self.counts[REPORTS] += opcode == NodeAddr.OPCODE
            self.counts["NODE_ADDR_ACK"] += opcode == NodeAddrAck.OPCODE
        elif isinstance(lower, UnsegmentedAccess):
            self.counts["AppKey Status"] += 1

    def _segment(self, pdu: NetworkPdu, lower: SegmentedAccess) -> None:
        header = lower.header
        segment = (pdu.src, pdu.dst, header.seq_zero, header.seg_o)
        self.counts["segments"] += 1
        self.counts[REPEATED] += segment in self._segments
        first = segment not in self._segments and header.seg_o == 0
        self._segments.add(segment)
        if not lower.akf:
            self.counts["AppKey Add"] += first
        elif header.seg_n == 2:
            self.counts["INFO_SET"] += first
        elif header.seg_n == 1:
            self._answers.setdefault(segment[:3], set()).add(header.seg_o)

    def pb_adv(self, link: object, now: float, *, is_complete: bool) -> None:
        """Count a PB-ADV PDU; `is_complete`: it is Provisioning Complete."""
        self.counts["PB-ADV PDUs"] += 1
        if is_complete and not self._links.get(link):
            self.last_provisioned = now
        self._links[link] = self._links.get(link, False) or is_complete

    def beacons(self, number: int) -> None:
        """Count beacons, each with all its transmissions once."""
        self.counts["beacons"] += number

    def total(self) -> dict[str, float]:
        """Return all counts, and the seconds until the last board was provisioned."""
        links = self._links.values()
        return {
            **self.counts,
            "PB-ADV links": len(links),
            UNFINISHED: sum(not is_complete for is_complete in links),
            CUT: sum(len(seen) < 2 for seen in self._answers.values()),
            LAST: self.last_provisioned - self.began,
        }


@cache
def recorded(name: str) -> dict[str, float]:
    """Count a recording."""
    known = keys(name)
    tally = Tally(known.app_key, _began(name))
    for event in recording(name).of("air_mesh", "air_pbadv", "air_beacon"):
        data = bytes.fromhex(event["data"])
        if event["ev"] == "air_mesh":
            pdu = decode_network_pdu(data, [known.net_key], known.iv_index)
            assert pdu is not None
            tally.mesh(pdu)
        elif event["ev"] == "air_pbadv":
            starts = data[5] & 3 == _GENERIC_START
            is_complete = starts and data[9] == PduType.COMPLETE
            tally.pb_adv(data[:4], event["t"], is_complete=is_complete)
        else:
            tally.beacons(round(event["n"] / 4))
    return tally.total()


def _began(name: str) -> float:
    notes = recording(name).of("note")
    return next(float(event["t"]) for event in notes if "INFO_SET sent to" in event["text"])


class _CountedAir(Air):
    """An air that counts what is put on it."""

    tally: Tally

    def send_mesh(self, sender: Board, frame: MeshFrame, times: list[float]) -> None:
        assert sender.node is not None
        pdu = frame.network.decode(frame.raw, sender.node.stack.iv_index)
        assert pdu is not None
        self.tally.mesh(pdu)
        super().send_mesh(sender, frame, times)

    def send_pb_adv(self, sender: Board, pdu: GenericPdu, *args: Any) -> None:
        is_complete = pdu.kind is Kind.FRAGMENT and pdu.message is PduType.COMPLETE
        self.tally.pb_adv(pdu.link, self.loop.time(), is_complete=is_complete)
        super().send_pb_adv(sender, pdu, *args)

    def send_beacon(self, sender: Board, times: list[float]) -> None:
        self.tally.beacons(1)
        super().send_beacon(sender, times)


async def emulated(name: str, seed: int) -> dict[str, float]:
    """Do a recorded session over emulated boards, and count it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(firmware, "BOOT_JITTER_S", 0.0)
        return await _session(name, seed)


async def _session(name: str, seed: int) -> dict[str, float]:
    header = recording(name).header
    parameters, (primary,) = header["parameters"], header["devices"]
    unicast = int(primary["unicast"], 16)
    air = _CountedAir(f"{name} {seed}", reach=Reach(loss=header["loss"]))
    top = Top(air)
    air.tally = Tally(top.app_key)
    start = top.loop.time()
    place_boards(air, name, Flaws.none(), before_s=_began(name))
    await top.find(lambda report: report.device_address == primary["bd_addr"])
    await top.connect(primary["bd_addr"])
    dev_key = await top.provision(unicast)
    top.subscribe(PROXY)
    await top.request(AppKeyAdd(top.app_key), dst=unicast, key=dev_key)
    await asyncio.sleep(start + _began(name) - 0.05 - top.loop.time())
    air.tally.began = await top.start(
        unicast,
        count=parameters["node_addr_cnt"],
        span=(parameters["unicast_min"], parameters["unicast_max"]),
    )
    await asyncio.sleep(start + recording(name).events[-1]["t"] - top.loop.time())
    return air.tally.total()


def place_boards(air: Air, name: str, flaws: Flaws, *, before_s: float = math.inf) -> None:
    """Let each board send its first beacon when it did: who meets whom hangs on that.

    To be called at the begin of the session, without `firmware.BOOT_JITTER_S`.
    """
    first: dict[str, float] = {}
    for event in recording(name).of("air_beacon"):
        if event["t"] < before_s:
            first.setdefault(event["addr"], event["t"])
    assert len(first) == recording(name).header["boards"]
    for device_address, at in first.items():
        board = air.add_board(
            device_address, host=recording(name).host, flaws=flaws, power_on=False
        )
        air.loop.call_later(at, board.power_on)
