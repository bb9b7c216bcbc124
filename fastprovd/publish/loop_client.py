"""aiomqtt in our event loop: whatever the broker sends, the socket does not stay in the loop.

aiomqtt leaves a socket registered when paho raises, or registers one by a number that belongs to
another file by then: both make the loop spin. It says of most ends of a connection only that
there was one; here each has its reason.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import aiomqtt
import paho.mqtt.client as paho
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fastprovd.publish.failures import (
    UNSUPPORTED_PROTOCOL_VERSION,
    BrokerSaid,
    Kind,
    LinkEnd,
    LinkError,
    of_tls,
)
from fastprovd.publish.wire import StrangePeer, Wire

log = structlog.get_logger(__name__)

_PACKETS_PER_TURN: Final = 64  # some ms of work, then the rest of the program has its turn
_PROTOCOL_ERROR: Final = 0x82  # what paho says when it can not read the broker's packets
_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_REFUSED_VERSION_311: Final = b"\x20\x02\x00\x01"

# Their lines are as many as the broker likes to cause; what matters in them is said by us.
_SILENT_LOGGER: Final = logging.getLogger(f"{__name__}.libraries")
_SILENT_LOGGER.disabled = True


class LoopClient(aiomqtt.Client):
    """One connection over a given wire; `ended` is why it is over, None before."""

    def __init__(self, wire: Wire, host: str, port: int, **more: Any) -> None:
        """Take the wire, and what aiomqtt takes."""
        super().__init__(host, port, logger=_SILENT_LOGGER, **more)
        self.ended: LinkEnd | None = None
        # Some turns' worth: only at the farewell, when nobody reads any more, it runs over.
        self._arrived: deque[aiomqtt.Message] = deque(maxlen=4 * _PACKETS_PER_TURN)
        self._news = asyncio.Event()
        self._wire = wire
        self._client._create_socket = lambda: wire  # type: ignore[method-assign]
        self._progress = wire.progress()
        self._malformed = 0

    @property
    async def messages(self) -> AsyncIterator[aiomqtt.Message]:  # type: ignore[override]
        """What arrives; raises why the connection ended.

        The iterator of aiomqtt makes a task for each message, and so falls behind a flood. This one
        gives out in one go what a turn of the loop has brought.
        """
        while True:
            while self._arrived:
                yield self._arrived.popleft()
            if self.ended is not None:
                raise self.ended
            self._news.clear()
            await self._news.wait()

    def drop(self) -> None:
        """Close the socket, if it still is open, and take it out of the event loop."""
        self._client._sock_close()
        self._wire.close()

    def fail_acknowledgements(self, error: Exception) -> None:
        """End every wait for the broker: the connection is gone."""

    # -- the socket in the event loop: aiomqtt forgets it there when something fails ----------

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._attach)  # from the thread that connects

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._await_writable)

    @property
    def _is_open(self) -> bool:
        return self._client.socket() is not None

    def _attach(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._wire.fileno(), self._read)
            self._misc_task = self._loop.create_task(self._misc_loop(), name="mqtt_keepalive")

    def _await_writable(self) -> None:
        # Later than asked for: the number of a closed socket may belong to another file by now.
        if self._is_open:
            self._loop.add_writer(self._wire.fileno(), self._write)

    def _read(self) -> None:
        try:
            for _ in range(_PACKETS_PER_TURN):
                self._client.loop_read()
                if not self._is_open or not self._wire.pending():
                    break
                if len(self._arrived) >= _PACKETS_PER_TURN:  # paho reads several at a time
                    self._loop.call_soon(self._read)
                    break
            else:
                self._loop.call_soon(self._read)
        except Exception as error:  # noqa: BLE001 - paho decodes what the broker sends without a net
            self._end(LinkError(Kind.PROTOCOL, f"the broker sent what is not MQTT: {error!r}"))
        if self._wire.waits_for_input and self._client.want_write():
            self._await_writable()

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001 - such as a broken pipe
            self._end(LinkError(Kind.LOST, f"could not send: {error!r}"))
        if self._is_open and self._wire.waits_for_input:
            self._loop.remove_writer(self._wire.fileno())

    async def _misc_loop(self) -> None:
        while self._is_open:
            progress = self._wire.progress()
            if progress.is_life(self._progress):  # as a long packet on a slow link
                self._client._ping_t = 0.0
            self._progress = progress
            self._client.loop_misc()
            await asyncio.sleep(min(1.0, self._client._keepalive / 4))

    # -- what the broker says ---------------------------------------------------------------

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if reason_code.value == 0 and not flags.is_disconnect_packet_from_server:
            if not self._disconnected.done():
                self._disconnected.set_result(None)  # it was us
            return
        if flags.is_disconnect_packet_from_server:
            self._end(BrokerSaid(reason_code, properties))
        else:
            self._end(self._what_happened(reason_code))

    def _what_happened(self, reason_code: ReasonCode) -> LinkEnd:
        """Return why the connection ended without a word of MQTT."""
        fault = self._wire.fault
        if isinstance(fault, StrangePeer):
            if fault.is_tls:
                return LinkError(Kind.TLS_EXPECTED, str(fault))
            kind = Kind.PROTOCOL if self._connected.done() else Kind.NOT_MQTT
            return LinkError(kind, str(fault))
        if isinstance(fault, ssl.SSLError):
            return of_tls(fault)
        if self._wire.opening[:4] == _REFUSED_VERSION_311:
            unsupported = ReasonCode(PacketTypes.CONNACK, identifier=UNSUPPORTED_PROTOCOL_VERSION)
            return BrokerSaid(unsupported)
        if reason_code.value == _PROTOCOL_ERROR:
            return LinkError(Kind.PROTOCOL, "the broker sent what is not MQTT")
        if not self._connected.done():
            return LinkError(Kind.HUNG_UP_ON_CONNECT, "the broker hung up on CONNECT")
        if reason_code.value == _KEEP_ALIVE_TIMEOUT:
            return LinkError(Kind.LOST, "the broker fell silent")
        return LinkError(Kind.LOST, "the broker hung up without a word")

    def _end(self, error: LinkEnd) -> None:
        """Let everybody who waits for the broker know, and close the socket."""
        if self.ended is not None:
            return
        self.ended = error
        over = self._disconnected if self._connected.done() else self._connected
        if not over.done():
            over.set_exception(error)
            over.exception()  # seen: who wants to know reads `ended` too
        self.fail_acknowledgements(error)
        self._news.set()
        self._loop.call_soon(self.drop)  # paho may be in a callback, and does not let us in again

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            arrived = aiomqtt.Message._from_paho_message(message)
        except ValueError as error:  # no topic, or wildcards or no UTF-8 in it: it is not for us
            report = log.debug if self._malformed else log.warning
            self._malformed += 1
            report("mqtt_message_malformed", reason=str(error))
        else:
            self._arrived.append(arrived)
            self._news.set()
