"""One connection to the broker: aiomqtt with what it leaves out.

A client serves one connection and is thrown away, since paho keeps what it could not send and
would send it again on the next connect. A publication waits for its PUBACK and tells the reason
code in it. A connect that hangs can be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiomqtt
import paho.mqtt.client as paho
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fastprovd.publish.messages import Message, Topics, state_message

log = structlog.get_logger(__name__)

T = TypeVar("T")

CLOSE_TIMEOUT_S: Final = 0.5
"""How long a clean disconnect may take: it only writes one packet into a local buffer."""

_MAX_WAITING_REQUESTS: Final = 100  # what arrives beyond is dropped by aiomqtt with a warning
_UNSUPPORTED_PROTOCOL_VERSION: Final = 132
_REFUSED_LOGIN: Final = frozenset({134, 135})  # paho maps 3.1.1's 4 and 5 to these
_SESSION_TAKEN_OVER: Final = 142
_FIRST_FAILURE: Final = 0x80


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


class Client(aiomqtt.Client):
    """One connection; use it through `connected`."""

    def __init__(self, settings: BrokerSettings, protocol: str) -> None:
        """Prepare a clean session with the last will in `bridge/state`."""
        self.is_v5 = protocol == "5"
        will = state_message(settings.topics, None)
        super().__init__(
            settings.host,
            settings.port,
            identifier=f"fastprovd-{settings.gateway_id}",
            protocol=aiomqtt.ProtocolVersion.V5 if self.is_v5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self.is_v5 else True,
            username=settings.username,
            password=settings.password,
            tls_context=settings.tls_context,
            keepalive=settings.keepalive_s,
            timeout=settings.timeout_s,
            will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain),
            max_queued_incoming_messages=_MAX_WAITING_REQUESTS,
        )
        self._client.connect_timeout = settings.timeout_s
        self._acknowledgements: dict[int, asyncio.Future[ReasonCode]] = {}

    async def publish_acknowledged(
        self, message: Message, properties: Properties | None = None
    ) -> ReasonCode:
        """Publish with QoS 1 and return the reason code of the PUBACK.

        Raises:
            aiomqtt.MqttError: not connected, or no PUBACK in time.
        """
        info = self._client.publish(
            message.topic, message.payload, qos=1, retain=message.retain, properties=properties
        )
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(info.rc, "could not publish")
        acknowledgement: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._acknowledgements[info.mid] = acknowledgement
        try:
            async with asyncio.timeout(self.timeout):
                return await acknowledgement
        except TimeoutError:
            raise aiomqtt.MqttError(f"no PUBACK within {self.timeout} s") from None
        finally:
            del self._acknowledgements[info.mid]

    async def subscribe_commands(self, topic_filter: str) -> ReasonCode:
        """Subscribe with QoS 1; with MQTT 5 a live message keeps its retain flag."""
        if self.is_v5:
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            codes = await self.subscribe(topic_filter, options=options)
        else:
            codes = await self.subscribe(topic_filter, qos=1)
        code = codes[0]
        return (
            code
            if isinstance(code, ReasonCode)
            else ReasonCode(PacketTypes.SUBACK, identifier=code)
        )

    def fail_acknowledgements(self, error: Exception) -> None:
        """End every wait for a PUBACK: the connection is gone."""
        for acknowledgement in self._acknowledgements.values():
            if not acknowledgement.done():
                acknowledgement.set_exception(error)

    def abandon(self) -> None:
        """Drop a connection that never came to be; aiomqtt would leave its socket open."""
        self._client.disconnect()

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.cancelled():  # aiomqtt would raise CancelledError into the loop
            super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        acknowledgement = self._acknowledgements.get(mid)
        if acknowledgement is not None and not acknowledgement.done():
            acknowledgement.set_result(reason_code)


@contextlib.asynccontextmanager
async def connected(settings: BrokerSettings, protocol: str) -> AsyncIterator[Client]:
    """Connect a fresh client; leave with a clean disconnect.

    Raises:
        aiomqtt.MqttError: no connection.
    """
    await _probe(settings)
    client = Client(settings, protocol)
    try:
        # The thread that connects can not be stopped; a socket it opens later had no owner.
        await finish(client.__aenter__(), CLOSE_TIMEOUT_S)
    except asyncio.CancelledError:
        client.abandon()
        raise
    except aiomqtt.MqttError as error:
        client.abandon()
        if client.is_v5 and not isinstance(error, aiomqtt.MqttCodeError):
            await _ask_for_v5(settings)
        raise
    try:
        yield client
    finally:
        client.timeout = CLOSE_TIMEOUT_S
        try:
            await client.__aexit__(None, None, None)
        except aiomqtt.MqttError as error:  # must not hide why we leave
            log.debug("mqtt_disconnect_failed", reason=str(error))


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
    return int(code.value) >= _FIRST_FAILURE


def is_unsupported_protocol(error: BaseException) -> bool:
    """Tell whether the broker refused MQTT 5."""
    return _code(error) == _UNSUPPORTED_PROTOCOL_VERSION


def is_refused_login(error: BaseException) -> bool:
    """Tell whether the broker refused user name or password."""
    return _code(error) in _REFUSED_LOGIN


def is_taken_over(error: BaseException) -> bool:
    """Tell whether the broker closed this session for another with the same client id."""
    return _code(error) == _SESSION_TAKEN_OVER


def correlation(correlation_data: bytes | None) -> Properties | None:
    """Return the MQTT 5 properties that give a requester its Correlation Data back."""
    if correlation_data is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = correlation_data
    return properties


@contextlib.contextmanager
def disconnect_noise_at_debug() -> Iterator[None]:
    """Turn what aiomqtt leaves behind on a lost connection into debug lines, while it lasts.

    These are two: callbacks on a socket that is closed already, and the exception of a client's
    future that nobody needs any more. Everything else goes to the handler that was there.
    """
    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if _is_noise(context):
            log.debug("mqtt_disconnect_noise", reason=repr(context.get("exception")))
        elif previous is not None:
            previous(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        if loop.get_exception_handler() is handle:
            loop.set_exception_handler(previous)


def _is_noise(context: dict[str, Any]) -> bool:
    message = str(context.get("message", ""))
    error = context.get("exception")
    if message.startswith("Exception in callback"):
        return "_socket" in message or (
            isinstance(error, OSError | ValueError)
            and ("add_writer" in message or "add_reader" in message)
        )
    return message.startswith("Future exception was never retrieved") and isinstance(
        error, aiomqtt.MqttError
    )


def _code(error: BaseException) -> int | None:
    if not isinstance(error, aiomqtt.MqttCodeError):
        return None
    return int(error.rc.value) if isinstance(error.rc, ReasonCode) else error.rc


async def _probe(settings: BrokerSettings) -> None:
    """Reach the port with a connect that can be cancelled, which paho's in its thread can not."""
    try:
        async with asyncio.timeout(settings.timeout_s):
            _, writer = await asyncio.open_connection(settings.host, settings.port)
    except TimeoutError:
        raise aiomqtt.MqttError(f"no TCP connection within {settings.timeout_s} s") from None
    except OSError as error:
        raise aiomqtt.MqttError(str(error)) from None
    writer.transport.abort()


async def _ask_for_v5(settings: BrokerSettings) -> None:
    """Raise MqttError when the broker refuses the plainest CONNECT of MQTT 5.

    A broker that reads CONNECT with the eyes of 3.1.1 may wait for more octets for ever when there
    is a will or a user name in it; without both it can say that it does not know the version.
    """
    client = aiomqtt.Client(
        settings.host,
        settings.port,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=settings.tls_context,
        timeout=settings.timeout_s,
    )
    try:
        async with client:
            return
    except aiomqtt.MqttError as error:
        if is_unsupported_protocol(error):
            raise
        log.debug("mqtt_version_not_told", reason=str(error))
