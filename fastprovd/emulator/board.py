"""One board with the demo firmware: from power-on to Node Identity, and everything between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastprovd.emulator import firmware
from fastprovd.emulator.advertising import (
    AdvertisingQueue,
    Connectable,
    ConnectableAdvertiser,
    QueuedPdu,
)
from fastprovd.emulator.config_server import ConfigServer, OnOffServer
from fastprovd.emulator.frames import MeshFrame
from fastprovd.emulator.gatt_server import Link
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.emulator.node import MeshNode
from fastprovd.emulator.pb_adv import DeviceLink, GenericPdu, Kind, ProvisionerLink
from fastprovd.emulator.pb_gatt import PbGatt
from fastprovd.emulator.peripheral import Central, Service
from fastprovd.emulator.timeline import Happening
from fastprovd.emulator.vendor_server import State, VendorServer
from fastprovd.mesh import addresses
from fastprovd.mesh.access import Message, encode_message
from fastprovd.mesh.beacons import NetworkIdentity, NodeIdentity, UnprovisionedDevice
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.events import Event, MessageReceived
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.models.generic_onoff import (
    OnOffGet,
    OnOffSet,
    OnOffSetUnacknowledged,
)
from fastprovd.mesh.provisioning.device import Provisioned
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.mesh.proxy import ProxyPduType

if TYPE_CHECKING:
    from fastprovd.emulator.air import Air


class Board:
    """A board on the air; all its state is RAM, so a reboot forgets the network.

    The properties tell the truth to tests; only the methods marked so are for the other parts.
    """

    def __init__(self, air: Air, device_address: str, bit: int, host: Host, flaws: Flaws) -> None:
        self.air = air
        self.loop = air.loop
        self.device_address = device_address
        self.bit = bit
        self.host = host
        self.flaws = flaws
        self.uuid = host.device_uuid(device_address)
        self.random = air.random_for(device_address)
        self.queue = AdvertisingQueue(
            air.loop, air.random_for(f"{device_address}/queue"), self._update_advertising
        )
        self.advertiser = ConnectableAdvertiser(
            air.loop,
            air.random_for(f"{device_address}/advertiser"),
            self._connectable,
            lambda _: air.connectable_event(self),
            lambda: air.listeners(self),
        )
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
        self._node: MeshNode | None = None
        self._config: ConfigServer | None = None
        self._vendor: VendorServer | None = None
        self._onoff: OnOffServer | None = None
        self._own_dev_key: DevKey | None = None
        self._links: list[Link] = []
        self._device_link: DeviceLink | None = None
        self._proxy_enabled = False
        self._proxy_was_announced = True
        self._fast_until = 0.0
        self._identity_until = 0.0
        self._misadvertises = False
        self._false_proxy_until = 0.0
        self._stray_until = 0.0
        self._listens_to_beacons = False
        self.parent = None

    # Truth

    @property
    def unicast_address(self) -> int | None:
        """The board's address, `None` while it is unprovisioned."""
        return None if self._node is None else self._node.address

    @property
    def has_app_key(self) -> bool:
        """Whether an AppKey is stored."""
        return self._node is not None and bool(self._node.stack.app_keys)

    @property
    def is_primary(self) -> bool:
        """Whether the board became the Primary Provisioner."""
        return self._vendor is not None and self._vendor.is_primary

    @property
    def is_provisioner(self) -> bool:
        """Whether an INFO_SET made it Primary or Temporary Provisioner, suspended or not."""
        return self._vendor is not None and self._vendor.state is State.ACTIVE

    @property
    def is_provisioning(self) -> bool:
        """Whether it would take a device now."""
        return self._vendor is not None and self._vendor.role.is_provisioning

    @property
    def children(self) -> tuple[str, ...]:
        """BD_ADDRs of the boards it provisioned."""
        if self._vendor is None:
            return ()
        return tuple(child.device_address for child in self._vendor.role.children)

    @property
    def listed_addresses(self) -> tuple[int, ...]:
        """What NODE_ADDR_STATUS of this board would say."""
        return () if self._vendor is None else tuple(self._vendor.listed)

    @property
    def groups(self) -> frozenset[int]:
        """Groups its OnOff Server is subscribed to."""
        return frozenset() if self._node is None else frozenset(self._node.subscriptions)

    @property
    def onoff(self) -> bool:
        """Its light."""
        return self._onoff is not None and self._onoff.onoff

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
        links, node = self._links, self._node
        self.queue.stop()
        self.advertiser.stop()
        self.listen_to_beacons(False)
        self._reset()
        if node is not None:
            node.stop()
        for link in links:
            link.lose()

    def _booted(self) -> None:
        self.is_on_air = True
        # The key pair is made once per boot (FP 3).
        self._key_pair = EcdhKeyPair.from_random(self.random.randbytes(48))
        self._fast_until = self.now() + firmware.FAST_ADVERTISING_S
        self.later(firmware.FAST_ADVERTISING_S, self._update_advertising)
        self.air.record(self, Happening.ON_AIR)
        self._beacon()
        self._update_advertising()

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
    ) -> bool:
        """Queue a Network PDU; False when no buffer is free."""
        if self._is_silent:
            return False
        return self.queue.put(
            QueuedPdu(
                lambda times: self.air.send_mesh(self, frame, times),
                started=started,
                ended=ended,
                slot_s=slot_s,
            )
        )

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
        if self._node is not None:
            self._node.send(encode_message(message), dst=event.src, key=event.key, ttl=ttl)

    def listen_to_beacons(self, active: bool) -> None:
        """Begin or end hearing Unprovisioned Device beacons."""
        if active != self._listens_to_beacons:
            self._listens_to_beacons = active
            self.air.set_provisioner(self, active)

    @property
    def latest_app_key(self) -> AppKey:
        """The AppKey that was bound last; there is one wherever an INFO_SET was understood."""
        assert self._node is not None  # noqa: S101
        assert self._config is not None  # noqa: S101
        index = self._config.latest_app_key
        assert index is not None  # noqa: S101
        return self._node.stack.app_keys[index]

    # The air

    @property
    def listens_to_pb_adv(self) -> bool:
        """Whether a PB-ADV PDU could matter to it."""
        if not self.is_on_air or self._is_silent:
            return False
        if self._node is None or self._device_link is not None:
            return True
        return self._vendor is not None and bool(self._vendor.role.links)

    def hear_mesh(self, frame: MeshFrame) -> None:
        """A Network PDU that is not in the network cache."""
        if self._node is not None and not self._is_silent:
            self._node.receive_from_air(frame)

    def hear_beacon(self, device: Board) -> None:
        """An Unprovisioned Device beacon."""
        if self._vendor is not None and not self._is_silent:
            self._vendor.role.hear_beacon(device)

    def hear_pb_adv(self, pdu: GenericPdu) -> None:
        """One transmission of a PB-ADV PDU that is meant for this board."""
        if not self.listens_to_pb_adv:
            return
        link = pdu.link
        if link.board is self:
            if self._vendor is not None and link in self._vendor.role.links:
                link.receive(pdu)
        elif self._device_link is not None:
            if self._device_link.link is link:
                self._device_link.receive(pdu)
        elif pdu.kind is Kind.LINK_OPEN and self._node is None and not self._pb_gatt_is_open:
            self._device_link = DeviceLink(self, link)

    def _beacon(self) -> None:
        if self._node is not None:
            return
        if self._device_link is None and not self._pb_gatt_is_open:
            self.queue.put(QueuedPdu(lambda times: self.air.send_beacon(self, times)))
        self.later(firmware.BEACON_INTERVAL_S, self._beacon)

    # Connectable advertising

    @property
    def identity_is_running(self) -> bool:
        """Whether Node Identity is advertised."""
        return self._proxy_enabled and self.now() < self._identity_until

    def _update_advertising(self) -> None:
        if self.is_on_air and not self._is_silent and self.queue.is_idle:
            self.advertiser.start()
        else:
            self.advertiser.stop()

    def _connectable(self, starts: int) -> Connectable | None:
        if len(self._links) >= firmware.MAX_LINKS:
            return None
        fast, slow = firmware.FAST_INTERVAL_S, firmware.SLOW_INTERVAL_S
        service = self.host.provisioning_service.uuid
        if self._node is None:
            interval = fast if self.now() < self._fast_until else slow
            return Connectable(service, UnprovisionedDevice(self.uuid).encode(), interval)
        service = self.host.proxy_service.uuid
        net_key = self._node.network.net_key
        now = self.now()
        false_proxy = now < self._false_proxy_until or now < self._stray_until
        if self.identity_is_running or (false_proxy and not self._proxy_enabled):
            random = self.air.octets_for(f"{self.device_address}/identity/{starts}", 8)
            identity = NodeIdentity(net_key.node_identity_hash(random, self._node.address), random)
            self._announce_proxy()
            answers = now >= self._stray_until
            return Connectable(service, identity.encode(), fast, answers)
        if not self._proxy_enabled:
            return None
        self._announce_proxy()
        return Connectable(service, NetworkIdentity(net_key.network_id).encode(), slow)

    def _announce_proxy(self) -> None:
        if self._proxy_enabled and not self._proxy_was_announced:
            self._proxy_was_announced = True
            self.air.record(self, Happening.PROXY_ON_AIR)

    def _start_identity(self) -> None:
        self._identity_until = self.now() + firmware.NODE_IDENTITY_S
        self.later(firmware.NODE_IDENTITY_S, self._identity_over)

    def _identity_over(self) -> None:
        if self.now() < self._identity_until or not self._proxy_enabled:
            return
        if (
            self.host is Host.BLUEDROID
            and self.flaws.silence_after_node_identity
            and not self._links
            and self.random.random() < firmware.SILENCE_PROBABILITY
        ):
            self._fall_silent("after Node Identity")
        self._update_advertising()

    def _fall_silent(self, why: str) -> None:
        self._is_silent = True
        self.queue.stop()
        self.advertiser.stop()
        self.listen_to_beacons(False)
        self.air.record(self, Happening.SILENT, why)

    # GATT

    @property
    def visible_service(self) -> Service | None:
        """The mesh service that a discovery finds now."""
        if self._is_silent:
            return None
        if self._node is None:
            return self.host.provisioning_service
        return self.host.proxy_service if self._proxy_enabled else None

    @property
    def _pb_gatt_is_open(self) -> bool:
        return any(link.pb_gatt is not None for link in self._links)

    def accept(self, central: Central) -> Link:
        """A central connects at a connectable event of ours."""
        link = Link(self, central)
        self._links.append(link)
        self.air.record(self, Happening.CONNECTED)
        self._update_advertising()
        return link

    def link_gone(self, link: Link) -> None:
        """A link was closed by either side."""
        if link in self._links:
            self._links.remove(link)
            if self._node is not None:
                self._node.proxy.close(link)
            self.air.record(self, Happening.DISCONNECTED)
            if self._misadvertises:
                self._misadvertises = False
                self._misadvertise()
            self._update_advertising()

    def open_pb_gatt(self, link: Link) -> None:
        """Data Out of 0x1827 was enabled."""
        if self._device_link is not None or self._key_pair is None:
            return  # busy with another provisioner, and says nothing (FP 3)
        if link.pb_gatt is not None:
            return  # a second CCC write does not open a dead link again
        if self._pb_gatt_is_open:
            link.hang_up(0.0)
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
        if self._node is not None:
            self._node.proxy.open(link, is_fresh=not link.was_kept)

    def receive_proxy_pdu(self, link: Link, pdu_type: ProxyPduType, payload: bytes) -> None:
        """A Proxy PDU came over the proxy service."""
        if self._node is not None:
            self._node.proxy.receive(link, pdu_type, payload)

    def disable_proxy(self) -> None:
        """Take the proxy service away and hang up (FP 6.2); INFO_STATUS goes first."""
        if not self._proxy_enabled:
            return
        had_identity = self.identity_is_running
        self._proxy_enabled = False
        self.air.record(self, Happening.PROXY_OFF)
        links = tuple(self._links)
        swallowed = (
            self.flaws.swallowed_info_status
            and bool(links)
            and self.random.random() < firmware.SWALLOWED_STATUS
        )
        for link in links:
            delay = self.random.uniform(*self.host.hang_up_s)
            link.hang_up(delay, drop_pending=swallowed)
        self._misadvertises = had_identity and bool(links)
        self._update_advertising()

    def _misadvertise(self) -> None:
        now = self.now()
        if (
            self.host is Host.BLUEDROID
            and self.flaws.false_proxy_advertisement
            and self.random.random() < firmware.FALSE_PROXY_PROBABILITY
        ):
            lasts = self.random.uniform(*firmware.FALSE_PROXY_S)
            self._false_proxy_until = now + lasts
            self.later(lasts, self._update_advertising)
        elif (
            self.host is Host.NIMBLE
            and self.flaws.stray_advertisement
            and self.random.random() < firmware.STRAY_ADVERTISEMENT
        ):
            self._stray_until = now + firmware.STRAY_S
            self.later(firmware.STRAY_S, self._update_advertising)

    def enable_proxy(self) -> None:
        """Bring the proxy service back, with Node Identity for 60 s."""
        self._proxy_enabled = True
        self._proxy_was_announced = False
        self.air.record(self, Happening.PROXY_ON)
        self._start_identity()
        self._update_advertising()

    # Provisioning

    def _provisioned_over_pb_gatt(self, event: Provisioned) -> None:
        # The answer Complete is queued; the service swaps on the open link.
        for link in self._links:
            if link.pb_gatt is not None:
                link.pb_gatt.stop()
                link.pb_gatt = None
        self._provision(event.data, event.dev_key, None)
        self._start_identity()
        self._update_advertising()

    def provisioned_over_pb_adv(self, link: ProvisionerLink, data: ProvisioningData) -> None:
        """Another board made this one a node."""
        self._provision(data, link.dev_key, link.board.device_address)

    def device_link_closed(self) -> None:
        """The PB-ADV link to our provisioner is gone."""
        self._device_link = None

    def _provision(self, data: ProvisioningData, dev_key: DevKey, parent: str | None) -> None:
        self.parent = parent
        self._node = node = MeshNode(
            self,
            self.air.network(data.net_key),
            data.unicast_address,
            data.iv_index,
            dev_key,
            self._dispatch,
        )
        self._config = ConfigServer(self, node)
        self._vendor = VendorServer(self, node)
        self._onoff = OnOffServer(self, node, self._vendor.start_disable_timer)
        self._own_dev_key = dev_key
        self._proxy_enabled = True
        self.air.record(self, Happening.PROVISIONED, parent or "", data.unicast_address)
        for link in self._links:
            link.services_swapped()
            node.proxy.open(link, is_fresh=False)
        self._update_advertising()

    def app_key_stored(self) -> None:
        """The Configuration Server stored an AppKey."""
        self.air.record(self, Happening.APP_KEY_STORED)

    def reset_node(self) -> None:
        """Config Node Reset was answered: the board is silent until its power cycle (FP 4.4)."""
        self.later(firmware.NODE_RESET_S, lambda: self._fall_silent("Node Reset"))

    def _dispatch(self, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            return
        config, vendor, onoff = self._config, self._vendor, self._onoff
        if config is None or vendor is None or onoff is None:
            return
        if isinstance(event.key, DevKey):
            if event.key is self._own_dev_key:
                config.receive(event)
            else:
                vendor.receive(event)
        elif event.key.index not in config.bound_app_keys:
            return  # the bind race: dropped without a word (FP 4.3)
        elif isinstance(event.message, OnOffGet | OnOffSet | OnOffSetUnacknowledged):
            onoff.receive(event)
        elif event.dst == self.unicast_address or event.dst == addresses.ALL_NODES:
            vendor.receive(event)
