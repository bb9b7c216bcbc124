"""A Bluetooth controller for the guest's kernel, with the virtual air where the radio would be.

Bumble speaks HCI with the kernel through /dev/vhci; scanning, connecting and ATT are translated
to `peripheral.AirPort`. What Bumble's controller lacks for BlueZ is filled in here.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bumble import hci, ll
from bumble.controller import Connection, Controller
from bumble.core import AdvertisingData, PhysicalTransport
from bumble.transport.vhci import open_vhci_transport

from fastprovd.emulator.duplicate_filter import DuplicateFilter, Reported
from fastprovd.emulator.peripheral import AirPort, PeripheralLink, Report
from tests.system.att_server import AttServer

ADDRESS: Final = "00:1B:DC:00:00:01"
_ATT_CHANNEL: Final = 0x0004
_FIRST_FRAGMENT: Final = 2  # packet boundary flag, controller to host
_FLAGS: Final = b"\x06"  # general discoverable, no BR/EDR
_EventType = hci.HCI_LE_Advertising_Report_Event.EventType


@asynccontextmanager
async def virtual_adapter() -> AsyncIterator[VirtualAdapter]:
    """Plug in an adapter; it is unplugged when the context ends."""
    transport = await open_vhci_transport(None)
    try:
        yield VirtualAdapter("virtual", transport.source, transport.sink, public_address=ADDRESS)
    finally:
        await transport.close()


@dataclass(frozen=True)
class ScanCommand:
    """An LE Set Scan Enable of the kernel; `active` by the parameters set before."""

    at_s: float
    enable: bool
    filter_duplicates: bool
    active: bool


class VirtualAdapter(Controller):  # type: ignore[misc] # Bumble is not installed where mypy runs
    """Serves the kernel; `port` is the air it is on, and may be exchanged while it is idle.

    It bears `max_links`, refuses more with the error code `refusal`, and counts those.
    """

    # With either feature the kernel waits for events that Bumble does not send.
    le_features = Controller.le_features & ~(
        hci.LeFeatureMask.LL_PRIVACY | hci.LeFeatureMask.LE_EXTENDED_ADVERTISING
    )
    le_acl_data_packet_length = 251

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.port: AirPort | None = None
        self._stop_observing: Callable[[], None] | None = None
        self._cancel_initiating: Callable[[], None] | None = None
        self.duplicate_filter = DuplicateFilter.BY_ADDRESS
        self._reported = Reported()
        self.scan_commands: list[ScanCommand] = []
        self.max_links: int | None = None
        self.refusal = hci.HCI_ErrorCode.CONNECTION_LIMIT_EXCEEDED_ERROR
        self.refused = 0

    def join(self, port: AirPort) -> None:
        """Go to another air; links and what was asked of the old one end as by loss."""
        scanning = self._stop_observing is not None
        self._leave()
        self.port = port
        if scanning:
            self._stop_observing = port.observe(self._heard)

    # Scanning

    def on_hci_le_set_scan_enable_command(self, command: Any) -> Any:
        result = super().on_hci_le_set_scan_enable_command(command)
        self.scan_commands.append(
            ScanCommand(
                asyncio.get_running_loop().time(),
                bool(self.le_scan_enable),
                bool(self.filter_duplicates),
                bool(self.le_scan_type),
            )
        )
        self._reported.restart()
        if self._stop_observing is not None:
            self._stop_observing()
            self._stop_observing = None
        if self.le_scan_enable and self.port is not None:
            self._stop_observing = self.port.observe(self._heard)
        return result

    def _heard(self, report: Report) -> None:
        if self.filter_duplicates and not self._reported.is_new(report, self.duplicate_filter):
            return
        if not report.connectable:
            self._report(report, _EventType.ADV_NONCONN_IND, [])
            return
        fields = [(AdvertisingData.FLAGS, _FLAGS)]
        if report.service_uuids:
            uuids = b"".join(uuid.to_bytes(2, "little") for uuid in report.service_uuids)
            fields.append((AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, uuids))
        for uuid, data in report.service_data.items():
            octets = uuid.to_bytes(2, "little") + data
            fields.append((AdvertisingData.SERVICE_DATA_16_BIT_UUID, octets))
        self._report(report, _EventType.ADV_IND, fields)
        if self.le_scan_type and report.local_name is not None:
            name = (AdvertisingData.COMPLETE_LOCAL_NAME, report.local_name.encode())
            self._report(report, _EventType.SCAN_RSP, [name])

    def _report(self, report: Report, event_type: int, fields: list[tuple[int, bytes]]) -> None:
        address = hci.Address(report.device_address, hci.Address.PUBLIC_DEVICE_ADDRESS)
        self.send_hci_packet(
            hci.HCI_LE_Advertising_Report_Event(
                [
                    hci.HCI_LE_Advertising_Report_Event.Report(
                        event_type=event_type,
                        address_type=address.address_type,
                        address=address,
                        data=bytes(AdvertisingData(fields)),
                        rssi=report.rssi_dbm,
                    )
                ]
            )
        )

    # Connecting

    def on_hci_le_create_connection_command(self, command: Any) -> None:
        if self.pending_le_connection is not None or self.port is None:
            status = hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR
            self._send_hci_command_status(status, command.op_code)
            return
        if self.max_links is not None and len(self.le_connections) >= self.max_links:
            self.refused += 1
            self._send_hci_command_status(self.refusal, command.op_code)
            return
        self.pending_le_connection = command
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
        connection = AirConnection(
            controller=self,
            handle=self.allocate_connection_handle(),
            role=hci.Role.CENTRAL,
            self_address=self.public_address,
            peer_address=command.peer_address,
            link=self.link,
            transport=PhysicalTransport.LE,
            link_type=hci.HCI_Connection_Complete_Event.LinkType.ACL,
        )

        def opened(link: PeripheralLink) -> None:
            self._end_attempt()
            connection.open(link)
            self.le_connections[connection.peer_address] = connection
            self._tell_connected(command, hci.HCI_ErrorCode.SUCCESS, connection.handle)

        device_address = command.peer_address.to_string(with_type_qualifier=False)
        self._cancel_initiating = self.port.initiate(device_address, connection, opened)

    def on_hci_le_create_connection_cancel_command(self, _command: Any) -> Any:
        pending = self._end_attempt()
        if pending is None:
            status = hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR
            return hci.HCI_StatusReturnParameters(status)
        cancelled = hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
        # The event follows the command's own completion.
        asyncio.get_running_loop().call_soon(self._tell_connected, pending, cancelled, 0)
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def on_hci_reset_command(self, command: Any) -> Any:
        self._leave()
        self.le_scan_enable = False
        return super().on_hci_reset_command(command)

    def _end_attempt(self) -> Any:
        pending, self.pending_le_connection = self.pending_le_connection, None
        if self._cancel_initiating is not None:
            self._cancel_initiating()
            self._cancel_initiating = None
        return pending

    def _tell_connected(self, command: Any, status: int, handle: int) -> None:
        self.send_hci_packet(
            hci.HCI_LE_Connection_Complete_Event(
                status=status,
                connection_handle=handle,
                role=hci.Role.CENTRAL,
                peer_address_type=command.peer_address.address_type,
                peer_address=command.peer_address,
                connection_interval=command.connection_interval_min,
                peripheral_latency=command.max_latency,
                supervision_timeout=command.supervision_timeout,
                central_clock_accuracy=0,
            )
        )

    def _leave(self) -> None:
        self._end_attempt()
        if self._stop_observing is not None:
            self._stop_observing()
            self._stop_observing = None
        for connection in tuple(self.le_connections.values()):
            connection.hang_up()
        self.le_connections.clear()


class AirConnection(Connection):  # type: ignore[misc] # as above
    """One link: L2CAP towards the kernel, a `peripheral.Central` towards the board."""

    def open(self, link: PeripheralLink) -> None:
        """Take the link that the air opened."""
        self._link = link
        self._server = AttServer(link, self._send)

    def hang_up(self) -> None:
        """End the link from our side."""
        self._link.disconnect()

    # The kernel's side

    def on_acl_pdu(self, pdu: bytes) -> None:
        _, channel = struct.unpack_from("<HH", pdu)
        if channel == _ATT_CHANNEL:
            self._server.receive(pdu[4:])

    def send_ll_control_pdu(self, packet: Any) -> None:
        match packet:
            case ll.TerminateInd():
                self.hang_up()
            case ll.FeatureReq():
                features = ll.FeatureRsp(feature_set=packet.feature_set)
                self.controller.on_ll_control_pdu(self.peer_address, features)

    def _send(self, pdu: bytes) -> None:
        data = struct.pack("<HH", len(pdu), _ATT_CHANNEL) + pdu
        self.controller.send_hci_packet(
            hci.HCI_AclDataPacket(self.handle, _FIRST_FRAGMENT, 0, len(data), data)
        )

    # The board's side

    def notified(self, value_handle: int, value: bytes) -> None:
        """Pass a notification on."""
        self._server.notify(value_handle, value)

    def services_changed(self) -> None:
        """Pass Service Changed on."""
        self._server.indicate_services_changed()

    def disconnected(self, reason: int) -> None:
        """Tell the kernel that the board is gone."""
        if self.controller.le_connections.get(self.peer_address) is self:
            self.controller.on_le_disconnected(self, reason)
