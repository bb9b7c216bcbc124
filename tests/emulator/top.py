"""A small Top Provisioner directly on the air, to exercise the emulated boards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastprovd.emulator.air import Air
from fastprovd.emulator.peripheral import PeripheralLink, Report
from fastprovd.errors import DecodeError
from fastprovd.mesh.access import Message, UnknownMessage, encode_message
from fastprovd.mesh.beacons import NodeIdentity, decode_service_data
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.events import Event, MessageReceived
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey, NetKey
from fastprovd.mesh.models.configuration import AppKeyAdd, AppKeyStatus
from fastprovd.mesh.models.fast_provisioning import (
    ENTER_AS_PRIMARY,
    InfoSet,
    NodeAddrGet,
    NodeAddrStatus,
)
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.mesh.provisioning.provisioner import Completed, DevKeyDerived, Provisioner
from fastprovd.mesh.proxy import ProxyPduType, Reassembler, segment
from fastprovd.mesh.proxy_client import ProxyClient
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from tests.support.data import recording
from tests.support.listener import keys

PROVISIONING = 0x1827
PROXY = 0x1828
NET_KEY = bytes(range(16))
APP_KEY = bytes(range(16, 32))


class Top:
    """One Top with one link at a time; what it heard is in `notified`, `events` and `reports`."""

    def __init__(
        self,
        air: Air,
        *,
        net_key: NetKey | None = None,
        app_key: AppKey | None = None,
        first_seq: int = 0,
        adapter: str = "hci0",
    ) -> None:
        self.air = air
        self.loop = asyncio.get_running_loop()
        self.port = air.adapter(adapter)
        self.net_key = net_key or NetKey(NET_KEY)
        self.app_key = app_key or AppKey(APP_KEY)
        self.stack = Stack(
            address=0x0001,
            net_keys=[self.net_key],
            iv_index=IvIndex(),
            sequence=SequenceNumbers(range(first_seq, 1 << 24)),
        )
        self.stack.app_keys[self.app_key.index] = self.app_key
        self.client = ProxyClient(self.stack)
        self.link: PeripheralLink | None = None
        self.reports: list[tuple[float, Report]] = []
        self.notified_values: list[tuple[float, int, bytes]] = []
        self.proxy_pdus: list[tuple[float, ProxyPduType, bytes]] = []
        self.events: list[tuple[float, Event]] = []
        self.disconnections: list[tuple[float, int]] = []
        self.service_changes: list[float] = []
        self._reassembler = Reassembler()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._identities: set[bytes] = set()

    # Central

    def notified(self, value_handle: int, value: bytes) -> None:
        now = self.loop.time()
        self.notified_values.append((now, value_handle, value))
        try:
            complete = self._reassembler.receive(value, now)
        except DecodeError:  # a board drops notifications that it has no room for
            complete = None
        if complete is not None:
            pdu_type, payload = complete
            self.proxy_pdus.append((now, pdu_type, payload))
            if pdu_type is not ProxyPduType.PROVISIONING_PDU:
                self._events(self.client.receive(pdu_type, payload, now))
                self.flush()
        self._changed.set()

    def services_changed(self) -> None:
        self.service_changes.append(self.loop.time())

    def disconnected(self, reason: int) -> None:
        self.disconnections.append((self.loop.time(), reason))
        self.link = None
        self._changed.set()

    # Waiting

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `condition` holds; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def find(self, wanted: Callable[[Report], bool], timeout_s: float = 10.0) -> Report:
        """Scan until a report is wanted."""
        found: list[Report] = []

        def observer(report: Report) -> None:
            self.reports.append((self.loop.time(), report))
            if wanted(report):
                found.append(report)
                self._changed.set()

        stop = self.port.observe(observer)
        try:
            await self.until(lambda: bool(found), timeout_s)
        finally:
            stop()
        return found[0]

    async def find_unprovisioned(self, timeout_s: float = 10.0) -> str:
        report = await self.find(lambda report: PROVISIONING in report.service_data, timeout_s)
        return report.device_address

    async def find_proxy(self, address: int, timeout_s: float = 100.0) -> str:
        """Scan for a Node Identity of `address` that was not seen before."""

        def wanted(report: Report) -> bool:
            data = report.service_data.get(PROXY)
            if data is None or data in self._identities:
                return False
            identity = decode_service_data(PROXY, data)
            if not isinstance(identity, NodeIdentity):
                return False
            self._identities.add(data)
            return identity.matches(self.net_key, address)

        return (await self.find(wanted, timeout_s)).device_address

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # Links

    async def connect(self, device_address: str, timeout_s: float = 5.0) -> None:
        opened: list[PeripheralLink] = []

        def on_open(link: PeripheralLink) -> None:
            opened.append(link)
            self._changed.set()

        self._reassembler = Reassembler()
        cancel = self.port.initiate(device_address, self, on_open)
        try:
            await self.until(lambda: bool(opened), timeout_s)
        finally:
            cancel()
        self.link = opened[0]

    def disconnect(self) -> None:
        if self.link is not None:
            self.link.disconnect()
            self.link = None

    def services(self) -> tuple[int, ...]:
        assert self.link is not None
        return tuple(service.uuid for service in self.link.services())

    def subscribe(self, service_uuid: int) -> None:
        assert self.link is not None
        service = next(s for s in self.link.services() if s.uuid == service_uuid)
        handle = service.characteristics[1].cccd_handle
        assert handle is not None
        self._data_in = service.characteristics[0].value_handle
        self.link.write_cccd(handle, b"\x01\x00")

    def write(self, pdu_type: ProxyPduType, payload: bytes) -> None:
        if self.link is not None:
            for value in segment(pdu_type, payload, 20):
                self.link.write_command(self._data_in, value)

    # Provisioning

    async def provision(
        self, unicast: int, *, private: bytes = b"\x11" * 32, random: bytes = b"\x22" * 32
    ) -> DevKey:
        """Provision over the open link; the board is a node afterwards."""
        self.subscribe(PROVISIONING)
        session = Provisioner(EcdhKeyPair.from_octets(private), random, self.loop.time())
        dev_key: DevKey | None = None
        seen = len(self.proxy_pdus)
        while True:
            for pdu in session.pdus_to_send():
                self.write(ProxyPduType.PROVISIONING_PDU, pdu)
            await self.until(lambda seen=seen: len(self.proxy_pdus) > seen, 5.0)
            _, pdu_type, payload = self.proxy_pdus[seen]
            seen += 1
            assert pdu_type is ProxyPduType.PROVISIONING_PDU
            now = self.loop.time()
            for event in session.receive(payload, now):
                if isinstance(event, DevKeyDerived):
                    dev_key = event.dev_key
                    session.send_data(ProvisioningData(self.net_key, unicast), now)
                elif isinstance(event, Completed):
                    assert dev_key is not None
                    self.stack.dev_keys[unicast] = dev_key
                    return dev_key

    # Messages

    def send(
        self,
        payload: bytes | Message,
        *,
        dst: int,
        key: AppKey | DevKey | None = None,
        ttl: int = 7,
    ) -> None:
        if not isinstance(payload, bytes):
            payload = encode_message(payload)
        self.stack.send(payload, dst=dst, key=key or self.app_key, ttl=ttl, now=self.loop.time())
        self.flush()

    async def request(
        self,
        payload: bytes | Message,
        *,
        dst: int,
        key: AppKey | DevKey | None = None,
        ttl: int = 7,
        timeout_s: float = 2.0,
        answers: int = 1,
    ) -> list[MessageReceived]:
        """Send, wait for that many messages, and return them."""
        before = len(self.received)
        self.send(payload, dst=dst, key=key, ttl=ttl)
        await self.until(lambda: len(self.received) >= before + answers, timeout_s)
        return self.received[before:]

    @property
    def received(self) -> list[MessageReceived]:
        return [event for _, event in self.events if isinstance(event, MessageReceived)]

    def flush(self) -> None:
        for pdu_type, payload in self.client.pdus_to_send():
            self.write(pdu_type, payload)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.client.next_deadline()
        if deadline is not None:
            self._timer = self.loop.call_at(deadline, self._deadline)

    def _deadline(self) -> None:
        self._timer = None
        self._events(self.client.handle_deadline(self.loop.time()))
        self.flush()

    def _events(self, events: list[Event]) -> None:
        now = self.loop.time()
        self.events += [(now, event) for event in events]

    # The run

    async def prepare(self, unicast: int = 0x0005) -> str:
        """Provision the first board found and give it the AppKey; the link stays."""
        device_address = await self.find_unprovisioned()
        await self.connect(device_address)
        dev_key = await self.provision(unicast)
        self.subscribe(PROXY)
        answer = await self.request(AppKeyAdd(self.app_key), dst=unicast, key=dev_key)
        assert isinstance(answer[0].message, AppKeyStatus)
        return device_address

    async def start(
        self,
        unicast: int = 0x0005,
        *,
        count: int | None = 1,
        span: tuple[int, int] = (0x0010, 0x0400),
        group: int = 0xC000,
    ) -> float:
        """Send INFO_SET and wait for the hang-up; return when it was sent."""
        await asyncio.sleep(0.05)  # longer than the bind race
        begun = self.loop.time()
        hung_up = len(self.disconnections)
        self.send(
            InfoSet(
                node_addr_cnt=count,
                unicast_min=span[0],
                unicast_max=span[1],
                flags=0,
                iv_index=0,
                net_idx=0,
                group_addr=group,
                match_val=b"\xdd\xdd",
                action=ENTER_AS_PRIMARY,
            ),
            dst=unicast,
        )
        await self.until(lambda: len(self.disconnections) > hung_up, 2.0)
        return begun

    async def back(self, unicast: int = 0x0005, timeout_s: float = 100.0) -> None:
        """Find the Primary's proxy again and connect to it."""
        async with asyncio.timeout(timeout_s):
            while True:
                await asyncio.sleep(0.5)
                device_address = await self.find_proxy(unicast, timeout_s)
                try:
                    await self.connect(device_address, 1.0)
                except TimeoutError:
                    continue
                if PROXY in self.services():
                    self.subscribe(PROXY)
                    return
                self.disconnect()

    async def list_addresses(self, unicast: int = 0x0005) -> tuple[int, ...]:
        """Ask for the list."""
        answer = (await self.request(NodeAddrGet(), dst=unicast))[0].message
        assert isinstance(answer, NodeAddrStatus)
        return answer.addresses


def payload_of(message: Message | UnknownMessage) -> bytes:
    """Return opcode and parameters of a received message."""
    if isinstance(message, UnknownMessage):
        octets = max(1, (message.opcode.bit_length() + 7) // 8)
        return message.opcode.to_bytes(octets, "big") + message.parameters
    return encode_message(message)


def address_of(number: int) -> str:
    """Return the BD_ADDR of board `number`, as the recordings spell them."""
    return f"24:0A:C4:5E:{number >> 8:02X}:{number & 0xFF:02X}"


def top_of(air: Air, name: str) -> Top:
    """Return a Top with the keys and the first SEQ of a recording."""
    known, header = keys(name), recording(name).header
    return Top(air, net_key=known.net_key, app_key=known.app_key, first_seq=header["first_seq"])
