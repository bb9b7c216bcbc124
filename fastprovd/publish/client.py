"""One connection to the broker: aiomqtt with what it leaves out.

A client serves one connection and is thrown away, since paho keeps what it could not send and
would send it again on the next connect. It keeps to the limits that the broker states, tells the
reason code of each PUBACK, and why the connection ended. Whatever the broker sends, the socket is
closed when it is over, and nothing of it stays in the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiomqtt
import paho.mqtt.client as paho
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fastprovd.publish.dialing import dial, secure
from fastprovd.publish.exchange import COMMANDS
from fastprovd.publish.failures import (
    FIRST_FAILURE,
    UNSUPPORTED_PROTOCOL_VERSION,
    BrokerSaid,
    Kind,
    LinkError,
    kind_of,
    reason_code,
)
from fastprovd.publish.limits import Limits, our_limits, packet_octets
from fastprovd.publish.loop_client import LoopClient
from fastprovd.publish.messages import Message, Topics, state_message
from fastprovd.publish.window import Window
from fastprovd.publish.wire import Wire

log = structlog.get_logger(__name__)

T = TypeVar("T")

CLOSE_TIMEOUT_S: Final = 0.5
"""How long a clean disconnect may take: it only writes one packet into a local buffer."""

MAX_IN_FLIGHT: Final = 16  # below the 20 that paho and mosquitto allow
MAX_SILENCE_S: Final = 120.0
"""How long one PUBACK may take while octets still move, as behind a list on a slow link."""

PACKET_TOO_LARGE: Final = ReasonCode(PacketTypes.DISCONNECT, "Packet too large")
"""What a publication returns that is longer than the broker said it takes; it was not sent."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is and how to speak to it; `protocol` is "5" or "3.1.1"."""

    host: str
    port: int
    gateway_id: str
    protocol: str = "5"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_context: ssl.SSLContext | None = None
    base_topic: str = "fastprovd"
    keepalive_s: int = 15  # a dead peer is noticed after two of them
    timeout_s: float = 5.0

    @property
    def topics(self) -> Topics:
        """The topic tree of this gateway."""
        return Topics(f"{self.base_topic}/{self.gateway_id}")

    @property
    def client_id(self) -> str:
        """The client identifier: two gateways have the same one only if all topics are the same.

        A gateway id has no colon in it.
        """
        return f"{self.base_topic}:{self.gateway_id}"


