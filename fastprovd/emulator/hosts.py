"""The two Bluetooth hosts of the demo, and the flaws that were seen with each."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

from fastprovd.emulator.peripheral import Characteristic, Service
from fastprovd.mesh.beacons import MESH_PROVISIONING_SERVICE, MESH_PROXY_SERVICE

_WRITE = frozenset({"write-without-response"})
_NOTIFY = frozenset({"notify"})
_INDICATE = frozenset({"indicate"})
_READ = frozenset({"read"})


def _mesh_service(uuid: int, start: int, data_in: int, data_out: int, cccd: int) -> Service:
    first = 0x2ADB if uuid == MESH_PROVISIONING_SERVICE else 0x2ADD
    return Service(
        uuid,
        start,
        (
            Characteristic(first, data_in, _WRITE),
            Characteristic(first + 1, data_out, _NOTIFY, cccd),
        ),
    )


@dataclass(frozen=True, slots=True)
class Host:
    """What differs between the hosts without being a fault (observed.md §1, §2, §17).

    `hang_up_s`: from the last fragment of INFO_STATUS to the disconnect, at least and at most;
    `identity_lead_s`: how long before Complete the Node Identity is on the air.
    """

    NIMBLE: ClassVar[Host]
    BLUEDROID: ClassVar[Host]

    name: str
    reversed_uuid_address: bool
    base_services: tuple[Service, ...]
    provisioning_service: Service
    proxy_service: Service
    service_changed_cccd: int
    service_changed_unasked: bool
    hang_up_s: tuple[float, float]

    def device_uuid(self, device_address: str) -> bytes:
        """Return the Device UUID, 16 octets: DD DD, the BD_ADDR in the host's order, zeros."""
        octets = bytes.fromhex(device_address.replace(":", ""))
        if self.reversed_uuid_address:
            octets = octets[::-1]
        return b"\xdd\xdd" + octets + bytes(8)


Host.NIMBLE = Host(
    name="nimble",
    reversed_uuid_address=True,
    base_services=(
        Service(
            0x1800,
            0x0001,
            (Characteristic(0x2A00, 0x0003, _READ), Characteristic(0x2A01, 0x0005, _READ)),
        ),
        Service(
            0x1801,
            0x0006,
            (
                Characteristic(0x2A05, 0x0008, _INDICATE, 0x0009),
                Characteristic(0x2B3A, 0x000B, _READ),
                Characteristic(0x2B29, 0x000D, _READ | {"write"}),
            ),
        ),
    ),
    provisioning_service=_mesh_service(MESH_PROVISIONING_SERVICE, 0x0014, 0x0016, 0x0018, 0x0019),
    proxy_service=_mesh_service(MESH_PROXY_SERVICE, 0x000E, 0x0010, 0x0012, 0x0013),
    service_changed_cccd=0x0009,
    service_changed_unasked=False,
    hang_up_s=(0.0, 0.006),
)
Host.BLUEDROID = Host(
    name="bluedroid",
    reversed_uuid_address=False,
    base_services=(
        Service(0x1801, 0x0001, (Characteristic(0x2A05, 0x0003, _INDICATE, 0x0004),)),
        Service(
            0x1800,
            0x0014,
            (
                Characteristic(0x2A00, 0x0016, _READ),
                Characteristic(0x2A01, 0x0018, _READ),
                Characteristic(0x2AA6, 0x001A, _READ),
            ),
        ),
    ),
    provisioning_service=_mesh_service(MESH_PROVISIONING_SERVICE, 0x002E, 0x0030, 0x0032, 0x0033),
    proxy_service=_mesh_service(MESH_PROXY_SERVICE, 0x0028, 0x002A, 0x002C, 0x002D),
    service_changed_cccd=0x0004,
    service_changed_unasked=True,
    hang_up_s=(0.005, 0.040),
)


@dataclass(frozen=True, slots=True)
class Flaws:
    """Faults of the firmware, one switch each; a switch works only with the host it names."""

    notification_abort: bool = True
    """NimBLE: a 19th pending notification aborts the host; the board reboots (§10, §11)."""
    stray_advertisement: bool = True
    """NimBLE: 1 in 25 starts, one more proxy advertisement that no connection answers (§5)."""
    swallowed_info_status: bool = True
    """Both: rarely the controller drops INFO_STATUS when the board hangs up (§5)."""
    notification_limit: bool = True
    """Bluedroid: of one burst about 32 to 34 notifications get through (§17)."""
    false_proxy_advertisement: bool = True
    """Bluedroid: Node Identity up to 0.41 s after the disconnect, without 0x1828 (§17)."""
    silence_after_node_identity: bool = True
    """Bluedroid: mostly dead for good when its Node Identity ends after 60 s (§18).

    With a link or without; Node Identity Set 0 before that saves it. On a chip it depends on the
    speed of the processor, and is not known: the emulator assumes the worst.
    """
    missing_app_keys: bool = True
    """Bluedroid: AppKey Add to a child fails locally and is not repeated (§17)."""

    @classmethod
    def none(cls) -> Self:
        """Return a firmware without faults."""
        return replace(cls(), **{field.name: False for field in fields(cls)})
