"""A connection tells what the broker answered, and leaves no noise behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import aiomqtt
import pytest
from structlog.testing import capture_logs

from fastprovd.publish.client import (
    BrokerSettings,
    connected,
    disconnect_noise_at_debug,
    finish,
    is_failure,
    is_unsupported_protocol,
)
from fastprovd.publish.messages import Message
from tests.support.mqtt import LOOPBACK, Gate, Mosquitto, eventually


def settings(port: int, **more: Any) -> BrokerSettings:
    """Return settings for a broker on this machine."""
    return BrokerSettings(LOOPBACK, port, "gw1", **({"timeout_s": 2.0} | more))


def test_a_password_is_not_in_the_repr() -> None:
    """Settings can be logged."""
    assert "hunter2" not in repr(settings(1883, password="hunter2"))  # noqa: S106 - invented


async def test_a_publication_returns_the_reason_code(mosquitto: Mosquitto) -> None:
    """PUBACK says success, or that nobody subscribed, neither of which is a failure."""
    async with connected(settings(mosquitto.port), "5") as client:
        code = await client.publish_acknowledged(Message("t", b"x"))
    assert not is_failure(code)
    assert str(code) in {"Success", "No matching subscribers"}


async def test_a_missing_acknowledgement_is_an_error(mosquitto: Mosquitto) -> None:
    """A publication that is not acknowledged raises after the time-out."""
    async with (
        Gate(mosquitto.port) as gate,
        connected(settings(gate.port, timeout_s=0.3), "5") as client,
    ):
        gate.withhold_answers = True
        with pytest.raises(aiomqtt.MqttError, match=r"no PUBACK within 0\.3 s"):
            await client.publish_acknowledged(Message("t", b"x"))


async def test_no_broker_is_an_error() -> None:
    """A port where nobody listens raises MqttError."""
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        with pytest.raises(aiomqtt.MqttError, match="Connect call failed"):
            async with connected(settings(nobody.getsockname()[1]), "5"):
                pass


async def test_a_peer_that_says_nothing_is_given_up(mosquitto: Mosquitto) -> None:
    """Without a CONNACK the connect ends with an error that is no refusal of MQTT 5."""
    async with Gate(mosquitto.port) as gate:
        gate.withhold_answers = True
        with pytest.raises(aiomqtt.MqttError) as caught:
            async with connected(settings(gate.port, timeout_s=0.2), "5"):
                pass
    assert not is_unsupported_protocol(caught.value)


async def test_a_connect_can_be_cancelled(mosquitto: Mosquitto) -> None:
    """Waiting for a CONNACK that does not come ends at once when cancelled."""

    async def connect(port: int) -> None:
        async with connected(settings(port, timeout_s=60.0), "5"):
            pass

    async with Gate(mosquitto.port) as gate:
        gate.withhold_answers = True
        task = asyncio.create_task(connect(gate.port))
        await eventually(lambda: gate.relayed_octets > 0)
        before = asyncio.get_running_loop().time()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.get_running_loop().time() - before < 3.0


async def test_work_is_finished_before_a_cancellation_goes_on() -> None:
    """finish lets the work end, then raises CancelledError."""
    may_end, done = asyncio.Event(), []

    async def work() -> None:
        await may_end.wait()
        done.append(True)

    task = asyncio.create_task(finish(work(), 10.0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_work_that_does_not_end_is_cancelled() -> None:
    """finish waits no longer than it was told."""
    ended = []

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ended.append(True)

    task = asyncio.create_task(finish(work(), 0.01))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert ended == [True]


def a_handle(name: str) -> str:
    """Return what asyncio says of a failed callback."""
    return f"Exception in callback {name}"


@pytest.mark.parametrize(
    "context",
    [
        {
            "message": a_handle("Client._on_socket_open.<locals>.callback()"),
            "exception": OSError(9, "Bad file descriptor"),
        },
        {
            "message": a_handle("_SelectorEventLoop.add_writer(-1, ...)"),
            "exception": ValueError("Invalid file descriptor: -1"),
        },
        {
            "message": "Future exception was never retrieved",
            "exception": aiomqtt.MqttCodeError(7, "Unexpected disconnection"),
        },
    ],
)
async def test_noise_of_a_disconnect_is_a_debug_line(context: dict[str, Any]) -> None:
    """The two known messages reach no other handler."""
    loop, others = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: others.append(context))
    with capture_logs() as logs, disconnect_noise_at_debug():
        loop.call_exception_handler(context)
    assert others == []
    assert [entry["log_level"] for entry in logs] == ["debug"]


@pytest.mark.parametrize(
    "context",
    [
        {"message": a_handle("somebody()"), "exception": OSError(9, "Bad file descriptor")},
        {"message": "Future exception was never retrieved", "exception": ZeroDivisionError()},
        {"message": "Task was destroyed but it is pending!"},
    ],
)
async def test_everything_else_goes_to_the_handler_before(context: dict[str, Any]) -> None:
    """Other errors of the loop are not swallowed, and the handler is back afterwards."""
    loop, others = asyncio.get_running_loop(), []

    def previous(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        others.append(context)

    loop.set_exception_handler(previous)
    with disconnect_noise_at_debug():
        loop.call_exception_handler(context)
    assert others == [context]
    assert loop.get_exception_handler() is previous
