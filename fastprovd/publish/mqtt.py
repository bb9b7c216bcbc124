"""MqttPublisher: tells the broker what happens, and takes requests from it.

What is told goes into memory at once, from there by a writer into the outbox, and from the outbox
by a session to the broker; it is deleted after its PUBACK. Responses do not wait in the outbox:
who asked is gone by then, and a repeated request gets the stored response.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

import aiomqtt
import structlog

from fastprovd.clock import Clock
from fastprovd.errors import StoreError
from fastprovd.publish.client import (
    BrokerSettings,
    Client,
    connected,
    correlation,
    disconnect_noise_at_debug,
    finish,
    is_failure,
    is_refused_login,
    is_taken_over,
    is_unsupported_protocol,
)
from fastprovd.publish.messages import (
    GatewayInfo,
    Message,
    event_message,
    groups_message,
    info_message,
    node_message,
    nodes_message,
    run_message,
    state_message,
)
from fastprovd.publish.outbox import Entry, Outbox
from fastprovd.publish.requests import Handler, RequestDesk
from fastprovd.records import Membership, Node, Run

log = structlog.get_logger(__name__)

BACK_OFF_BASE_S: Final = 0.5
BACK_OFF_CAP_S: Final = 60.0
_ATTEMPTS_TO_CAP: Final = 7  # 0.5 s doubled seven times is past the cap

# The parts of a stop; together, and with CLOSE_TIMEOUT_S, below 5 s when the broker is silent.
IN_FLIGHT_TIMEOUT_S: Final = 1.0  # twice at most: at the stop, and when draining ends
DRAIN_TIMEOUT_S: Final = 1.5
OFFLINE_TIMEOUT_S: Final = 0.5

MAX_IN_MEMORY: Final = 1_000  # a writer that hangs this long hangs for good
WRITE_RETRY_S: Final = 5.0  # a full disk does not empty itself at once
BATCH: Final = 16  # below the 20 that paho and mosquitto allow in flight


class MqttPublisher:
    """The audience that sits behind a broker; run it as a task, cancel it to stop.

    The calls of the Audience port return at once and never raise; make them in the task's event
    loop. Tell it the last run and the nodes once at the start, so that retained topics hold them.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        outbox: Outbox,
        handler: Handler,
        info: GatewayInfo,
        clock: Clock,
        *,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        """Take what it needs; `random_share` returns 0.0..1.0, for the jitter of the back-off."""
        self._settings = settings
        self._topics = settings.topics
        self._outbox = outbox
        self._desk = RequestDesk(handler, clock)
        self._info = info
        self._clock = clock
        self._random_share = random_share
        self._protocol = settings.protocol
        self._client: Client | None = None
        self._denied: set[str] = set()
        self._reported: set[str] = set()  # kinds of failure since the last birth
        self._attempt = 0
        self._seq = outbox.counter("event_seq")
        self._revision = outbox.counter("nodes_revision")
        self._retained: dict[str, Message] = {}
        self._waiting: dict[str | int, Message] = {}  # a retained topic once, at its newest
        self._keys = count()
        self._lost = 0
        self._to_write = asyncio.Event()
        self._to_send = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the birth message was acknowledged on the connection that is up."""
        return self._client is not None

    # -- the Audience port ------------------------------------------------------------------

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        self._tell(lambda: [run_message(self._topics, run, self._clock.utc_now())])

    def node_changed(self, node: Node) -> None:
        """A node became known, or more is known about it."""
        self._tell(lambda: [node_message(self._topics, node)])

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list, whole; topics of nodes that are not in it any more are cleared."""

        def render() -> list[Message]:
            self._revision += 1
            now = self._clock.utc_now()
            singles = [node_message(self._topics, node) for node in nodes]
            present = {message.topic for message in singles}
            prefix = self._topics.nodes_prefix
            gone = [
                Message(topic, b"", retain=True)
                for topic in self._retained
                if topic.startswith(prefix) and topic not in present
            ]
            return [
                nodes_message(self._topics, nodes, run, self._revision, now),
                *(single for single in singles if self._retained.get(single.topic) != single),
                *gone,
            ]

        self._tell(render)

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group, whole."""
        self._tell(lambda: [groups_message(self._topics, memberships, self._clock.utc_now())])

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened; `data` is JSON-ready."""

        def render() -> list[Message]:
            now = self._clock.utc_now()
            message = event_message(self._topics, self._seq + 1, kind, data, run_id, now)
            self._seq += 1
            return [message]

        self._tell(render)

    def info_changed(self, info: GatewayInfo) -> None:
        """What the gateway says about itself is new."""
        self._info = info
        self._tell(lambda: [self._info_message()])

    # -- the component ----------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled; then publish what waits, say offline and leave, all in bounds."""
        self._start_retained()
        with disconnect_noise_at_debug():
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._write_forever(), name="mqtt_writer")
                    group.create_task(self._connect_forever(group), name="mqtt_session")
            finally:
                await self._write()

    def _start_retained(self) -> None:
        now = self._clock.utc_now()
        if self._topics.run not in self._retained:
            self._tell(lambda: [run_message(self._topics, None, now)])
        if self._topics.nodes not in self._retained:
            self.nodes_changed([], None)
        if self._topics.groups not in self._retained:
            self.groups_changed([])

    def _info_message(self) -> Message:
        mqtt = {
            "host": self._settings.host,
            "port": self._settings.port,
            "version": 5 if self._protocol == "5" else 4,
        }
        return info_message(self._topics, self._info, mqtt)

    def _tell(self, render: Callable[[], list[Message]]) -> None:
        try:
            messages = render()
        except Exception:  # the run must go on, whatever it tells us
            log.exception("publication_not_rendered")
            return
        for message in messages:
            self._remember(message)
        self._to_write.set()

    def _remember(self, message: Message) -> None:
        if not message.retain:
            self._waiting[next(self._keys)] = message
        else:
            self._waiting.pop(message.topic, None)
            self._waiting[message.topic] = message
            self._retained[message.topic] = message
            if not message.payload:
                del self._retained[message.topic]
        if len(self._waiting) > MAX_IN_MEMORY:
            oldest = next((key for key in self._waiting if isinstance(key, int)), None)
            if oldest is not None:
                del self._waiting[oldest]
                self._lost += 1

    # -- memory to outbox -------------------------------------------------------------------

    async def _write_forever(self) -> None:
        failing = False
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            if await self._write(quiet=failing):
                failing = False
            else:
                failing = True
                await asyncio.sleep(WRITE_RETRY_S)
                self._to_write.set()

    async def _write(self, *, quiet: bool = False) -> bool:
        batch, self._waiting = self._waiting, {}
        counters = {"event_seq": self._seq, "nodes_revision": self._revision}
        try:
            writing = asyncio.to_thread(self._outbox.put_all, list(batch.values()), counters)
            await finish(writing, IN_FLIGHT_TIMEOUT_S)
        except StoreError as error:
            report = log.debug if quiet else log.error
            report("outbox_not_written", reason=str(error))
            self._waiting = batch | self._waiting
            return False
        self._to_send.set()
        return True

    # -- outbox to broker -------------------------------------------------------------------

    async def _connect_forever(self, group: asyncio.TaskGroup) -> None:
        while True:
            try:
                async with connected(self._settings, self._protocol) as client:
                    await self._serve(client, group)
            except* (aiomqtt.MqttError, StoreError) as errors:
                self._note_failure(_first(errors))
            except* Exception:  # a bug here must not end the run of a campaign
                log.exception("mqtt_session_failed")
            await asyncio.sleep(self._back_off_s())

    async def _serve(self, client: Client, group: asyncio.TaskGroup) -> None:
        # No TaskGroup: before Python 3.13 one whose task fails in the turn in which we are
        # cancelled raises that failure only, and the publisher would connect again for ever.
        tasks = [
            # From the first moment on, since only the iterator notices a dead broker.
            asyncio.create_task(self._receive(client, group), name="mqtt_receive"),
            asyncio.create_task(self._feed(client), name="mqtt_feed"),
        ]
        try:
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            await self._farewell(client)
            raise
        finally:
            self._client = None
        failures = [task.exception() for task in tasks if not task.cancelled()]
        for failure in failures:
            if failure is not None:
                raise failure

    async def _feed(self, client: Client) -> None:
        await self._birth(client)
        self._client = client
        await self._drain_forever(client)

    async def _birth(self, client: Client) -> None:
        code = await client.subscribe_commands(self._topics.requests)
        if is_failure(code):
            log.error("mqtt_subscription_denied", topic=self._topics.requests, reason=str(code))
        newest = await asyncio.to_thread(self._outbox.last_id)
        await self._publish(client, state_message(self._topics, self._clock.utc_now()))
        self._attempt = 0
        self._reported.clear()
        log.info("mqtt_connected", host=self._settings.host, protocol=self._protocol)
        self._retained[self._topics.info] = self._info_message()
        first = (self._topics.info, self._topics.nodes, self._topics.groups, self._topics.run)
        retained = [self._retained[topic] for topic in first]
        retained += [message for topic, message in self._retained.items() if topic not in first]
        for message in retained:
            await self._publish(client, message)
        topics = [message.topic for message in retained]
        await asyncio.to_thread(self._outbox.discard_retained, topics, newest)

    async def _drain_forever(self, client: Client) -> None:
        while True:
            self._to_send.clear()
            await self._drain(client)
            self._report_losses()
            await self._to_send.wait()

    async def _drain(self, client: Client) -> None:
        while entries := await asyncio.to_thread(self._outbox.peek, BATCH):
            # What is in flight is waited for, or it would be published a second time.
            await finish(self._send(client, entries), IN_FLIGHT_TIMEOUT_S)

    async def _send(self, client: Client, entries: Sequence[Entry]) -> None:
        results = await asyncio.gather(
            *(self._publish(client, entry.message) for entry in entries), return_exceptions=True
        )
        done = [
            entry.entry_id for entry, result in zip(entries, results, strict=True) if result is None
        ]
        await asyncio.to_thread(self._outbox.delete, done)
        for result in results:
            if result is not None:
                raise result

    def _report_losses(self) -> None:
        lost = self._lost + self._outbox.take_dropped()
        self._lost = 0
        if lost:
            log.error("outbox_dropped", messages=lost)
            self.event("outbox_dropped", {"count": lost}, None)

    async def _publish(self, client: Client, message: Message) -> None:
        """Publish; a message that the broker refuses is given up, and said so once per topic."""
        code = await client.publish_acknowledged(message)
        if is_failure(code) and message.topic not in self._denied:
            self._denied.add(message.topic)
            log.error(
                "mqtt_publish_denied",
                topic=message.topic,
                reason=str(code),
                advice="allow the topic in the broker's ACL; its messages are given up until then",
            )

    async def _farewell(self, client: Client) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._write()
                await self._drain(client)
        except (aiomqtt.MqttError, StoreError, TimeoutError) as error:
            log.warning("mqtt_left_with_messages_waiting", reason=repr(error))
        try:
            async with asyncio.timeout(OFFLINE_TIMEOUT_S):
                await client.publish_acknowledged(state_message(self._topics, None))
        except (aiomqtt.MqttError, TimeoutError) as error:
            log.warning("mqtt_offline_not_published", reason=repr(error))

    def _note_failure(self, error: BaseException) -> None:
        if self._protocol == "5" and is_unsupported_protocol(error):
            self._protocol = "3.1.1"
            log.warning("mqtt_protocol_fallback", protocol=self._protocol, reason=str(error))
            return
        kind, report, advice = "lost", log.warning, "trying again with growing pauses"
        if is_refused_login(error):
            kind, report, advice = "login", log.error, "correct user name, password or broker"
        elif is_taken_over(error):
            kind, report, advice = "taken_over", log.error, "give each gateway its own gateway_id"
        if kind != "lost":
            self._attempt = _ATTEMPTS_TO_CAP
        if kind in self._reported:
            report = log.debug
        self._reported.add(kind)
        report("mqtt_disconnected", reason=str(error), advice=advice)

    def _back_off_s(self) -> float:
        ceiling = min(BACK_OFF_CAP_S, BACK_OFF_BASE_S * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, _ATTEMPTS_TO_CAP)
        return ceiling * self._random_share()

    # -- requests ---------------------------------------------------------------------------

    async def _receive(self, client: Client, group: asyncio.TaskGroup) -> None:
        try:
            async for message in client.messages:
                command = self._topics.command(message.topic.value)
                if command is not None:  # amqtt sends what was never subscribed to
                    answer = self._answer(client, command, message)
                    group.create_task(answer, name="mqtt_request")
        except aiomqtt.MqttError as error:
            client.fail_acknowledgements(error)
            raise

    async def _answer(self, origin: Client, command: str, message: aiomqtt.Message) -> None:
        payload = await self._desk.answer(command, message.payload, retained=message.retain)
        client = self._client or origin  # a slow answer may meet a new connection
        try:
            await self._publish(client, Message(self._topics.response(command), payload))
            await self._reply(client, message, payload)
        except (aiomqtt.MqttError, ValueError) as error:
            log.warning("mqtt_response_lost", command=command, reason=str(error))

    async def _reply(self, client: Client, request: aiomqtt.Message, payload: bytes) -> None:
        """Answer to the Response Topic of an MQTT 5 request too, unless that makes a request."""
        topic = getattr(request.properties, "ResponseTopic", None)
        if topic is None or self._topics.command(topic) is not None:
            return
        properties = correlation(getattr(request.properties, "CorrelationData", None))
        code = await client.publish_acknowledged(Message(topic, payload), properties)
        if is_failure(code):
            log.warning("mqtt_reply_denied", reason=str(code))


def _first(error: BaseException) -> BaseException:
    """Return the innermost reason: out of a group its first, and what aiomqtt wraps."""
    if isinstance(error, BaseExceptionGroup):
        return _first(error.exceptions[0])
    return _first(error.__cause__) if isinstance(error.__cause__, aiomqtt.MqttError) else error
