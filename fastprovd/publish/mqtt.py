"""MqttPublisher: tells the broker what happens, and takes requests from it.

What is told goes through `News` into the outbox, and from the outbox by a session to the broker; it
is deleted after its PUBACK. Responses do not wait in the outbox: who asked is gone by then, and a
repeated request gets the stored response.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import aiomqtt
import structlog
from paho.mqtt.reasoncodes import ReasonCode

from fastprovd.clock import Clock
from fastprovd.errors import StoreError
from fastprovd.publish.client import (
    BrokerSettings,
    Client,
    connected,
    correlation,
    finish,
    is_failure,
    is_unsupported_protocol,
)
from fastprovd.publish.courier import UPKEEP_S, Courier
from fastprovd.publish.intake import SENDERS, Intake, Reply
from fastprovd.publish.leftovers import Leftovers
from fastprovd.publish.link_watch import BACK_OFF_CAP_S as BACK_OFF_CAP_S
from fastprovd.publish.link_watch import LASTED_S, LinkWatch
from fastprovd.publish.messages import (
    GatewayInfo,
    Message,
    info_message,
    state_message,
)
from fastprovd.publish.news import IN_FLIGHT_TIMEOUT_S, News
from fastprovd.publish.outbox import Entry, Outbox
from fastprovd.publish.requests import Handler, RequestDesk
from fastprovd.records import Membership, Node, Run

log = structlog.get_logger(__name__)

# The parts of a stop; together, and with CLOSE_TIMEOUT_S, below 5 s when the broker is silent.
# IN_FLIGHT_TIMEOUT_S is in them twice at most: at the stop, and when draining ends.
DRAIN_TIMEOUT_S: Final = 1.5
OFFLINE_TIMEOUT_S: Final = 0.5

BATCH: Final = 16  # what is read from the disk at once; a client bounds what is in flight
DROPS_TOLD_EVERY_S: Final = 30.0  # a flood is told now and then, not request by request


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
        self._intake = Intake(self._desk, settings.topics, settings.base_topic)
        self._leftovers = Leftovers(settings.topics)
        self._news = News(settings.topics, outbox, clock)
        self._info = info
        self._clock = clock
        self._protocol = settings.protocol
        self._client: Client | None = None
        self._watch = LinkWatch(settings, random_share)
        self._courier = Courier(clock)
        self._set_aside_told = 0
        self._up_since: float | None = None
        self._is_subscribed = False

    @property
    def is_connected(self) -> bool:
        """Whether the birth message was acknowledged on the connection that is up."""
        return self._client is not None

    # -- the Audience port ------------------------------------------------------------------

    def run_changed(self, run: Run) -> None:
        """The run moved on."""
        self._news.run_changed(run)

    def node_changed(self, node: Node) -> None:
        """A node became known, or more is known about it."""
        self._news.node_changed(node)

    def nodes_changed(self, nodes: Sequence[Node], run: Run | None) -> None:
        """The address list, whole."""
        self._news.nodes_changed(nodes, run)

    def groups_changed(self, memberships: Sequence[Membership]) -> None:
        """Who is in which group, whole."""
        self._news.groups_changed(memberships)

    def event(self, kind: str, data: Mapping[str, Any], run_id: str | None) -> None:
        """Something happened; `data` is JSON-ready."""
        self._news.event(kind, data, run_id)

    def info_changed(self, info: GatewayInfo) -> None:
        """What the gateway says about itself is new."""
        self._info = info
        self._news.tell(lambda: [self._info_message()])

    # -- the component ----------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled; then publish what waits, say offline and leave, all in bounds."""
        self._news.begin()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._news.write_forever(), name="mqtt_writer")
                group.create_task(self._connect_forever(), name="mqtt_session")
        finally:
            await self._desk.close()
            await self._news.write()

    def _info_message(self) -> Message:
        mqtt = {
            "host": self._settings.host,
            "port": self._settings.port,
            "version": 5 if self._protocol == "5" else 4,
            "set_aside": self._courier.set_aside,
        }
        self._set_aside_told = self._courier.set_aside
        return info_message(self._topics, self._info, mqtt)

    # -- outbox to broker -------------------------------------------------------------------

    async def _connect_forever(self) -> None:
        while True:
            self._up_since = None
            self._is_subscribed = True  # until the broker says otherwise
            self._courier.link_begins()
            try:
                async with connected(self._settings, self._protocol) as client:
                    await self._serve(client)
            except (aiomqtt.MqttError, StoreError) as error:
                self._note_end(_reason(error))
            except Exception:  # a bug here must not end the run of a campaign
                if self._watch.is_new("bug"):
                    log.exception("mqtt_session_failed")
            await asyncio.sleep(self._watch.pause_s())

    async def _serve(self, client: Client) -> None:
        self._intake.open()
        caught_up = asyncio.Event()
        parts: dict[str, Coroutine[Any, Any, None]] = {
            # From the first moment on, since only this one notices a dead broker.
            "receive": self._receive(client),
            "feed": self._feed(client, caught_up),
            "upkeep": self._keep_up(client),
            "drops": self._report_drops(),
            "leftovers": self._clear_leftovers(client, caught_up),
        }
        for number in range(SENDERS):
            sending = self._intake.send_forever(partial(self._send_answer, client))
            parts[f"answers{number}"] = sending
        # No TaskGroup: before Python 3.13 one whose task fails in the turn in which we are
        # cancelled raises that failure only, and the publisher would connect again for ever.
        tasks = [asyncio.create_task(part, name=f"mqtt_{name}") for name, part in parts.items()]
        try:
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            self._intake.close()
            await self._farewell(client)
            raise
        finally:
            self._intake.close()
            self._client = None
        failures = [task.exception() for task in tasks if not task.cancelled()]
        for failure in failures:
            if failure is not None:
                raise failure

    async def _feed(self, client: Client, caught_up: asyncio.Event) -> None:
        await self._birth(client)
        self._client = client
        await self._drain_forever(client, caught_up)

    async def _birth(self, client: Client) -> None:
        """Say what holds, each retained topic once, several on their way at a time."""
        await self._subscribe(client)
        newest = await asyncio.to_thread(self._outbox.last_id)
        await self._publish(client, state_message(self._topics, self._clock.utc_now()))
        self._up_since = self._clock.monotonic()
        log.info("mqtt_connected", host=self._settings.host, protocol=self._protocol)
        self._news.retained[self._topics.info] = self._info_message()
        retained = self._news.in_order()
        await _all(self._publish(client, message) for message in retained)
        topics = [message.topic for message in retained]
        await asyncio.to_thread(self._outbox.discard_retained, topics, newest)

    async def _subscribe(self, client: Client) -> bool:
        """Ask for requests; a refusal is said once, and asked again by the upkeep."""
        code = await client.subscribe_commands(self._topics.requests)
        self._is_subscribed = not is_failure(code)
        if not self._is_subscribed and self._watch.is_new("subscription_denied"):
            log.error(
                "mqtt_subscription_denied",
                topic=self._topics.requests,
                reason=str(code),
                advice="allow it in the broker's ACL, without a restart; no request is heard "
                "until then",
            )
        return self._is_subscribed

    async def _keep_up(self, client: Client) -> None:
        """Find out what the broker has come to allow, and tell what it did not take."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            if not self._is_subscribed and await self._subscribe(client):
                log.info("mqtt_subscription_allowed", topic=self._topics.requests)
            for topic in list(self._courier.refused):
                message = self._news.retained.get(topic)
                if message is None:
                    del self._courier.refused[topic]
                elif is_failure(await self._publish(client, message)):
                    break  # it is the same for the others, most likely
            if self._courier.set_aside != self._set_aside_told:
                self.info_changed(self._info)

    async def _drain_forever(self, client: Client, caught_up: asyncio.Event) -> None:
        while True:
            self._news.to_send.clear()
            await self._drain(client)
            caught_up.set()
            self._report_losses()
            await self._news.to_send.wait()

    async def _drain(self, client: Client) -> None:
        while entries := await asyncio.to_thread(self._outbox.peek, BATCH):
            # What is in flight is waited for, or it would be published a second time.
            await finish(self._send(client, entries), IN_FLIGHT_TIMEOUT_S)

    async def _send(self, client: Client, entries: Sequence[Entry]) -> None:
        results = await asyncio.gather(
            *(self._publish_waiting(client, entry.message) for entry in entries),
            return_exceptions=True,
        )
        done = [
            entry.entry_id
            for entry, result in zip(entries, results, strict=True)
            if not isinstance(result, BaseException)
        ]
        await asyncio.to_thread(self._outbox.delete, done)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _publish_waiting(self, client: Client, message: Message) -> None:
        if not self._courier.is_at_broker(message):  # the birth may have said it
            await self._publish(client, message)

    def _report_losses(self) -> None:
        lost = self._news.take_lost() + self._outbox.take_dropped()
        if lost:
            log.error("outbox_dropped", messages=lost)
            self.event("outbox_dropped", {"count": lost}, None)

    async def _publish(self, client: Client, message: Message) -> ReasonCode:
        """Publish and return the reason code; what the broker does not take is given up."""
        return await self._courier.publish(client, message)

    async def _clear_leftovers(self, client: Client, caught_up: asyncio.Event) -> None:
        """Clear topics of nodes that are none any more, whoever of our earlier lives left them."""
        if not self._leftovers.is_to_look:
            return
        await caught_up.wait()  # an earlier life may have left some in the outbox, too
        found = await self._leftovers.look(client)
        gone = sorted(topic for topic in found if topic not in self._news.retained)
        if gone:
            log.info("topics_of_gone_nodes_cleared", topics=len(gone))
            self._news.clear(gone)

    async def _farewell(self, client: Client) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._news.write()
                await self._drain(client)
        except (aiomqtt.MqttError, StoreError, TimeoutError) as error:
            log.warning("mqtt_left_with_messages_waiting", reason=repr(error))
        try:
            async with asyncio.timeout(OFFLINE_TIMEOUT_S):
                await client.publish_acknowledged(state_message(self._topics, None))
        except (aiomqtt.MqttError, TimeoutError) as error:
            log.warning("mqtt_offline_not_published", reason=repr(error))

    def _note_end(self, error: BaseException) -> None:
        if self._protocol == "5" and is_unsupported_protocol(error):
            self._protocol = "3.1.1"
            log.warning("mqtt_protocol_fallback", protocol=self._protocol, reason=str(error))
            return
        if is_unsupported_protocol(error):
            self._protocol = self._settings.protocol  # another broker may speak it by then
        up_s = 0.0 if self._up_since is None else self._clock.monotonic() - self._up_since
        if up_s >= LASTED_S:
            self._watch.lasted()
        explained = self._courier.link_ended(error, lasted=up_s >= LASTED_S)
        self._watch.ended(error, was_up=self._up_since is not None, explained=explained)

    # -- requests ---------------------------------------------------------------------------

    async def _receive(self, client: Client) -> None:
        """Take what arrives, at once; raises when the connection ends."""
        async for message in client.messages:
            self._leftovers.saw(message)
            if self._topics.command(message.topic.value) is not None:
                self._intake.take(
                    message,
                    retain_is_told=self._protocol == "5",
                    max_packet_size=self._courier.max_packet_size(client),
                )

    async def _send_answer(self, client: Client, reply: Reply, payload: bytes) -> None:
        """Publish an answer, to the Response Topic of an MQTT 5 request too."""
        await self._publish(client, Message(self._topics.response(reply.command), payload))
        if reply.reply_topic is None:
            return
        properties = correlation(reply.correlation_data)
        code = await client.publish_acknowledged(Message(reply.reply_topic, payload), properties)
        if is_failure(code):
            report = log.warning if self._watch.is_new("reply_denied") else log.debug
            report("mqtt_reply_denied", reason=str(code))

    async def _report_drops(self) -> None:
        """Tell how many requests were more than could be held."""
        while True:
            await asyncio.sleep(DROPS_TOLD_EVERY_S)
            dropped = self._intake.take_dropped()
            if dropped:
                log.error("requests_dropped", requests=dropped)
                self.event("requests_dropped", {"count": dropped}, None)


async def _all(publications: Iterable[Awaitable[ReasonCode]]) -> None:
    """Wait for all of them, then raise the first failure."""
    for result in await asyncio.gather(*publications, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _reason(error: BaseException) -> BaseException:
    """Return the innermost reason, which aiomqtt wraps."""
    return _reason(error.__cause__) if isinstance(error.__cause__, aiomqtt.MqttError) else error