class Client(LoopClient):
    """One connection; use it through `connected`."""

    def __init__(
        self, settings: BrokerSettings, protocol: str, wire: Wire, *, plain: bool = False
    ) -> None:
        """Prepare a clean session over `wire`, with the last will in `bridge/state`.

        `plain`: nothing in CONNECT that can be left out, to be refused only for the version.
        """
        self.is_v5 = protocol == "5"
        will = state_message(settings.topics, None)
        super().__init__(
            wire,
            settings.host,
            settings.port,
            identifier=None if plain else settings.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if self.is_v5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self.is_v5 else True,
            username=None if plain else settings.username,
            password=None if plain else settings.password,
            keepalive=settings.keepalive_s,
            timeout=settings.timeout_s,
            will=None
            if plain
            else aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain),
            properties=our_limits() if self.is_v5 and not plain else None,
        )
        self.limits = Limits()
        self._topics = settings.topics
        self.acknowledged = 0
        self._window = Window(MAX_IN_FLIGHT)
        self._in_flight: dict[int, Message] = {}
        self._acknowledgements: dict[int, asyncio.Future[ReasonCode]] = {}

    @property
    def unacknowledged(self) -> list[Message]:
        """What was sent and not acknowledged, in order."""
        return list(self._in_flight.values())

    async def publish_acknowledged(
        self, message: Message, properties: Properties | None = None, *, alone: bool = False
    ) -> ReasonCode:
        """Publish with QoS 1 and return the reason code of the PUBACK.

        At most as many are in flight as the broker bears; `alone`: nothing beside this one. What
        is longer than the broker takes is not sent, and PACKET_TOO_LARGE returned.

        Raises:
            aiomqtt.MqttError: not connected, or no PUBACK in time.
            ValueError: the topic can not be published to.
        """
        limit = self.limits.maximum_packet_octets
        if limit is not None and packet_octets(message, properties) > limit:
            return PACKET_TOO_LARGE
        await self._window.enter(alone=alone)
        try:
            info = self._client.publish(
                message.topic, message.payload, qos=1, retain=message.retain, properties=properties
            )
            if info.rc != paho.MQTT_ERR_SUCCESS:
                raise self.ended or aiomqtt.MqttCodeError(info.rc, "could not publish")
        except BaseException:
            self._window.leave()
            raise
        self._in_flight[info.mid] = message
        acknowledgement: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._acknowledgements[info.mid] = acknowledgement
        try:
            return await self._in_time(acknowledgement)
        finally:
            del self._acknowledgements[info.mid]

    async def subscribe_commands(self, topic_filter: str) -> ReasonCode:
        """Subscribe with QoS 1; with MQTT 5 a live message keeps its retain flag.

        At a broker without wildcards it is the topic of each command. Returns the worst code.
        """
        filters = [topic_filter]
        if not self.limits.has_wildcards:
            filters = [self._topics.request(command) for command in sorted(COMMANDS)]
        if self.is_v5:
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            codes = await self.subscribe([(each, options) for each in filters])
        else:
            codes = await self.subscribe([(each, 1) for each in filters])
        if not codes:
            raise LinkError(Kind.PROTOCOL, "the broker sent a SUBACK without a reason code")
        return max(map(_as_reason_code, codes), key=lambda code: int(code.value))

    async def subscribe_retained(self, topic_filter: str) -> ReasonCode:
        """Subscribe to what the broker has retained; with MQTT 5 not to what we publish."""
        if not self.limits.has_wildcards:
            return ReasonCode(PacketTypes.SUBACK, "Wildcard subscriptions not supported")
        if self.is_v5:
            options = SubscribeOptions(qos=0, noLocal=True)
            return _as_reason_code((await self.subscribe(topic_filter, options=options))[0])
        return _as_reason_code((await self.subscribe(topic_filter, qos=0))[0])

    def fail_acknowledgements(self, error: Exception) -> None:
        """End every wait for a PUBACK or for a place: the connection is gone."""
        if error is self.ended:
            self.ended.unacknowledged = self.unacknowledged
            self.ended.acknowledged = self.acknowledged
        self._window.fail(error)
        for acknowledgement in self._acknowledgements.values():
            if not acknowledgement.done():
                acknowledgement.set_exception(error)

    def check_limits(self) -> None:
        """Raise LinkError when the broker can not do what we need."""
        if not self.limits.has_retain:
            raise LinkError(Kind.NO_RETAIN, "the broker keeps no retained messages")
        if self.limits.maximum_qos < 1:
            raise LinkError(Kind.NO_QOS_1, "the broker knows QoS 0 only")

    async def _in_time(self, acknowledgement: asyncio.Future[ReasonCode]) -> ReasonCode:
        """Wait for a PUBACK as long as octets move; else the connection is given up."""
        deadline = self._loop.time() + MAX_SILENCE_S
        seen = None
        while not acknowledgement.done():
            if self.ended is not None:
                raise self.ended
            progress = (self.acknowledged, self._wire.progress())
            if progress == seen or self._loop.time() >= deadline:
                self._end(LinkError(Kind.STALLED, f"no PUBACK within {self.timeout} s"))
                continue
            seen = progress
            await asyncio.wait({acknowledgement}, timeout=self.timeout)
        return acknowledgement.result()

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if self._connected.done():  # a second CONNACK
            return
        if is_failure(reason_code):
            self._end(BrokerSaid(reason_code, properties))
            return
        self.limits = Limits.of(properties)
        self._window = Window(min(MAX_IN_FLIGHT, self.limits.receive_maximum))
        if self.limits.server_keepalive_s is not None:
            # Ours where it is shorter: a broker that asks for none may die unnoticed.
            asked_s = self.limits.server_keepalive_s or self._keepalive
            self._client._keepalive = min(asked_s, self._keepalive)
        self._connected.set_result(None)

    def _on_publish(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        if self._in_flight.pop(mid, None) is None:
            return
        self.acknowledged += 1
        self._window.leave()
        acknowledgement = self._acknowledgements.get(mid)
        if acknowledgement is not None and not acknowledgement.done():
            acknowledgement.set_result(reason_code)


@contextlib.asynccontextmanager
async def connected(settings: BrokerSettings, protocol: str) -> AsyncIterator[Client]:
    """Connect a fresh client; leave with a clean disconnect.

    Raises:
        aiomqtt.MqttError: no connection, or the broker can not do what we need.
    """
    client = Client(settings, protocol, await _open_wire(settings))
    try:
        try:
            # What the thread that connects begins has an owner until it is over.
            await finish(client.__aenter__(), CLOSE_TIMEOUT_S)
        except aiomqtt.MqttError as error:
            client.drop()
            if kind_of(error) is Kind.HUNG_UP_ON_CONNECT and settings.tls_context is None:
                await _ask_for_tls(settings)
            if client.is_v5 and not isinstance(error, aiomqtt.MqttCodeError):
                await _ask_for_v5(settings)
            if client.ended is None:
                sentence = f"the broker did not answer CONNECT within {settings.timeout_s} s"
                raise LinkError(Kind.SILENT, sentence) from None
            raise
        if client.ended is not None:  # between CONNACK and here
            raise client.ended
        client.check_limits()
        try:
            yield client
        finally:
            client.timeout = CLOSE_TIMEOUT_S
            try:
                await client.__aexit__(None, None, None)
            except aiomqtt.MqttError as error:  # must not hide why we leave
                log.debug("mqtt_disconnect_failed", reason=str(error))
    finally:
        client.drop()


async def finish(work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Return what `work` returns; a cancellation first lets it end within `timeout_s`."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.cancel() and not task.cancelled():
            task.exception()  # seen here, so that asyncio does not report it
        raise


def is_failure(code: ReasonCode) -> bool:
    """Tell whether the broker refused."""
    return int(code.value) >= FIRST_FAILURE


def is_unsupported_protocol(error: BaseException) -> bool:
    """Tell whether the broker refused MQTT 5."""
    return reason_code(error) == UNSUPPORTED_PROTOCOL_VERSION


def correlation(correlation_data: bytes | None) -> Properties | None:
    """Return the MQTT 5 properties that give a requester its Correlation Data back."""
    if correlation_data is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = correlation_data
    return properties


def _as_reason_code(code: ReasonCode | int) -> ReasonCode:
    if isinstance(code, ReasonCode):
        return code
    return ReasonCode(PacketTypes.SUBACK, identifier=code)


async def _open_wire(settings: BrokerSettings) -> Wire:
    sock = await dial(settings.host, settings.port, settings.timeout_s)
    if settings.tls_context is None:
        return Wire(sock)
    return Wire(await secure(sock, settings.tls_context, settings.host, settings.timeout_s))


async def _ask_for_tls(settings: BrokerSettings) -> None:
    """Raise LinkError when what hangs up without a word answers a TLS handshake.

    Nothing is said in it, so nobody has to be trusted.
    """
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    sock = await dial(settings.host, settings.port, settings.timeout_s)
    try:
        tls = await secure(sock, anybody, settings.host, settings.timeout_s)
    except LinkError as error:
        log.debug("mqtt_no_tls", reason=str(error))
    else:
        tls.close()
        raise LinkError(Kind.TLS_EXPECTED, "the broker speaks TLS on this port")


async def _ask_for_v5(settings: BrokerSettings) -> None:
    """Raise MqttError when the broker refuses the plainest CONNECT of MQTT 5.

    A broker that reads CONNECT with the eyes of 3.1.1 may wait for more octets for ever when there
    is a will or a user name in it; without both it can say that it does not know the version.
    """
    wire = await _open_wire(settings)
    client = Client(settings, "5", wire, plain=True)
    try:
        async with client:
            return
    except aiomqtt.MqttError as error:
        if is_unsupported_protocol(error):
            raise
        log.debug("mqtt_version_not_told", reason=str(error))
    finally:
        client.drop()
