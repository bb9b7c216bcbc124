"""Links carry whole Proxy PDUs, in order, and say so when they are gone."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from bleak.exc import BleakDBusError
from structlog.testing import capture_logs

from fastprovd.bearers import gatt
from fastprovd.bearers.adapter import BleakBearer
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.connection import BlueZTiming
from fastprovd.errors import (
    BearerError,
    BluetoothUnavailable,
    ConnectionLost,
    DeviceNotFound,
    LocalProtocolError,
    WrongService,
)
from fastprovd.mesh.proxy import MAX_PAYLOAD_OCTETS, ProxyPduType, Reassembler, segment
from tests.support.fake_air import (
    DATA_IN,
    DATA_OUT,
    PROVISIONING_SERVICE,
    PROXY_IN,
    PROXY_OUT,
    FakeBoard,
)
from tests.support.fake_bench import BearerBench, now

PROVISIONING = ProxyPduType.PROVISIONING_PDU
NETWORK = ProxyPduType.NETWORK_PDU


def failed(details: str) -> BleakDBusError:
    return BleakDBusError("org.bluez.Error.Failed", [details])


async def find(bench: BearerBench, bearer: Any) -> str:
    async with bearer.scan() as scan:
        address: str = (await anext(scan)).device_address
    return address


@asynccontextmanager
async def linked(bench: BearerBench) -> AsyncIterator[gatt.GattLink]:
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        async with bearer.provisioning_link(address) as link:
            yield link


def reassembled(board: FakeBoard, handle: int) -> list[tuple[ProxyPduType, bytes]]:
    reassembler = Reassembler()
    pdus = []
    for written_to, value in board.written:
        assert written_to == handle
        pdu = reassembler.receive(value, 0.0)
        if pdu is not None:
            pdus.append(pdu)
    return pdus


def echo(board: FakeBoard) -> None:
    board.on_write = lambda handle, value: board.notify(
        DATA_OUT if handle == DATA_IN else PROXY_OUT, value
    )


@pytest.mark.parametrize("mtu", [23, 69, 247])
async def test_pdus_cross_in_pieces_of_the_mtu(mtu: int) -> None:
    """PDUs of every length arrive whole and come back whole, at small and large MTU."""
    bench = BearerBench()
    bench.board.mtu_octets = mtu
    echo(bench.board)
    payloads = [bytes([length]) * length for length in (1, 19, 20, 38, 65, MAX_PAYLOAD_OCTETS)]
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        async with bearer.provisioning_link(address) as link:
            assert link.is_connected
            for payload in payloads:
                await link.send(PROVISIONING, payload)
                assert await link.receive() == (PROVISIONING, payload)
    assert max(len(value) for _, value in bench.board.written) <= mtu - 3
    assert bench.is_quiet()


def test_300_pdus_keep_their_order(run_virtual: Any) -> None:
    """Several senders at once never interleave their pieces."""

    async def main() -> None:
        bench = BearerBench()
        rng = random.Random(1)
        pdus = [index.to_bytes(2, "big") + bytes(rng.randrange(60)) for index in range(300)]
        async with linked(bench) as link:
            async with asyncio.TaskGroup() as group:
                for sender in range(3):
                    group.create_task(send_all(link, pdus[sender::3]))
            await asyncio.sleep(5)
        got = [payload for _, payload in reassembled(bench.board, DATA_IN)]
        assert sorted(got) == sorted(pdus)
        for sender in range(3):
            mine = pdus[sender::3]
            assert [payload for payload in got if payload in mine] == mine

    async def send_all(link: gatt.GattLink, pdus: list[bytes]) -> None:
        for pdu in pdus:
            await link.send(PROVISIONING, pdu)

    run_virtual(main())


async def test_notifications_are_enabled_before_the_first_write() -> None:
    """The board sees the CCCD first, and what it says in answer to that is not lost."""
    bench = BearerBench()
    bench.board.become_node()
    bench.board.on_cccd = lambda: bench.board.notify(PROXY_OUT, b"\x01beacon")
    async with bench.bearer() as bearer, bearer.proxy_link(bench.board.address) as link:
        assert await link.receive() == (ProxyPduType.MESH_BEACON, b"beacon")
        await link.send(NETWORK, b"pdu")
        await asyncio.sleep(0.1)
    assert bench.board.log == ["connected", "cccd 0100", "write", "disconnected"]
    assert bench.board.written == [(PROXY_IN, b"\x00pdu")]


async def test_a_malformed_notification_is_skipped() -> None:
    """Nonsense is counted, the next PDU is received."""
    bench = BearerBench()
    async with linked(bench) as link:
        for value in (b"", b"\x3f", b"\x83orphan", b"\x03whole"):
            bench.board.notify(DATA_OUT, value)
        assert await link.receive() == (PROVISIONING, b"whole")
        assert link.malformed == 3


async def test_an_unfinished_pdu_times_out() -> None:
    """The end of a PDU that comes after the SAR timeout is not joined to its beginning."""
    bench = BearerBench()
    first, last = segment(PROVISIONING, bytes(30), 20)
    async with linked(bench) as link:
        bench.board.notify(DATA_OUT, first)
        await asyncio.sleep(21)
        bench.board.notify(DATA_OUT, last)
        bench.board.notify(DATA_OUT, b"\x03next")
        assert await link.receive() == (PROVISIONING, b"next")
        assert link.malformed == 1


async def test_a_slow_receiver_loses_the_oldest() -> None:
    """The queue of received PDUs is bounded; what is dropped is counted."""
    bench = BearerBench()
    async with linked(bench) as link:
        for index in range(gatt.MAX_QUEUED + 3):
            bench.board.notify(DATA_OUT, b"\x03" + index.to_bytes(2, "big"))
        await asyncio.sleep(10)
        assert link.dropped == 3
        assert await link.receive() == (PROVISIONING, b"\x00\x03")


@pytest.mark.parametrize("services", [(), (PROVISIONING_SERVICE,)])
async def test_a_missing_service_is_wrong_service(services: Any) -> None:
    """BlueZ may show what was before, so it is told to forget the board, once; then it is named."""
    bench = BearerBench()
    bench.board.services = services
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        with pytest.raises(WrongService, match=r"must offer service 0x1828, it offers"):
            async with bearer.proxy_link(address):
                pytest.fail("the link opened")
    assert bench.board.log.count("connected") == 2
    assert bench.is_quiet()


@pytest.mark.parametrize("connect_attempts", [1, 3])
async def test_a_service_that_hides_while_we_subscribe(connect_attempts: int) -> None:
    """An ATT error on the CCCD means that it is not where BlueZ shows it; it is looked up anew."""
    bench = BearerBench()
    bench.adapter.timing = BlueZTiming(discover_services_s=(0.5, 0.5), start_notify_s=(0.4, 0.4))
    async with bench.bearer(connect_attempts=connect_attempts) as bearer:
        address = await find(bench, bearer)
        services = bench.board.services
        asyncio.get_running_loop().call_later(0.6, setattr, bench.board, "services", ())
        asyncio.get_running_loop().call_later(2.0, setattr, bench.board, "services", services)
        with capture_logs() as logs:
            async with bearer.provisioning_link(address) as link:
                assert link.is_connected
    assert [entry["event"] for entry in logs].count("device_forgotten") == 1
    assert bench.board.log.count("connected") == 2


async def test_a_silent_board_is_not_found() -> None:
    """Three attempts of five seconds each, then the board is named; nothing is left behind."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        bench.board.advertising = False
        started = now()
        with pytest.raises(DeviceNotFound, match=r"3 attempts .*does not advertise"):
            async with bearer.provisioning_link(address):
                pytest.fail("the link opened")
        assert now() - started == pytest.approx(15.75, abs=0.1)
    assert bench.is_quiet()


