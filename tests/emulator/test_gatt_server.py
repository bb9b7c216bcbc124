"""Links of the emulated boards: handles, CCC rules, SAR, service swap, notification limits."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fastprovd.emulator.air import Air
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.peripheral import AttError, Service
from fastprovd.mesh.lower_transport import (
    SegmentAcknowledgment,
    SegmentedAccess,
    decode_lower_transport_pdu,
)
from fastprovd.mesh.models.fast_provisioning import NodeAddr, NodeAddrGet
from fastprovd.mesh.network import NetworkPdu, encode_network_pdu
from fastprovd.mesh.proxy import ProxyPduType
from tests.conftest import RunVirtual
from tests.emulator.top import PROVISIONING, PROXY, Top, address_of
from tests.support.data import recording

HOSTS = pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda host: host.name)


class EagerTop(Top):
    """Acknowledges every single segment, as a naive Top does."""

    eager = False

    def notified(self, value_handle: int, value: bytes) -> None:
        before = len(self.proxy_pdus)
        super().notified(value_handle, value)
        for _, pdu_type, raw in self.proxy_pdus[before:]:
            pdu = self.stack.decode(raw) if pdu_type is ProxyPduType.NETWORK_PDU else None
            if self.eager and pdu is not None and not pdu.ctl:
                lower = decode_lower_transport_pdu(pdu)
                if isinstance(lower, SegmentedAccess):
                    self._acknowledge(pdu, lower)

    def _acknowledge(self, pdu: NetworkPdu, lower: SegmentedAccess) -> None:
        header = lower.header
        self._acks = getattr(self, "_acks", {})
        block = self._acks.get(header.seq_zero, 0) | 1 << header.seg_o
        self._acks[header.seq_zero] = block
        ack = NetworkPdu(
            1,
            7,
            self.stack.sequence.take(),
            self.stack.address,
            pdu.src,
            SegmentAcknowledgment(header.seq_zero, block).encode(),
        )
        self.write(ProxyPduType.NETWORK_PDU, encode_network_pdu(ack, self.net_key))


class DeafTop(Top):
    """Never acknowledges a segment."""

    def flush(self) -> None:
        self.client.stack._pdus = [out for out in self.client.stack._pdus if not out.pdu.ctl]
        super().flush()


def described(service: Service) -> tuple[int, int, list[tuple[int, int]]]:
    return (
        service.uuid,
        service.start_handle,
        [(c.uuid, c.value_handle) for c in service.characteristics],
    )


async def test_nimble_handles_are_the_recorded_ones() -> None:
    """A discovery finds the recorded services and handles, before and after provisioning."""
    recorded = [event["services"] for event in recording("single-alg0").of("gatt_db")]

    def of_recording(services: list[dict]) -> list[tuple[int, int, list[tuple[int, int]]]]:
        return [
            (
                int(s["uuid"], 16),
                s["start"],
                [(int(c["uuid"], 16), c["value"]) for c in s["characteristics"]],
            )
            for s in services
        ]

    air = Air()
    air.add_board(address_of(1), host=Host.NIMBLE)
    top = Top(air)
    await top.connect(await top.find_unprovisioned())
    assert top.link is not None
    assert top.link.mtu_octets == 23
    assert [described(s) for s in top.link.services()] == of_recording(recorded[0])
    await top.provision(5)
    assert [described(s) for s in top.link.services()] == of_recording(recorded[1])


async def test_bluedroid_handles_are_the_measured_ones() -> None:
    """Bluedroid has its own handles, and swaps the mesh services on the open link."""
    air = Air()
    air.add_board(address_of(1))
    top = Top(air)
    await top.connect(await top.find_unprovisioned())
    assert top.link is not None
    assert described(top.link.services()[-1]) == (
        PROVISIONING,
        0x2E,
        [(0x2ADB, 0x30), (0x2ADC, 0x32)],
    )
    with pytest.raises(AttError) as error:
        top.link.write_cccd(0x2D, b"\x01\x00")
    assert (error.value.code, error.value.handle) == (0x01, 0x2D)
    await top.provision(5)
    assert described(top.link.services()[-1]) == (
        PROXY,
        0x28,
        [(0x2ADD, 0x2A), (0x2ADE, 0x2C)],
    )
    with pytest.raises(AttError) as error:
        top.link.write_cccd(0x33, b"\x01\x00")
    assert (error.value.code, error.value.handle) == (0x01, 0x33)


def test_service_changed_comes_as_the_host_does_it(run_virtual: RunVirtual[None]) -> None:
    """Bluedroid indicates after connect and at Complete, NimBLE at Complete when subscribed."""

    async def main(host: Host, subscribe: bool) -> list[float]:
        air = Air()
        air.add_board(address_of(1), host=host)
        top = Top(air)
        await top.connect(await top.find_unprovisioned())
        connected = top.loop.time()
        assert top.link is not None
        if subscribe:
            top.link.write_cccd(host.service_changed_cccd, b"\x02\x00")
        await asyncio.sleep(0.1)
        await top.provision(5)
        await asyncio.sleep(0.1)
        return [t - connected for t in top.service_changes]

    assert run_virtual(main(Host.NIMBLE, False)) == []
    assert len(run_virtual(main(Host.NIMBLE, True))) == 1
    at_connect, at_complete = run_virtual(main(Host.BLUEDROID, False))
    assert 0.001 <= at_connect <= 0.030
    assert at_complete > 0.2


@HOSTS
async def test_only_0100_opens_a_link(host: Host) -> None:
    """PDUs before the CCC write, or after any other value, are dropped without a word."""
    air = Air()
    air.add_board(address_of(1), host=host)
    top = Top(air)
    await top.connect(await top.find_unprovisioned())
    assert top.link is not None
    data_in, data_out = host.provisioning_service.characteristics
    top.link.write_command(data_in.value_handle, b"\x03\x00\x00")
    await asyncio.sleep(0.2)
    top.link.write_cccd(data_out.cccd_handle or 0, b"\x02\x00")
    top.link.write_command(data_in.value_handle, b"\x03\x00\x00")
    await asyncio.sleep(0.2)
    assert top.notified_values == []
    top.link.write_cccd(data_out.cccd_handle or 0, b"\x01\x00")
    top.link.write_command(data_in.value_handle, b"\x03\x00\x00")
    await asyncio.sleep(0.2)
    assert [value.hex() for _, _, value in top.notified_values] == ["03010100030000000000000000"]


@HOSTS
async def test_an_unfinished_proxy_pdu_hangs_up_after_20_s(host: Host) -> None:
    """Only the SAR timer ends a link that says nothing."""
    air = Air()
    air.add_board(address_of(1), host=host)
    top = Top(air)
    await top.connect(await top.find_unprovisioned())
    top.subscribe(PROVISIONING)
    await asyncio.sleep(75.0)
    assert top.link is not None
    begun = top.loop.time()
    top.link.write_command(
        host.provisioning_service.characteristics[0].value_handle, b"\x43\x03" + bytes(18)
    )
    await top.until(lambda: top.link is None, 30.0)
    gone, reason = top.disconnections[0]
    assert reason == 0x13
    assert 20.0 <= gone - begun <= 20.2


async def test_a_silent_proxy_link_stays() -> None:
    """Nothing happens by itself on a proxy link within 600 s."""
    air = Air()
    air.add_board(address_of(1))
    top = Top(air)
    await top.prepare()
    await asyncio.sleep(0.5)
    heard = len(top.notified_values)
    await asyncio.sleep(600.0)
    assert top.link is not None
    assert len(top.notified_values) == heard
    assert await top.list_addresses() == ()


async def fill_list(top: Top, count: int) -> None:
    """Put `count` addresses into the list of node 0005, as reports do."""
    addresses = list(range(0x0100, 0x0100 + count))
    for at in range(0, count, 4):
        await top.request(NodeAddr(tuple(addresses[at : at + 4])), dst=5)


async def long_list(
    seed: int, host: Host, count: int, kind: type[Top], flaws: Flaws | None = None
) -> tuple[Board, Top, bool, float]:
    air = Air(seed)
    board = air.add_board(address_of(1), host=host, flaws=flaws)
    top = kind(air)
    await top.prepare()
    await fill_list(top, count)
    if isinstance(top, EagerTop):
        top.eager = True
    before = len(top.received)
    started = top.loop.time()
    top.send(NodeAddrGet(), dst=5)
    with contextlib.suppress(TimeoutError):
        await top.until(lambda: len(top.received) > before or top.link is None, 4.0)
    complete = len(top.received) > before and len(top.received[-1].message.addresses) == count
    took = top.loop.time() - started
    await asyncio.sleep(3.0)
    return board, top, complete, took


@pytest.mark.parametrize("count", [20, 26, 38, 50])
@pytest.mark.parametrize("kind", [Top, DeafTop], ids=["complete only", "no ack"])
async def test_nimble_sends_lists_of_nine_segments(count: int, kind: type[Top]) -> None:
    """Up to 50 addresses arrive, acknowledged as a whole or not at all."""
    board, _, complete, took = await long_list(1, Host.NIMBLE, count, kind)
    assert complete
    assert board.killed_count == 0
    assert 0.02 < took < 0.25


@pytest.mark.parametrize("count", [56, 60, 120])
@pytest.mark.parametrize("kind", [Top, DeafTop, EagerTop])
async def test_nimble_dies_of_ten_segments(count: int, kind: type[Top]) -> None:
    """More than 9 segments abort the board, however they are acknowledged; nothing arrives."""
    board, top, complete, _ = await long_list(1, Host.NIMBLE, count, kind)
    assert not complete
    assert board.killed_count == 1
    assert top.disconnections[-1][1] == 0x08
    assert board.unicast_address is None


@pytest.mark.parametrize(("count", "survives"), [(20, True), (22, False), (23, False), (40, False)])
async def test_nimble_dies_of_partial_acknowledgments(count: int, survives: bool) -> None:
    """Each partial ack makes it send all missing segments again: from 22 addresses on it dies."""
    board, _, complete, _ = await long_list(1, Host.NIMBLE, count, EagerTop)
    assert complete is survives
    assert (board.killed_count == 0) is survives


async def test_without_the_flaw_nimble_sends_everything() -> None:
    """Flaws.none() turns the abort off."""
    board, _, complete, _ = await long_list(1, Host.NIMBLE, 120, Top, Flaws.none())
    assert complete
    assert board.killed_count == 0


@pytest.mark.parametrize(
    ("count", "kind"),
    [(count, Top) for count in (23, 50, 56, 60, 90, 96)]
    + [(count, EagerTop) for count in (20, 23, 40, 50, 56, 60)],
)
async def test_bluedroid_sends_lists_of_17_segments(count: int, kind: type[Top]) -> None:
    """Up to 96 addresses arrive in 0.07 to 0.2 s; with eager acks 60 were tried."""
    board, _, complete, took = await long_list(1, Host.BLUEDROID, count, kind)
    assert complete
    assert board.killed_count == 0
    assert 0.04 < took < 0.26


def test_bluedroid_drops_part_of_21_segments(run_virtual: RunVirtual[None]) -> None:
    """Without partial acks 120 addresses arrive in some runs, in others not at all."""
    results = [run_virtual(long_list(seed, Host.BLUEDROID, 120, DeafTop))[2] for seed in range(12)]
    assert True in results
    assert False in results
    *_, complete, took = run_virtual(long_list(1, Host.BLUEDROID, 120, Top, Flaws.none()))
    assert complete
    assert took < 0.5


async def test_a_central_that_hangs_up_is_not_told() -> None:
    """`disconnect` is idempotent and calls nothing back; the board advertises again."""
    air = Air()
    board = air.add_board(address_of(1))
    top = Top(air)
    device_address = await top.find_unprovisioned()
    await top.connect(device_address)
    link = top.link
    assert link is not None
    link.disconnect()
    link.disconnect()
    link.write_command(0x30, b"\x03\x00\x00")
    link.write_cccd(0x33, b"\x01\x00")
    await asyncio.sleep(1.0)
    assert top.disconnections == []
    assert top.notified_values == []
    assert board.advertiser.current is not None
    await top.connect(device_address)
