"""The gateway as MQTT shows it: what it publishes, and requests to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from fastprovd.config import MqttConfig
from hwbench.timeline import MQTT, Entry, Timeline

_CONNECT_S: Final = 10.0  # a broker on the bench answers at once; one that restarts takes seconds
_RECONNECT_S: Final = 1
_RETAINED: Final = ("bridge/state", "bridge/info", "bridge/nodes", "bridge/run", "node/")


class GatewayOverMqtt:
    """A client of its own, with the newest payload of each topic; it reconnects by itself."""

    def __init__(self, host: str, port: int, gateway_id: str, timeline: Timeline) -> None:
        self._address = (host, port)
        self._base = f"{MqttConfig().base_topic}/{gateway_id}/"
        self._timeline = timeline
        self._transactions = itertools.count(1)
        self._answers: dict[int, Any] = {}
        self._retained: set[str] = set()
        self._connected = False
        self.newest: dict[str, Any] = {}
        timeline.on_entry(self._hear)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(_RECONNECT_S, _RECONNECT_S)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message

    def connect(self) -> None:
        """Connect and follow; raises OSError, BenchTimeout."""
        self._client.connect(*self._address)
        self._client.loop_start()
        self._wait_connected()

    def close(self) -> None:
        """Leave nothing retained on the broker, and go."""
        if self._client.is_connected():
            cleared = [
                self._client.publish(self._base + topic, b"", qos=1, retain=True)
                for topic in self._retained
            ]
            for message in cleared:
                message.wait_for_publish(_CONNECT_S)
        self._client.disconnect()
        self._client.loop_stop()

    def request(self, command: str, data: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and return its response; raises BenchTimeout."""
        self._wait_connected()
        transaction = next(self._transactions)
        payload = json.dumps({**data, "transaction": transaction})
        sent = self._client.publish(f"{self._base}bridge/request/{command}", payload, qos=1)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise AssertionError(f"{command} could not be sent: {sent.rc}")
        answer: dict[str, Any] = self._timeline.wait(
            f"a response to {command} {payload}", timeout_s, lambda: self._answers.get(transaction)
        )
        return answer

    def _wait_connected(self) -> None:
        self._timeline.wait(
            f"a connection to the broker {self._address}", _CONNECT_S, lambda: self._connected
        )

    def _hear(self, entry: Entry) -> None:
        if entry.source != MQTT or entry.topic is None:
            return
        self.newest[entry.topic] = entry.said
        if entry.topic.startswith("bridge/response/"):
            self._answers[entry.said.get("transaction")] = entry.said

    # What paho calls, in its thread

    def _on_connect(
        self, client: paho.Client, userdata: object, flags: object, reason: ReasonCode, *_: object
    ) -> None:
        if reason.is_failure:
            self._timeline.add(MQTT, f"refused: {reason}")
            return
        client.subscribe(self._base + "#", qos=1)
        self._connected = True
        self._timeline.add(MQTT, "connected")

    def _on_disconnect(self, *_: object) -> None:
        self._connected = False
        self._timeline.add(MQTT, "disconnected")

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        topic = message.topic.removeprefix(self._base)
        if not message.payload or topic.startswith("bridge/request/"):
            return
        if topic.startswith(_RETAINED):
            self._retained.add(topic)
        try:
            said = json.loads(message.payload)
        except ValueError:
            said = f"(not JSON) {message.payload!r}"
        self._timeline.add(MQTT, said, topic)