async def test_an_unknown_board_is_searched() -> None:
    """Without a scan before, the address alone is enough when the board is on the air."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        async with bearer.provisioning_link(bench.board.address) as link:
            assert link.is_connected
        with pytest.raises(DeviceNotFound):
            async with bearer.provisioning_link("24:0A:C4:00:00:99"):
                pytest.fail("the link opened")
    assert bench.is_quiet()


async def test_a_device_that_bluez_forgot_is_searched() -> None:
    """A board found before and forgotten since is found again, not given up."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        await bench.adapter.remove_device(address)
        async with bearer.provisioning_link(address) as link:
            assert link.is_connected


@pytest.mark.parametrize(
    "faults",
    [
        [failed("br-connection-canceled")],
        [failed("Software caused connection abort"), failed("le-connection-abort-by-local")],
        [BleakDBusError("org.bluez.Error.InProgress", ["In Progress"])],
        [failed("Input/output error")],
    ],
)
async def test_a_transient_failure_is_tried_again(faults: list[Exception]) -> None:
    """The connection succeeds after the faults that pass."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        bench.adapter.fail_connects.extend(faults)
        async with bearer.provisioning_link(address) as link:
            assert link.is_connected
    assert bench.board.log.count("connected") == 1


@pytest.mark.parametrize(
    ("fault", "error", "attempts", "advice"),
    [
        (failed("le-connection-abort-by-local"), ConnectionLost, 3, "Wi-Fi"),
        (failed("br-connection-canceled"), ConnectionLost, 3, "ControllerMode"),
        (failed("whatever comes next"), ConnectionLost, 3, "retry"),
        (
            BleakDBusError("org.freedesktop.DBus.Error.ServiceUnknown", ["no org.bluez"]),
            BluetoothUnavailable,
            1,
            "start bluetoothd",
        ),
        (
            BleakDBusError("org.freedesktop.DBus.Error.AccessDenied", ["rejected"]),
            BluetoothUnavailable,
            1,
            "policy",
        ),
        (EOFError(), BluetoothUnavailable, 1, "start bluetoothd"),
        (ConnectionRefusedError("no bus"), BluetoothUnavailable, 1, "start bluetoothd"),
    ],
)
async def test_a_lasting_failure_is_classified(
    fault: Exception, error: type[BearerError], attempts: int, advice: str
) -> None:
    """The error class, the number of attempts and the advice follow from the cause."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        bench.adapter.fail_connects.extend([fault] * 3)
        with pytest.raises(error, match=rf"in {attempts} attempts .*{advice}"):
            async with bearer.provisioning_link(address):
                pytest.fail("the link opened")
        assert len(bench.adapter.fail_connects) == 3 - attempts
    assert bench.is_quiet()


