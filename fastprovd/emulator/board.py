"""One board with the demo firmware: from power-on to Node Identity, and everything between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastprovd.emulator import firmware
from fastprovd.emulator.advertising import AdvertisingQueue, QueuedPdu
from fastprovd.emulator.announcing import Announcer
from fastprovd.emulator.frames import MeshFrame
from fastprovd.emulator.gatt_server import Link
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.models import Models
from fastprovd.emulator.node import MeshNode
from fastprovd.emulator.pb_adv import DeviceLink, GenericPdu, Kind, ProvisionerLink
from fastprovd.emulator.pb_gatt import PbGatt
from fastprovd.emulator.peripheral import Central, Service
from fastprovd.emulator.stalls import Stalls
from fastprovd.emulator.timeline import Happening
from fastprovd.emulator.vendor_server import State
from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.events import Event, MessageReceived
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.provisioning.device import Provisioned
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.mesh.proxy import ProxyPduType

if TYPE_CHECKING:
    from fastprovd.emulator.air import Air


class Board:
    """A board on the air; all its state is RAM, so a reboot forgets the network.

    Tests and the demo read the truth from its properties, and switch its power; all other methods
    are for the parts it is made of.
    """

    def __init__(self, air: Air, device_address: str, bit: int, host: Host, flaws: Flaws) -> None:
        self.air = air
        self.loop = air.loop
        self.device_address = device_address
        self.bit = bit
        self.host = host
        self.flaws = flaws
        self.stalls = Stalls()
        self.uuid = host.device_uuid(device_address)
        self.random = air.random_for(device_address)
        self.queue = AdvertisingQueue(
            air.loop, air.random_for(f"{device_address}/queue"), self._queue_changed
        )
        self._announcer = Announcer(self)
        self.advertiser = self._announcer.advertiser
        self.killed_count = 0
        self.parent: str | None = None
        self._boots = 0
        self._reset()

    def _reset(self) -> None:
        self._boots += 1
        self.is_powered = False
        self.is_on_air = False
        self._is_silent = False
        self._aborting = False
        self._key_pair: EcdhKeyPair | None = None
        self.node: MeshNode | None = None
        self._models: Models | None = None
        self._links: list[Link] = []
        self._device_link: DeviceLink | None = None
        self._listens_to_beacons = False
        self.parent = None

    # Truth

    @property
    def unicast_address(self) -> int | None:
        """The board's address, `None` while it is unprovisioned."""
        return None if self.node is None else self.node.address

    @property
    def has_app_key(self) -> bool:
        """Whether an AppKey is stored."""
        return self.node is not None and bool(self.node.stack.app_keys)

    @property
    def is_primary(self) -> bool:
        """Whether the board became the Primary Provisioner."""
        return self._models is not None and self._models.vendor.is_primary

    @property
    def is_provisioner(self) -> bool:
        """Whether an INFO_SET made it Primary or Temporary Provisioner, suspended or not."""
        return self._models is not None and self._models.vendor.state is State.ACTIVE

    @property
    def is_provisioning(self) -> bool:
        """Whether it would take a device now."""
        return self._models is not None and self._models.vendor.role.is_provisioning

    @property
    def children(self) -> tuple[str, ...]:
        """BD_ADDRs of the boards it provisioned."""
        if self._models is None:
            return ()
        return tuple(child.device_address for child in self._models.vendor.role.children)

    @property
    def listed_addresses(self) -> tuple[int, ...]:
        """What NODE_ADDR_STATUS of this board would say."""
        return () if self._models is None else tuple(self._models.vendor.listed)

    @property
    def groups(self) -> frozenset[int]:
        """Groups its OnOff Server is subscribed to."""
        return frozenset() if self.node is None else frozenset(self.node.subscriptions)

    @property
    def onoff(self) -> bool:
        """Its light."""
        return self._models is not None and self._models.onoff.onoff

    @property
    def is_silent(self) -> bool:
        """Whether a flaw, or a Node Reset, has taken it off the air until its power cycle."""
        return self._is_silent

    # Power

    def power_on(self) -> None:
        """Boot; on the air after 0 to 3 s."""
        if self.is_powered:
            return
        self.is_powered = True
        self.air.record(self, Happening.POWERED_ON)
        self.later(firmware.BOOT_JITTER_S * self.random.random(), self._booted)

    def power_off(self) -> None:
        """Cut the power; everything is forgotten."""
        if self.is_powered:
            self._stop()
            self.air.record(self, Happening.POWERED_OFF)

    def abort(self) -> None:
        """The host aborts: the board boots again and has forgotten its network."""
        if self._aborting:
            return
        self._aborting = True

        def aborted() -> None:
            self.killed_count += 1
            self.air.record(self, Happening.ABORTED, address=self.unicast_address)
            self._stop()
            self.power_on()

        # Not at once: whoever found the buffers empty is still in the middle of its work.
        self.later(0.0, aborted)

    def _stop(self) -> None:
        links, node = self._links, self.node
        self.queue.stop()
        self.listen_to_beacons(False)
        self._reset()
        self._announcer.reset()
        if node is not None:
            node.stop()
        for link in links:
            link.lose()

    def _booted(self) -> None:
        self.is_on_air = True
        # The key pair is made once per boot (FP 3).
        self._key_pair = EcdhKeyPair.from_random(self.random.randbytes(48))
        self.air.record(self, Happening.ON_AIR)
        self._beacon()
        self._announcer.booted()

    # Services for the parts of this board

    def now(self) -> float:
        """The loop's time."""
        return self.loop.time()

    def later(self, delay_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back unless the board restarts; returns the function that cancels."""
        boots = self._boots

        def run() -> None:
            if self._boots == boots:
                callback()

        return self.loop.call_later(delay_s, run).cancel

    def queue_mesh(
        self,
        frame: MeshFrame,
        started: Callable[[], None] | None = None,
        ended: Callable[[], None] | None = None,
        slot_s: float = firmware.SLOT_S,
    ) -> QueuedPdu | None:
        """Queue a Network PDU; `None` when no buffer is free."""
        queued = QueuedPdu(
            lambda times: self.air.send_mesh(self, frame, times),
            started=started,
            ended=ended,
            slot_s=slot_s,
        )
        return queued if not self._is_silent and self.queue.put(queued) else None

    def queue_pb_adv(self, queued: QueuedPdu) -> None:
        """Queue a PB-ADV PDU."""
        if not self._is_silent:
            self.queue.put(queued)

    def transmit_pb_adv(self, pdu: GenericPdu, to: Board, times: list[float]) -> None:
        """Put the transmissions of a PB-ADV PDU on the air."""
        self.air.send_pb_adv(self, pdu, to, times)

    def record(self, what: Happening, detail: str = "", address: int | None = None) -> None:
        """Write into the timeline."""
        self.air.record(self, what, detail, address)

    def reply(self, event: MessageReceived, message: Message, *, ttl: int) -> None:
        """Answer a message under its key."""
        if self.node is not None:
            self.node.send(encode_message(message), dst=event.src, key=event.key, ttl=ttl)

    def listen_to_beacons(self, active: bool) -> None:
        """Begin or end hearing Unprovisioned Device beacons."""
        if active != self._listens_to_beacons:
            self._listens_to_beacons = active
            self.air.set_provisioner(self, active)

    @property
    def latest_app_key(self) -> AppKey:
        """The AppKey that was bound last; there is one wherever an INFO_SET was understood."""
        key = None if self._models is None else self._models.latest_app_key
        if key is None:
            raise LocalProtocolError("a provisioner without an AppKey")
        return key

    # The air

    @property
    def listens_to_pb_adv(self) -> bool:
        """Whether a PB-ADV PDU could matter to it."""
        if not self.is_on_air or self._is_silent:
            return False
        if self.node is None or self._device_link is not None:
            return True
        return self._models is not None and bool(self._models.vendor.role.links)

    def hear_mesh(self, frame: MeshFrame) -> None:
        """A Network PDU that is not in the network cache."""
        if self.node is not None and not self._is_silent:
            self.node.receive_from_air(frame)

    def hear_beacon(self, device: Board) -> None:
        """An Unprovisioned Device beacon."""
        if self._models is not None and not self._is_silent:
            self._models.vendor.role.hear_beacon(device)

    def hear_pb_adv(self, pdu: GenericPdu) -> None:
        """One transmission of a PB-ADV PDU that is meant for this board."""
        if not self.listens_to_pb_adv:
            return
        link = pdu.link
        if link.board is self:
            if self._models is not None and link in self._models.vendor.role.links:
                link.receive(pdu)
        elif self._device_link is not None:
            if self._device_link.link is link:
                self._device_link.receive(pdu)
        elif pdu.kind is Kind.LINK_OPEN and self.node is None and not self._pb_gatt_is_open:
            self._device_link = DeviceLink(self, link)

    def _queue_changed(self) -> None:
        self._announcer.update()

    def _beacon(self) -> None:
        if self.node is not None:
            return
        if self._device_link is None and not self._pb_gatt_is_open:
            self.queue.put(QueuedPdu(lambda times: self.air.send_beacon(self, times)))
        self.later(firmware.BEACON_INTERVAL_S, self._beacon)

    @property
    def identity_is_running(self) -> bool:
        """Whether Node Identity is advertised."""
        return self._announcer.identity_is_running

    @property
    def link_count(self) -> int:
        """How many centrals are connected."""
        return len(self._links)

    def fall_silent(self, why: str) -> None:
        """Nothing runs any more until the power cycle; the controller keeps the links (OB 18)."""
        self._is_silent = True
        self._boots += 1  # whatever is still to come is not called back
        self.queue.stop()
        self.advertiser.stop()
        self.listen_to_beacons(False)
        for link in self._links:
            link.fall_silent()
        self.air.record(self, Happening.SILENT, why)

    # GATT

    @property
    def visible_service(self) -> Service | None:
        """The mesh service that a discovery finds now."""
        if self._is_silent:
            return None
        if self.node is None:
            return self.host.provisioning_service
        return self.host.proxy_service if self._announcer.proxy_enabled else None

    @property
    def _pb_gatt_is_open(self) -> bool:
        return any(link.pb_gatt is not None for link in self._links)

    def accept(self, central: Central) -> Link:
        """A central connects at a connectable event of ours."""
        link = Link(self, central)
        self._links.append(link)
        self.air.record(self, Happening.CONNECTED)
        self._announcer.update()
        return link

    def link_gone(self, link: Link) -> None:
        """A link was closed by either side."""
        if link in self._links:
            self._links.remove(link)
            if self.node is not None:
                self.node.proxy.close(link)
            self.air.record(self, Happening.DISCONNECTED)
            self._announcer.hung_up()

    def open_pb_gatt(self, link: Link) -> None:
        """Data Out of 0x1827 was enabled."""
        if self._device_link is not None or self._key_pair is None:
            return  # busy with another provisioner, and says nothing (FP 3)
        if link.pb_gatt is not None:
            return  # a second CCC write does not open a dead link again
        if self._pb_gatt_is_open:
            link.hang_up(0.0)
            return
        if self.stalls.silent_sessions:
            self.stalls.silent_sessions -= 1
            return
        link.pb_gatt = PbGatt(
            self,
            self._key_pair,
            self.random.randbytes(32),
            lambda pdu: link.send_proxy_pdu(ProxyPduType.PROVISIONING_PDU, pdu),
            self._provisioned_over_pb_gatt,
        )

    def open_proxy(self, link: Link) -> None:
        """Data Out of 0x1828 was enabled."""
        if self.node is not None:
            self.node.proxy.open(link, is_fresh=not link.was_kept)

    def receive_proxy_pdu(self, link: Link, pdu_type: ProxyPduType, payload: bytes) -> None:
        """A Proxy PDU came over the proxy service."""
        if self.node is not None:
            self.node.proxy.receive(link, pdu_type, payload)

    def disable_proxy(self) -> None:
        """Take the proxy service away and hang up (FP 6.2); INFO_STATUS goes first."""
        if not self._announcer.proxy_enabled:
            return
        self.air.record(self, Happening.PROXY_OFF)
        self._announcer.disable_proxy()
        links = tuple(self._links)
        swallowed = (
            self.flaws.swallowed_info_status
            and bool(links)
            and self.random.random() < firmware.SWALLOWED_STATUS
        )
        for link in links:
            delay = self.random.uniform(*self.host.hang_up_s)
            link.hang_up(delay, drop_pending=swallowed)

    def enable_proxy(self) -> None:
        """Bring the proxy service back, with Node Identity for 60 s."""
        self.air.record(self, Happening.PROXY_ON)
        self._announcer.proxy_returns()

    def set_identity(self, on: bool) -> None:
        """Config Node Identity Set."""
        self._announcer.set_identity(on)

    @property
    def gatt_proxy(self) -> bool:
        """The GATT Proxy state of the Configuration Server: whether GATT and the air are joined."""
        return self._models is not None and self._models.config.gatt_proxy

    # Provisioning

    def _provisioned_over_pb_gatt(self, event: Provisioned) -> None:
        # The answer Complete is queued; the service swaps on the open link.
        for link in self._links:
            if link.pb_gatt is not None:
                link.pb_gatt.stop()
                link.pb_gatt = None
        self._provision(event.data, event.dev_key, None)
        self._announcer.start_identity()

    def provisioned_over_pb_adv(self, link: ProvisionerLink, data: ProvisioningData) -> None:
        """Another board made this one a node."""
        self._provision(data, link.dev_key, link.board.device_address)

    def device_link_closed(self) -> None:
        """The PB-ADV link to our provisioner is gone."""
        self._device_link = None

    def _provision(self, data: ProvisioningData, dev_key: DevKey, parent: str | None) -> None:
        self.parent = parent
        self.node = node = MeshNode(
            self,
            self.air.network(data.net_key),
            data.unicast_address,
            data.iv_index,
            dev_key,
            self._received,
        )
        self._models = Models(self, node, dev_key)
        self.air.record(self, Happening.PROVISIONED, parent or "", data.unicast_address)
        for link in self._links:
            link.services_swapped()
            node.proxy.open(link, is_fresh=False)
        self._announcer.enable_proxy()

    def app_key_stored(self) -> None:
        """The Configuration Server stored an AppKey."""
        self.air.record(self, Happening.APP_KEY_STORED)

    def reset_node(self) -> None:
        """Config Node Reset was answered: the board is silent until its power cycle (FP 4.4)."""
        self.later(firmware.NODE_RESET_S, lambda: self.fall_silent("Node Reset"))

    def _received(self, event: Event) -> None:
        if self._models is not None and isinstance(event, MessageReceived):
            self._models.receive(event)
