"""From a host and a port to a connected socket: look-up, addresses side by side, TLS.

Everything can be cancelled, and nothing holds up the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from asyncio import staggered
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Final, ParamSpec, TypeVar, cast

from fastprovd.publish.failures import Kind, LinkError, of_tls

T = TypeVar("T")
P = ParamSpec("P")

LOOK_UP_TIMEOUT_S: Final = 20.0
"""glibc asks two servers twice, 5 s each; a first server that is dead must not hide the second."""

ATTEMPT_DELAY_S: Final = 0.25  # the Connection Attempt Delay that RFC 8305 section 5 recommends

_KEEPALIVE_IDLE_S: Final = 30  # of TCP: notices a dead peer also where MQTT's keep alive is off
_KEEPALIVE_INTERVAL_S: Final = 10
_KEEPALIVE_PROBES: Final = 3

_Address = tuple[socket.AddressFamily, int, tuple[Any, ...]]


async def dial(host: str, port: int, timeout_s: float) -> socket.socket:
    """Return a connected socket that does not block.

    The addresses of a name are tried as RFC 8305 has it: IPv6 and IPv4 by turns, the next one
    beside the others after 0.25 s, or at once after a failure. `timeout_s` is for all of them.

    Raises:
        LinkError: no address, nobody listens, or nobody answers in time.
    """
    addresses = await _look_up(host, port)
    delay_s = min(ATTEMPT_DELAY_S, timeout_s / (len(addresses) + 1))
    with contextlib.ExitStack() as opened:  # a cancellation may come when one is connected
        attempts = [partial(_connect, address, opened) for address in addresses]
        try:
            async with asyncio.timeout(timeout_s):
                sock, _, failures = await staggered.staggered_race(attempts, delay_s)
        except TimeoutError:
            raise LinkError(Kind.UNREACHABLE, f"no TCP connection within {timeout_s} s") from None
        if sock is None:
            reasons = dict.fromkeys(str(failure) for failure in failures)
            raise LinkError(Kind.UNREACHABLE, "; ".join(reasons))
        opened.pop_all()
    return cast(socket.socket, sock)


async def secure(
    sock: socket.socket, context: ssl.SSLContext, host: str, timeout_s: float
) -> ssl.SSLSocket:
    """Return the socket under TLS; closes it when there is none to be had.

    Raises:
        LinkError: no TLS there, or one of the two does not trust the other.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        try:
            tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            undo.callback(tls.close)
            async with asyncio.timeout(timeout_s):
                await _shake_hands(tls)
        except ssl.SSLError as error:
            raise of_tls(error) from None
        except (ConnectionError, TimeoutError) as error:
            what = "hung up" if isinstance(error, ConnectionError) else "said nothing"
            raise LinkError(
                Kind.NO_TLS, f"what listens there {what} in the TLS handshake"
            ) from None
        except (OSError, ValueError) as error:
            raise LinkError(Kind.TLS, str(error)) from None
        undo.pop_all()
    return tls


async def _look_up(host: str, port: int) -> list[_Address]:
    loop = asyncio.get_running_loop()
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
            found = await loop.run_in_executor(_DaemonThreads(), ask)
    except TimeoutError:
        raise LinkError(
            Kind.NO_ADDRESS, f"no answer to the look-up of {host!r} within {LOOK_UP_TIMEOUT_S} s"
        ) from None
    except OSError as error:
        raise LinkError(
            Kind.NO_ADDRESS, f"no address for {host!r}: {error.strerror or error}"
        ) from None
    except UnicodeError as error:
        raise LinkError(Kind.NO_ADDRESS, f"{host!r} can not be a name: {error}") from None
    return list(dict.fromkeys(_by_turns([(info[0], info[2], info[4]) for info in found])))


def _by_turns(addresses: Sequence[_Address]) -> Iterator[_Address]:
    """Yield the addresses, the families by turns, beginning with that of the first."""
    families = dict.fromkeys(address[0] for address in addresses)
    by_family = [[a for a in addresses if a[0] == family] for family in families]
    return (a for a in chain.from_iterable(zip_longest(*by_family)) if a is not None)


async def _connect(address: _Address, opened: contextlib.ExitStack) -> socket.socket:
    family, protocol, where = address
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    opened.callback(sock.close)
    return sock


async def _shake_hands(tls: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            tls.do_handshake()
            return
        except ssl.SSLWantReadError:
            await _ready(tls, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(tls, loop.add_writer, loop.remove_writer)


async def _ready(
    sock: socket.socket, add: Callable[..., Any], remove: Callable[[socket.socket], Any]
) -> None:
    happened = asyncio.Event()
    add(sock, happened.set)
    try:
        await happened.wait()
    finally:
        remove(sock)


class _DaemonThreads(Executor):
    """A thread for each job, which the end of the process does not wait for.

    A look-up can not be cancelled, and lasts half a minute when the name servers are away.
    """

    def submit(self, fn: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> Future[T]:
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()  # from here on it can only be ignored

        def work() -> None:
            try:
                answer.set_result(fn(*arguments, **named))
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is read
                answer.set_exception(error)

        threading.Thread(target=work, name="look_up", daemon=True).start()
        return answer