async def test_a_link_lost_while_it_opens_is_tried_again() -> None:
    """A board that drops us during discovery is connected at the second attempt."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        bench.board.drop_after_open_s = 0.3
        async with bearer.provisioning_link(address) as link:
            assert link.is_connected
    assert bench.board.log.count("connected") == 2


async def test_a_hang_up_wakes_the_receiver() -> None:
    """What came before the hang-up is delivered, then ConnectionLost, for good."""
    bench = BearerBench()
    async with linked(bench) as link:
        bench.board.notify(DATA_OUT, b"\x03last words")
        bench.board.hang_up()
        assert await link.receive() == (PROVISIONING, b"last words")
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="the link was lost"):
                await link.receive()
        with pytest.raises(ConnectionLost):
            await link.send(PROVISIONING, b"x")
        assert not link.is_connected
    assert bench.is_quiet()


async def test_a_write_that_meets_the_hang_up_is_connection_lost() -> None:
    """Whatever bleak raises when the board hangs up under a write, the caller sees one class."""
    bench = BearerBench()
    async with linked(bench) as link:
        bench.board.hang_up()
        with pytest.raises(ConnectionLost, match="Not connected"):
            await link.send(PROVISIONING, bytes(60))
        with pytest.raises(ConnectionLost):
            await link.receive()


async def test_a_hang_up_between_two_pieces_ends_the_pdu() -> None:
    """A PDU whose first piece is out fails when the board hangs up on it."""
    bench = BearerBench()
    bench.board.on_write = lambda _, __: bench.board.hang_up()
    async with linked(bench) as link:
        with pytest.raises(ConnectionLost):
            await link.send(PROVISIONING, bytes(60))
    assert len(bench.board.written) == 1


class OddClient:
    """Stands in for a connected BleakClient whose writes end in `error`, or never."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    async def write_gatt_char(self, *args: Any, **kwargs: Any) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    "error",
    [
        BleakDBusError("org.freedesktop.DBus.Error.UnknownObject", ["no such object"]),
        EOFError(),
        ConnectionResetError(),
        AssertionError(),
        None,
    ],
)
async def test_odd_write_errors_are_connection_lost(error: BaseException | None) -> None:
    """A bus that closed, an object that went, a call without answer: all mean the link is gone."""
    bench = BearerBench()
    async with linked(bench) as link:
        assert link._gatt is not None
        link._gatt = OddClient(error), link._gatt[1]  # type: ignore[assignment]
        started = now()
        with pytest.raises(ConnectionLost, match="a write failed"):
            await link.send(PROVISIONING, b"x")
        assert now() - started == pytest.approx(0 if error else gatt.WRITE_TIMEOUT_S)
        assert not link.is_connected


