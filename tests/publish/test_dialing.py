"""A broker is reached at any of its addresses, and what is in the way has a name."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastprovd.publish import dialing
from fastprovd.publish.dialing import dial, secure
from fastprovd.publish.failures import Kind, LinkError
from tests.support.fake_broker import serving

pytestmark = pytest.mark.asyncio  # real sockets

Names = Callable[..., None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return a function that gives `broker.lan` addresses, in this order."""

    def give(*addresses: str) -> None:
        real = socket.getaddrinfo

        def look_up(host: str, *rest: Any, **more: Any) -> list[Any]:
            if host != "broker.lan":
                return real(host, *rest, **more)
            return [real(address, *rest, **more)[0] for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return give


@contextlib.contextmanager
def a_listener(address: str, port: int = 0) -> Iterator[int]:
    """Listen, and yield the port."""
    with socket.socket() as listener:
        listener.bind((address, port))
        listener.listen()
        yield listener.getsockname()[1]


@contextlib.contextmanager
def black_holes(port: int, *addresses: str) -> Iterator[None]:
    """Let addresses swallow every SYN: the backlog of their listeners is full."""
    with contextlib.ExitStack() as stack:
        for address in addresses:
            hole = stack.enter_context(socket.socket())
            hole.bind((address, port))
            hole.listen(0)
            for _ in range(4):
                filling = stack.enter_context(socket.socket())
                filling.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filling.connect((address, port))
        yield


@pytest.mark.parametrize("holes", [1, 6])
async def test_an_address_that_swallows_everything_does_not_hide_the_next(
    names: Names, holes: int
) -> None:
    """The others are tried beside it, however many they are, within one time limit."""
    bad = [f"127.0.0.{2 + number}" for number in range(holes)]
    names(*bad, "127.0.0.1")
    with a_listener("127.0.0.1") as port, black_holes(port, *bad):
        before = asyncio.get_running_loop().time()
        sock = await dial("broker.lan", port, 5.0)
        assert asyncio.get_running_loop().time() - before < 4.0
        assert sock.getpeername()[0] == "127.0.0.1"
        sock.close()


async def test_a_refusal_makes_room_for_the_next_at_once(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the delay when an address has failed already."""
    monkeypatch.setattr(dialing, "ATTEMPT_DELAY_S", 60.0)
    names("127.0.0.2", "127.0.0.1")
    with a_listener("127.0.0.1") as port:
        (await dial("broker.lan", port, 1_000.0)).close()


async def test_families_are_tried_by_turns(names: Names) -> None:
    """A broken IPv6 with many addresses is not worked off first."""
    names("::1", "::2", "::3", "127.0.0.2", "127.0.0.1")
    found = await dialing._look_up("broker.lan", 1)
    assert [where[0] for _, _, where in found] == ["::1", "127.0.0.2", "::2", "127.0.0.1", "::3"]


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("mqtt://broker.lan", "no address for 'mqtt://broker.lan'"),
        ("broker.invalid", "no address for 'broker.invalid'"),
        ("a" * 80, "can not be a name"),
    ],
)
async def test_a_failed_look_up_names_the_host(host: str, said: str) -> None:
    """The error says what was looked up, whatever the name service makes of it."""
    with pytest.raises(LinkError, match=said) as caught:
        await dial(host, 1883, 5.0)
    assert caught.value.kind is Kind.NO_ADDRESS


async def test_nobody_there_is_told_of_every_address(names: Names) -> None:
    """Each failure is in the sentence."""
    names("127.0.0.1", "127.0.0.2")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(LinkError, match=r"127\.0\.0\.1.*127\.0\.0\.2") as caught:
            await dial("broker.lan", port, 5.0)
    assert caught.value.kind is Kind.UNREACHABLE


async def test_silence_ends_after_the_limit() -> None:
    """When no address answers."""
    with (
        a_listener("127.0.0.1") as port,
        black_holes(port, "127.0.0.2"),
        pytest.raises(LinkError, match=r"no TCP connection within 0\.2 s"),
    ):
        await dial("127.0.0.2", port, 0.2)


async def test_a_look_up_that_hangs_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no thread that the end of the process would wait for is left."""
    release = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        release.wait(10.0)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    task = asyncio.create_task(dial("broker.lan", 1883, 5.0))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task}, timeout=1.0)
    assert task.cancelled()
    (thread,) = [each for each in threading.enumerate() if each.name == "look_up"]
    assert thread.daemon
    release.set()
    await asyncio.to_thread(thread.join, 5.0)


async def a_talk(answer: bytes | None) -> LinkError:
    """Shake hands with a server that says `answer`, or hangs up, and return the failure."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        if answer is not None:
            writer.write(answer)
            await reader.read(100)

    async with serving(talk) as port:
        sock = await dial("127.0.0.1", port, 5.0)
        with pytest.raises(LinkError) as caught:
            await secure(sock, ssl.create_default_context(), "127.0.0.1", 0.3)
    assert sock.fileno() == -1
    return caught.value


@pytest.mark.parametrize("answer", [None, b"\x20\x02\x00\x00 is no TLS", b"SSH-2.0-OpenSSH_9\r\n"])
async def test_a_port_without_tls_is_told(answer: bytes | None) -> None:
    """It hangs up, or says what TLS does not begin with."""
    assert (await a_talk(answer)).kind is Kind.NO_TLS


async def test_a_handshake_that_stops_halfway_ends_in_time() -> None:
    """Part of a record keeps nobody waiting, or busy."""
    assert "said nothing" in str(await a_talk(b"\x16\x03\x03\x01"))
