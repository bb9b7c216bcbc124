"""Brokers for the MQTT tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastprovd.publish.broker import LocalBroker, find_mosquitto, start_amqtt
from tests.support.mqtt import LOOPBACK, Mosquitto

MosquittoMaker = Callable[..., Mosquitto]


@pytest.fixture
def make_mosquitto(tmp_path: Path) -> Iterator[MosquittoMaker]:
    """Return a function that starts a mosquitto with given configuration lines."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; apt install mosquitto")
    started: list[Mosquitto] = []

    def make(*lines: str) -> Mosquitto:
        broker = Mosquitto(tmp_path, *(lines or ("allow_anonymous true",)))
        broker.start()
        started.append(broker)
        return broker

    yield make
    for broker in started:
        broker.kill()


@pytest.fixture
def mosquitto(make_mosquitto: MosquittoMaker) -> Mosquitto:
    """A mosquitto that takes everybody."""
    return make_mosquitto()


@pytest.fixture
def amqtt() -> Iterator[LocalBroker]:
    """An embedded amqtt."""
    pytest.importorskip("amqtt", reason="amqtt is not installed; it is in the extra `demo`")
    broker, stop = start_amqtt()
    yield broker
    stop()


@pytest.fixture(params=["mosquitto-5", "mosquitto-3.1.1", "amqtt"])
def broker(request: pytest.FixtureRequest) -> tuple[str, int, str]:
    """Host, port and protocol: each broker with each protocol that it speaks."""
    name, _, protocol = request.param.partition("-")
    port = request.getfixturevalue(name).port
    return LOOPBACK, port, protocol or "3.1.1"