async def test_the_kept_link_loses_its_service() -> None:
    """After the swap on the same link a write fails as ConnectionLost; a new link is a proxy."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        async with bearer.provisioning_link(address) as link:
            bench.board.become_node()
            await asyncio.sleep(0.5)
            with pytest.raises(ConnectionLost, match="UnknownObject"):
                await link.send(PROVISIONING, b"x")
        async with bearer.proxy_link(address) as link:
            await link.send(NETWORK, b"pdu")


async def test_a_cancelled_send_finishes_its_pdu() -> None:
    """Cancelling a sender between two pieces leaves no half PDU before the next one."""
    bench = BearerBench()
    async with linked(bench) as link:
        sending = asyncio.create_task(link.send(PROVISIONING, bytes(60)))
        await asyncio.sleep(0.0015)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await link.send(PROVISIONING, b"next")
        await asyncio.sleep(0.1)
    assert reassembled(bench.board, DATA_IN) == [
        (PROVISIONING, bytes(60)),
        (PROVISIONING, b"next"),
    ]


async def test_a_send_that_is_cancelled_twice_leaves_nobody_to_complain() -> None:
    """The link goes under the rest of its PDU, and nobody waits for that any more."""
    complaints: list[Any] = []

    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    bench = BearerBench()
    async with linked(bench) as link:
        sending = asyncio.create_task(link.send(PROVISIONING, bytes(60)))
        await asyncio.sleep(0.0015)
        sending.cancel()
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        link.lose("the link was closed")
        await asyncio.sleep(1.0)
    gc.collect()

    assert complaints == []


def test_a_cancelled_connect_leaves_nothing_behind(run_virtual: Any) -> None:
    """Cancelled at any moment of connecting, no link, no attempt and no lock stays."""

    async def main(delay: float) -> None:
        bench = BearerBench()
        async with bench.bearer() as bearer:
            address = await find(bench, bearer)

            async def connect() -> None:
                async with bearer.provisioning_link(address):
                    await asyncio.sleep(3600)

            connecting = asyncio.create_task(connect())
            await asyncio.sleep(delay)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            async with bearer.provisioning_link(address) as link:
                assert link.is_connected
        assert bench.is_quiet()

    for delay in (0.0, 0.01, 0.1, 0.4, 0.62, 0.7, 1.0):
        run_virtual(main(delay))


async def test_hanging_up_happens_in_the_background() -> None:
    """Leaving a link takes no time; the next link to the same board waits, the bearer's end too."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        async with bearer.provisioning_link(address) as link:
            left = now()
        assert now() == left
        assert not link.is_connected
        with pytest.raises(ConnectionLost, match="closed"):
            await link.send(PROVISIONING, b"x")
        async with bearer.provisioning_link(address):
            assert now() - left > 2.0
        left = now()
    assert now() - left == pytest.approx(2.0, abs=0.05)
    assert bench.is_quiet()


async def test_the_bearer_hangs_up_also_when_its_end_is_cancelled() -> None:
    """Within the 2 s that BlueZ takes, and the cancellation comes out."""
    bench = BearerBench()

    async def use() -> None:
        async with bench.bearer() as bearer:
            address = await find(bench, bearer)
            async with bearer.provisioning_link(address):
                pass
            ending.set()

    ending = asyncio.Event()
    using = asyncio.create_task(use())
    await ending.wait()
    await asyncio.sleep(0.5)
    assert bench.adapter.connections == 1
    using.cancel()
    await asyncio.wait({using})
    assert using.cancelled()
    assert bench.is_quiet()


async def test_the_bearer_hangs_up_when_its_body_fails() -> None:
    """An error inside the contexts passes on, the link is closed all the same."""
    bench = BearerBench()
    with pytest.raises(ZeroDivisionError):
        async with linked(bench):
            raise ZeroDivisionError
    assert bench.is_quiet()


async def test_no_link_inside_a_scan() -> None:
    """Connecting while discovering is refused; scanning while a link is open is not."""
    bench = BearerBench(FakeBoard(), FakeBoard("24:0A:C4:5E:00:02"))
    async with bench.bearer() as bearer:
        async with bearer.scan():
            with pytest.raises(LocalProtocolError, match="end the scan before you connect"):
                async with bearer.proxy_link(bench.board.address):
                    pytest.fail("the link opened")
        async with bearer.provisioning_link(bench.board.address) as link:
            async with bearer.scan() as scan:
                await anext(scan)
            await link.send(PROVISIONING, b"x")


async def test_a_scan_waits_for_a_connection() -> None:
    """A scan asked for while a connection is being opened starts when that is done."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        bench.board.advertising = False

        async def connect() -> None:
            with pytest.raises(DeviceNotFound):
                async with bearer.provisioning_link(address):
                    pytest.fail("the link opened")

        connecting = asyncio.create_task(connect())
        await asyncio.sleep(0.1)
        async with bearer.scan():
            assert connecting.done()
            assert now() > 15
        await connecting


async def test_several_links_at_once() -> None:
    """Three boards are held at the same time, each with its own PDUs."""
    boards = [FakeBoard(f"24:0A:C4:5E:00:0{index}") for index in range(3)]
    bench = BearerBench(*boards)
    for board in boards:
        echo(board)

    async def talk(bearer: Any, board: FakeBoard) -> None:
        async with bearer.provisioning_link(board.address) as link:
            await asyncio.sleep(5)
            await link.send(PROVISIONING, board.address.encode())
            assert await link.receive() == (PROVISIONING, board.address.encode())

    async with bench.bearer() as bearer, asyncio.TaskGroup() as group:
        for board in boards:
            group.create_task(talk(bearer, board))
        await asyncio.sleep(4)
        assert bench.adapter.connections == 3
    assert bench.is_quiet()


async def test_power_off_under_a_link() -> None:
    """An adapter that goes takes its links; the next attempt says what to do."""
    bench = BearerBench()
    async with bench.bearer() as bearer:
        address = await find(bench, bearer)
        async with bearer.provisioning_link(address) as link:
            bench.adapter.power(on=False)
            with pytest.raises(ConnectionLost):
                await link.receive()
        with pytest.raises(BluetoothUnavailable, match="power on"):
            async with bearer.provisioning_link(address):
                pytest.fail("the link opened")


async def test_a_disconnect_that_fails_is_logged() -> None:
    """A BlueZ that refuses to hang up ends no context and no bearer."""
    bench = BearerBench()
    backend = client_backend(bench.adapter)

    async def disconnect(client: Any) -> None:
        await backend.disconnect(client)
        raise EOFError

    stubborn = type("Stubborn", (backend,), {"disconnect": disconnect})
    bearer = BleakBearer(scanner_backend=scanner_backend(bench.adapter), client_backend=stubborn)
    with capture_logs() as logs:
        async with bearer, bearer.provisioning_link(bench.board.address):
            pass
    assert [
        (entry["log_level"], entry["error"])
        for entry in logs
        if entry["event"] == "disconnect_failed"
    ] == [("warning", "EOFError")]
